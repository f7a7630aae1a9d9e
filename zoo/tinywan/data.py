"""Procedural clips for TinyWan: one saturated object moves over a grey textured background.

Shapes: B = clips, F = frames, H x W = pixels (multiples of 4); latents are (B, 16, F, H/2, W/2).
All lengths are fractions of the frame, so a larger frame shows the same scene with more pixels.
"""

import math

import torch

from ..packing import pack, unpack

__all__ = ["COLOURS", "DIRECTIONS", "FRAMES", "SHAPES", "all_labels", "pack", "prompt_of", "random_labels", "render", "unpack"]

FRAMES = 5
BRIGHT, DARK = 0.9, -0.9  # pixel values of a channel that is on or off; pixels live in [-1, 1]
COLOURS = {
    "red": (BRIGHT, DARK, DARK),
    "green": (DARK, BRIGHT, DARK),
    "blue": (DARK, DARK, BRIGHT),
    "yellow": (BRIGHT, BRIGHT, DARK),
    "magenta": (BRIGHT, DARK, BRIGHT),
    "cyan": (DARK, BRIGHT, BRIGHT),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}  # (x, y), y downwards


def random_labels(count: int, generator: torch.Generator) -> torch.Tensor:
    """Labels (B, 3): colour, shape and direction index, each uniform."""
    sizes = (len(COLOURS), len(SHAPES), len(DIRECTIONS))
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in sizes], dim=1)


def all_labels() -> torch.Tensor:
    """Every combination once: (72, 3)."""
    axes = (torch.arange(len(COLOURS)), torch.arange(len(SHAPES)), torch.arange(len(DIRECTIONS)))
    return torch.cartesian_prod(*axes)


def prompt_of(label: torch.Tensor) -> str:
    """Words of one label (3,): "red circle moving left"."""
    colour, shape, direction = label.tolist()
    return f"{list(COLOURS)[colour]} {SHAPES[shape]} moving {list(DIRECTIONS)[direction]}"


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Uniform float32 values in [low, high)."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def pixel_grid(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel centres as fractions of the frame: x (1, 1, 1, W) and y (1, 1, H, 1)."""
    x = (torch.arange(width) + 0.5) / width
    y = (torch.arange(height) + 0.5) / height
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def object_centres(directions: torch.Tensor, frames: int, generator: torch.Generator) -> torch.Tensor:
    """Centre of the object (B, F, 2) as fractions of the frame: a straight path through the middle region."""
    count = len(directions)
    unit = torch.tensor(list(DIRECTIONS.values()))[directions]  # (B, 2)
    travel = uniform(0.28, 0.40, (count, 1, 1), generator)
    middle = 0.5 + uniform(-0.05, 0.05, (count, 1, 2), generator)
    phase = torch.linspace(-0.5, 0.5, frames).view(1, -1, 1)
    return middle + travel * phase * unit[:, None]


def signed_distances(dx: torch.Tensor, dy: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Signed distance to circle, square and upright triangle: (3, B, F, H, W), negative inside, in frame units."""
    circle = torch.sqrt(dx * dx + dy * dy) - radius
    square = torch.maximum(dx.abs(), dy.abs()) - 0.9 * radius
    inradius = 0.65 * radius
    sides = dx.abs() * (math.sqrt(3) / 2) - dy * 0.5  # the two slanted edges are mirror images
    triangle = torch.maximum(dy - 0.2 * radius, sides + 0.1 * radius) - inradius  # shifted down to centre its box
    return torch.stack([circle, square, triangle])


def object_coverage(labels: torch.Tensor, frames: int, height: int, width: int, generator: torch.Generator):
    """How much of each pixel the object covers, 0 to 1, anti-aliased over one pixel: (B, F, H, W)."""
    count = len(labels)
    x, y = pixel_grid(height, width)
    centres = object_centres(labels[:, 2], frames, generator)
    radius = uniform(0.24, 0.30, (count, 1, 1, 1), generator)
    dx = x - centres[..., 0, None, None]
    dy = y - centres[..., 1, None, None]
    distances = signed_distances(dx, dy, radius)[labels[:, 1], torch.arange(count)]
    return (0.5 - distances * height).clamp(0, 1)


def background(count: int, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Grey sinusoidal texture with a slight tint, constant over the clip: (B, 1, 3, H, W)."""
    x, y = pixel_grid(height, width)
    angle = uniform(0, math.pi, (count, 1, 1, 1), generator)
    cycles = uniform(1.0, 3.0, (count, 1, 1, 1), generator)
    phase = uniform(0, 2 * math.pi, (count, 1, 1, 1), generator)
    wave = torch.sin(2 * math.pi * cycles * (x * angle.cos() + y * angle.sin()) + phase)
    grey = uniform(-0.45, 0.25, (count, 1, 1, 1), generator) + uniform(0.08, 0.22, (count, 1, 1, 1), generator) * wave
    tint = uniform(-0.05, 0.05, (count, 3, 1, 1), generator)
    return (grey + tint)[:, None]


def render(
    labels: torch.Tensor, generator: torch.Generator, height: int = 24, width: int = 24, frames: int = FRAMES
) -> torch.Tensor:
    """Clips (B, F, 3, H, W) in [-1, 1] for labels (B, 3), one vectorised pass."""
    colour = torch.tensor(list(COLOURS.values()))[labels[:, 0]].view(-1, 1, 3, 1, 1)
    coverage = object_coverage(labels, frames, height, width, generator)[:, :, None]
    return torch.lerp(background(len(labels), height, width, generator), colour, coverage)

