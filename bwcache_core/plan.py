"""Which steps of a run compute: made from a speed-up, or read from a text such as `0-3 5 8 12/20`. Pure numbers.

The text names the computed steps, 0-based, single or as ranges, then the number of steps that it was made for, then,
where it is known, the flow shift: `/20@8`. By these a plan is carried over to a run of another length or shift.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from .published_plans import nearest, published
from .schedule import Schedule

AUTO = "auto"
MOST_STEPS = 10_000
LONGEST = 60_000  # characters: room for every second of MOST_STEPS
SHOWN = 40  # characters of a user's text in a message
FORM = "Such as 0-3 5 8 12/20: steps and ranges in rising order, then the number of steps; or auto."

FINEST = 500  # steps that are planned one by one, which takes a tenth of a second; among more, one hardly counts
FEWEST = 2  # computed steps: with one, no forecast is ever held against anything
LONGEST_GAP = 8  # steps; published lists (LeMiCa, MeanCache) are bounded at 7 or 8
FIRST_GAP = 3  # a run's first forecasts are trusted no further (trust.py, first_reach, at the default threshold)
# Chosen on the models of the zoo by the worst of them (benchmarks/NOTES.md).
EARLY, EARLY_POWER = 16.0, 6  # how much more the first steps are worth, and how fast that fades
LEAST_MOVE, LEAST_WIDTH = 1e-3, 1e-6  # of noise level and sigma, for each step: where sigmas are equal, evenly


class PlanError(ValueError):
    """A plan's text cannot be read. The message shows the place, and what was expected."""


@dataclass(frozen=True)
class Plan:
    """computes: the steps that compute, rising, the first is 0. steps: of the run. note: where it comes from, in words.

    shift: flow shift of the schedule that it was made for, None where that has none.
    """

    computes: tuple[int, ...]
    steps: int
    note: str = ""
    shift: float | None = None

    @property
    def text(self) -> str:
        """As it can be pasted into the node."""
        shift = "" if self.shift is None else f"@{self.shift:g}"
        return f"{ranges(self.computes)}/{self.steps}{shift}"

    @property
    def speedup(self) -> float:
        return self.steps / len(self.computes)


def plan_for(schedule: Schedule, speedup: float, text: str = AUTO, start_step: int = 0, end_step: int = -1) -> Plan:
    """The plan of a run: what `text` says, or the automatic one. Steps outside the window compute. Raises PlanError."""
    given = parse(text)
    if given is None:
        return automatic(schedule, speedup, start_step, end_step)
    plan = mapped(given, schedule)
    computes = sorted({*plan.computes, *outside(schedule, start_step, end_step)})
    return replace(plan, computes=tuple(computes))


def outside(schedule: Schedule, start_step: int, end_step: int) -> list[int]:
    """Steps before and after the window in which steps may be reused."""
    first, last = schedule.window(start_step, end_step)
    return [step for step in range(schedule.steps) if not first <= step <= last]


# --- as text ---


def ranges(steps: Sequence[int]) -> str:
    """Rising steps as text: 0-3 5 8."""
    runs = [[step for _, step in run] for _, run in groupby(enumerate(steps), key=lambda at: at[1] - at[0])]
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def parse(text: str) -> Plan | None:
    """The plan that `text` says, steps or the name of a published list; None for "auto". Raises PlanError."""
    if text.strip() == AUTO:
        return None
    if len(text) <= SHOWN and (known := published(text)):
        return replace(parse(known.text), note=known.note)
    if len(text) > LONGEST:
        raise PlanError(f"The plan is {len(text):,} characters long, expected at most {LONGEST:,}. {FORM}")
    named, slash, length = text.partition("/")
    if not slash:
        alike = nearest(text[:SHOWN])
        hint = f"Did you mean the published list {alike}?" if alike else FORM
        raise PlanError(f"The plan {shown(text)} has no '/' with the number of steps after it. {hint}")
    steps, shift = _length(length)
    computes: list[int] = []
    for part in re.finditer(r"\S+", named):
        computes += _part(part.group(), part.start() + 1, computes[-1] if computes else -1, steps)
    if not computes:
        raise PlanError(f"The plan {shown(text)} names no step before the '/'. {FORM}")
    if computes[0] != 0:
        raise PlanError(f"The plan begins with step {computes[0]}, expected 0: before it there is nothing to reuse.")
    return Plan(tuple(computes), steps, "your plan", shift)


def _length(text: str) -> tuple[int, float | None]:
    """What comes after the '/': the number of steps, and the flow shift if it is given."""
    match = re.fullmatch(r"\s*([0-9]{1,5})(?:@([0-9]{1,5}(?:\.[0-9]{1,6})?))?\s*", text)
    steps, shift = (int(match[1]), match[2] and float(match[2])) if match else (0, None)
    if not 1 <= steps <= MOST_STEPS or shift == 0:
        allowed = f"expected a number of steps, 1 to {MOST_STEPS}, and '@' with a flow shift if need be"
        raise PlanError(f"The plan has {shown(text)} after the '/', {allowed}. {FORM}")
    return steps, shift


def _part(text: str, place: int, before: int, steps: int) -> range:
    """Steps of one part of the text: "5" or "0-3". place: of its first character. before: the last step named so far."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if not match:
        raise PlanError(f"The plan has {shown(text)} at character {place}, expected a step or a range. {FORM}")
    first, last = int(match[1]), int(match[2] or match[1])
    here = f"The plan has {shown(text)} at character {place}"
    if last < first:
        raise PlanError(f"{here}, expected a range that rises, such as {last}-{first}.")
    if last >= steps:
        raise PlanError(f"{here}, expected steps below {steps}, the number after the '/' (the first step is 0).")
    if first <= before:
        twice = "that step was named before" if first == before else f"step {before} was named before it"
        raise PlanError(f"{here}, but {twice}: expected each step once, in rising order.")
    return range(first, last + 1)


def shown(text: str) -> str:
    """A user's text in quotes, cut to what a message can hold."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


# --- for another run ---


def mapped(plan: Plan, schedule: Schedule) -> Plan:
    """`plan` for a run over `schedule`: as it is where it was made for such a run, else by noise level.

    Keeps the speed-up. Where the shift of either is not known they are taken to be of one kind, so that equal parts of
    a run have equal noise levels. A run over a part of the levels gets that part of the plan.
    """
    known = plan.shift is not None and not schedule.rises
    if plan.steps == schedule.steps and (not known or schedule.fits(plan.shift)):
        return replace(plan, shift=schedule.shift)
    edges = _edges(plan, schedule) if known else [k * schedule.steps / plan.steps for k in range(plan.steps + 1)]
    places = [edges[step] for step in plan.computes if 0 <= edges[step] < schedule.steps]
    covered = sum(min(max(following, 0), schedule.steps) > max(here, 0) for here, following in pairwise(edges))
    count = rounded(schedule.steps * len(places) / covered) if covered else 0
    if places and plan.computes[-1] == plan.steps - 1 and edges[-1] <= schedule.steps:
        places[-1] = schedule.steps - 1.0  # the last step stays the last
    made_for = f"{plan.steps} steps" + ("" if plan.shift is None else f" at shift {plan.shift:g}")
    note = f"{plan.note}, made for {made_for}, mapped by noise level"
    return Plan(_spread(places, max(count, 1), schedule.steps), schedule.steps, note, schedule.shift)


def _edges(plan: Plan, schedule: Schedule) -> list[float]:
    """Where the steps of the plan begin, in steps of the schedule; below 0 or past its end where it has no such level.

    Flow sigma at the beginning of step k of N at shift s: s u / (1 + (s - 1) u), u = 1 - k / N.
    """
    edges = []
    for k in range(plan.steps + 1):
        u = 1.0 - k / plan.steps
        noise = plan.shift * u / (1.0 + (plan.shift - 1.0) * u)
        edges.append(_coordinate(schedule, noise if schedule.flow else noise / max(1.0 - noise, 1e-9)))
    return edges


def _coordinate(schedule: Schedule, sigma: float) -> float:
    """Real-valued step at which a falling schedule reaches the noise level of `sigma`."""
    level, falling = schedule.level(sigma), [-level for level in schedule.levels]
    slack = 0.02 * (falling[-1] - falling[0]) / schedule.steps  # one end of two schedules that are alike
    if not falling[0] - slack <= -level <= falling[-1] + slack:
        return -1.0 if -level < falling[0] else schedule.steps + 1.0
    step = min(max(bisect_right(falling, -level), 1), schedule.steps) - 1
    width = falling[step + 1] - falling[step]
    return step + (min(max((-level - falling[step]) / width, 0.0), 1.0) if width else 0.0)


def _spread(places: Sequence[float], count: int, steps: int) -> tuple[int, ...]:
    """`count` of `steps` steps, the first among them, that lie as densely as `places` do (rising, real-valued)."""
    places = [0.0, *places[1:]] or [0.0]
    chosen: list[int] = []
    for k in range(min(count, steps)):
        along = k * (len(places) - 1) / (count - 1) if count > 1 else 0.0
        index = min(int(along), max(len(places) - 2, 0))
        ends = places[index : index + 2]
        place = ends[0] + (along - index) * (ends[-1] - ends[0])
        latest = steps - (min(count, steps) - k)
        chosen.append(min(max(rounded(place), chosen[-1] + 1 if chosen else 0), latest))
    return tuple(chosen)


def rounded(value: float) -> int:
    """The nearest whole number; halves go up."""
    return math.floor(value + 0.5)


# --- from a speed-up ---


def automatic(
    schedule: Schedule, speedup: float, start_step: int = 0, end_step: int = -1, early: float | None = None
) -> Plan:
    """The plan for a speed-up: as many computed steps as it leaves, where reuse is expected to cost most.

    Steps outside the window compute, whatever the speed-up. early: how much more the first steps are worth; None for EARLY.
    """
    steps = schedule.steps
    count = min(max(rounded(steps / speedup), FEWEST), steps)
    must = {0, *outside(schedule, start_step, end_step)}
    if schedule.ends_at_zero and count > 1:
        must.add(steps - 1)  # fine detail is decided there
    count = max(count, len(must))
    if steps > FINEST:
        return Plan(evenly(must, count, steps), steps, "automatic", schedule.shift)
    spans = max(count - len(must), 1)  # that may be long: what the window leaves, but the first
    needed = math.ceil((steps - len(must) + 1) / spans)
    longest = max(LONGEST_GAP, 2 * math.ceil(steps / count), needed)
    computes = cheapest(span_costs(schedule, must, longest, early), count)
    return Plan(computes, steps, "automatic", schedule.shift)


def evenly(must: set[int], count: int, steps: int) -> tuple[int, ...]:
    """`count` steps with those of `must`, the others spread evenly over what is left."""
    free = [step for step in range(steps) if step not in must]
    wanted = count - len(must)
    return tuple(sorted(must | {free[k * len(free) // wanted] for k in range(wanted)}))


def span_costs(schedule: Schedule, must: set[int], longest: int, early: float | None = None) -> list[list[float]]:
    """costs[i][g - 1]: of computing step i and, g steps later, the next one or the end. Spans hold no step of `must`.

    Forecasts err in proportion to how far the noise level moved. Errors of a span point the same way: they add up, and
    the square is what the result has of it.
    """
    worth, levels, costs = step_worth(schedule, early), schedule.levels, []
    for i in range(schedule.steps):
        total, row = 0.0, [0.0]
        for step in range(i + 1, min(i + furthest(i, longest), schedule.steps)):
            if step in must:
                break
            total += worth[step] * (abs(levels[step] - levels[i]) + LEAST_MOVE * (step - i))
            row.append(total * total)
        costs.append(row)
    return costs


def furthest(step: int, longest: int) -> int:
    """The longest span from a computed step to the next."""
    return longest if step else min(longest, FIRST_GAP)


def step_worth(schedule: Schedule, early: float | None = None) -> list[float]:
    """How much an error in each step harms: as far as the step moves sigma carries it, and the first steps decide more."""
    pairs = zip(early_worth(schedule.steps, EARLY if early is None else early), schedule.widths, strict=True)
    return [worth * (width + LEAST_WIDTH) for worth, width in pairs]


def early_worth(steps: int, early: float) -> list[float]:
    """How much more an error in the first steps harms: the rest of the run builds on it."""
    return [1.0 + early * (1.0 - step / steps) ** EARLY_POWER for step in range(steps)]


def cheapest(costs: Sequence[Sequence[float]], count: int) -> tuple[int, ...]:
    """The `count` steps, the first among them, that cost least in all. costs: as in span_costs.

    Where no plan of `count` steps is allowed, the one with the fewest more. Dynamic programming, one layer for each
    computed step.
    """
    steps = len(costs)
    layers, previous = [{0: 0.0}], []
    while len(previous) < count or steps not in layers[-1]:
        best, came = {}, {}
        for i, cost in layers[-1].items():
            for following, span in enumerate(costs[i] if i < steps else (), start=i + 1):
                if cost + span < best.get(following, math.inf):
                    best[following], came[following] = cost + span, i
        layers.append(best)
        previous.append(came)
    path = [steps]
    for came in reversed(previous):
        path.append(came[path[-1]])
    return tuple(reversed(path[1:]))
