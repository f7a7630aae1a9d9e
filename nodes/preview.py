"""What a node shows on itself: text and pictures."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from .events import running_server


def shown(node: type[io.ComfyNode], text: str, images: torch.Tensor | None = None) -> dict:
    """The `ui` of a node's output: for its preview and for the history. images: (B, H, W, 3), none to show text alone."""
    send_text(text, node.hidden.unique_id)
    pictures = {} if images is None else ui.PreviewImage(images, cls=node).as_dict()
    return {**pictures, **ui.PreviewText(text).as_dict()}


def send_text(text: str, node_id: str) -> None:
    """ComfyUI shows the text of few nodes by itself; as a progress text it appears on any. Nothing without a server."""
    server = running_server()
    if server is not None:
        server.send_progress_text(text, node_id)
