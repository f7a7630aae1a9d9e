"""What one condition remembers between the evaluations of one run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from .corrector import Served
from .forecast import FeatureHistory
from .storage import Buffer, stored

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

    entry: row shape, type and device of each feature at the first block when it last computed; others do not fit.
    served: the evaluations that were reused since it last computed. carried: what the corrector takes on from one computed
    evaluation to the next, outputs in shape. carries: how many of these there will be.
    evaluation: the last evaluation this condition took part in; a gap makes what is stored too old to use.
    """

    label: str
    history: FeatureHistory
    samples: dict[int, BlockSample] = field(default_factory=dict)
    residuals: dict[int, Residual] = field(default_factory=dict)
    entry: dict[str, tuple] = field(default_factory=dict)
    served: list[Served] = field(default_factory=list)
    carried: list[Buffer] = field(default_factory=list)
    carries: int = 0
    evaluation: int = -1

    def forget(self) -> None:
        """Drop every tensor: features of another shape are neither compared nor extrapolated."""
        self.history.clear()
        self.samples.clear()
        self.residuals.clear()
        self.carried.clear()

    def carry(self, tensors: Sequence[torch.Tensor]) -> None:
        """Keep copies of `tensors` in the places of those kept before."""
        places = [*self.carried, *[None] * len(tensors)]
        self.carried = [stored(place, t, self.history.on_host) for place, t in zip(places, tensors, strict=False)]

    def keep_residual(self, block: int, name: str, after: torch.Tensor, before: torch.Tensor) -> None:
        """Keep what `block` added to the feature `name`, over the last one."""
        kept = self.residuals.setdefault(block, {})
        kept[name] = stored(kept.get(name), after, self.history.on_host, minus=before)

    @property
    def nbytes(self) -> int:
        """Bytes held, wherever they lie. The newest sample of the last block is one tensor, known by two names."""
        samples = [sample.tokens for sample in self.samples.values()]
        samples += [sample for _, sample in self.history.samples]
        distinct = {sample.data_ptr(): sample.nbytes for sample in samples}
        return sum(distinct.values()) + sum(buffer.nbytes for buffer in self.buffers)

    @property
    def expected_bytes(self) -> int:
        """Bytes that will be held once the history is full: exact, as all that enters it has the shape of the first."""
        newest = sum(buffer.nbytes for _, buffer in list(self.history.entries)[-1:])
        sampled = sum(sample.nbytes for _, sample in list(self.history.samples)[-1:])
        return self.nbytes + self.history.missing * (newest + sampled) + (self.carries - len(self.carried)) * newest

    @property
    def buffers(self) -> list[Buffer]:
        """The places of the features, of what the corrector carries and of the residuals."""
        residuals = [buffer for residual in self.residuals.values() for buffer in residual.values()]
        return [buffer for _, buffer in self.history.entries] + self.carried + residuals
