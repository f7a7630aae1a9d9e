"""What a node shows on itself: text and pictures."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui


def shown(node: type[io.ComfyNode], text: str, images: torch.Tensor | None = None) -> dict:
    """The `ui` of a node's output: for its preview and for the history. images: (B, H, W, 3), none to show text alone."""
    pictures = {} if images is None else ui.PreviewImage(images, cls=node).as_dict()
    return {**pictures, **ui.PreviewText(text).as_dict()}
