"""What the block modes decide by: the window, the reuse interval R and the tail of the paper. Pure numbers.

A mode sees where the sampler stands (Position) and what the computed evaluations measured (Measured, oldest first).
Steps are 0-based. One sampling step may hold several evaluations (heun, dpm_2, ...): intervals count steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..config import BlockConfig
from ..schedule import Schedule

EVALUATIONS_PER_STEP = 3  # at most, in ComfyUI's fixed-grid samplers (heunpp2, seeds_3): bounds reuse off the grid


@dataclass(frozen=True)
class Position:
    """Where the sampler stands: evaluation counts model evaluations, step is the place in the sigma schedule."""

    evaluation: int
    step: int


@dataclass(frozen=True)
class Measured:
    """What one evaluation measured on the blocks that it computed.

    Attributes:
        changes: relative L1 change of each compared block since it was last computed, the largest over conditions.
        change: ARL1 / N, the mean over blocks, the largest over conditions. None without an earlier step to compare.
        fault: why the features cannot be trusted (NaN, infinite, zero). Empty when they can.
    """

    position: Position
    changes: dict[int, float] = field(default_factory=dict)
    change: float | None = None
    fault: str = ""


@dataclass(frozen=True)
class Decision:
    """Which blocks the evaluation reuses, and why in words.

    judged, limit: the number that decided, and what it was held against. None where a rule decided, whatever was
    measured.
    """

    reuse: frozenset[int] = frozenset()
    reason: str = ""
    judged: float | None = None
    limit: float | None = None


def resolve_interval(config: BlockConfig, steps: int) -> int:
    """R: steps served from one computed step. 10 % of the steps unless set (the paper's default)."""
    return config.reuse_interval or max(1, round(steps * 0.1))


@dataclass(frozen=True)
class Rules:
    """What both modes share. blocks: how many the model has. interval: R. start_step, end_step: the window, 0-based."""

    steps: int
    blocks: int
    ends_at_zero: bool
    threshold: float
    interval: int
    start_step: int
    end_step: int

    @classmethod
    def of(cls, config: BlockConfig, schedule: Schedule, blocks: int) -> Rules:
        steps, interval = schedule.steps, resolve_interval(config, schedule.steps)
        window = schedule.window(config.start_step, config.end_step)
        return cls(steps, blocks, schedule.ends_at_zero, config.threshold, interval, *window)

    def barred(self, position: Position, measured: Sequence[Measured]) -> str:
        """Why nothing may be reused at this position, whatever was measured. Empty when it may."""
        if not measured:
            return "first evaluation"
        if measured[-1].fault:
            return measured[-1].fault
        if position.step < self.start_step:
            return f"before start_step {self.start_step}"
        if position.step > self.end_step:
            return f"after end_step {self.end_step}"
        return ""

    def first_similar(self, changes: Iterable[tuple[int, float | None]]) -> int | None:
        """Step of the first (step, change) that could trigger reuse: k in the paper, None if there was none."""
        for step, change in changes:
            if similar(change, self.threshold) and step + 1 >= self.start_step:
                return step
        return None

    def in_tail(self, position: Position, first_similar_step: int | None) -> bool:
        """The last k/2 steps compute, where step k was the first similar one, if the run ends at sigma 0.

        k counts from 0: 30 steps, R = 3 and k = 9 give a tail of 4 and the paper's 12 reused steps.
        """
        tail = (first_similar_step or 0) // 2
        return self.ends_at_zero and position.step >= self.steps - tail

    def within_interval(self, position: Position, source: Position) -> bool:
        """True while features computed at `source` may serve: at most R steps away, whichever way sigma moves."""
        age = position.evaluation - source.evaluation
        near = abs(position.step - source.step) <= self.interval
        return near and age <= EVALUATIONS_PER_STEP * self.interval


def similar(change: float | None, threshold: float) -> bool:
    return change is not None and change < threshold


def since_fault(measured: Sequence[Measured]) -> Sequence[Measured]:
    """What was measured after the last broken evaluation: what came before says nothing of the features held now."""
    broken = max((i for i, m in enumerate(measured) if m.fault), default=-1)
    return measured[broken + 1 :]


def last_judged(measured: Sequence[Measured]) -> Measured | None:
    return next((m for m in reversed(measured) if m.change is not None), None)
