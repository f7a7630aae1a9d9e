"""The adaptive policy on numbers, and on sessions whose outputs are known by hand."""

import math
from itertools import pairwise

import pytest
import torch

from bwcache_pack.bwcache_core.adaptive import AdaptivePolicy, reach
from bwcache_pack.bwcache_core.budget import computed_allowed, computed_needed, tolerance_for
from bwcache_pack.bwcache_core.config import ADAPTIVE, CUSTOM, BWCacheConfig
from bwcache_pack.bwcache_core.corrector import sampler_steps
from bwcache_pack.bwcache_core.policy import Measured, Position, Rules, RunShape
from bwcache_pack.bwcache_core.session import Session
from bwcache_pack.bwcache_core.stream import StreamKey

STEPS = 20


def policy(tolerance=0.1, max_reuse=6, order=1, ends_at_zero=True, damping=1.0, target=0.0):
    levels = tuple(range(STEPS + 1))  # as far as the steps are
    run = RunShape(STEPS, 4, ends_at_zero, widths=(1.0,) * STEPS, levels=levels)
    return AdaptivePolicy(Rules(run, 0.0, 1, 0, STEPS - 1), tolerance, max_reuse, order, damping, target)


def at(step, width=1.0):
    return Position(step, step, float(step), width, float(step))


def history(*errors_by_step):
    """Measured evaluations from (step, forecast errors) pairs."""
    return [Measured(at(step), forecast_errors=tuple(errors)) for step, errors in errors_by_step]


def test_reach_is_the_product_of_distances():
    assert reach(5.0, [3.0, 2.0], 0.5) == 6.0
    assert reach(5.0, [], 0.5) == 1.0


def test_an_evaluation_at_the_place_of_the_last_one_is_not_free():
    assert reach(3.0, [3.0, 2.0], 0.5) == 0.5
    measured = history((0, []), (1, [1.0]), (2, [1.0, 0.06]))
    again = Position(3, 2, 2.0, level=2.0)  # half a step away: 0.06 * (0.5 * 1) / (1 * 2) = 0.015
    assert policy(tolerance=0.016).decide(again, measured).reuse
    assert not policy(tolerance=0.014).decide(again, measured).reuse


# Nodes 2, 1, 0 measured a linear error e at 2 over reach 1 * 2; forecasts from nodes 2, 1 reach 1 * 2 at step 3,
# 2 * 3 at 4, 3 * 4 at 5: predictions e, 3e, 6e.
@pytest.mark.parametrize(
    ("step", "error", "reused"),
    [(3, 0.09, True), (3, 0.11, False), (4, 0.03, True), (4, 0.034, False), (5, 0.016, True), (5, 0.017, False)],
)
def test_the_prediction_grows_with_the_reach_of_the_forecast(step, error, reused):
    measured = history((0, []), (1, [1.0]), (2, [1.0, error]))
    decision = policy(tolerance=0.1).decide(at(step), measured)
    assert bool(decision.reuse) == reused
    if reused:
        assert decision.order == 1 and decision.whole_stack


def test_a_damped_forecast_errs_partly_like_a_frozen_one():
    # At step 4 the frozen part of the error doubles (distance 2 against 1), the linear part triples.
    measured = history((0, []), (1, [1.0]), (2, [1.0, 0.04]))
    assert policy(damping=0.0).decide(at(4), measured).judged == pytest.approx(0.08)
    assert policy(damping=1.0).decide(at(4), measured).judged == pytest.approx(0.12)
    assert policy(damping=0.5).decide(at(4), measured).judged == pytest.approx(0.10)


# Frozen forecasts erred by 0.01 and `newest` over one step each; one step on, the mean of both rates is expected:
# 0.01 * 2 ** 0.5 = 0.0141 at 0.02, where half of the newest, 0.01, is less. At 0.16 the mean is 0.04, but half is 0.08.
@pytest.mark.parametrize(("newest", "expected"), [(0.01, 0.01), (0.02, 0.01 * 2**0.5), (0.16, 0.08)])
def test_rates_are_averaged_over_the_run_until_one_stands_out(newest, expected):
    measured = history((0, []), (1, [0.01]), (2, [newest]))
    assert policy(order=0).decide(at(3), measured).judged == pytest.approx(expected)


def test_the_highest_order_that_was_measured_is_used():
    measured = history((0, []), (1, [0.02]), (2, [0.01, 0.02]))
    assert policy().decide(at(3), measured).judged == pytest.approx(0.02)  # the line: as far from its nodes as it was at 2
    assert policy(order=0).decide(at(3), measured).judged == pytest.approx(2**0.5 * 0.01)


def test_a_forecast_is_of_the_highest_order_that_there_are_outputs_for():
    """Even where no error of that order was measured yet."""
    assert policy(target=2.0).decide(at(2), history((0, []))).order == 0
    assert policy().decide(at(2), history((0, []), (1, [0.02]))).order == 1
    assert policy().decide(at(3), history((0, []), (1, [0.02]), (2, [0.01, 0.02]))).order == 1
    assert policy(order=2).decide(at(3), history((0, []), (1, [0.02]), (2, [0.01, 0.02]))).order == 2
    assert policy(order=0).decide(at(3), history((0, []), (1, [0.02]), (2, [0.01]))).order == 0


@pytest.mark.parametrize(("error", "reused"), [(0.09, True), (0.11, False)])
def test_two_evaluations_at_one_place_are_one_node(error, reused):
    """heun evaluates steps 1 and 2 twice; the second features replace the first, so distances are those of 2, 1, 0."""
    measured = history((0, []), (1, [1.0]), (1, [1.0]), (2, [1.0]), (2, [1.0, error]))
    assert bool(policy(tolerance=0.1).decide(Position(5, 3, 3.0, level=3.0), measured).reuse) == reused


def test_a_wider_step_counts_by_a_power_of_its_width():
    measured = history((0, []), (1, [1.0]), (2, [1.0, 0.05]))
    assert policy(tolerance=0.1).decide(at(3, width=2.0), measured).reuse  # 0.05 * 2 ** 0.35 = 0.064
    assert not policy(tolerance=0.1).decide(at(3, width=8.0), measured).reuse  # 0.05 * 8 ** 0.35 = 0.104


@pytest.mark.parametrize("step", [0, 1])
def test_warm_up_computes(step):
    measured = history(*[(i, [0.0, 0.0]) for i in range(step)])
    assert not policy().decide(at(step), measured).reuse


# 20 steps as far apart in noise level, the last two of them computed. With a target of 2, 9 of steps 1 to 19 may
# compute: one in two would take 10 (2, 4, ... 18, and 19), so it is one in three (3, 6, ... 18, and 19).
@pytest.mark.parametrize(("step", "reused"), [(1, True), (2, True), (3, False)])
def test_a_target_needs_no_warm_up(step, reused):
    decision = policy(target=2.0).decide(at(step), history((0, [])))
    assert (decision.whole_stack, decision.order) == (reused, 0)
    assert decision.judged is None and "no forecast was measured" in decision.reason
    assert not policy().decide(at(step), history((0, []))).reuse


def test_the_tail_computes_only_where_the_run_ends_at_sigma_zero():
    measured = history((15, []), (16, [0.01]), (17, [0.01, 0.001]))
    assert not policy().decide(at(18), measured).reuse
    assert policy(ends_at_zero=False).decide(at(18), measured).reuse


def test_reuse_in_a_row_is_bounded():
    measured = history((0, []), (1, [0.0]), (2, [0.0, 0.0]))
    assert policy(max_reuse=2).decide(at(4), measured).reuse
    assert not policy(max_reuse=2).decide(at(5), measured).reuse


def test_tolerance_zero_never_reuses():
    measured = history((0, []), (1, [0.0]), (2, [0.0, 0.0]))
    assert not policy(tolerance=0.0).decide(at(3), measured).reuse


def test_nothing_is_reused_after_an_error_or_without_a_judged_forecast():
    measured = history((0, []), (1, [0.01]), (2, [0.01, 0.01]))
    assert not policy().decide(at(4), [*measured, Measured(at(3), error="NaN")]).reuse
    assert not policy().decide(at(4), [*measured, Measured(at(3))]).reuse


SIGMAS = [1.0 - i / STEPS for i in range(STEPS + 1)]


def euler_steps():
    """Euler gives x' = sigma' / sigma * x + (1 - sigma' / sigma) * D."""
    gains = [[0.0] * STEPS]
    for step, (sigma, following) in enumerate(pairwise(SIGMAS)):
        row = [following / sigma * gain for gain in gains[-1]]
        row[step] = 1.0 - following / sigma
        gains.append(row)
    return sampler_steps(SIGMAS, gains)


class Cosine:
    """A velocity that depends on sigma alone, different for each condition: what Euler should reach is a plain sum."""

    def __init__(self, shift):
        self.shift = shift

    def velocity(self, sigma):
        return torch.full((1, 16, 2, 2, 2), 2.0 + math.cos(2.0 * sigma + self.shift))


def integrate(config, corrects, batched=True):
    """Euler over both conditions through a session: (latents of cond and uncond after each step, report)."""
    session = Session(config, 4, SIGMAS, sampler=euler_steps() if corrects else ())
    models = {0: Cosine(0.0), 1: Cosine(1.0)}
    x, path = {0: 1.0, 1: -1.0}, {0: [], 1: []}
    for sigma, following in pairwise(SIGMAS):
        session.begin_evaluation(torch.tensor([sigma]))
        for group in ([[1, 0]] if batched else [[1], [0]]):
            keys = [StreamKey(c, "u", None, 0, "cpu", (1, 16, 2, 2, 2), "float32") for c in group]
            model_pass = session.begin_pass(keys)
            out = model_pass.run_model(lambda group=group, at=sigma: torch.cat([models[c].velocity(at) for c in group]))
            session.finish_pass(model_pass)
            for condition, rows in zip(group, out.chunk(len(group)), strict=True):
                x[condition] += (following - sigma) * rows.mean().item()
                path[condition].append(x[condition])
        session.end_evaluation()
    return path, session.close(True)


def adaptive(**settings):
    return BWCacheConfig(mode=ADAPTIVE, preset=CUSTOM, **{"tolerance": 0.05, **settings})


@pytest.mark.parametrize("batched", [True, False])
def test_the_corrector_brings_euler_closer_to_the_uncached_latents(batched):
    exact, _ = integrate(adaptive(tolerance=0.0), True)
    plain, report = integrate(adaptive(corrector=False), True, batched)
    better, report_corrected = integrate(adaptive(), True, batched)
    assert report.evaluations_reused == report_corrected.evaluations_reused > STEPS / 3
    for condition in (0, 1):
        assert distance(better[condition], exact[condition]) < 0.6 * distance(plain[condition], exact[condition])


def distance(path, other):
    return sum(abs(one - two) for one, two in zip(path, other, strict=True))


def test_the_corrector_stays_out_where_the_sampler_is_not_known():
    assert integrate(adaptive(), False)[0] == integrate(adaptive(corrector=False), True)[0]


def test_batched_and_split_runs_agree():
    batched, first = integrate(adaptive(), True, batched=True)
    split, second = integrate(adaptive(), True, batched=False)
    assert batched == split
    assert [s.action for s in first.steps] == [s.action for s in second.steps]


def test_tolerance_zero_is_the_plain_model():
    path, report = integrate(adaptive(tolerance=0.0), True)
    expected = 1.0
    for sigma, following in pairwise(SIGMAS):
        expected += (following - sigma) * Cosine(0.0).velocity(sigma).mean().item()
    assert path[0][-1] == expected and report.blocks_reused == 0


def test_the_budget_counts_what_a_tolerance_would_compute():
    # Frozen forecasts err by 1 per step since the newest node; step 0 is computed, steps 1 to 6 are to come.
    # Tolerance 2.5 reuses 1 and 2, computes 3, reuses 4 and 5, computes 6.
    places = range(10, 18)

    def needed(tolerance):
        return computed_needed(range(1, 7), 0, [10.0], places, lambda step, n: places[step] - n[0], tolerance, lambda *_: False)

    assert [needed(t) for t in (0.5, 1.5, 2.5, 3.5, 9.0)] == [6, 3, 2, 1, 0]
    assert tolerance_for(2, needed) == pytest.approx(2.0, rel=0.01)
    late = computed_needed(range(1, 7), 0, [10.0], places, lambda *_: 0.0, 1.0, lambda step, reused: step >= 5)
    spaced = computed_needed(range(1, 7), 0, [10.0], places, lambda *_: 0.0, 1.0, lambda step, reused: reused >= 2)
    begun = computed_needed(range(1, 7), 2, [10.0], places, lambda *_: 0.0, 1.0, lambda step, reused: reused >= 2)
    assert (late, spaced, begun) == (2, 2, 2)


def test_of_two_evaluations_at_one_place_the_second_may_be_near_enough():
    # As above, each step twice, an evaluation at the place of the newest node half a step away. Tolerance 0.4 computes
    # all; 0.6 one of each two; 1.5 reuses 1, 1, computes 2, reuses 2, 3, 3, computes 4, reuses 4, 5, 5.
    def needed(tolerance):
        steps, places = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5], range(10, 18)
        return computed_needed(steps, 0, [10.0], places, lambda step, n: max(places[step] - n[0], 0.5), tolerance,
                               lambda *_: False)

    assert [needed(t) for t in (0.4, 0.6, 1.5)] == [10, 5, 2]


@pytest.mark.parametrize(
    ("evaluations", "target", "allowed"), [(30, 2.0, 15), (30, 2.5, 12), (20, 3.0, 7), (2, 9.0, 1)]
)
def test_the_budget_of_a_target(evaluations, target, allowed):
    assert computed_allowed(evaluations, target) == allowed


@pytest.mark.parametrize("target", [1.25, 1.5, 2.0, 2.5])
def test_a_target_is_landed_on(target):
    _, report = integrate(BWCacheConfig(target_speedup=target), True)
    assert report.evaluations / (report.evaluations - report.evaluations_reused) == pytest.approx(target, rel=0.05)


def test_a_target_out_of_reach_says_why():
    _, report = integrate(BWCacheConfig(target_speedup=8.0), True)
    assert any("target" in warning and "8" in warning for warning in report.warnings)
