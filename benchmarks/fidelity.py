"""How close two clips are. Shapes: F = frames, H x W = pixels; values in [0, 1]."""

from __future__ import annotations

import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure


def psnr(clip: torch.Tensor, reference: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB over a whole clip (F, 3, H, W). Equal clips give 100, not infinity."""
    value = peak_signal_noise_ratio(clip, reference, data_range=1.0)
    return min(float(value), 100.0)


def ssim(clip: torch.Tensor, reference: torch.Tensor) -> float:
    """Structural similarity, the mean over frames, 1.0 for equal clips."""
    return float(structural_similarity_index_measure(clip, reference, data_range=1.0))


def motion_psnr(clip: torch.Tensor, reference: torch.Tensor) -> float:
    """PSNR in dB of what moves: frame-to-frame differences of both clips. Sees flicker that PSNR averages away."""
    return psnr((clip.diff(dim=0) + 1) / 2, (reference.diff(dim=0) + 1) / 2)
