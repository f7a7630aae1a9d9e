"""Untrained stacks of DiT blocks in the shapes of large models, for times and memory: their outputs mean nothing.

Shapes: B = rows, L = tokens, D = width of the model, latents (B, C, F, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

SCALE = 0.02  # of the weights
PATCH = 2  # of height and width
FREQUENCIES = 64


@dataclass(frozen=True)
class Shape:
    """latent: (C, F, H, W) at 480p. dim: D. heads: of 128 each. ffn: inner width of the feed-forward, gated or not.
    layers: blocks of the whole model. conditions: that a step asks for."""

    name: str
    latent: tuple[int, int, int, int]
    dim: int
    heads: int
    ffn: int
    gated: bool
    layers: int
    conditions: int
    width: int = 128

    def tiny(self) -> Shape:
        """The same in kind, in milliseconds on a CPU."""
        channels = self.latent[0]
        return replace(self, latent=(channels, 2, 4, 6), dim=64, heads=2, ffn=128, width=32)

    @property
    def tokens(self) -> int:
        return self.latent[1] * (self.latent[2] // PATCH) * (self.latent[3] // PATCH)


SHAPES = {
    "wan": Shape("Wan 2.2 14B, 832x480, 81 frames", (16, 21, 60, 104), 5120, 40, 13824, False, 40, 2),
    "minimax": Shape("MiniMax-H3, 864x480, 124 frames", (24, 37, 30, 54), 5376, 56, 14336, True, 50, 1),
    "hunyuan": Shape("HunyuanVideo, 848x480, 73 frames", (16, 19, 60, 106), 3072, 24, 12288, False, 60, 1),
}


class Cast(nn.Linear):
    """A layer whose weights are cast, and moved, to what comes in: as ComfyUI runs fp8 and offloaded weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (part.to(x.device, x.dtype, non_blocking=True) for part in (self.weight, self.bias))
        return F.linear(x, weight, bias)


class Block(nn.Module):
    """Modulated self-attention and feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner = shape.heads * shape.width
        self.heads, self.gated = shape.heads, shape.gated
        self.time = Cast(FREQUENCIES, 3 * shape.dim)
        self.qkv, self.out = Cast(shape.dim, 3 * inner), Cast(inner, shape.dim)
        self.up, self.down = Cast(shape.dim, shape.ffn * (2 if shape.gated else 1)), Cast(shape.ffn, shape.dim)

    def forward(self, hidden: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(B, L, D) for the time (B, FREQUENCIES)."""
        shift, scale, gate = self.time(time)[:, None].chunk(3, -1)
        x = F.layer_norm(hidden, hidden.shape[-1:]) * (1 + scale) + shift
        q, k, v = rearrange(self.qkv(x), "b l (n h d) -> n b h l d", n=3, h=self.heads)
        hidden = hidden + gate * self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)"))
        x = self.up(F.layer_norm(hidden, hidden.shape[-1:]))
        x = F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1] if self.gated else F.gelu(x)
        return hidden + gate * self.down(x)


class ShapeModel(nn.Module):
    """Latents (B, C, F, H, W) in float32 to a velocity of that shape, by way of `layers` blocks in `dtype`.

    context: (B, 1, D), added to the tokens, so that prompts differ. The call is that of ComfyUI's WanModel.
    """

    def __init__(self, shape: Shape, layers: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, patch = dtype, shape.latent[0] * PATCH * PATCH
        self.enter, self.leave = Cast(patch, shape.dim), Cast(shape.dim, patch)
        self.blocks = nn.ModuleList([Block(shape) for _ in range(layers)])

    def forward(self, x, timestep, context, clip_fea=None, time_dim_concat=None, transformer_options=None, **kwargs):
        frames, height, width = x.shape[2:]
        patches = rearrange(x, "b c f (h p) (w q) -> b (f h w) (c p q)", p=PATCH, q=PATCH)
        hidden = self.enter(patches.to(self.dtype)) + context.to(self.dtype)
        angles = timestep[:, None] * 1e-3 * torch.arange(1, FREQUENCIES + 1, device=x.device) / FREQUENCIES
        for block in self.blocks:
            hidden = block(hidden, angles.cos().to(self.dtype))
        grid = {"f": frames, "h": height // PATCH, "w": width // PATCH, "p": PATCH, "q": PATCH}
        return rearrange(self.leave(hidden), "b (f h w) (c p q) -> b c f (h p) (w q)", **grid).to(x.dtype)


@torch.no_grad()
def untrained(shape: Shape, layers: int, dtype: torch.dtype, device: str, weights: torch.dtype | None = None) -> ShapeModel:
    """A model with random weights, held in `weights` (such as fp8) where that is not its dtype."""
    with torch.device("meta"):
        model = ShapeModel(shape, layers, dtype)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0.0, SCALE, generator=generator)
    return model.to(weights or dtype).requires_grad_(False).eval()
