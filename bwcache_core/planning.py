"""Plans made for one model, from what its uncached runs taught (measure.py). Pure numbers, no tensor and no model.

Forecasts are weighted sums of the outputs v_0 ... v_{n-1} that an uncached run gave, and samplers are linear in them. So
what the result of a plan is off by is a weighted sum of them, too, and its mean square is a quadratic form of one small
matrix: the inner products of the v. A span of reused steps between two computed ones costs the square of what its forecasts
make the result miss, whatever happens elsewhere. Costs of spans add up: a plan is a cheapest path. What the rest of a run
builds upon an error in its first steps is not in the matrix, and differs from model to model. So a plan is taken only where
it is clearly better than the automatic one by two beliefs about that.

The automatic plan's worth of steps (plan.py) is what is thought of a model before anything was measured. It counts as
much as a run: a single prompt's numbers alone lead astray on another prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean as mean
from typing import NamedTuple

from .corrector import SamplerStep
from .forecast import NODES, SHARE, best_share, forecast_weights
from .plan import LONGEST_GAP, Plan, automatic, outside, span_costs
from .schedule import Schedule
from .track import SAME_PLACE
from .tried import Trials, tried_plan, untried

PRIOR_RUNS = 1.0  # what the automatic plan's worth counts as
CLEARLY = 0.6  # of the automatic plan's cost; what promised less was as often worse (benchmarks/NOTES.md)
Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Course:
    """The evaluations of a run. steps: of the schedule, that each lies in. places: the same, real-valued. gains: how far
    the result moves with the output of each."""

    steps: tuple[int, ...]
    places: tuple[float, ...]
    gains: tuple[float, ...]


@dataclass(frozen=True)
class Knowledge:
    """What runs taught: their course, means of their matrices, and how many there were.

    guided: inner products of the guided outputs, which the result is made of. single: of the outputs of all conditions
    together, by which a run decides how far along the line its forecasts go. source: in words, for notes.
    """

    course: Course
    guided: Matrix
    single: Matrix
    runs: int = 1
    source: str = "measured"


def together(runs: Sequence[Knowledge]) -> Knowledge:
    """The mean of what single runs taught."""
    guided, single = (mean_of([getattr(run, name) for run in runs]) for name in ("guided", "single"))
    return Knowledge(runs[0].course, guided, single, len(runs))


def mean_of(matrices: Sequence[Matrix]) -> list[list[float]]:
    return [[mean(numbers) for numbers in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]


@dataclass(frozen=True)
class Found:
    """What is known for a run. knowledge, trials: None for nothing. nearly: what is known for a run that is not quite this one.
    warnings: of what could not be read."""

    knowledge: Knowledge | None = None
    nearly: str = ""
    warnings: tuple[str, ...] = ()
    trials: Trials | None = None


# --- what a sampler does with an output ---


def gains(sampler: Sequence[SamplerStep]) -> list[float]:
    """How far the result moves with the output v of each evaluation, D = x - sigma * v, the other v as they are."""
    return [_gain(sampler, n) for n in range(len(sampler))]


def _gain(sampler: Sequence[SamplerStep], pulsed: int) -> float:
    latent, denoised = 0.0, []
    for n, step in enumerate(sampler):
        denoised.insert(0, latent - (step.sigma if n == pulsed else 0.0))
        latent = step.decay * latent + sum(w * d for w, d in zip(step.weights, denoised, strict=False))
    return latent


def gains_by_width(schedule: Schedule, steps: Sequence[int]) -> list[float]:
    """Gains where the sampler is not known: each step moves as far as sigma does, shared by its evaluations."""
    return [-schedule.widths[step] / steps.count(step) for step in steps]


def by_width(course: Course, schedule: Schedule) -> list[float]:
    """How far the result moves with each output, whatever the sampler: as far as sigma does."""
    return gains_by_width(schedule, course.steps)


def by_noise(course: Course, schedule: Schedule) -> list[float]:
    """How far the result moves with each output, as the sampler says, times the share of noise in the latent: the rest of the run
    builds upon an error in it."""
    shares = [sigma if schedule.flow else sigma / (1.0 + sigma) for sigma in schedule.sigmas]
    return [gain * shares[step] for gain, step in zip(course.gains, course.steps, strict=True)]


BELIEFS = (by_noise, by_width)  # a plan has to be better by both: each alone is wrong more often (benchmarks/NOTES.md)

# --- what plans cost ---


class Kept(NamedTuple):
    """What the forecasts after a computed step are made from: evaluations, oldest first. nodes: of the line. basis: of the
    share, the two before and the one that it was best at; empty at the start."""

    step: int
    nodes: tuple[int, ...]
    basis: tuple[int, ...] = ()


class Missed:
    """A weighted sum of outputs, and its mean square: added up, so that a span one step longer costs little more."""

    def __init__(self, inner: Matrix) -> None:
        self.inner, self.square = inner, 0.0
        self._factors: dict[int, float] = {}

    def add(self, more: dict[int, float]) -> None:
        self.square += 2.0 * self.with_other(more) + product(self.inner, more, more)
        for n, factor in more.items():
            self._factors[n] = self._factors.get(n, 0.0) + factor

    def with_other(self, other: dict[int, float]) -> float:
        return product(self.inner, self._factors, other)


class Spans:
    """Costs of spans. knowledge: of runs over `schedule`. must: steps that compute in any case. longest: of a span.

    gains: how far the result is believed to move with each output, as the sampler says if left out. prior_scale: what a prior
    cost of 1 is worth as a mean square.
    """

    def __init__(
        self, knowledge: Knowledge, schedule: Schedule, must: Iterable[int], longest: int = LONGEST_GAP,
        gains: Sequence[float] | None = None,
    ) -> None:
        self.knowledge, self.course, self.steps = knowledge, knowledge.course, schedule.steps
        self.must, self.longest, self.prior_scale = set(must), longest, 0.0
        self._evaluations = [[n for n, its in enumerate(self.course.steps) if its == step] for step in range(self.steps)]
        self.gains = self.course.gains if gains is None else gains
        self._priors = span_costs(schedule, self.must, longest)
        self._ends: dict[tuple, list[tuple[float, float, float]]] = {}
        self._shares: dict[tuple[int, ...], float] = {}
        self._costs: dict[Kept, list[float]] = {}
        self._reached: dict[Kept, list[Kept | None]] = {}
        self._ways: dict[Kept, list[tuple[Kept | None, float]]] = {}

    def after(self, kept: Kept | None, step: int) -> Kept:
        """What is kept once `step` was computed (track.py)."""
        nodes, basis = (kept.nodes, kept.basis) if kept else ((), ())
        places = self.course.places
        for n in self._evaluations[step]:
            if len(nodes) == NODES and places[n] - places[nodes[-1]] >= SAME_PLACE:
                basis = (*nodes, n)
            nodes = (*(node for node in nodes if places[node] < places[n] - SAME_PLACE), n)[-NODES:]
        return Kept(step, nodes, basis)

    def share(self, basis: tuple[int, ...]) -> float:
        """How far forecasts go to the line (forecast.py)."""
        if not basis:
            return SHARE
        if basis not in self._shares:
            places, inner = [self.course.places[n] for n in basis], self.knowledge.single
            before, here, new = basis
            reach = (places[2] - places[1]) / (places[1] - places[0])
            way, missing = {here: reach, before: -reach}, {new: 1.0, here: -1.0}
            self._shares[basis] = best_share(product(inner, missing, way), product(inner, way, way))
        return self._shares[basis]

    def measured(self, kept: Kept) -> list[float]:
        """[g - 1]: mean square of what the result misses, if the next g - 1 steps are foretold."""
        if kept not in self._costs:
            ends, share = self._span_ends(kept), self.share(kept.basis)
            held = 1.0 - share
            row = (held * held * a + 2.0 * held * share * b + share * share * c for a, b, c in ends)
            self._costs[kept] = [max(cost, 0.0) for cost in row]
        return self._costs[kept]

    def _span_ends(self, kept: Kept) -> list[tuple[float, float, float]]:
        """[g - 1]: mean square of what is missed by repeating the newest output, of that by the whole line, and between
        them their inner product. What a share of the line misses lies between them."""
        if kept[:2] in self._ends:
            return self._ends[kept[:2]]
        held, line = Missed(self.knowledge.guided), Missed(self.knowledge.guided)
        between, row = 0.0, [(0.0, 0.0, 0.0)]
        for step in range(kept.step + 1, min(kept.step + self.longest, self.steps)):
            if step in self.must:
                break
            for n in self._evaluations[step]:
                one, other = self._miss(kept.nodes, n, 0.0), self._miss(kept.nodes, n, 1.0)
                between += held.with_other(other) + line.with_other(one) + product(held.inner, one, other)
                held.add(one)
                line.add(other)
            row.append((held.square, between, line.square))
        self._ends[kept[:2]] = row
        return row

    def _miss(self, nodes: tuple[int, ...], n: int, share: float) -> dict[int, float]:
        """What the result misses with evaluation n foretold, as factors by evaluation."""
        places, gain = self.course.places, self.gains[n]
        weights = forecast_weights([places[node] for node in nodes], places[n], share)
        return {n: -gain, **{node: gain * w for node, w in zip(nodes, weights, strict=True) if w}}

    def errors(self) -> list[float | None]:
        """Of each evaluation: relative error of a forecast from the steps before, all computed. None without any, or without
        an output."""
        found, kept = [None] * len(self.course.steps), None
        for step in range(self.steps - 1):
            kept = self.after(kept, step)
            for n in self._evaluations[step + 1]:
                found[n] = self._error(kept, n)
        return found

    def error(self, kept: Kept, step: int) -> float | None:
        """Of the forecast at the first evaluation of a step: relative."""
        return self._error(kept, self._evaluations[step][0])

    def _error(self, kept: Kept, n: int) -> float | None:
        inner, places = self.knowledge.single, self.course.places
        weights = forecast_weights([places[node] for node in kept.nodes], places[n], self.share(kept.basis))
        off = {n: -1.0, **dict(zip(kept.nodes, weights, strict=True))}
        return math.sqrt(max(product(inner, off, off), 0.0) / inner[n][n]) if inner[n][n] > 0 else None

    def cost(self, computes: Sequence[int], prior: bool = False) -> float:
        """Mean square of what the result misses under a plan; infinite where a span is too long."""
        total, kept = 0.0, None
        for step, following in pairwise([*computes, self.steps]):
            kept = self.after(kept, step)
            row = self._priors[step] if prior else self.measured(kept)
            total += row[following - step - 1] if following - step <= len(row) else math.inf
        return total

    def lean_on(self, computes: Sequence[int]) -> None:
        """Put the prior on the scale on which `computes` costs what it is measured to cost."""
        prior = self.cost(computes, prior=True)
        self._ways.clear()
        self.prior_scale = self.cost(computes) / prior if prior else 0.0

    def believed(self, kept: Kept) -> list[tuple[Kept | None, float]]:
        """[g - 1]: what is kept after the next computed step, None where the run ends, and what the span to it costs: as
        measured, with the prior for PRIOR_RUNS more runs."""
        if kept in self._ways:
            return self._ways[kept]
        runs, more = self.knowledge.runs, PRIOR_RUNS * self.prior_scale
        pairs = zip(self.measured(kept), self._priors[kept.step], strict=False)  # fewer at the start (plan.py, FIRST_GAP)
        costs = [(runs * seen + more * prior) / (runs + PRIOR_RUNS) for seen, prior in pairs]
        self._ways[kept] = list(zip(self._reached_from(kept, len(costs)), costs, strict=True))
        return self._ways[kept]

    def _reached_from(self, kept: Kept, spans: int) -> list[Kept | None]:
        if kept not in self._reached:
            steps = range(kept.step + 1, kept.step + 1 + spans)
            self._reached[kept] = [self.after(kept, step) if step < self.steps else None for step in steps]
        return self._reached[kept]

    def cheapest(self, count: int) -> tuple[int, ...]:
        """The plan of `count` computed steps that is believed to cost least; of the fewest more where none is allowed.

        Dynamic programming, a layer for each computed step: the cheapest way to all that may be kept.
        """
        layers: list[dict[Kept, tuple[float, Kept | None]]] = [{self.after(None, 0): (0.0, None)}]
        while True:
            cost, last = min((cost + self._to_end(kept), kept) for kept, (cost, _) in layers[-1].items())
            if len(layers) >= count and cost < math.inf:
                return self._path(layers, last)
            layers.append(self._next(layers[-1]))

    def _to_end(self, kept: Kept) -> float:
        reached, cost = self.believed(kept)[-1]
        return math.inf if reached else cost

    def _next(self, layer: dict) -> dict:
        best: dict = {}
        for kept, (cost, _) in layer.items():
            for reached, span in self.believed(kept):
                if reached and (reached not in best or cost + span < best[reached][0]):
                    best[reached] = (cost + span, kept)
        return best

    @staticmethod
    def _path(layers: Sequence[dict], kept: Kept | None) -> tuple[int, ...]:
        path = []
        for layer in reversed(layers):
            path.append(kept.step)
            kept = layer[kept][1]
        return tuple(reversed(path))


def product(inner: Matrix, one: dict[int, float], other: dict[int, float]) -> float:
    """Inner product of two weighted sums of outputs, as factors by evaluation."""
    return sum(a * b * inner[i][j] for i, a in one.items() for j, b in other.items())


# --- a plan ---


def best_plan(found: Found, schedule: Schedule, speedup: float, start_step: int = 0, end_step: int = -1) -> Plan:
    """The plan for a speed-up: by trials where there are some of so many steps, else by what was measured, else the automatic
    one, which says what is nearly known."""
    plan = plain = automatic(schedule, speedup, start_step, end_step)
    if found.trials and (tried := tried_plan(found.trials, plan, outside(schedule, start_step, end_step))):
        return tried
    if found.knowledge is not None:
        plan = measured_plan(found.knowledge, schedule, speedup, start_step, end_step)
    if found.trials:
        return replace(plan, note=f"{plan.note}, {untried(found.trials, plain)}")
    return replace(plan, note=f"{plan.note}: {found.nearly}") if found.nearly else plan


def measured_plan(
    knowledge: Knowledge, schedule: Schedule, speedup: float, start_step: int = 0, end_step: int = -1
) -> Plan:
    """The plan for a speed-up that what was measured speaks for: one made from it, or the automatic one if that is
    expected to miss no more. Computes as many steps as the automatic one."""
    plan, found, cost = candidates(knowledge, schedule, speedup, start_step, end_step)
    return found if cost < CLEARLY else replace(plan, note=f"automatic: {knowledge.source}, no other is clearly better")


def candidates(
    knowledge: Knowledge, schedule: Schedule, speedup: float, start_step: int = 0, end_step: int = -1
) -> tuple[Plan, Plan, float]:
    """What Planner.candidates gives, for one speed-up."""
    return Planner(knowledge, schedule, start_step, end_step).candidates(speedup)


class Planner:
    """Makes plans for several speed-ups from the same knowledge; what spans cost is worked out once. tried: plans that were tried
    on such runs."""

    def __init__(
        self, knowledge: Knowledge, schedule: Schedule, start_step: int = 0, end_step: int = -1, trials: Trials | None = None
    ) -> None:
        self.knowledge, self.schedule, self.window = knowledge, schedule, (start_step, end_step)
        self.tried = trials.plans if trials else ()
        self._beliefs: dict[int, list[Spans]] = {}

    def candidates(self, speedup: float) -> tuple[Plan, Plan, float]:
        """The automatic plan, the best one by what was measured, and the cost of that over the cost of the automatic one, by
        the belief that is worse for it."""
        plan = automatic(self.schedule, speedup, *self.window)
        beliefs = self._believed(max(LONGEST_GAP, longest_span(plan.computes, plan.steps)))

        def compared(computes: Sequence[int]) -> float:
            return max(relative(spans.cost(computes), spans.cost(plan.computes)) for spans in beliefs)

        for spans in beliefs:
            spans.lean_on(plan.computes)
        found = min((spans.cheapest(len(plan.computes)) for spans in beliefs), key=compared)
        return plan, replace(plan, computes=found, note=self.knowledge.source), compared(found)

    def _believed(self, longest: int) -> list[Spans]:
        if longest not in self._beliefs:
            must = {0, *outside(self.schedule, *self.window)}
            gains = [belief(self.knowledge.course, self.schedule) for belief in BELIEFS]
            self._beliefs[longest] = [Spans(self.knowledge, self.schedule, must, longest, each) for each in gains]
        return self._beliefs[longest]


def relative(cost: float, other: float) -> float:
    return cost / other if other else math.inf


def expected_error(knowledge: Knowledge, schedule: Schedule, computes: Sequence[int]) -> float:
    """Root mean square of what the result misses under a plan, errors counted by their noise. Right in its order; its height
    depends on what the model makes of an error."""
    gains = by_noise(knowledge.course, schedule)
    return math.sqrt(Spans(knowledge, schedule, (), longest_span(computes, schedule.steps), gains).cost(computes))


def forecast_errors(knowledge: Knowledge, schedule: Schedule, computes: Sequence[int]) -> list[float | None]:
    """Of each step, by its first evaluation: how far off its forecast is expected to be, relative. None where the step computes,
    and where there is no output to be off from."""
    spans = Spans(knowledge, schedule, (), longest_span(computes, schedule.steps))
    found, kept = [None] * schedule.steps, None
    for step in range(schedule.steps):
        if step in computes:
            kept = spans.after(kept, step)
        else:
            found[step] = spans.error(kept, step)
    return found


def longest_span(computes: Sequence[int], steps: int) -> int:
    """Steps from a computed one to the next, or to the end, at most."""
    return max(following - here for here, following in pairwise([*computes, steps]))
