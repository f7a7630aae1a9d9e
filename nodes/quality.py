"""How far two clips are apart. Pure torch: ComfyUI ships no metrics package.

Shapes: F = frames, H x W = pixels or latent cells, C = channels. Peak: the value range that differences are held against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

EQUAL_DB = 100.0  # PSNR of equal clips: JSON has no infinity
WINDOW, WINDOW_SIGMA = 11, 1.5  # Gaussian window of SSIM: Wang et al., IEEE TIP 13(4), 2004, section III-C
K1, K2 = 0.01, 0.03  # same source
HEAT = ((0.0, 0.0, 0.02), (0.32, 0.07, 0.43), (0.73, 0.21, 0.33), (0.98, 0.55, 0.04), (0.99, 1.0, 0.64))  # dark to hot


@dataclass(frozen=True)
class Quality:
    """psnr in dB, 100 for equal clips. ssim: 1.0 for equal clips. largest: the largest difference, as share of peak.

    worst_frame: 0-based index of the frame with the lowest PSNR, worst_psnr.
    """

    psnr: float
    ssim: float
    largest: float
    worst_frame: int
    worst_psnr: float


def measure(clip_FCHW: torch.Tensor, reference_FCHW: torch.Tensor, peak: float) -> Quality:
    """Distance of a clip from its reference, a frame at a time to bound the memory. Inputs are not modified."""
    squares, ssims, largest = [], [], 0.0
    for frame, reference in zip(clip_FCHW, reference_FCHW, strict=True):
        frame, reference = frame.float(), reference.float()
        difference = frame - reference
        squares.append(float(difference.square().mean()))
        largest = max(largest, float(difference.abs().max()))
        ssims.append(ssim(frame[None], reference[None], peak))
    worst = max(range(len(squares)), key=squares.__getitem__)
    return Quality(
        psnr=decibels(sum(squares) / len(squares), peak),
        ssim=sum(ssims) / len(ssims),
        largest=largest / peak,
        worst_frame=worst,
        worst_psnr=decibels(squares[worst], peak),
    )


def latent_psnr(samples, reference) -> float:
    """PSNR in dB of a latent against another of its shapes, by the value range of that. Of picture and sound the lower; NaN
    where a number is broken."""
    each = [part_psnr(*pair) for pair in zip(parts(samples), parts(reference), strict=True)]
    return math.nan if any(map(math.isnan, each)) else min(each)


def part_psnr(latent: torch.Tensor, reference: torch.Tensor) -> float:
    peak = float(reference.max() - reference.min()) or 1.0
    mean_square = float((latent.double() - reference.double()).square().mean())
    return decibels(mean_square, peak) if math.isfinite(mean_square) else math.nan


def parts(samples) -> list[torch.Tensor]:
    """The tensors of a latent: picture and sound, in ComfyUI's NestedTensor."""
    return samples.unbind() if samples.is_nested else [samples]


def decibels(mean_square: float, peak: float) -> float:
    """PSNR of a mean squared error, at most 100."""
    return min(10.0 * math.log10(peak * peak / mean_square), EQUAL_DB) if mean_square else EQUAL_DB


def ssim(image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor, peak: float) -> float:
    """Structural similarity, mean over a window around each pixel. Source: Wang et al. 2004, Eq. 13.

    Images are mirrored at their borders, as in torchmetrics. Small ones get a smaller window, since a mirror image
    must fit.
    """
    channels = image_BCHW.shape[1]
    size = min(WINDOW, 2 * min(image_BCHW.shape[-2:]) - 1)
    kernel = window(size).to(image_BCHW).expand(channels, 1, -1, -1)

    def blurred(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(values, (size // 2,) * 4, mode="reflect"), kernel, groups=channels)

    mean, mean_r = blurred(image_BCHW), blurred(reference_BCHW)
    variance = (blurred(image_BCHW * image_BCHW) - mean * mean).clamp(min=0)
    variance_r = (blurred(reference_BCHW * reference_BCHW) - mean_r * mean_r).clamp(min=0)
    covariance = blurred(image_BCHW * reference_BCHW) - mean * mean_r
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    luminance = (2 * mean * mean_r + c1) / (mean * mean + mean_r * mean_r + c1)
    structure = (2 * covariance + c2) / (variance + variance_r + c2)
    return float((luminance * structure).mean())


def window(size: int) -> torch.Tensor:
    """Gaussian weights (size, size) that sum to 1."""
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-x * x / (2 * WINDOW_SIGMA**2))
    weights = weights / weights.sum()
    return torch.outer(weights, weights)


def heat_map(clip_FCHW: torch.Tensor, reference_FCHW: torch.Tensor, full_scale: float) -> torch.Tensor:
    """Images (F, H, W, 3) of the mean absolute difference over channels, black where equal.

    full_scale: difference that gets the hottest colour; 0 = the largest of the clip.
    """
    pairs = zip(clip_FCHW, reference_FCHW, strict=True)
    differences_FHW = torch.stack([(frame.float() - reference.float()).abs().mean(0) for frame, reference in pairs])
    scale = full_scale or float(differences_FHW.max()) or 1.0
    return torch.stack([heat_colours((difference / scale).clamp(0, 1)) for difference in differences_FHW])


def heat_colours(share: torch.Tensor) -> torch.Tensor:
    """Colour of each share in [0, 1], in a new last dimension: a line through the anchors of HEAT."""
    anchors = torch.tensor(HEAT).to(share)
    place = share * (len(anchors) - 1)
    below = place.floor().long().clamp(max=len(anchors) - 2)
    return torch.lerp(anchors[below], anchors[below + 1], (place - below)[..., None])
