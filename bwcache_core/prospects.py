"""What speed-ups are expected to cost a model, by what was measured, and the plans beside what ran. Pure numbers.

Expected errors are right in their order and their distances, not in their height: what a model makes of an error is not
known. Trials show it: where plans were tried, what is expected is on their level. Else it is told against the automatic
plan at 2x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .config import FORECAST
from .plan import Plan, automatic
from .planning import Planner, expected_error, forecast_errors
from .report import RunReport
from .tried import AUTOMATIC, MEASURED, level

RAN = "ran"
SPEEDUPS = (1.5, 2.0, 2.5, 3.0)
USUAL = 2.0  # the speed-up that others are held against
NOTHING = 1e-6  # less is what sums of inner products round to
MOST_STEPS = 60  # planning more would keep a report waiting


@dataclass(frozen=True)
class Strip:
    """A plan, or what ran. errors: of each step, relative: of its forecast where it is reused, as expected or measured; None
    where it is not known."""

    name: str
    computes: tuple[int, ...]
    errors: tuple[float | None, ...]


@dataclass(frozen=True)
class Prospects:
    """sigmas: of the steps. curves: (speed-up, expected PSNR in dB) by kind of plan; above the automatic plan's at 2x where there
    are no trials. trials: kind of plan, speed-up and PSNR in dB of each that was tried."""

    sigmas: tuple[float, ...]
    strips: tuple[Strip, ...]
    curves: dict[str, list[tuple[float, float]]]
    trials: tuple[tuple[str, float, float], ...] = ()


def prospects(run: RunReport) -> Prospects | None:
    """Of a run for which something is known; None for others. Takes a second at 30 steps, six at 50."""
    planner = run.planner
    if planner is None or not run.evaluations or run.steps_total > MOST_STEPS:
        return None
    speedup = run.steps_total / len(run.planned) if run.mode == FORECAST else USUAL
    plain, measured, _ = planner.candidates(speedup)
    strips = [strip(AUTOMATIC, plain, planner), strip(MEASURED, measured, planner), ran(run)]
    trials = tuple((each.kind, each.plan.speedup, each.mean) for each in planner.tried)
    return Prospects(tuple(run.sigmas[:-1]), tuple(strips), curves(planner), trials)


def curves(planner: Planner) -> dict[str, list[tuple[float, float]]]:
    """Empty where nothing is expected to be off at all."""
    found: dict[str, list[tuple[float, float]]] = {AUTOMATIC: [], MEASURED: []}
    usual = error_of(planner, automatic(planner.schedule, USUAL))
    errors = [(error_of(planner, each.plan), each.mean) for each in planner.tried]
    height = level(pair for pair in errors if pair[0] > NOTHING)
    for speedup in SPEEDUPS:
        for name, plan in zip(found, planner.candidates(speedup), strict=False):
            error = error_of(planner, plan)
            if min(usual, error) > NOTHING and len(plan.computes) < plan.steps:
                above = 20.0 * math.log10(usual) if height is None else height
                found[name].append((plan.speedup, above - 20.0 * math.log10(error)))
    return found if found[AUTOMATIC] else {}


def error_of(planner: Planner, plan: Plan) -> float:
    """As a share of the outputs' size."""
    guided = planner.knowledge.guided
    size = math.sqrt(max(guided[n][n] for n in range(len(guided))))
    return expected_error(planner.knowledge, planner.schedule, plan.computes) / size if size else 0.0


def strip(name: str, plan: Plan, planner: Planner) -> Strip:
    return Strip(name, plan.computes, tuple(forecast_errors(planner.knowledge, planner.schedule, plan.computes)))


def ran(run: RunReport) -> Strip:
    """What became of each step, by its first evaluation; errors as measured at computed ones."""
    firsts = {step.step: step for step in reversed(run.steps)}
    computes = [step for step in sorted(firsts) if firsts[step].action != "reuse"]
    errors = (firsts[step].error if step in firsts else None for step in range(run.steps_total))
    return Strip(RAN, tuple(computes), tuple(errors))
