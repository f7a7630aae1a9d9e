"""The per block mode on toy models: each block by its own change, reused blocks add their last residual."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.bwcache_core.paper import model_pass
from bwcache_pack.bwcache_core.paper.block_mode import joined
from bwcache_pack.tests.paper.toys import COND, UNCOND, Run, ToyHunyuan, ToyModel, condition, falling

EVERY = {"mode": "per block"}


def values(outputs: list[torch.Tensor]) -> list[float]:
    """The one number that each output holds."""
    return [output.unique().item() for output in outputs]


def test_residuals_by_hand():
    """Blocks x -> 2 x + 8 and x -> x * x, threshold 0.15, R = 2.

    step 0: x = 1      10        100
    step 1: x = 1.5    11        121       changes 0.1 and 0.21, residuals 9.5 and 110
    step 2: x = 2      2 + 9.5   132.25    block 0 reused, block 1 runs: change 0.093, residual 120.75
    step 3: x = 3      3 + 9.5   133.25    both reused
    step 4: x = 4      16        16 + 120.75    block 0 was judged 3 steps ago: it runs, block 1 is reused
    """
    run = Run(ToyModel([lambda x: 2.0 * x + 8.0, lambda x: x * x]), falling(10), reuse_interval=2, **EVERY)
    inputs = [1.0, 1.5, 2.0, 3.0, 4.0]
    outputs = run.evaluate_all(falling(10)[:5], lambda i: [condition(COND, inputs[i])])
    assert [values(o) for o in outputs] == [[100.0], [121.0], [132.25], [133.25], [136.75]]
    report = run.block_run.close(True)
    assert run.actions == "CCPRP"
    assert run.model.ran == [0, 1, 0, 1, 1, 0]
    assert [step.reused_blocks for step in report.steps] == [[], [], [0], [0, 1], [1]]
    assert [(step.blocks_run, step.blocks_total) for step in report.steps] == [(2, 2), (2, 2), (1, 2), (0, 2), (1, 2)]
    assert report.steps[1].block_changes == pytest.approx({0: 0.1, 1: 0.21})
    assert report.steps[2].block_changes == pytest.approx({1: 11.25 / 121})
    assert report.steps[4].block_changes == pytest.approx({0: 5 / 11})  # since it last ran: 11 -> 16
    assert (report.evaluations_reused, report.blocks_reused, report.work_ratio) == (1, 4, 10 / 6)


def test_blocks_that_run_are_measured_though_the_last_block_is_reused():
    """Blocks x -> 2 x and x -> x + 100: the second hardly changes, the first is watched all the same."""
    run = Run(ToyModel([lambda x: 2.0 * x, lambda x: x + 100.0]), falling(10), reuse_interval=2, **EVERY)
    inputs = [1.0, 2.0, 2.125, 2.25]
    run.evaluate_all(falling(10)[:4], lambda i: [condition(COND, inputs[i])])
    report = run.block_run.close(True)
    assert [step.reused_blocks for step in report.steps] == [[], [], [1], [0, 1]]
    assert report.steps[2].block_changes == {0: 0.0625}


def test_a_broken_block_is_found_though_the_last_block_is_reused(monkeypatch):
    """One element of a token that is not sampled: it reaches the output through the residual."""
    monkeypatch.setattr(model_pass, "SAMPLED_TOKENS", 1)
    calls = []

    def block(x):
        calls.append(None)
        out = 2.0 * x
        if len(calls) == 3:
            out[0, 1, 2] = float("nan")
        return out

    run = Run(ToyModel([block, lambda x: x + 100.0]), falling(10), reuse_interval=3, **EVERY)
    inputs = [1.0, 2.0, 2.125, 2.25, 2.5]
    run.evaluate_all(falling(10)[:5], lambda i: [condition(COND, inputs[i])])
    report = run.block_run.close(True)
    assert run.actions == "CCPCC"
    assert "NaN" in report.steps[2].fault


def test_every_condition_adds_its_own_residual_however_calls_are_batched():
    """cond: x -> x + 4 x, uncond: the same block with other numbers, two rows each."""
    results = []
    for batched in (True, False):
        run = Run(ToyModel([lambda x: 5.0 * x]), falling(10), reuse_interval=1, **EVERY)
        for i, sigma in enumerate([10.0, 9.0, 8.0]):
            rows = [torch.tensor([1.0, 2.0]), torch.tensor([16.0, 32.0])]
            given = [condition(which, (rows[which] + i / 8).reshape(2, 1, 1)) for which in (COND, UNCOND)]
            outputs = run.evaluate(sigma, given) if batched else run.evaluate(sigma, *[[c] for c in given])
        results.append([output.flatten().tolist() for output in outputs])
        run.block_run.close(True)
        assert run.actions == "CCR"
    # inputs at step 2: row + 0.25; residuals of step 1: 4 (row + 0.125)
    assert results[0] == [[1.25 + 4.5, 2.25 + 8.5], [16.25 + 64.5, 32.25 + 128.5]]
    assert results[0] == results[1]


def test_hunyuan_text_is_reused_with_its_own_residual():
    """Double blocks: img x -> 2 x, txt t -> t + 1, both in place. All reused: img x + x_1 (2^2 - 1), txt t + 2."""
    run = Run(ToyHunyuan(), falling(10), reuse_interval=1, **EVERY)
    outputs = run.evaluate_all([10.0, 9.0, 8.0], lambda i: [condition(COND, 1.0 + i / 16)])
    run.block_run.close(True)
    assert run.actions == "CCR"
    first, second = 1.0 + 1 / 16, 1.0 + 2 / 16
    img = second + 3.0 * first  # two double blocks: residuals x and 2 x of the step before
    assert values(outputs[2]) == [img + 8.0 * 4.0 * first]  # two single blocks on 4 x: residuals 8 x and 24 x
    assert values(outputs[1]) == [36.0 * first]


def test_reused_blocks_leave_the_callers_tensors_alone():
    run = Run(ToyModel([lambda x: x + 1.0, lambda x: x + 2.0]), falling(10), reuse_interval=2, **EVERY)
    for i in range(4):
        given = condition(COND, 64.0 + i)
        [output] = run.evaluate(10.0 - i, [given])
        assert given.img.unique().tolist() == [64.0 + i]
        assert values([output]) == [67.0 + i]
        output.fill_(float("nan"))
    run.block_run.close(True)
    assert run.actions == "CCRR"


def test_a_new_condition_computes_every_block_in_its_own_pass():
    run = Run(ToyModel([lambda x: 5.0 * x]), falling(10), reuse_interval=3, **EVERY)
    run.evaluate(10.0, [condition(COND, 1.0)])
    run.evaluate(9.0, [condition(COND, 1.0625)])
    outputs = run.evaluate(8.0, [condition(COND, 1.125)], [condition(UNCOND, 7.0)])
    assert values(outputs) == [1.125 + 4.25, 35.0]
    run.block_run.close(True)
    assert run.actions == "CCP"


def test_what_is_held_is_a_residual_and_a_sample_per_block():
    """6 x 4 float32 are 96 bytes; all 6 tokens are sampled. The features themselves are not kept."""
    run = Run(ToyModel([lambda x: x + 1.0] * 3), falling(10), **EVERY)
    run.evaluate(10.0, [condition(COND, 1.0)])
    assert run.block_run.close(True).steps[0].cache_bytes == 3 * 96 + 3 * 96


def test_one_condition_alone_is_not_copied():
    one, other = torch.ones(1, 2), torch.zeros(1, 2)
    assert joined([one]) is one
    assert joined([one, other]).tolist() == [[1.0, 1.0], [0.0, 0.0]]
