"""What one condition remembers between the evaluations of one run."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from .storage import Buffer, Pins, stored

CONDITION_NAMES = {0: "cond", 1: "uncond"}


class StreamKey(NamedTuple):
    """Identity of a condition within a run. Never a position in a batch: the batching changes while a run goes on.

    condition: the host's index (0 = cond, 1 = uncond). uuid: the host's name of the prompt. window: frame indices of
    a context window. model, device: where it runs. occurrence: how often the same identity came before in this
    evaluation (extra guidance passes, areas). shape, dtype: of one condition's model input. inputs: shapes of all that
    enters the model, where processes share the tokens: equal keys must mean equal shares, or one would reuse alone.
    """

    condition: int
    uuid: Hashable
    window: tuple[int, ...] | None
    model: Hashable
    device: str
    shape: tuple[int, ...]
    dtype: str
    occurrence: int = 0
    inputs: tuple = ()

    @property
    def label(self) -> str:
        parts = [CONDITION_NAMES.get(self.condition, f"condition {self.condition}")]
        if self.window:
            parts.append(f"frames {self.window[0]}-{self.window[-1]}")
        if self.occurrence:
            parts.append(f"pass {self.occurrence + 1}")
        return " ".join(parts)


class BlockSample(NamedTuple):
    """Sampled tokens of one block's output, (B, S, D), and the step they were computed at."""

    step: int
    tokens: torch.Tensor


Residual = dict[str, Buffer]  # feature name -> block output minus block input, (B, L, D)


@dataclass
class Stream:
    """Features, samples and residuals of one condition. Everything in it belongs to one run.

    on_host: features and residuals lie in host memory, pinned by `pins`; samples never do. features: the last block's output, (B, L, D).
    entry: row shape, type and device of each feature at the first block when it last computed; others do not fit.
    evaluation: the last evaluation this condition took part in; a gap makes what is stored too old to use.
    """

    label: str
    on_host: bool = False
    pins: Pins | None = None
    features: Buffer | None = None
    samples: dict[int, BlockSample] = field(default_factory=dict)
    residuals: dict[int, Residual] = field(default_factory=dict)
    entry: dict[str, tuple] = field(default_factory=dict)
    evaluation: int = -1

    def forget(self) -> None:
        """Drop every tensor: features of another shape are neither compared nor reused."""
        self.features = None
        self.samples.clear()
        self.residuals.clear()

    def keep_features(self, features: torch.Tensor) -> None:
        """Keep a copy of `features`, over the last one: blocks and controls write into their tensors in place."""
        self.features = stored(self.features, features, self.on_host, pins=self.pins)

    def keep_residual(self, block: int, name: str, after: torch.Tensor, before: torch.Tensor) -> None:
        """Keep what `block` added to the feature `name`, over the last one."""
        kept = self.residuals.setdefault(block, {})
        kept[name] = stored(kept.get(name), after, self.on_host, before, self.pins)

    @property
    def buffers(self) -> list[Buffer]:
        """The places of the features and of the residuals."""
        residuals = [buffer for residual in self.residuals.values() for buffer in residual.values()]
        return residuals + ([self.features] if self.features else [])

    @property
    def nbytes(self) -> int:
        """Bytes held, wherever they lie."""
        samples = sum(sample.tokens.nbytes for sample in self.samples.values())
        return samples + sum(buffer.nbytes for buffer in self.buffers)
