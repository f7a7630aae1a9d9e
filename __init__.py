"""BWCache for ComfyUI: reuses transformer blocks between sampling steps, and reports what it did."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI 0.3.48 and later."""
    from .nodes.extension import BWCacheExtension  # imported here: a test run collects this file without ComfyUI

    return BWCacheExtension()
