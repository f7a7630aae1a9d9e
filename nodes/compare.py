"""The BWCache Compare node."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from .preview import shown
from .quality import EQUAL_DB, Quality, heat_map, measure
from .schema import CATEGORY, schema

LATENT_CELL = 8  # pixels: a cell of a latent is shown as large as the pixels it stands for in most models
SHOWN = 9  # frames in the node's preview


class BWCacheCompare(io.ComfyNode):
    """Measures how far a clip is from its reference, and shows where."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheCompare",
            display_name="BWCache Compare",
            category=CATEGORY,
            description="Judge quality yourself: PSNR, SSIM and a heat map of the differences between two clips of the "
            "same seed, sampled with and without the cache. Takes two image batches or two latents.",
            search_aliases=["psnr", "ssim", "difference", "heat map", "image quality", "teacache", "easycache", "cache"],
            is_output_node=True,
            inputs=[
                io.MultiType.Input(
                    "reference", types=[io.Image, io.Latent],
                    tooltip="What the other is held against: images or a latent made without the cache.",
                ),
                io.MultiType.Input(
                    "other", types=[io.Image, io.Latent],
                    tooltip="Images or a latent of the same size and number of frames, made with the cache.",
                ),
                io.Float.Input(
                    "full_scale", default=0.1, min=0.0, max=1.0, step=0.01, round=0.001,
                    tooltip="Difference shown in the hottest colour, as a share of the value range. Higher shows only "
                    "large differences, lower shows faint ones too. 0 takes the largest difference found, so that two "
                    "heat maps cannot be compared with each other.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="heat_map", tooltip="Where they differ, frame by frame: black is equal, bright "
                    "yellow is full_scale or more.",
                ),
                io.Float.Output(
                    display_name="psnr", tooltip="Peak signal-to-noise ratio in dB over all frames. Higher is closer; "
                    "equal clips give 100.",
                ),
                io.Float.Output(display_name="ssim", tooltip="Structural similarity. Higher is closer; 1 for equal clips."),
                io.String.Output(display_name="summary", tooltip="The figures in words, with the worst frame."),
            ],
        )

    @classmethod
    def execute(cls, reference, other, full_scale: float = 0.1) -> io.NodeOutput:
        reference_FCHW, clip_FCHW = frames_of(reference, "reference"), frames_of(other, "other")
        is_latent = isinstance(reference, dict)
        check_comparable(reference, other, reference_FCHW, clip_FCHW)
        peak = float(reference_FCHW.max() - reference_FCHW.min()) or 1.0 if is_latent else 1.0
        quality = measure(clip_FCHW, reference_FCHW, peak)
        heat = heat_map(clip_FCHW, reference_FCHW, full_scale * peak)
        if is_latent:
            heat = heat.repeat_interleave(LATENT_CELL, dim=1).repeat_interleave(LATENT_CELL, dim=2)
        text = summary(quality, len(heat), is_latent)
        return io.NodeOutput(heat, quality.psnr, quality.ssim, text, ui=shown(cls, text, spread(heat)))


def spread(frames: torch.Tensor) -> torch.Tensor:
    """At most SHOWN frames, evenly spread: the node's preview writes each to disk."""
    return frames[:: -(-len(frames) // SHOWN)]


def frames_of(clip, name: str) -> torch.Tensor:
    """Images (F, H, W, C) or a latent (B, C, H, W) or (B, C, F, H, W) as (frames, C, H, W)."""
    if not isinstance(clip, dict):
        return clip.movedim(-1, 1)
    samples = clip["samples"]
    if not isinstance(samples, torch.Tensor) or samples.ndim not in (4, 5):
        raise ValueError(f"{name} is a latent that is no picture and no video (sound?). Decode it and compare images.")
    return samples if samples.ndim == 4 else samples.movedim(2, 1).flatten(0, 1)


def check_comparable(reference, other, reference_FCHW: torch.Tensor, clip_FCHW: torch.Tensor) -> None:
    """Raises ValueError with what differs and what to do."""
    kinds = ["a latent" if isinstance(clip, dict) else "images" for clip in (reference, other)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"reference is {kinds[0]}, other is {kinds[1]}. Connect two latents, or two image batches.")
    if reference_FCHW.shape != clip_FCHW.shape:
        raise ValueError(
            f"reference has {described(reference_FCHW)}, other has {described(clip_FCHW)}. "
            "Sample both at the same size and length."
        )


def described(frames_FCHW: torch.Tensor) -> str:
    frames, channels, height, width = frames_FCHW.shape
    return f"{frames} frame{'s' if frames != 1 else ''} of {width} x {height} with {channels} channels"


def summary(quality: Quality, frames: int, is_latent: bool) -> str:
    """The figures in words."""
    if quality.psnr >= EQUAL_DB:
        return "No difference worth a number: PSNR 100 dB, SSIM 1."
    of = "value range of the latent" if is_latent else "full brightness"
    worst = f"\nWorst frame: {quality.worst_frame + 1} of {frames} at {quality.worst_psnr:.1f} dB." if frames > 1 else ""
    return (
        f"PSNR {quality.psnr:.1f} dB, SSIM {quality.ssim:.4f}.{worst}"
        f"\nLargest difference: {100 * quality.largest:.1f} % of the {of}."
    )
