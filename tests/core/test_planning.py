"""Plans from inner products: costs by hand, the cheapest plan against every plan, what few runs lean on."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch

from bwcache_pack.bwcache_core.corrector import SamplerStep
from bwcache_pack.bwcache_core.forecast import best_share, forecast_weights
from bwcache_pack.bwcache_core.plan import automatic
from bwcache_pack.bwcache_core.planning import (
    Course,
    Knowledge,
    Planner,
    Spans,
    by_noise,
    by_width,
    expected_error,
    forecast_errors,
    gains,
    gains_by_width,
    measured_plan,
)
from bwcache_pack.bwcache_core.schedule import Schedule

TEN = Schedule(tuple(1.0 - 0.1 * i for i in range(11)))


def euler(sigmas):
    return [SamplerStep(here, to / here, (1.0 - to / here,), i) for i, (here, to) in enumerate(pairwise(sigmas))]


def known(outputs, schedule=TEN, runs=1) -> Knowledge:
    """Of outputs (n, numbers), one a step."""
    v = torch.as_tensor(outputs, dtype=torch.float64)
    inner = (v @ v.T / v.shape[1]).tolist()
    steps = tuple(range(len(v)))
    return Knowledge(Course(steps, tuple(map(float, steps)), tuple(gains_by_width(schedule, steps))), inner, inner, runs)


def random_walk(steps=10, seed=0):
    return torch.randn(steps, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).cumsum(0)


def test_eulers_gains_are_the_widths_of_its_steps():
    sigmas = (1.0, 0.7, 0.2, 0.0)
    assert gains(euler(sigmas)) == pytest.approx([-0.3, -0.5, -0.2])
    assert gains_by_width(Schedule(sigmas), (0, 1, 2)) == pytest.approx([-0.3, -0.5, -0.2])


def test_gains_of_a_sampler_that_looks_back():
    """x1 = x0 / 2 + D0 / 2; x2 = 3/2 D1 - D0 / 2. With v0 = 1: D0 = -1, x1 = D1 = -1/2, x2 = -3/4 + 1/2. With v1 = 1,
    at sigma 1/2: D1 = -1/2, x2 = -3/4."""
    steps = [SamplerStep(1.0, 0.5, (0.5,), 0), SamplerStep(0.5, 0.0, (1.5, -0.5), 1)]
    assert gains(steps) == pytest.approx([-0.25, -0.75])


def test_two_evaluations_of_a_step_share_its_width():
    assert gains_by_width(Schedule((1.0, 0.6, 0.0)), (0, 0, 1)) == pytest.approx([-0.2, -0.2, -0.6])


def test_what_a_span_costs_by_hand():
    """Outputs 0, 1, 4, 9, 16 computed at 0 and 1: nothing tells the share yet, so half of the line: 1.5 at step 2, 2 at
    step 3, 2.5 at step 4. Missed: 2.5, 7 and 13.5 times a tenth."""
    spans = Spans(known([[0.0], [1.0], [4.0], [9.0], [16.0]], five := Schedule(TEN.sigmas[:6])), five, ())
    kept = spans.after(spans.after(None, 0), 1)
    assert spans.measured(kept) == pytest.approx([0.0, 0.25**2, 0.95**2, 2.3**2])
    assert spans.cost((0, 1, 4)) == pytest.approx(0.95**2)
    undone = tuple(-0.1 / sigma for sigma in five.sigmas[:-1])
    assert expected_error(replace(spans.knowledge, course=replace(spans.course, gains=undone)), five, (0, 1, 4)) == pytest.approx(0.95)


def test_the_first_output_alone_is_repeated():
    spans = Spans(known([[0.0], [1.0], [4.0]], three := Schedule(TEN.sigmas[:4])), three, ())
    assert spans.measured(spans.after(None, 0)) == pytest.approx([0.0, 0.1**2, 0.5**2])


def test_the_share_is_the_one_that_was_best_at_the_newest_output():
    """Outputs 0, 2, 3 at steps 0, 1, 2: the whole line led to 4 from 2, half of it would have been right."""
    spans = Spans(known([[0.0], [2.0], [3.0], [3.0]], four := Schedule(TEN.sigmas[:5])), four, ())
    kept = None
    for step in (0, 1, 2):
        kept = spans.after(kept, step)
    assert (kept.nodes, kept.basis, spans.share(kept.basis)) == ((1, 2), (0, 1, 2), 0.5)
    assert spans.measured(kept) == pytest.approx([0.0, 0.05**2])  # foretold 3.5 for 3


def test_costs_against_vectors():
    v, computes = random_walk(), (0, 1, 4, 6, 9)
    spans, total, nodes, share = Spans(known(v), TEN, ()), 0.0, [], 0.5
    for here, following in pairwise((*computes, 10)):
        if len(nodes) == 2:
            way = (v[nodes[1]] - v[nodes[0]]) * (here - nodes[1]) / (nodes[1] - nodes[0])
            share = best_share(float((v[here] - v[nodes[1]]) @ way), float(way @ way))
        nodes = [*nodes, here][-2:]
        miss = torch.zeros(30, dtype=torch.float64)
        for step in range(here + 1, following):
            weights = forecast_weights([float(n) for n in nodes], float(step), share)
            miss -= 0.1 * (sum(w * v[n] for w, n in zip(weights, nodes, strict=True)) - v[step])
        total += float(miss.square().mean())
    assert spans.cost(computes) == pytest.approx(total)


def test_evaluations_of_a_step_are_foretold_together():
    """Two at step 1, places 1 and 2; the second of them is what the next step begins at, and is replaced by it."""
    steps = (0, 0, 1, 1, 2)
    course = Course(steps, (0.0, 1.0, 1.0, 2.0, 2.0), (-0.1,) * 5)
    inner = [[float(i * j) for j in range(5)] for i in range(5)]
    spans = Spans(Knowledge(course, inner, inner), Schedule(TEN.sigmas[:4]), ())
    first = spans.after(None, 0)
    assert first.nodes == (0, 1)
    assert spans.after(first, 1).nodes == (2, 3)
    # half of the line: 1 at place 1, 1.5 at place 2, for outputs 2 and 3
    assert spans.measured(first)[1] == pytest.approx((0.1 * 1.0 + 0.1 * 1.5) ** 2)


@pytest.mark.parametrize("count", [3, 5, 7])
@pytest.mark.parametrize("runs", [0, 3])
def test_the_cheapest_plan_is_the_cheapest_of_all(count, runs):
    spans = Spans(known(random_walk(), runs=runs), TEN, ())
    spans.lean_on((0, 3, 6, 9))

    def believed(computes):
        return (runs * spans.cost(computes) + spans.prior_scale * spans.cost(computes, prior=True)) / (runs + 1.0)

    every = [(0, *rest) for rest in combinations(range(1, 10), count - 1)]
    assert believed(spans.cheapest(count)) == pytest.approx(min(map(believed, every)))


def test_must_steps_compute_and_spans_are_bounded():
    spans = Spans(known(random_walk()), TEN, {0, 5}, longest=3)
    computes = spans.cheapest(3)
    assert 5 in computes and len(computes) >= 4
    assert max(b - a for a, b in zip(computes, [*computes[1:], 10], strict=True)) <= 3
    assert spans.cost((0, 9)) == float("inf")


def test_a_plan_is_made_where_outputs_change():
    """Outputs stand still but for one jump, at step 6: there must be a computed step at or just after it."""
    v = torch.zeros(10, 4, dtype=torch.float64)
    v[6:] = 1.0
    plan = measured_plan(known(v, runs=100), TEN, 2.0)
    assert 6 in plan.computes and len(plan.computes) == 5
    assert plan.note == "measured"


def test_the_window_computes():
    plan = measured_plan(known(random_walk()), TEN, 3.0, start_step=3, end_step=-3)
    assert {0, 1, 2, 8, 9} <= set(plan.computes)


def test_the_automatic_plan_stays_where_nothing_measured_is_better():
    plan, auto = measured_plan(known(torch.zeros(10, 4)), TEN, 2.0), automatic(TEN, 2.0)
    assert plan.computes == auto.computes and plan.note.startswith("automatic")


def test_errors_count_by_their_noise():
    """The same jump, at sigma 0.9 and at 0.2; where noise is added, sigma 9 is nine parts of noise to one of signal."""
    v, w = torch.zeros(10, 2, dtype=torch.float64), torch.zeros(10, 2, dtype=torch.float64)
    v[1], w[8] = 1.0, 1.0
    early, late = (expected_error(known(u), TEN, (0, 2, 4, 6, 7, 9)) for u in (v, w))
    assert early / late == pytest.approx(0.9 / 0.2)
    course = known(v).course
    added = Schedule(tuple(sigma / (1 - sigma) for sigma in (0.9, 0.5, 0.2, 0.0)), flow=False)
    assert by_noise(course, TEN) == pytest.approx([-0.1 * sigma for sigma in TEN.sigmas[:-1]])
    assert by_noise(replace(course, steps=(0, 1, 2), gains=(1.0, 1.0, 1.0)), added) == pytest.approx([0.9, 0.5, 0.2])


def test_a_belief_goes_by_the_width_of_a_step_whatever_the_sampler_does():
    course = replace(known(random_walk()).course, gains=(3.0,) * 10)
    assert by_width(course, TEN) == pytest.approx([-0.1] * 10)


def test_errors_of_forecasts_over_one_step_by_hand():
    """Outputs 1, 2, 4, 4: repeated 1 for 2; half of the line, 2.5 for 4; then the whole line, which was too short, 6 for 4."""
    spans = Spans(known([[1.0], [2.0], [4.0], [4.0], [0.0]], five := Schedule(TEN.sigmas[:6])), five, ())
    assert spans.errors() == [None, pytest.approx(0.5), pytest.approx(1.5 / 4.0), pytest.approx(2.0 / 4.0), None]


def test_a_planner_plans_each_speedup_as_if_it_were_the_only_one():
    knowledge, planner = known(random_walk(), runs=2), Planner(known(random_walk(), runs=2), TEN)
    for speedup in (3.0, 1.5, 2.0, 3.0):
        assert planner.candidates(speedup) == Planner(knowledge, TEN).candidates(speedup)


def test_errors_of_the_forecasts_of_a_plan_by_hand():
    """Outputs 1, 2, 4, 4, 0: step 1 repeats 1 for 2. Computed at 0 and 2, the share is not known yet: half of the line, 4.75 at
    step 3 for 4. The last has nothing to be off from."""
    knowledge, five = known([[1.0], [2.0], [4.0], [4.0], [0.0]], five := Schedule(TEN.sigmas[:6])), five
    assert forecast_errors(knowledge, five, (0, 2)) == [None, pytest.approx(0.5), None, pytest.approx(0.75 / 4), None]
    assert forecast_errors(knowledge, five, range(5)) == [None] * 5
