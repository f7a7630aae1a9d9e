"""What speed-ups are expected to cost, and plans beside what ran."""

from __future__ import annotations

import json
import math

import pytest
import torch

from bwcache_pack.bwcache_core.plan import automatic
from bwcache_pack.bwcache_core.planning import Course, Knowledge, Planner, expected_error, gains_by_width
from bwcache_pack.bwcache_core.prospects import MOST_STEPS, RAN, prospects
from bwcache_pack.bwcache_core.report import RunReport, StepReport
from bwcache_pack.bwcache_core.schedule import Schedule
from bwcache_pack.bwcache_core.tried import AUTOMATIC, MEASURED, Trials, TriedPlan

TWENTY = Schedule(tuple(1.0 - 0.05 * i for i in range(21)))


def knowledge(schedule=TWENTY) -> Knowledge:
    steps = tuple(range(schedule.steps))
    v = torch.randn(len(steps), 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0)
    inner = (v @ v.T / 30).tolist()
    return Knowledge(Course(steps, tuple(map(float, steps)), tuple(gains_by_width(schedule, steps))), inner, inner, 3)


def report(computes, mode="forecast", planner=True, schedule=TWENTY) -> RunReport:
    actions = ["compute" if step in computes else "reuse" for step in range(schedule.steps)]
    steps = [StepReport(n, n, schedule.sigmas[n], action, error=0.1 if n and action == "compute" else None)
             for n, action in enumerate(actions)]  # fmt: skip
    known = Planner(knowledge(schedule), schedule) if planner else None
    return RunReport(mode, 0.5, list(schedule.sigmas), planned=list(computes), planner=known, steps=steps, finished=True)


def test_the_curve_is_expected_psnr_against_the_automatic_plan_at_2x():
    curves = prospects(report(range(0, 20, 2))).curves
    assert [speedup for speedup, _ in curves[AUTOMATIC]] == pytest.approx([20 / 13, 2.0, 2.5, 20 / 7])
    assert dict(curves[AUTOMATIC])[2.0] == 0.0
    errors = {speedup: expected_error(knowledge(), TWENTY, automatic(TWENTY, speedup).computes) for speedup in (2.0, 3.0)}
    assert curves[AUTOMATIC][-1][1] == pytest.approx(20 * math.log10(errors[2.0] / errors[3.0]))
    assert curves[AUTOMATIC][0][1] > 0 > curves[AUTOMATIC][-1][1]
    assert len(curves[MEASURED]) == 4 and curves[MEASURED] != curves[AUTOMATIC]


def test_where_plans_were_tried_the_curve_is_on_their_level():
    """Two plans, one 2 dB closer and one 2 dB further off than what is expected on a level of 30 dB for an error of 1."""
    run, plans = report(range(0, 20, 2)), [automatic(TWENTY, speedup) for speedup in (2.0, 3.0)]
    size = math.sqrt(max(run.planner.knowledge.guided[n][n] for n in range(20)))
    errors = [expected_error(knowledge(), TWENTY, plan.computes) / size for plan in plans]
    came = [30.0 - 20 * math.log10(error) + apart for error, apart in zip(errors, (2.0, -2.0), strict=True)]
    tried = tuple(TriedPlan(plan, AUTOMATIC, {"clip": db}) for plan, db in zip(plans, came, strict=True))
    run.planner = Planner(knowledge(), TWENTY, trials=Trials(tried))
    found, before = prospects(run), prospects(report(range(0, 20, 2)))
    curve = dict(found.curves[AUTOMATIC])
    assert (curve[2.0], curve[20 / 7]) == pytest.approx((came[0] - 2.0, came[1] + 2.0))
    assert found.trials == ((AUTOMATIC, 2.0, came[0]), (AUTOMATIC, 20 / 7, came[1])) and before.trials == ()
    for kind in (AUTOMATIC, MEASURED):  # another level, no other distances
        pairs = zip(found.curves[kind], before.curves[kind], strict=True)
        assert {round(here[1] - there[1], 9) for here, there in pairs} == {round(curve[2.0], 9)}


def test_strips_are_the_plans_of_as_many_steps_and_what_ran():
    computes = (0, 1, 2, 3, 10, 15, 18, 19)
    plans = prospects(report(computes))
    strips = {strip.name: strip for strip in plans.strips}
    assert list(strips) == [AUTOMATIC, MEASURED, RAN]
    assert strips[RAN].computes == computes and {len(strip.computes) for strip in strips.values()} == {8}
    assert strips[AUTOMATIC].computes == automatic(TWENTY, 2.5).computes
    for name in (AUTOMATIC, MEASURED):
        known = [step for step, error in enumerate(strips[name].errors) if error is not None]
        assert known == [step for step in range(20) if step not in strips[name].computes]
    assert [step for step, error in enumerate(strips[RAN].errors) if error] == list(computes[1:])
    assert plans.sigmas == TWENTY.sigmas[:-1]


def test_of_a_run_that_stopped_nothing_is_told_of_the_rest():
    run = report(range(0, 20, 2))
    del run.steps[5:]
    ran = prospects(run).strips[2]
    assert ran.computes == (0, 2, 4) and ran.errors[5:] == (None,) * 15


def test_a_run_that_measured_shows_plans_at_2x():
    strips = prospects(report(range(20), mode="measure")).strips
    assert [len(strip.computes) for strip in strips] == [10, 10, 20]


def test_none_where_nothing_is_known_or_planning_would_take_long():
    assert prospects(report(range(20), planner=False)) is None
    long = Schedule(tuple(1.0 - i / (MOST_STEPS + 1) for i in range(MOST_STEPS + 2)))
    assert prospects(report(range(0, MOST_STEPS + 1, 2), schedule=long)) is None


def test_no_curve_where_no_error_is_expected():
    run = report(range(0, 20, 2))
    still = [[1.0] * 20 for _ in range(20)]
    run.planner = Planner(Knowledge(run.planner.knowledge.course, still, still), TWENTY)
    assert prospects(run).curves == {}


def test_what_plans_are_made_from_is_not_in_the_json():
    told = json.dumps(report(range(20)).to_dict())
    assert "planner" not in told and "guided" not in told
