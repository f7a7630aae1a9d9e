"""BWCache for ComfyUI: computes some of the sampling steps, foretells the others, and reports what it did."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI 0.3.48 and later."""
    from .nodes.extension import BWCacheExtension  # imported here: a test run collects this file without ComfyUI

    return BWCacheExtension()
