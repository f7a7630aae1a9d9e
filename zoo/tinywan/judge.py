"""Does a clip show what the prompt asked for? Colour and shape are read from pixels, without a network.

Shapes: B = clips, F = frames, H x W = pixels, values in [-1, 1].
"""

import torch

from ..sampling import LATENT_SHAPE, sample
from .data import COLOURS, DIRECTIONS, SHAPES, all_labels, prompt_of, unpack
from .words import encode_batch

MIN_CHROMA = 0.8  # max - min over RGB: the palette has 1.8, the background at most 0.1
MIN_AREA = 0.03  # of the frame: smaller specks do not count as an object
FILL_RATIOS = {"circle": 0.785, "square": 1.0, "triangle": 0.5}  # area / bounding box


def object_mask(clips: torch.Tensor) -> torch.Tensor:
    """Saturated pixels of clips (B, F, 3, H, W): bool (B, F, H, W)."""
    return clips.amax(2) - clips.amin(2) > MIN_CHROMA


def read_colours(clips: torch.Tensor) -> torch.Tensor:
    """Palette index (B,) that most saturated pixels are nearest to; -1 where no object is visible."""
    palette = torch.tensor(list(COLOURS.values()), device=clips.device)
    distance = (clips[:, :, None] - palette.view(1, 1, -1, 3, 1, 1)).square().sum(3)  # (B, F, 6, H, W)
    mask = object_mask(clips)
    nearest = torch.nn.functional.one_hot(distance.argmin(2), len(palette)) * mask[..., None]
    colours = nearest.sum((1, 2, 3)).argmax(1)
    return colours.where(mask.float().mean((1, 2, 3)) > MIN_AREA, -1)


def fill_ratio(mask: torch.Tensor) -> float:
    """Area of a mask (H, W) over the area of its bounding box; 0.0 if empty."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if len(rows) == 0:
        return 0.0
    box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    return float(mask.sum() / box)


def read_shapes(clips: torch.Tensor) -> torch.Tensor:
    """Shape index (B,) with the nearest fill ratio in the middle frame: a hint, good to about one pixel of outline."""
    middle = object_mask(clips)[:, clips.shape[1] // 2]
    ratios = torch.tensor([fill_ratio(mask) for mask in middle])
    expected = torch.tensor([FILL_RATIOS[shape] for shape in SHAPES])
    return (ratios[:, None] - expected).abs().argmin(1)


def read_directions(clips: torch.Tensor) -> torch.Tensor:
    """Direction index (B,) from how far the object's centre moves between the first and the last frame."""
    mask = object_mask(clips)[:, [0, -1]].float()  # (B, 2, H, W)
    area = mask.sum((2, 3)).clamp(min=1.0)
    x = (mask.sum(2) * torch.arange(mask.shape[3])).sum(2) / area
    y = (mask.sum(3) * torch.arange(mask.shape[2])).sum(2) / area
    moved = torch.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]], dim=1)  # (B, 2)
    return (moved @ torch.tensor(list(DIRECTIONS.values())).T).argmax(1)


def evaluation_labels(count: int) -> torch.Tensor:
    """A fixed spread of `count` labels over all 72 combinations: (count, 3)."""
    labels = all_labels()
    picked = torch.arange(count) * 29 % len(labels)  # 29 and 72 are coprime: every combination before any repeats
    return labels[picked]


def sample_labels(model, labels, cfg=3.0, steps=30, seed=0, shape=LATENT_SHAPE) -> torch.Tensor:
    """Clips (B, F, 3, H, W) sampled for labels (B, 3) with one fixed noise tensor per seed."""
    device = next(model.parameters()).device
    noise = torch.randn((len(labels), *shape), generator=torch.Generator().manual_seed(seed)).to(device)
    cond = encode_batch([prompt_of(label) for label in labels]).to(device)
    return unpack(sample(model, noise, cond, cfg, steps).float()).cpu()


def evaluate(model, prompts=60, cfg=3.0, steps=30, seed=0, shape=LATENT_SHAPE) -> dict[str, float]:
    """Fractions of prompts whose clip shows the asked colour and (as a hint) shape, by Euler sampling at shift 8."""
    labels = evaluation_labels(prompts)
    clips = sample_labels(model, labels, cfg, steps, seed, shape)
    return {
        "colour_accuracy": float((read_colours(clips) == labels[:, 0]).float().mean()),
        "shape_accuracy": float((read_shapes(clips) == labels[:, 1]).float().mean()),
    }
