"""The list of nodes that ComfyUI loads."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import ComfyExtension, io

from .apply import BWCacheApply
from .compare import BWCacheCompare
from .report import BWCacheReport

TINYWAN = Path(__file__).resolve().parent.parent / "tinywan" / "tinywan.safetensors"


class BWCacheExtension(ComfyExtension):
    """Node ids carry the pack's prefix and never change: saved workflows refer to them."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [BWCacheApply, BWCacheReport, BWCacheCompare, *tinywan_nodes()]


def tinywan_nodes() -> list[type[io.ComfyNode]]:
    """Nodes of the small video model, where it is: in a git clone, not in the registry's archive."""
    if not TINYWAN.is_file():
        return []
    from .tinywan_decode import BWCacheTinyWanDecode
    from .tinywan_load import BWCacheTinyWan

    return [BWCacheTinyWan, BWCacheTinyWanDecode]
