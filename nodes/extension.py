"""The list of nodes that ComfyUI loads."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .apply import BWCacheApply
from .calibrate import BWCacheCalibrate
from .compare import BWCacheCompare
from .report import BWCacheReport

TINYWAN = Path(__file__).resolve().parent.parent / "zoo" / "tinywan" / "tinywan.safetensors"


class BWCacheExtension(ComfyExtension):
    """Node ids carry the pack's prefix and never change: saved workflows refer to them."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [BWCacheApply, BWCacheCalibrate, BWCacheReport, BWCacheCompare, *tinywan_nodes(), *raylight_nodes()]


def tinywan_nodes() -> list[type[io.ComfyNode]]:
    """Nodes of the small video model, where it is: in a git clone, not in the registry's archive."""
    if not TINYWAN.is_file():
        return []
    from .tinywan_decode import BWCacheTinyWanDecode
    from .tinywan_load import BWCacheTinyWan

    return [BWCacheTinyWan, BWCacheTinyWanDecode]


def raylight_nodes() -> list[type[io.ComfyNode]]:
    """The node for Raylight, where that pack is. Looked for, not imported: it may load after this one."""
    folders = [Path(folder) for folder in folder_paths.get_folder_paths("custom_nodes")]
    found = [path for folder in folders for path in folder.glob("*/src/raylight/distributed_worker")]
    if all(path.parents[2].suffix == ".disabled" for path in found):
        return []
    from .raylight import BWCacheApplyRaylight

    return [BWCacheApplyRaylight]
