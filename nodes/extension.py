"""The list of nodes that ComfyUI loads."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .apply import BWCacheApply
from .compare import BWCacheCompare
from .report import BWCacheReport


class BWCacheExtension(ComfyExtension):
    """Node ids carry the pack's prefix and never change: saved workflows refer to them."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [BWCacheApply, BWCacheReport, BWCacheCompare]
