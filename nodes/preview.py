"""What a node shows on itself: text and pictures."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

NO_PICTURES = {"images": [], "animated": (False,)}


def shown(node: type[io.ComfyNode], text: str, images: torch.Tensor | None = None) -> dict:
    """The `ui` of a node's output: for its preview and for the history. images: (B, H, W, 3), none to show text alone.

    Always with the same keys: where a node runs for each item of a list, ComfyUI joins the items' values by the first one's.
    """
    pictures = NO_PICTURES if images is None else ui.PreviewImage(images, cls=node).as_dict()
    return {**pictures, **ui.PreviewText(text).as_dict()}
