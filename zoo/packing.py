"""Latents without a VAE: a latent pixel packs 2x2 pixels of RGB, which is undone exactly.

Shapes: B = clips, F = frames, H x W = pixels (even); latents are (B, 16, F, H/2, W/2).
"""

import torch
from einops import rearrange, reduce

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def pack(clips: torch.Tensor) -> torch.Tensor:
    """Pixels (B, F, 3, H, W) to latents (B, 16, F, H/2, W/2).

    Channels 0-11 hold the 2x2 pixels x RGB exactly; 12-14 their mean colour and 15 its luma, which repeat what the
    first twelve say and make colour easier to read under noise.
    """
    pixels = rearrange(clips, "b f c (h p) (w q) -> b (c p q) f h w", p=2, q=2)
    mean = reduce(clips, "b f c (h p) (w q) -> b c f h w", "mean", p=2, q=2)
    luma = (mean * mean.new_tensor(LUMA).view(1, 3, 1, 1, 1)).sum(1, keepdim=True)
    return torch.cat([pixels, mean, luma], dim=1)


def unpack(latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, 16, F, H/2, W/2) to pixels (B, F, 3, H, W): the exact inverse of `pack`; channels 12-15 are unused."""
    return rearrange(latents[:, :12], "b (c p q) f h w -> b f c (h p) (w q)", c=3, p=2, q=2)
