"""Runs that sample one video after each other, such as the two experts of Wan 2.2, told as one."""

from __future__ import annotations

from collections.abc import Sequence

from .advice import WORTH_TELLING
from .report import RunReport


def computed(runs: Sequence[RunReport]) -> int:
    """Evaluations that were computed, in all."""
    return sum(step.action == "compute" for run in runs for step in run.steps)


def evaluations(runs: Sequence[RunReport]) -> int:
    return sum(run.evaluations for run in runs)


def factor(runs: Sequence[RunReport]) -> float:
    """How many times faster all of them were together, as estimated from computed steps, and never more than the work saved.
    1 where nothing was reused, or where it cannot be told."""
    if any(run.rivals or not run.finished for run in runs):
        return 1.0
    plain, seconds = sum(run.plain_seconds or run.seconds for run in runs), sum(run.seconds for run in runs)
    work, ran = sum(run.work_ratio * ran_of(run) for run in runs), sum(map(ran_of, runs))
    return min(plain / seconds, work / ran) if seconds and ran and work > ran else 1.0


def ran_of(run: RunReport) -> int:
    """Conditions that the model computed, or blocks."""
    return sum(step.blocks_run or step.calls_run for step in run.steps)


def together(runs: Sequence[RunReport]) -> str:
    """What they computed, and what that saved. Empty for one run."""
    if len(runs) < 2:
        return ""
    counted = f"Both experts: {computed(runs)} of {evaluations(runs)} steps were computed"
    return f"{counted}, about {factor(runs):.1f}x." if factor(runs) >= WORTH_TELLING else f"{counted}."
