"""Which steps of a run compute: made from a speed-up, or read from a text such as `0-3 5 8 12/20`. Pure numbers.

The text names the computed steps, 0-based, single or as ranges, then the number of steps that it was made for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from .schedule import Schedule

AUTO = "auto"
MOST_STEPS = 10_000
LONGEST = 20_000  # characters
FORM = "expected steps and ranges in rising order, then the number of steps, such as 0-3 5 8 12/20, or auto"


class PlanError(ValueError):
    """A plan's text cannot be read. The message shows the place, and what was expected."""


@dataclass(frozen=True)
class Plan:
    """computes: the steps that compute, rising. steps: of the run. note: where it comes from, in words."""

    computes: tuple[int, ...]
    steps: int
    note: str = ""

    @property
    def text(self) -> str:
        """As it can be pasted into the node."""
        return f"{ranges(self.computes)}/{self.steps}"

    @property
    def speedup(self) -> float:
        return self.steps / len(self.computes)


def ranges(steps: Sequence[int]) -> str:
    """Rising steps as text: 0-3 5 8."""
    runs = [[step for _, step in run] for _, run in groupby(enumerate(steps), key=lambda at: at[1] - at[0])]
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def parse(text: str) -> Plan | None:
    """The plan that `text` says; None for "auto". Raises PlanError."""
    if text.strip() == AUTO:
        return None
    if len(text) > LONGEST:
        raise PlanError(f"The plan is {len(text)} characters long, {FORM}.")
    steps, _, length = text.partition("/")
    if not re.fullmatch(r"\s*[0-9]{1,5}\s*", length):
        raise PlanError(f"The plan {text!r} does not end with a number of steps, {FORM}.")
    computes: list[int] = []
    for part in steps.split():
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        if not match:
            raise PlanError(f"The plan has {part!r}, {FORM}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or (computes and first <= computes[-1]) or last >= int(length):
            raise PlanError(f"The plan has {part!r} after {computes[-1:]}, {FORM}.")
        computes += range(first, last + 1)
    return Plan(tuple(computes), int(length))


def automatic(schedule: Schedule, speedup: float, start_step: int = 0, end_step: int = -1) -> Plan:
    """The plan for a speed-up: a placeholder that spaces steps evenly until plan.py is finished."""
    count = max(1, round(schedule.steps / speedup))
    return Plan(tuple(sorted({round(i * schedule.steps / count) for i in range(count)})), schedule.steps, "automatic")
