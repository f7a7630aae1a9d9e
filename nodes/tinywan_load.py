"""The TinyWan node: a trained video model in the pack's own folder, with its prompt and its empty latent.

Only in a git clone: the archive of the registry has no tinywan/, and then this file is not imported.
"""

from __future__ import annotations

import comfy.sd
import torch
from comfy_api.latest import io

from ..zoo.sampling import null_context
from ..zoo.tinywan.checkpoint import DEFAULT_PATH
from ..zoo.tinywan.data import COLOURS, DIRECTIONS, FRAMES, SHAPES
from ..zoo.tinywan.words import encode
from .schema import CATEGORY, schema

LATENT_CHANNELS = 16
PIXELS_PER_CELL = 2  # of the latent; tinywan/data.py packs 2 x 2 pixels into one


class BWCacheTinyWan(io.ComfyNode):
    """Loads TinyWan through ComfyUI's own Wan code, and makes what a sampler needs beside it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheTinyWan",
            display_name="TinyWan",
            category=f"{CATEGORY}/TinyWan",
            description="A very small Wan 2.1 model that ships with the source of BWCache: coloured shapes that move. It "
            "samples in seconds on a CPU, to try a cache out and to see what its settings do. No download.",
            search_aliases=["wan", "small model", "bwcache test"],
            inputs=[
                io.Combo.Input("colour", options=list(COLOURS), default="red", tooltip="Colour of the object."),
                io.Combo.Input("shape", options=list(SHAPES), default="circle", tooltip="Shape of the object."),
                io.Combo.Input("direction", options=list(DIRECTIONS), default="left", tooltip="Where it moves."),
                io.Int.Input(
                    "size", default=24, min=16, max=96, step=4,
                    tooltip="Width and height in pixels. Higher is slower, about with its square. It draws best at 24.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="TinyWan, as ComfyUI loads any Wan 2.1 model."),
                io.Conditioning.Output(display_name="positive", tooltip="The words chosen."),
                io.Conditioning.Output(display_name="negative", tooltip="The empty prompt. Sample with cfg 3."),
                io.Latent.Output(display_name="latent", tooltip=f"An empty clip of {FRAMES} frames."),
            ],
        )

    @classmethod
    def execute(cls, colour: str, shape: str, direction: str, size: int) -> io.NodeOutput:
        words = encode(f"{colour} {shape} moving {direction}")
        side = size // PIXELS_PER_CELL
        latent = {"samples": torch.zeros(1, LATENT_CHANNELS, FRAMES, side, side)}
        model = comfy.sd.load_diffusion_model(str(DEFAULT_PATH))
        return io.NodeOutput(model, [[words, {}]], [[null_context(words), {}]], latent)
