"""Captioned clips made of photographs: a stamp moves over a place, or the camera pans and zooms.

    "penguin over harbour moving left"     "rose over dune zooming in"     "forest panning right" (without stamps)

Shapes: B = clips, F = frames, S = side in pixels; labels are (B, 3): subject, place, motion.
Positions are in frames: -1 to 1 from edge to edge, x to the right, y downwards.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F

from .packing import pack, unpack
from .pictures import PLACE_SIZE, Pictures

MOVES = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
ZOOMS = {"in": 1.0, "out": -1.0}
ASPECT = PLACE_SIZE[0] / PLACE_SIZE[1]
FINER = 2  # clips are drawn this much finer, then averaged
POOLED = 768  # width of the pooled vector; HunyuanVideo's loader takes no other


@dataclass(frozen=True)
class Words:
    """Fixed vectors of words. kind: "gaussian" (independent normal numbers) or "slots" (a word owns some channels).

    size: standard deviation of a Gaussian vector's numbers. empty: "zero" or "null" (a word of its own).
    """

    kind: str = "gaussian"
    seed: int = 0
    width: int = 4096
    size: float = 0.25
    empty: str = "zero"

    def table(self, count: int) -> torch.Tensor:
        """Vectors of `count` words and, last, of the empty prompt: (count + 1, width)."""
        if self.kind == "gaussian":
            table = torch.randn(count + 1, self.width, generator=torch.Generator().manual_seed(self.seed)) * self.size
        else:
            table = torch.eye(count + 1).repeat_interleave(self.width // (count + 1), dim=1)
            table = F.pad(table, (0, self.width - table.shape[1]))
        if self.empty == "zero":
            table[-1] = 0.0
        return table


@dataclass(frozen=True)
class Scenes:
    """What a model has seen. subjects, places: names in `zoo/pictures.py`; without subjects the camera moves.

    side: pixels. scale: latents are pixels in [-1, 1] times this. travel: length of a move, in frames.
    """

    subjects: tuple[str, ...]
    places: tuple[str, ...]
    motions: tuple[str, ...]
    words: Words = field(default_factory=Words)
    side: int = 32
    frames: int = 5
    scale: float = 2.0
    travel: float = 0.8
    pooled_width: int = 0

    @classmethod
    def from_dict(cls, told: dict) -> Scenes:
        """The inverse of `to_dict`."""
        told = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
        return cls(**{**told, "words": Words(**told["words"])})

    def to_dict(self) -> dict:
        """Plain values, for a model.json."""
        return asdict(self)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many subjects (at least 1), places and motions there are."""
        return max(1, len(self.subjects)), len(self.places), len(self.motions)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word once, in a fixed order."""
        return _vocabulary(self)

    def prompt_of(self, label: list[int]) -> str:
        """Words of one label: subject, place and motion index."""
        subject, place, motion = label
        verb = f"zooming {self.motions[motion]}" if self.motions[motion] in ZOOMS else f"moving {self.motions[motion]}"
        if not self.subjects:
            return f"{self.places[place]} {verb.replace('moving', 'panning')}"
        return f"{self.subjects[subject]} over {self.places[place]} {verb}"

    def labels(self) -> torch.Tensor:
        """Every combination once: (N, 3)."""
        return torch.cartesian_prod(*(torch.arange(size) for size in self.sizes))

    def prompts(self) -> list[str]:
        """Every prompt once, in the order of `labels`."""
        return [self.prompt_of(label) for label in self.labels().tolist()]

    def label_of(self, prompt: str) -> list[int]:
        """Subject, place and motion index of a prompt. Raises ValueError for one that the model does not know."""
        known = _index(self)
        if prompt not in known:
            raise ValueError(f"The model does not know the prompt {prompt!r}. One it knows: {next(iter(known))!r}.")
        return known[prompt]

    def tokens(self, prompt: str) -> list[int]:
        """Index of each word in `vocabulary`; the empty prompt is one word, the one after the last."""
        vocabulary = self.vocabulary
        unknown = [word for word in prompt.split() if word not in vocabulary]
        if unknown:
            raise ValueError(f"The model does not know {', '.join(unknown)}. It knows: {', '.join(vocabulary)}.")
        return [vocabulary.index(word) for word in prompt.split()] or [len(vocabulary)]

    def encode(self, prompt: str) -> torch.Tensor:
        """Context (1, words, width); the empty prompt is as long as any other."""
        tokens = self.tokens(prompt)
        length = len(self.prompt_of([0, 0, 0]).split())
        tokens = tokens * length if prompt == "" else tokens
        return _table(self.words, len(self.vocabulary))[tokens][None]

    def pooled(self, prompt: str) -> torch.Tensor | None:
        """Mean of the words' pooled vectors (1, 768), for families that take one; zero for the empty prompt."""
        if not self.pooled_width:
            return None
        table = _pooled_table(self.words, len(self.vocabulary))
        return table[self.tokens(prompt)].mean(0, keepdim=True)

    def pack(self, clips: torch.Tensor) -> torch.Tensor:
        """Pixels (B, F, 3, S, S) in [-1, 1] to latents (B, 16, F, S/2, S/2)."""
        return pack(clips) * self.scale

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, 16, F, S/2, S/2) to clips (B, F, 3, S, S) in [0, 1]."""
        return (unpack(latents / self.scale) + 1) / 2


@lru_cache(maxsize=8)
def _index(scenes: Scenes) -> dict[str, list[int]]:
    return {scenes.prompt_of(label): label for label in scenes.labels().tolist()}


@lru_cache(maxsize=8)
def _vocabulary(scenes: Scenes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(" ".join(scenes.prompts()).split()))


@lru_cache(maxsize=8)
def _table(words: Words, count: int) -> torch.Tensor:
    return words.table(count)


@lru_cache(maxsize=8)
def _pooled_table(words: Words, count: int) -> torch.Tensor:
    return Words("gaussian", words.seed + 1, POOLED, 1.0, "zero").table(count)


class Renderer:
    """Draws clips of scenes on one device; `generator` is of that device."""

    def __init__(self, scenes: Scenes, pictures: Pictures, device: str | torch.device, generator: torch.Generator):
        self.scenes, self.device, self.generator = scenes, torch.device(device), generator
        self.places = torch.stack([pictures[f"place.{name}"] for name in scenes.places]).to(device).float() / 255
        if scenes.subjects:
            stamps = torch.stack([pictures[f"stamp.{name}"] for name in scenes.subjects]).to(device).float() / 255
            self.stamps = torch.cat([stamps[:, :3] * stamps[:, 3:], stamps[:, 3:]], dim=1)  # premultiplied
        motions = [MOVES.get(name, (0.0, 0.0)) for name in scenes.motions]
        self.moves = torch.tensor(motions, device=device)
        self.zooms = torch.tensor([ZOOMS.get(name, 0.0) for name in scenes.motions], device=device)
        centres = (torch.arange(FINER * scenes.side, device=device) + 0.5) / (FINER * scenes.side) * 2 - 1
        self.frame = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)  # (2S, 2S, 2): x, y

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Uniform numbers on the device."""
        return low + (high - low) * torch.rand(shape, device=self.device, generator=self.generator)

    def random_labels(self, count: int) -> torch.Tensor:
        """Labels (B, 3), uniform."""
        sizes = self.scenes.sizes
        columns = [torch.randint(size, (count,), device=self.device, generator=self.generator) for size in sizes]
        return torch.stack(columns, dim=1)

    def draw(self, labels: torch.Tensor) -> torch.Tensor:
        """Clips (B, F, 3, S, S) in [-1, 1] of labels (B, 3)."""
        count, frames = len(labels), self.scenes.frames
        time = torch.linspace(-0.5, 0.5, frames, device=self.device).view(1, frames)
        zoom = torch.exp(self.zooms[labels[:, 2], None] * time * self.uniform(0.7, 0.9, count, 1))  # (B, F)
        path = time[..., None] * self.moves[labels[:, 2], None] * self.uniform(0.9, 1.1, count, 1, 1)  # (B, F, 2)
        clips = self.draw_places(labels, zoom, path)
        if self.scenes.subjects:
            clips = self.draw_stamps(clips, labels, zoom, path)
        clips = clips * self.uniform(0.92, 1.08, count, 1, 1, 1, 1)
        return (clips * 2 - 1).clamp(-1, 1)

    def draw_places(self, labels: torch.Tensor, zoom: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        """A square window of every place: (B, F, 3, S, S) in [0, 1]; it moves where nothing else does."""
        count = len(labels)
        half = self.uniform(0.56, 0.64, count, 1) / zoom  # of the picture's height
        centre = self.uniform(-0.06, 0.06, count, 1, 2)
        if not self.scenes.subjects:
            centre = centre + path * self.scenes.travel * 0.6
        size = torch.stack([half / ASPECT, half], dim=-1)
        return self.sample(self.places[labels[:, 1]], centre, size)

    def draw_stamps(
        self, clips: torch.Tensor, labels: torch.Tensor, zoom: torch.Tensor, path: torch.Tensor
    ) -> torch.Tensor:
        """The clips with their stamps in front."""
        count = len(labels)
        radius = self.uniform(0.60, 0.70, count, 1) * zoom
        centre = (path * self.scenes.travel + self.uniform(-0.08, 0.08, count, 1, 2)) * zoom[..., None]
        layer = self.sample(self.stamps[labels[:, 0]], -centre / radius[..., None], 1 / radius[..., None].expand_as(centre))
        return layer[:, :, :3] + clips * (1 - layer[:, :, 3:])

    def sample(self, pictures: torch.Tensor, centre: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """Windows (B, F, C, S, S) of pictures (B, C, h, w): centre and half size (B, F, 2) in the picture, -1 to 1."""
        batch, frames = centre.shape[0], max(centre.shape[1], size.shape[1])
        shape = (batch, frames, 1, 1, 2)
        centre, size = centre[:, :, None, None].expand(shape), size[:, :, None, None].expand(shape)
        grid = (centre + size * self.frame).flatten(1, 2)  # (B, F * 2S, 2S, 2): the frames of a clip below each other
        fine = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        side = self.scenes.side
        return F.avg_pool2d(fine, FINER).unflatten(2, (frames, side)).transpose(1, 2)
