"""Plans: their text, how they carry over to other runs, and the automatic placement."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bwcache_pack.bwcache_core.plan import (
    FIRST_GAP,
    LONGEST_GAP,
    MOST_STEPS,
    Plan,
    PlanError,
    automatic,
    cheapest,
    mapped,
    parse,
    plan_for,
    ranges,
    rounded,
    span_costs,
)
from bwcache_pack.bwcache_core.schedule import Schedule, schedule_of
from bwcache_pack.tests.core.test_schedule import eps, flow

SPEEDUPS = st.floats(1.0, 10.0)


@st.composite
def schedules(draw) -> Schedule:
    """Flow and EPS, whole and slices, falling and rising, with sigmas repeated."""
    steps = draw(st.one_of(st.integers(1, 60), st.just(120)))
    whole = flow(steps + draw(st.integers(0, 20)), draw(st.sampled_from([1.0, 3.0, 5.0, 8.0, 12.0])))
    sigmas = eps(steps) if draw(st.booleans()) else whole
    cut = draw(st.integers(0, len(sigmas) - 1 - steps))
    kept = list(sigmas[cut : cut + steps + 1])
    for place in draw(st.lists(st.integers(0, steps - 1), max_size=3)):
        kept[place + 1] = kept[place]
    kept.sort(reverse=not draw(st.booleans()))
    return schedule_of(kept, flow=sigmas is whole)


@st.composite
def plans(draw) -> Plan:
    steps = draw(st.one_of(st.integers(1, 60), st.integers(1, 1500)))
    others = draw(st.sets(st.integers(0, steps - 1), max_size=steps))
    shift = draw(st.sampled_from([None, 1.0, 3.5, 8.0, 12.25]))
    return Plan(tuple(sorted({0, *others})), steps, "your plan", shift)


# --- text ---


@given(plans())
@example(Plan(tuple(range(0, MOST_STEPS, 2)), MOST_STEPS, "your plan"))
def test_the_text_of_a_plan_reads_as_the_plan(plan):
    assert parse(plan.text) == plan


@pytest.mark.parametrize(
    ("text", "steps", "length", "shift"),
    [
        ("0-3 5 8 12/20", (0, 1, 2, 3, 5, 8, 12), 20, None),
        ("0/1", (0,), 1, None),
        ("  0-3\n 5\t8 / 20 ", (0, 1, 2, 3, 5, 8), 20, None),
        ("0 5-5/20@8", (0, 5), 20, 8.0),
        ("0 19/20@3.5", (0, 19), 20, 3.5),
    ],
)
def test_a_text_is_read(text, steps, length, shift):
    assert parse(text) == Plan(steps, length, "your plan", shift)


def test_auto_is_no_plan():
    assert parse(" auto ") is None


@pytest.mark.parametrize(
    ("text", "shows"),
    [
        ("", "no '/'"),
        ("   ", "no '/'"),
        ("/20", "names no step"),
        ("0-3 5", "no '/'"),
        ("every second one", "no '/'"),
        ("0 one 5/20", "'one' at character 3"),
        ("0,1,2/20", "'0,1,2' at character 1"),
        ("0 1.5/20", "'1.5' at character 3"),
        ("0 -3/20", "'-3' at character 3"),
        ("0 \u0663/20", "'\u0663' at character 3"),  # an Arabic digit, which Python's int() reads
        ("0 3 3/20", "'3' at character 5, but that step was named before"),
        ("0-3 2/20", "'2' at character 5, but step 3 was named before it"),
        ("0 5-3/20", "'5-3' at character 3, expected a range that rises, such as 3-5"),
        ("0 20/20", "'20' at character 3, expected steps below 20"),
        ("0 3-99999/20", "'3-99999' at character 3"),
        ("2 5/20", "begins with step 2"),
        ("0/0", "'0' after the '/'"),
        ("0/20001", "'20001' after the '/'"),
        ("0/20/30", "'20/30' after the '/'"),
        ("0/20@", "'20@' after the '/'"),
        ("0/20@0", "'20@0' after the '/'"),
        ("0/20@nan", "'20@nan' after the '/'"),
        ("AUTO!", "no '/'"),
    ],
)
def test_a_text_that_cannot_be_read_shows_the_place(text, shows):
    with pytest.raises(PlanError) as caught:
        parse(text)
    assert shows in str(caught.value)


@pytest.mark.parametrize(
    "text", ["0 " * 5_000_000 + "/20", "/" * 10_000_000, "0" * 10_000_000, "0 " + "9" * 50_000 + "/20"]
)
def test_a_huge_text_is_refused_in_few_words(text):
    with pytest.raises(PlanError) as caught:
        parse(text)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        plan = parse(text)
    except PlanError as error:
        assert len(str(error)) < 600
    else:
        assert plan is None or parse(plan.text) == plan


def test_ranges():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2 5 7-8"


# --- for another run ---


@given(plans())
def test_a_plan_for_runs_of_its_own_kind_stays(plan):
    shift = plan.shift or 5.0
    alike = mapped(plan, schedule_of(flow(plan.steps, shift)))
    assert alike.computes == plan.computes
    assert alike.note == "your plan"


def test_another_number_of_steps_keeps_shape_and_speedup():
    plan = parse("0-3 5 8 11 14 17 19/20")
    longer = mapped(plan, schedule_of(flow(50)))
    assert longer.note == "your plan, made for 20 steps, mapped by noise level"
    assert longer.speedup == plan.speedup
    assert longer.computes[:8] == tuple(range(8))
    assert longer.computes[-1] == 49
    shorter = mapped(longer, schedule_of(flow(20)))
    assert len(shorter.computes) == 10
    assert max(abs(a - b) for a, b in zip(shorter.computes, plan.computes, strict=True)) <= 1


def test_another_shift_moves_computed_steps_to_the_same_noise_level():
    plan = parse("0 10-19/20@8")  # shift 8: step 10 is at sigma 0.89, where shift 3 is at step 5
    moved = mapped(plan, schedule_of(flow(20, 3.0)))
    assert moved.note == "your plan, made for 20 steps at shift 8, mapped by noise level"
    assert moved.computes[1] in (5, 6, 7)
    assert moved.computes[-1] == 19


def test_a_part_of_the_levels_gets_that_part_of_the_plan():
    plan = parse("0-9 12 15 18/20@8")  # dense in the first half
    sigmas = flow(20, 8.0)
    first, second = mapped(plan, schedule_of(sigmas[:11])), mapped(plan, schedule_of(sigmas[10:]))
    assert first.computes == tuple(range(10))
    assert len(second.computes) <= 4


@settings(deadline=None)
@given(plans(), schedules(), st.integers(-70, 70), st.integers(-70, 70))
def test_any_plan_fits_any_run(plan, schedule, start, end):
    fitted = plan_for(schedule, 2.0, plan.text, start, end)
    assert well_formed(fitted, schedule)
    assert plan_for(schedule, 2.0, fitted.text).computes == fitted.computes
    assert outside_window(schedule, start, end) <= set(fitted.computes)


@settings(deadline=None)
@given(plans(), st.integers(1, 1000))
def test_another_number_of_steps_lands_on_the_speedup(plan, steps):
    assert len(mapped(plan, schedule_of(flow(steps))).computes) == within(
        steps * len(plan.computes) / plan.steps, steps
    )


# --- automatic ---


def well_formed(plan: Plan, schedule: Schedule) -> bool:
    return (
        plan.steps == schedule.steps
        and plan.computes[0] == 0
        and plan.computes[-1] < plan.steps
        and all(here < following for here, following in pairwise(plan.computes))
    )


def outside_window(schedule: Schedule, start: int, end: int) -> set[int]:
    first, last = (step + schedule.steps if step < 0 else step for step in (start, end))
    return {step for step in range(schedule.steps) if step < first or step > last}


def within(count: float, steps: int) -> int:
    return min(max(rounded(count), 1), steps)


def gaps(plan: Plan) -> list[int]:
    return [following - here for here, following in pairwise([*plan.computes, plan.steps])]


@settings(deadline=None)
@given(schedules(), SPEEDUPS)
@example(schedule_of(flow(1000)), 2.0)
@example(schedule_of(flow(4)), 2.0)
@example(schedule_of([1.0, 0.0]), 10.0)
@example(schedule_of([0.5] * 21), 2.0)
@example(schedule_of(flow(18, 1.0)), 6.0)
def test_the_automatic_plan_lands_on_its_speedup_with_bounded_gaps(schedule, speedup):
    plan = automatic(schedule, speedup)
    assert well_formed(plan, schedule)
    least = 3 if schedule.ends_at_zero and schedule.steps > FIRST_GAP + 1 else 2  # a first gap, and the last step
    assert len(plan.computes) == within(max(schedule.steps / speedup, least), schedule.steps)
    assert gaps(plan)[0] <= FIRST_GAP
    spans = max(len(plan.computes) - (least - 1), 1)  # that may be long: neither the first, nor the last step's own
    assert max(gaps(plan)) <= max(LONGEST_GAP, 2 * math.ceil(schedule.steps / len(plan.computes)), plan.steps / spans)
    assert plan.note == "automatic"
    assert plan_for(schedule, speedup) == plan


@settings(deadline=None)
@given(schedules(), st.floats(1.0, 4.0))
def test_one_more_computed_step_is_never_expected_to_be_worse(schedule, speedup):
    fewer = automatic(schedule, speedup)
    more = automatic(schedule, schedule.steps / min(len(fewer.computes) + 1, schedule.steps))
    assert expected_error(schedule, more) <= expected_error(schedule, fewer) * (1 + 1e-9)


def expected_error(schedule: Schedule, plan: Plan) -> float:
    costs = span_costs(schedule, set(), schedule.steps)
    return sum(costs[here][following - here - 1] for here, following in pairwise([*plan.computes, plan.steps]))


@settings(deadline=None)
@given(schedules(), SPEEDUPS, st.integers(-70, 70), st.integers(-70, 70))
def test_steps_outside_the_window_compute(schedule, speedup, start, end):
    plan = automatic(schedule, speedup, start, end)
    assert well_formed(plan, schedule)
    assert outside_window(schedule, start, end) <= set(plan.computes)
    assert len(plan.computes) >= within(schedule.steps / speedup, schedule.steps)


def test_a_window_that_leaves_nothing_computes_all():
    schedule = schedule_of(flow(20))
    assert automatic(schedule, 2.0, 30, 40).text == "0-19/20@8"
    assert plan_for(schedule, 2.0, "0 5/20", 30, 40).text == "0-19/20@8"


def test_a_speedup_of_one_computes_all():
    assert automatic(schedule_of(flow(20)), 1.0).text == "0-19/20@8"


def test_a_run_to_zero_computes_its_last_step():
    assert automatic(schedule_of(flow(30)), 3.0).computes[-1] == 29
    assert automatic(schedule_of(flow(8)), 4.0).computes == (0, 3, 7)


@pytest.mark.parametrize("speedup", [1.5, 2.0, 3.0])
def test_where_noise_is_added_steps_lie_where_a_flow_has_them(speedup):
    """Sigma itself falls by half of its range in a fifth of these steps, and would leave none for the others."""
    added = schedule_of(eps(30), flow=False)
    plan = automatic(added, speedup)
    assert plan.computes == automatic(schedule_of(added.shares), speedup).computes
    assert max(gaps(plan)) <= 5
    assert sum(added.sigmas[step] < 1.0 for step in plan.computes) >= len(plan.computes) / 3


def test_cheapest_finds_the_optimum_of_all_plans():
    schedule = schedule_of(flow(9))
    costs = span_costs(schedule, set(), 9)
    for count in range(1, 10):
        chosen = cheapest(costs, count)
        plans = [Plan(steps, 9) for steps in choices(9) if len(steps) == max(count, 2)]
        tried = [plan for plan in plans if gaps(plan)[0] <= FIRST_GAP]
        best = min(expected_error(schedule, plan) for plan in tried)
        assert math.isclose(expected_error(schedule, Plan(chosen, 9)), best, abs_tol=1e-12)


def choices(steps: int) -> list[tuple[int, ...]]:
    """All plans of a run."""
    return [(0, *(i for i in range(1, steps) if bits >> i & 1)) for bits in range(0, 1 << steps, 2)]


def test_a_schedule_of_many_steps_is_planned_in_no_time():
    began = time.perf_counter()
    plan = automatic(schedule_of(flow(10_000)), 2.0, start_step=100)
    assert time.perf_counter() - began < 2.0
    assert len(plan.computes) == 5000 and set(range(100)) <= set(plan.computes)
    assert max(gaps(plan)) <= 3
