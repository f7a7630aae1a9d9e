"""The TinyWan Decode node: its latents hold pixels, so it needs no VAE. Only in a git clone, like tinywan_load.py."""

from __future__ import annotations

import comfy.latent_formats
from comfy_api.latest import io

from ..zoo.tinywan.data import unpack
from .schema import CATEGORY, schema


class BWCacheTinyWanDecode(io.ComfyNode):
    """Latents of TinyWan to images, frame by frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheTinyWanDecode",
            display_name="TinyWan Decode",
            category=f"{CATEGORY}/TinyWan",
            description="Turns latents sampled with TinyWan into images. Exact and without a VAE: the latents hold pixels.",
            inputs=[
                io.Latent.Input("samples", tooltip="A latent sampled with TinyWan."),
                io.Int.Input(
                    "zoom", default=8, min=1, max=16,
                    tooltip="Screen pixels for each pixel of the clip. Higher is larger, not sharper. 1 to measure "
                    "quality, 8 to look at it.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The frames.")],
        )

    @classmethod
    def execute(cls, samples: dict, zoom: int) -> io.NodeOutput:
        latents = comfy.latent_formats.Wan21().process_in(samples["samples"])
        frames_FCHW = unpack(latents).flatten(0, 1)
        images = ((frames_FCHW.float() + 1) / 2).clamp(0, 1).movedim(1, -1)
        return io.NodeOutput(images.repeat_interleave(zoom, dim=1).repeat_interleave(zoom, dim=2))
