"""The adaptive mode on toy models: what holds whatever its numbers are tuned to."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.bwcache_core.adaptive import TAIL, WARMUP
from bwcache_pack.tests.core.toys import COND, UNCOND, Run, ToyHunyuan, ToyModel, condition, falling

POINTS = ["features", "output"]
TINY = {"mode": "adaptive", "preset": "custom", "tolerance": 1e-4, "damping": 1.0}  # forecasts go all the way


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("make_model", [lambda: ToyModel([lambda x: 2.0 * x]), ToyHunyuan], ids=["wan", "hunyuan"])
def test_tolerance_0_is_bit_identical_to_the_plain_model(make_model, point):
    run, plain = Run(make_model(), falling(12), cache_point=point, **{**TINY, "tolerance": 0.0}), make_model()
    for i, sigma in enumerate(falling(12)[:-1]):
        given = [condition(which, torch.full((1, 6, 4), 1.0 + which)) for which in (COND, UNCOND)]
        outputs = run.evaluate(sigma, given)
        assert all(torch.equal(o, plain(c.img)) for o, c in zip(outputs, given, strict=True))
        assert len(run.model.ran) == (i + 1) * len(plain.blocks)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("batched", [True, False])
def test_features_on_a_line_are_forecast_and_no_block_runs(point, batched):
    """Hidden states move by the same amount in each step, cond and uncond in different directions."""
    run = Run(ToyModel([lambda x: 2.0 * x, lambda x: x + 1.0]), falling(12), cache_point=point, max_reuse=2, **TINY)
    for i, sigma in enumerate(falling(12)[:-1]):
        given = [condition(COND, 8.0 + i), condition(UNCOND, 64.0 - 2.0 * i)]
        outputs = run.evaluate(sigma, given) if batched else run.evaluate(sigma, *[[c] for c in given])
        assert [o.unique().tolist() for o in outputs] == [[17.0 + 2.0 * i], [129.0 - 4.0 * i]]
    report = run.session.close(True)
    assert run.actions == "CCC" + "RRC" * 2 + "R" + "CC"
    assert report.blocks_reused == 5 * 2 * (1 if batched else 2)
    assert len(run.model.ran) == report.blocks_total - report.blocks_reused


@pytest.mark.parametrize("point", POINTS)
def test_the_damping_set_is_the_damping_used(point):
    """x grows by 1 in each step, the block doubles it. Step 2 is served half of the way to the line through 128 at
    step 0 and 130 at step 1, step 4 half of the way to that through 130 and 134 at step 3."""
    run = Run(ToyModel([lambda x: 2.0 * x]), falling(12), cache_point=point, max_reuse=1,
              **{**TINY, "tolerance": 1.0, "damping": 0.5})
    outputs = run.evaluate_all(falling(12)[:5], lambda i: [condition(COND, 64.0 + i)])
    assert [o.unique().tolist() for [o] in outputs] == [[128.0], [130.0], [131.0], [134.0], [135.0]]


@pytest.mark.parametrize("point", POINTS)
def test_features_that_jump_are_computed(point):
    run = Run(ToyModel([lambda x: 2.0 * x]), falling(12), cache_point=point, **TINY)
    run.evaluate_all(falling(12)[:-1], lambda i: [condition(COND, 1.0 + i % 2)])
    run.session.close(True)
    assert run.actions == "C" * 12


@pytest.mark.parametrize("point", POINTS)
def test_the_first_and_the_last_evaluations_compute(point):
    run = Run(ToyModel([lambda x: 2.0 * x]), falling(12), cache_point=point, max_reuse=100, **TINY)
    run.evaluate_all(falling(12)[:-1], lambda i: [condition(COND, 1.0)])
    run.session.close(True)
    assert run.actions == "C" * WARMUP + "R" * (12 - WARMUP - TAIL) + "C" * TAIL


@pytest.mark.parametrize("order", [0, 1, 2])
def test_another_token_count_is_computed_and_never_extrapolated(order):
    run = Run(ToyModel([lambda x: 2.0 * x]), falling(20), cache_point="features", order=order, max_reuse=1, **TINY)
    tokens = [6] * 6 + [8] * 9
    for i, count in enumerate(tokens):
        [output] = run.evaluate(20.0 - i, [condition(COND, torch.full((1, count, 4), 64.0))])
        assert output.shape == (1, count, 4)
        assert output.unique().tolist() == [128.0]
    run.session.close(True)
    assert run.actions[6] == "C"
    assert "R" in run.actions[7:]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("order", [1, 2])
def test_broken_features_leave_no_trace_in_later_forecasts(point, order):
    calls = []

    def block(x):
        calls.append(None)
        out = 2.0 * x
        if len(calls) == 2:
            out[0, 3, 1] = float("nan")
        return out

    run = Run(ToyModel([block]), falling(20), cache_point=point, order=order, tokens=1, **TINY)
    outputs = run.evaluate_all(falling(20)[:12], lambda i: [condition(COND, 64.0 + i)])
    report = run.session.close(True)
    assert [bool(step.error) for step in report.steps] == [i == 1 for i in range(12)]
    assert "R" in run.actions
    assert [o.unique().tolist() for i, [o] in enumerate(outputs) if i != 1] == [
        [128.0 + 2.0 * i] for i in range(12) if i != 1
    ]


@pytest.mark.parametrize("point", POINTS)
def test_evaluations_that_lie_almost_at_one_place_are_one_node(point):
    """exp_heun_2_x0 comes back to a sigma but for its last digits: a line through both would leave any scale."""
    settings = {**TINY, "tolerance": 1.0, "start_step": 2, "end_step": 11}
    run = Run(ToyModel([lambda x: 2.0 * x]), falling(12), cache_point=point, **settings)
    sigmas = [12.0, 11.0, 11.0 - 1e-5, 10.0, 10.0 - 1e-5, 9.0]
    values = [64.0, 65.0, 66.0, 67.0, 68.0, 69.0]
    outputs = run.evaluate_all(sigmas, lambda i: [condition(COND, values[i])])
    assert run.actions.startswith("CCCR")
    line = [out.mean().item() for [out] in outputs[3:5]]  # through 128 at step 0 and 132, the newest at step 1
    assert line == pytest.approx([136.0, 136.0], rel=1e-4)
