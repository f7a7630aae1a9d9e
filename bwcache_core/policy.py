"""When to compute and when to reuse: pure functions from numbers to a Decision. No tensor, no state, no clock.

A policy sees where the sampler stands (Position) and what the computed evaluations measured (Measured, oldest first).
Steps are 0-based. One sampling step may hold several evaluations (heun, dpm_2, ...): intervals count steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .config import BWCacheConfig

EVALUATIONS_PER_STEP = 3  # at most, in ComfyUI's fixed-grid samplers (heunpp2, seeds_3): bounds reuse off the grid


@dataclass(frozen=True)
class RunShape:
    """The constants of one run: steps, blocks, whether its schedule ends at sigma 0, and by step, how far sigma falls
    over it and the noise level where it begins."""

    steps: int
    blocks: int
    ends_at_zero: bool
    widths: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()

    @property
    def mean_width(self) -> float:
        return sum(self.widths) / self.steps or 1.0

    @property
    def mean_level(self) -> float:
        """How far a step moves the noise level, on average."""
        return abs(self.levels[-1] - self.levels[0]) / self.steps if self.levels else 1.0


@dataclass(frozen=True)
class Position:
    """Where the sampler stands: evaluation counts model evaluations, step is the place in the sigma schedule.

    coordinate: the same place as a real number, along which features are extrapolated.
    width: how far sigma falls over this step.
    level: the noise level: log of noise over signal.
    """

    evaluation: int
    step: int
    coordinate: float = 0.0
    width: float = 1.0
    level: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What one evaluation measured on the blocks that it computed.

    Attributes:
        changes: relative L1 change of each judged block since it was last computed, the largest over conditions.
        change: ARL1 / N, the mean over blocks, the largest over conditions. None without an earlier step to compare.
        forecast_errors: relative L1 error that a forecast of order 0, 1, ... would have had, the largest over
            conditions. Empty until every condition could be judged.
        error: why the features cannot be trusted (NaN, infinite, zero). Empty when they can.
    """

    position: Position
    changes: dict[int, float] = field(default_factory=dict)
    change: float | None = None
    forecast_errors: tuple[float, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Decision:
    """Which blocks the evaluation reuses, and why in words.

    whole_stack: no block runs and a forecast is returned, a polynomial of degree `order` (0: frozen).
    judged, limit: the number that decided, and what it was held against. None where a rule decided, whatever was
    measured.
    """

    reuse: frozenset[int] = frozenset()
    whole_stack: bool = False
    reason: str = ""
    order: int = 0
    judged: float | None = None
    limit: float | None = None

    @property
    def computes_all(self) -> bool:
        return not self.reuse


def resolve_interval(config: BWCacheConfig, steps: int) -> int:
    """R: steps served from one computed step. 10 % of the steps unless set (the paper's default)."""
    return config.reuse_interval or max(1, round(steps * 0.1))


def resolve_window(config: BWCacheConfig, steps: int) -> tuple[int, int]:
    """First and last step that may be reused, 0-based; negative settings count from the end of the run."""

    def absolute(step: int) -> int:
        return step + steps if step < 0 else step

    return absolute(config.start_step), absolute(config.end_step)


@dataclass(frozen=True)
class Rules:
    """What both modes of the paper share: the window, the reuse interval R and the tail."""

    run: RunShape
    threshold: float
    interval: int
    start_step: int
    end_step: int

    @classmethod
    def of(cls, config: BWCacheConfig, run: RunShape) -> Rules:
        return cls(run, config.threshold, resolve_interval(config, run.steps), *resolve_window(config, run.steps))

    def barred(self, position: Position, measured: Sequence[Measured]) -> str:
        """Why nothing may be reused at this position, whatever was measured. Empty when it may."""
        if not measured:
            return "first evaluation"
        if measured[-1].error:
            return measured[-1].error
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
        return self.run.ends_at_zero and position.step >= self.run.steps - tail

    def within_interval(self, position: Position, source: Position) -> bool:
        """True while features computed at `source` may serve: at most R steps away, whichever way sigma moves."""
        age = position.evaluation - source.evaluation
        near = abs(position.step - source.step) <= self.interval
        return near and age <= EVALUATIONS_PER_STEP * self.interval


def similar(change: float | None, threshold: float) -> bool:
    return change is not None and change < threshold


@dataclass(frozen=True)
class PaperPolicy:
    """BWCache as published: one indicator for the step, and the whole stack of blocks is replayed."""

    rules: Rules

    def decide(self, position: Position, measured: Sequence[Measured]) -> Decision:
        """Reuse for R steps after a computed step whose mean change is under the threshold; then compute again."""
        rules = self.rules
        barred = rules.barred(position, measured)
        if barred:
            return Decision(reason=barred)
        source = measured[-1].position
        judged = last_judged(since_error(measured))
        if judged is None or judged.position.step != source.step:
            return Decision(reason="no earlier step to compare with")
        if not similar(judged.change, rules.threshold):
            reason = f"change {judged.change:.4f} is not under threshold {rules.threshold:g}"
            return Decision(reason=reason, judged=judged.change, limit=rules.threshold)
        if rules.in_tail(position, rules.first_similar((m.position.step, m.change) for m in measured)):
            return Decision(reason="tail")
        if not rules.within_interval(position, source):
            return Decision(reason=f"reuse interval {rules.interval} is over")
        reason = f"change {judged.change:.4f} at step {source.step} is under threshold {rules.threshold:g}"
        return Decision(frozenset(range(rules.run.blocks)), True, reason, 0, judged.change, rules.threshold)


@dataclass(frozen=True)
class PerBlockPolicy:
    """Every block is judged by its own change; interval, window and tail as in the paper."""

    rules: Rules

    def decide(self, position: Position, measured: Sequence[Measured]) -> Decision:
        """Reuse the blocks whose own last change is under the threshold and recent enough; the others run."""
        rules = self.rules
        barred = rules.barred(position, measured)
        if barred:
            return Decision(reason=barred)
        first = rules.first_similar((m.position.step, min(m.changes.values(), default=None)) for m in measured)
        if first is None:
            reason = f"no block's change is under threshold {rules.threshold:g}"
            return Decision(reason=reason, judged=measured[-1].change, limit=rules.threshold)
        if rules.in_tail(position, first):
            return Decision(reason="tail")
        sound = since_error(measured)
        reuse = frozenset(block for block in range(rules.run.blocks) if self._reusable(block, position, sound))
        reason = f"{len(reuse)} of {rules.run.blocks} blocks are similar and recent"
        return Decision(reuse, False, reason, 0, measured[-1].change, rules.threshold)

    def _reusable(self, block: int, position: Position, measured: Sequence[Measured]) -> bool:
        judged = next((m for m in reversed(measured) if block in m.changes), None)
        if judged is None or not similar(judged.changes[block], self.rules.threshold):
            return False
        return self.rules.within_interval(position, judged.position)


def since_error(measured: Sequence[Measured]) -> Sequence[Measured]:
    """What was measured after the last broken evaluation: what came before says nothing of the features held now."""
    broken = max((i for i, m in enumerate(measured) if m.error), default=-1)
    return measured[broken + 1 :]


def last_judged(measured: Sequence[Measured]) -> Measured | None:
    return next((m for m in reversed(measured) if m.change is not None), None)
