"""A sampling run in the paper's mode, on toy models: what is computed, what is reused, what is held."""

from __future__ import annotations

import gc
import math
import threading
import weakref

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bwcache_pack.bwcache_core.paper import model_pass
from bwcache_pack.bwcache_core.paper.similarity import token_sample
from bwcache_pack.tests.paper.toys import COND, UNCOND, Run, ToyHunyuan, ToyModel, condition, falling

STACK = [lambda x: x * 2.0, lambda x: x * 2.0 + 1.0, lambda x: x * 3.0]  # a number x leaves as 12 x + 3
R_1 = {"reuse_interval": 1}


def stack_of(x: float) -> float:
    return 12.0 * x + 3.0


def noise(seed: int, rows: int = 1, tokens: int = 6) -> torch.Tensor:
    return torch.randn(rows, tokens, 4, generator=torch.Generator().manual_seed(seed))


def slowly(seed: int, i: int, rows: int = 1) -> torch.Tensor:
    """Hidden states that change a little from one evaluation to the next, by a different amount each."""
    return noise(seed, rows) * (1.0 + 0.01 * i)


# Exactness


@pytest.mark.parametrize("mode", ["paper", "per block"])
def test_threshold_0_computes_what_did_not_change_at_all(mode):
    run = Run(ToyModel(STACK), falling(10), mode=mode, threshold=0.0)
    run.evaluate_all(falling(10)[:-1], lambda i: [condition(COND, 1.0)])
    assert [step.change for step in run.block_run.close(True).steps[1:]] == [0.0] * 9
    assert run.actions == "C" * 10


@pytest.mark.parametrize("mode", ["paper", "per block"])
@pytest.mark.parametrize("make_model", [lambda: ToyModel(STACK), ToyHunyuan], ids=["wan", "hunyuan"])
def test_threshold_0_is_bit_identical_to_the_plain_model(make_model, mode):
    run = Run(make_model(), falling(10), mode=mode, threshold=0.0)
    plain = make_model()
    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        cond, uncond = condition(COND, slowly(1, i)), condition(UNCOND, slowly(2, i))
        for given, output in zip([cond, uncond], run.evaluate(sigma, [cond, uncond]), strict=True):
            assert (output - plain(given.img)).abs().max() == 0.0
    report = run.block_run.close(True)
    assert report.evaluations == 10
    assert report.evaluations_reused == report.blocks_reused == 0


@pytest.mark.parametrize("make_model", [lambda: ToyModel(STACK), ToyHunyuan], ids=["wan", "hunyuan"])
def test_reuse_returns_exactly_the_frozen_features_and_runs_no_block(make_model):
    run = Run(make_model(), falling(10), **R_1)
    run.evaluate(10.0, [condition(COND, slowly(1, 0))])
    [computed] = run.evaluate(9.0, [condition(COND, slowly(1, 1))])
    run.model.ran.clear()
    [reused] = run.evaluate(8.0, [condition(COND, slowly(1, 2))])
    assert run.model.ran == []
    assert (reused - computed).abs().max() == 0.0
    [computed_again] = run.evaluate(7.0, [condition(COND, slowly(1, 3))])
    assert torch.equal(computed_again, make_model()(slowly(1, 3)))


def test_what_is_added_in_place_after_the_last_block_counts_once_and_spoils_nothing():
    """As VACE does: `x += c` on what the last block returned. In a reused step it is added to the frozen features."""
    added = iter([1.0, 2.0, 4.0, 8.0])
    run = Run(ToyModel(STACK, after=lambda x: x.add_(next(added))), falling(10), reuse_interval=2)
    outputs = run.evaluate_all([10.0, 9.0, 8.0, 7.0], lambda i: [condition(COND, 1.0)])
    values = [output.unique().tolist() for [output] in outputs]
    assert values == [[15.0 + 1.0], [15.0 + 2.0], [15.0 + 4.0], [15.0 + 8.0]]
    run.block_run.close(True)
    assert run.actions == "CCRR"


def test_outputs_may_be_written_into_by_the_caller():
    run = Run(ToyModel(STACK), falling(10), reuse_interval=3)
    for i, sigma in enumerate([10.0, 9.0, 8.0, 7.0, 6.0]):
        [output] = run.evaluate(sigma, [condition(COND, 1.0 + i / 64)])
        assert output.unique().tolist() == [stack_of(1.0 + min(i, 1) / 64)]
        output.fill_(math.nan)


def test_the_callers_tensors_are_not_modified():
    run = Run(ToyHunyuan(), falling(10), **R_1)
    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        given = [condition(COND, slowly(1, i)), condition(UNCOND, slowly(2, i))]
        before = [c.img.clone() for c in given]
        run.evaluate(sigma, given)
        assert all(torch.equal(c.img, was) for c, was in zip(given, before, strict=True))


def test_sampled_features_survive_blocks_that_write_in_place():
    """From 1 to 1.5, block 0 goes from 2 to 3 and block 1, in the same storage, from 12 to 13."""
    run = Run(ToyModel([lambda x: x.mul_(2.0), lambda x: x.add_(10.0)]), falling(4), threshold=0.0)
    run.evaluate(4.0, [condition(COND, 1.0)])
    run.evaluate(3.0, [condition(COND, 1.5)])
    assert run.block_run.close(True).steps[1].block_changes == pytest.approx({0: 1 / 2, 1: 1 / 12}, rel=1e-6)


def test_hunyuan_blocks_are_compared_with_the_tokens_they_hold():
    """Image tokens: 2 x, then 4 x. Single blocks hold 2 text tokens of x + 10 + 1 + 1 besides 6 of 4 x: 3 and 9 times."""
    run = Run(ToyHunyuan(), falling(4), threshold=0.0)
    run.evaluate(4.0, [condition(COND, 1.0)])
    run.evaluate(3.0, [condition(COND, 1.5)])
    single = (6 * 4 * 0.5 + 2 * 0.5) / (6 * 4 * 1.0 + 2 * 13.0)
    expected = {0: 0.5, 1: 0.5, 2: single, 3: single}
    assert run.block_run.close(True).steps[1].block_changes == pytest.approx(expected, rel=1e-6)


# Numbers


def test_changes_by_hand():
    run = Run(ToyModel(STACK), falling(4), threshold=0.0)
    run.evaluate(4.0, [condition(COND, 1.0)], [condition(UNCOND, 2.0)])
    run.evaluate(3.0, [condition(COND, 1.5)], [condition(UNCOND, 2.5)])
    first, second = run.block_run.close(True).steps
    assert first.change is None
    assert first.block_changes == {}
    # cond: blocks go 2 -> 3, 5 -> 7, 15 -> 21. uncond: 4 -> 5, 9 -> 11, 27 -> 33. The largest counts.
    assert second.block_changes == pytest.approx({0: 1 / 2, 1: 2 / 5, 2: 6 / 15})
    assert second.conditions == pytest.approx({"cond": 1.3 / 3, "uncond": (1 / 4 + 2 / 9 + 6 / 27) / 3})
    assert second.change == pytest.approx(1.3 / 3)


@pytest.mark.parametrize("mode", ["paper", "per block"])
def test_the_largest_change_of_all_rows_counts(mode):
    """B = 2: the mean over rows would hide the clip that still changes."""
    run = Run(ToyModel(STACK[:1]), falling(4), mode=mode, threshold=0.0)
    run.evaluate(4.0, [condition(COND, torch.tensor([1.0, 4.0]).reshape(2, 1, 1))])
    run.evaluate(3.0, [condition(COND, torch.tensor([1.5, 5.0]).reshape(2, 1, 1))])
    [_, step] = run.block_run.close(True).steps
    assert (step.change, step.block_changes) == (0.5, {0: 0.5})  # rows: 0.5 and 0.25


def test_a_negative_change_counts_as_much_as_a_positive_one():
    run = Run(ToyModel(STACK[:1]), falling(4), threshold=0.0)
    run.evaluate(4.0, [condition(COND, torch.tensor([[[2.0, -2.0]]]))])
    run.evaluate(3.0, [condition(COND, torch.tensor([[[3.0, -3.0]]]))])
    assert run.block_run.close(True).steps[1].change == 0.5


def test_monitored_blocks_only_are_measured():
    run = Run(ToyModel(STACK), falling(4), threshold=0.0, monitor_every=2)
    run.evaluate(4.0, [condition(COND, 1.0)])
    run.evaluate(3.0, [condition(COND, 1.5)])
    assert run.block_run.close(True).steps[1].block_changes == pytest.approx({0: 0.5, 2: 0.4})


def test_block_counters_count_every_pass():
    run = Run(ToyModel(STACK), falling(10), **R_1)
    passes = lambda which: lambda i: [condition(which, 1.0 + which + i / 64)]  # noqa: E731
    run.evaluate_all([10.0, 9.0, 8.0], passes(COND), passes(UNCOND))
    report = run.block_run.close(True)
    assert [(s.blocks_run, s.blocks_total) for s in report.steps] == [(6, 6), (6, 6), (0, 6)]
    assert [s.reused_blocks for s in report.steps] == [[], [], [0, 1, 2]]
    assert (report.blocks_total, report.blocks_reused, report.work_ratio) == (18, 6, 1.5)
    assert len(run.model.ran) == 12


def test_what_is_held_is_reported():
    """One row of 6 x 4 float32: 96 bytes of features, samples of 3 blocks of the same size (all tokens are read)."""
    run = Run(ToyModel(STACK), falling(4), threshold=0.0)
    run.evaluate_all(falling(4)[:3], lambda i: [condition(COND, 1.0)])
    for step in run.block_run.close(True).steps:
        assert step.cache_bytes == 4 * 96  # the last block's sample has two uses, and counts once


# Conditions


def by_condition(run: Run, i: int, sigma: float, batched: bool, swapped: bool = False) -> dict[int, torch.Tensor]:
    """One evaluation of cond and uncond, unlike each other, as one pass or two, in either order."""
    order = [UNCOND, COND] if swapped else [COND, UNCOND]
    given = [condition(which, slowly(which + 1, i, rows=2)) for which in order]
    outputs = run.evaluate(sigma, given) if batched else run.evaluate(sigma, *[[c] for c in given])
    return dict(zip(order, outputs, strict=True))


@pytest.mark.parametrize("batched", [lambda i: True, lambda i: False, lambda i: i % 2 == 0, lambda i: i % 3 == 0])
@pytest.mark.parametrize("swapped", [lambda i: False, lambda i: i % 2 == 0])
def test_every_condition_gets_its_own_features_however_calls_are_batched(batched, swapped):
    """Batched or split, in either order, changing on the way: same decisions, same outputs to the last bit."""
    run, plain = Run(ToyModel(STACK), falling(10), reuse_interval=2), ToyModel(STACK)
    frozen = {}
    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        run.model.ran.clear()
        outputs = by_condition(run, i, sigma, batched(i), swapped(i))
        if run.model.ran:
            frozen = {which: plain(slowly(which + 1, i, rows=2)) for which in (COND, UNCOND)}
        for which, output in outputs.items():
            assert torch.equal(output, frozen[which])
    run.block_run.close(True)
    assert run.actions == "CCRRCRRCRR"


def test_the_changes_do_not_depend_on_the_batching():
    reports = []
    for batched in (True, False):
        run = Run(ToyModel(STACK), falling(6), threshold=0.0)
        for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
            by_condition(run, i, sigma, batched)
        reports.append(run.block_run.close(True))
    for together, apart in zip(reports[0].steps, reports[1].steps, strict=True):
        assert together.block_changes == pytest.approx(apart.block_changes, rel=1e-6)
        assert together.conditions == pytest.approx(apart.conditions, rel=1e-6)


def test_a_condition_that_appears_is_computed():
    run = Run(ToyModel(STACK), falling(10), reuse_interval=3)
    cond = lambda i: condition(COND, 1.0 + i / 64)  # noqa: E731
    run.evaluate(10.0, [cond(0)])
    run.evaluate(9.0, [cond(1)])
    run.model.ran.clear()
    new, old = run.evaluate(8.0, [condition(UNCOND, 5.0)], [cond(2)])
    assert run.model.ran == [0, 1, 2]
    assert old.unique().tolist() == [stack_of(1.0 + 1 / 64)]
    assert new.unique().tolist() == [stack_of(5.0)]
    report = run.block_run.close(True)
    assert report.steps[2].action == "partial"
    assert (report.steps[2].blocks_run, report.steps[2].blocks_total) == (3, 6)
    assert report.steps[2].reused_blocks == []  # none was left out in both passes


def test_a_condition_that_appears_in_a_batch_makes_the_batch_compute():
    run = Run(ToyModel(STACK), falling(10), reuse_interval=3)
    run.evaluate(10.0, [condition(COND, 1.0)])
    run.evaluate(9.0, [condition(COND, 1.125)])
    old, new = run.evaluate(8.0, [condition(UNCOND, 5.0), condition(COND, 1.25)])
    assert [old.unique().tolist(), new.unique().tolist()] == [[stack_of(5.0)], [stack_of(1.25)]]
    step = run.block_run.close(True).steps[2]
    assert step.action == "compute"
    assert "fit" in step.reason


@pytest.mark.parametrize("gap", [1, 2])
def test_a_condition_that_was_away_is_computed_when_it_is_back(gap):
    """A guider that skips uncond for a while, as CFG schedules do: what was held before is too old."""
    run = Run(ToyModel(STACK), falling(20), reuse_interval=9)
    both = lambda i: [condition(COND, 1.0 + i / 512), condition(UNCOND, 2.0 + i / 512)]  # noqa: E731
    run.evaluate(20.0, both(0))
    run.evaluate(19.0, both(1))
    for i in range(2, 2 + gap):
        run.evaluate(20.0 - i, both(i)[:1])
    run.model.ran.clear()
    last = 2 + gap
    cond, uncond = run.evaluate(20.0 - last, both(last)[:1], both(last)[1:])
    assert run.model.ran == [0, 1, 2]
    assert cond.unique().tolist() == [stack_of(1.0 + 1 / 512)]
    assert uncond.unique().tolist() == [stack_of(2.0 + last / 512)]
    assert len(run.block_run.streams) == 2


def test_a_hook_laid_over_the_last_block_makes_the_model_run_again():
    """It would see what blocks passed through, and what stands for them would never come: the call is made anew, computed."""
    run = Run(ToyModel(STACK), falling(10), reuse_interval=3)
    run.evaluate(10.0, [condition(COND, 1.0)])
    run.evaluate(9.0, [condition(COND, 1.125)])
    run.model.ran.clear()
    run.model.overlaid = {2}
    [output] = run.evaluate(8.0, [condition(COND, 1.25)])
    assert output.unique().tolist() == [stack_of(1.25)]
    run.model.overlaid = set()
    [output] = run.evaluate(7.0, [condition(COND, 1.375)])
    assert output.unique().tolist() == [stack_of(1.375)]
    run.block_run.close(True)
    assert run.actions == "CCCC"
    assert run.model.ran == [2, 0, 1, 2, 0, 1, 2]


def test_a_hook_laid_over_another_block_changes_nothing():
    run = Run(ToyModel(STACK), falling(10), reuse_interval=3)
    run.model.overlaid = {1}
    outputs = run.evaluate_all(falling(10)[:3], lambda i: [condition(COND, 1.0 + i / 8)])
    assert outputs[2][0].unique().tolist() == [stack_of(1.125)]
    run.block_run.close(True)
    assert run.actions == "CCR"


@pytest.mark.parametrize(
    "difference",
    [{"uuid": "other"}, {"window": (0, 1, 2)}, {"model": 2}, {"device": "cuda:1"}, {"shape": (1, 16, 5, 4, 4)},
     {"dtype": "bfloat16"}],
)
def test_any_other_identity_is_another_condition(difference):
    run = Run(ToyModel(STACK), falling(10), reuse_interval=3)
    run.evaluate(10.0, [condition(COND, 1.0)], [condition(COND, 7.0, **difference)])
    run.evaluate(9.0, [condition(COND, 1.125)], [condition(COND, 7.25, **difference)])
    outputs = run.evaluate(8.0, [condition(COND, 1.25, **difference)], [condition(COND, 7.5)])
    assert [o.unique().tolist() for o in outputs] == [[stack_of(7.25)], [stack_of(1.125)]]


@pytest.mark.parametrize("batched", [True, False])
def test_the_same_condition_twice_in_an_evaluation_is_kept_apart(batched):
    """Skip-layer guidance runs cond again, under the same uuid: the n-th time is matched with the n-th time."""
    run = Run(ToyModel(STACK), falling(10), reuse_interval=3)
    for i, sigma in enumerate([10.0, 9.0, 8.0, 7.0]):
        given = [condition(COND, 1.0 + i / 64), condition(COND, 4.0 + i / 64)]
        outputs = run.evaluate(sigma, given) if batched else run.evaluate(sigma, *[[c] for c in given])
    assert [o.unique().tolist() for o in outputs] == [[stack_of(1.0 + 1 / 64)], [stack_of(4.0 + 1 / 64)]]
    report = run.block_run.close(True)
    assert run.actions == "CCRR"
    assert set(report.steps[1].conditions) == {"cond", "cond pass 2"}


def test_labels_name_condition_window_and_pass():
    key = condition(UNCOND, 1.0, window=(4, 5, 6)).key
    assert key.label == "uncond frames 4-6"
    assert key._replace(occurrence=1).label == "uncond frames 4-6 pass 2"
    assert condition(3, 1.0).key.label == "condition 3"


# Shapes, errors, threads


@pytest.mark.parametrize("mode", ["paper", "per block"])
@pytest.mark.parametrize("sampled", [256, 2])
def test_another_token_count_is_computed_and_never_compared(monkeypatch, mode, sampled):
    """Conditions limited to a range of steps may change the token count under the same identity."""
    monkeypatch.setattr(model_pass, "SAMPLED_TOKENS", sampled)
    run = Run(ToyModel(STACK), falling(10), mode=mode, reuse_interval=1)
    for i, (sigma, tokens) in enumerate(zip(falling(10), [6, 6, 8, 8, 8, 8], strict=False)):
        run.model.ran.clear()
        [output] = run.evaluate(sigma, [condition(COND, torch.ones(1, tokens, 4) * (1.0 + i / 64))])
        assert output.shape == (1, tokens, 4)
    report = run.block_run.close(True)
    assert run.actions == "CCCCRC"  # 2 was to be reused but does not fit, 3 is compared with 2
    assert report.steps[2].change is None


def test_a_change_of_precision_is_computed():
    run = Run(ToyModel(STACK), falling(10), reuse_interval=3)
    run.evaluate(10.0, [condition(COND, torch.ones(1, 6, 4))])
    run.evaluate(9.0, [condition(COND, torch.ones(1, 6, 4))])
    [output] = run.evaluate(8.0, [condition(COND, torch.ones(1, 6, 4, dtype=torch.bfloat16))])
    assert output.dtype == torch.bfloat16


def spoil(position: tuple, value: float, at_call: int):
    """A last block that spoils one element, the at_call-th time that it runs."""
    calls = []

    def block(x):
        calls.append(None)
        out = x * 3.0
        if len(calls) == at_call:
            out[position] = value
        return out

    return block


@pytest.mark.parametrize("mode", ["paper", "per block"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("token", range(6))
def test_broken_features_are_a_fault_and_never_reused(monkeypatch, mode, value, token):
    """A single element, whether or not its token is among the two that are sampled."""
    monkeypatch.setattr(model_pass, "SAMPLED_TOKENS", 2)
    run = Run(ToyModel([STACK[0], spoil((0, token, 3), value, at_call=2)]), falling(10), mode=mode, reuse_interval=3)
    outputs = run.evaluate_all(falling(10)[:6], lambda i: [condition(COND, 1.0 + i / 64)])
    report = run.block_run.close(True)
    assert report.steps[1].fault.endswith("hold NaN or infinity")
    assert "cond" in report.steps[1].fault
    assert report.steps[1].change is None
    assert [bool(step.fault) for step in report.steps] == [False, True, False, False, False, False]
    assert run.actions == "CCCCRR"  # 2 recovers, 3 is compared with 2
    assert all(torch.isfinite(output).all() for i, [output] in enumerate(outputs) if i != 1)


def test_one_broken_condition_stops_reuse_for_all():
    run = Run(ToyModel([STACK[0], spoil((1, 0, 0), math.nan, at_call=2)]), falling(10), reuse_interval=3)
    for i, sigma in enumerate([10.0, 9.0, 8.0]):
        run.evaluate(sigma, [condition(COND, 1.0 + i / 64), condition(UNCOND, 2.0 + i / 64)])
    report = run.block_run.close(True)
    assert "(uncond)" in report.steps[1].fault
    assert run.actions == "CCC"


def test_features_that_are_all_zero_are_a_fault():
    run = Run(ToyModel([lambda x: x * 0.0]), falling(6))
    run.evaluate_all(falling(6)[:-1], lambda i: [condition(COND, 1.0)])
    report = run.block_run.close(True)
    assert run.actions == "CCCCCC"
    assert all("all zero" in step.fault for step in report.steps)


class Boom(Exception):
    pass


@pytest.mark.parametrize("mode", ["paper", "per block"])
@pytest.mark.parametrize("failing_pass", [0, 1])
@pytest.mark.parametrize("at_evaluation", [1, 2, 3])
def test_after_an_exception_the_next_evaluation_computes(mode, failing_pass, at_evaluation):
    """A caller may catch an error of one evaluation and go on: nothing half done may be reused."""

    def boom(x):
        if armed:
            raise Boom
        return x * 2.0

    armed = []
    run = Run(ToyModel([STACK[0], boom]), falling(12), mode=mode, reuse_interval=1)
    passes = lambda i: ([condition(COND, 1.0 + i / 64)], [condition(UNCOND, 2.0 + i / 64)])  # noqa: E731
    for i in range(at_evaluation):
        run.evaluate(12.0 - i, *passes(i))
    run.block_run.begin_evaluation(torch.tensor([12.0 - at_evaluation]))
    for n, conditions in enumerate(passes(at_evaluation)):
        if n == failing_pass:
            armed.append(True)
            with pytest.raises(Boom):
                model_pass = run.block_run.begin_pass([c.key for c in conditions])
                model_pass.reused = frozenset()  # whatever was decided: it computes, and fails half way
                run.model(conditions[0].img, model_pass.run_block)
            armed.clear()
            break
        run.run_pass(conditions)
    run.model.ran.clear()
    i = at_evaluation + 1
    outputs = run.evaluate(12.0 - i, *passes(i))
    assert len(run.model.ran) == 4
    assert [o.unique().tolist() for o in outputs] == [[4.0 * (1.0 + i / 64)], [4.0 * (2.0 + i / 64)]]
    run.evaluate(12.0 - i - 1, *passes(i + 1))
    run.evaluate(12.0 - i - 2, *passes(i + 2))
    run.block_run.close(True)
    assert run.actions.endswith("CCR")


def test_conditions_may_run_in_threads():
    """ComfyUI runs conditions on several devices in threads: streams and counters stay whole."""
    run = Run(ToyModel(STACK), falling(10), reuse_interval=2)
    models = [ToyModel(STACK) for _ in range(4)]

    def one(i: int, n: int, barrier: threading.Barrier, outputs: dict) -> None:
        given = condition(COND, 1.0 + n + i / 64, device=f"cuda:{n}")
        barrier.wait()
        model_pass = run.block_run.begin_pass([given.key])
        outputs[n] = models[n](given.img, model_pass.run_block)
        run.block_run.finish_pass(model_pass)

    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        run.block_run.begin_evaluation(torch.tensor([sigma]))
        outputs, barrier = {}, threading.Barrier(4)
        threads = [threading.Thread(target=one, args=(i, n, barrier, outputs)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.block_run.end_evaluation()
        if i == 2:
            assert [outputs[n].unique().tolist() for n in range(4)] == [[stack_of(1.0 + n + 1 / 64)] for n in range(4)]
    report = run.block_run.close(True)
    assert run.actions == "CCRRCRRCRR"
    assert all(step.blocks_total == 12 for step in report.steps)


# Cost and life time


def test_one_transfer_per_evaluation(monkeypatch):
    transfers = []
    for name in ("tolist", "item", "__float__", "__int__", "__bool__", "__index__", "numpy", "cpu"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda t, *a, o=original, n=name, **k: (transfers.append(n), o(t, *a, **k))[1]
        )
    run = Run(ToyModel(STACK), falling(10), reuse_interval=2)
    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        run.evaluate(sigma, [condition(COND, 1.0 + i / 64)], [condition(UNCOND, 2.0 + i / 64)])
        assert transfers == ["tolist"]
        transfers.clear()
    run.block_run.close(True)
    assert transfers == []  # the last evaluation was reused: nothing is left to read
    assert run.actions == "CCRRCRRCRR"


@pytest.mark.parametrize("mode", ["paper", "per block"])
def test_places_are_made_once_in_a_run(mode):
    """After the evaluations that fill them, features and residuals stay where they are."""
    run = Run(ToyModel(STACK), falling(10), mode=mode, threshold=0.1)
    places = []
    for i in range(10):
        run.evaluate(10.0 - i, [condition(COND, 1.0 + i / 16), condition(UNCOND, 2.0 + i / 16)])
        held = [buffer for stream in run.block_run.streams.values() for buffer in stream.buffers]
        places.append([buffer.get().data_ptr() for buffer in held])
    assert len(set(places[3])) == len(places[3]) > 0
    assert all(sorted(later) == sorted(places[3]) for later in places[4:])


def test_tokens_are_chosen_once_in_a_run(monkeypatch):
    """Their indices are a copy from the host, which would wait for the device."""
    chosen = []
    monkeypatch.setattr(model_pass, "token_sample", lambda *a: (chosen.append(a), token_sample(*a))[1])
    run = Run(ToyModel(STACK), falling(10), threshold=0.0)
    run.evaluate_all(falling(10)[:4], lambda i: [condition(COND, 1.0)], lambda i: [condition(UNCOND, 1.0)])
    assert chosen == [(6, 256)]


class Born(TorchFunctionMode):
    """Remembers every tensor made while it is active, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[weakref.ref] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.tensors += [weakref.ref(leaf) for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        return out

    @property
    def alive(self) -> int:
        return sum(tensor() is not None for tensor in self.tensors)


@pytest.mark.parametrize("mode", ["paper", "per block"])
@pytest.mark.parametrize("finished", [True, False])
def test_close_drops_every_tensor(mode, finished):
    with Born() as born:
        run = Run(ToyHunyuan(), falling(10), mode=mode, reuse_interval=2)
        run.evaluate_all(falling(10)[:5], lambda i: [condition(COND, slowly(1, i))])
        assert born.alive > 0
        run.block_run.close(finished)
        assert born.alive == 0
    assert run.block_run.report.finished is finished


def test_close_after_an_exception_drops_every_tensor():
    with Born() as born:
        run = Run(ToyModel([STACK[0], spoil((9, 9, 9), 0.0, at_call=2)]), falling(10))
        run.evaluate(10.0, [condition(COND, 1.0)])
        with pytest.raises(IndexError):
            run.evaluate(9.0, [condition(COND, 1.0)])
        report = run.block_run.close(False)
        gc.collect()  # the traceback
        assert born.alive == 0
    assert report.evaluations == 1


def test_close_drops_what_a_traceback_still_reaches():
    """An error keeps the frames that it passed, and through them the pass and its conditions, until it is reported."""
    with Born() as born:
        run = Run(ToyModel(STACK), falling(10))
        run.evaluate(10.0, [condition(COND, 1.0)])
        run.block_run.begin_evaluation(torch.tensor([9.0]))
        kept = run.block_run.begin_pass([condition(COND, 1.0).key])
        run.block_run.close(False)
        assert born.alive == 0
    assert kept.streams


def test_conditions_that_left_are_dropped():
    run = Run(ToyModel(STACK), falling(10))
    run.evaluate(10.0, [condition(COND, 1.0), condition(UNCOND, 2.0)])
    assert len(run.block_run.streams) == 2
    run.evaluate(9.0, [condition(COND, 1.0)])
    assert [key.condition for key in run.block_run.streams] == [COND]


def test_two_runs_in_a_row_are_equal():
    reports, outputs = [], []
    for _ in range(2):
        run = Run(ToyModel(STACK), falling(10), reuse_interval=2)
        outputs.append(torch.stack([o for i, s in enumerate(falling(10)[:-1])
                                    for o in by_condition(run, i, s, i % 2 == 0).values()]))
        report = run.block_run.close(True).to_dict()
        for step in report["steps"]:
            del step["seconds"]
        reports.append({k: v for k, v in report.items() if k not in ("seconds", "speedup")})
    assert torch.equal(outputs[0], outputs[1])
    assert reports[0] == reports[1]


def test_every_evaluation_is_told_once_and_in_order():
    run = Run(ToyModel(STACK), falling(10))
    told = []
    run.block_run.on_step = lambda step: told.append((step.evaluation, step.blocks_total))
    run.evaluate_all(falling(10)[:4], lambda i: [condition(COND, 1.0)])
    assert told == [(0, 3), (1, 3), (2, 3)]  # an evaluation is closed when the next begins
    run.block_run.close(True)
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_last_step_is_known_to_be_the_last_when_it_is_told():
    run, last = Run(ToyModel(STACK), falling(4)), []
    run.block_run.on_step = lambda step: last.append(run.block_run.report.finished)
    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        run.evaluate(sigma, [condition(COND, slowly(1, i))])
    run.block_run.close(True)
    assert last == [False, False, False, True]


def test_a_pass_without_hooks_counts_as_computed():
    """A model may leave out its block hooks in some calls: it ran, and nothing is known of it."""
    run = Run(ToyModel(STACK), falling(10))
    run.block_run.begin_evaluation(torch.tensor([10.0]))
    run.block_run.finish_pass(run.block_run.begin_pass([condition(COND, 1.0).key]))
    run.block_run.end_evaluation()
    [step] = run.block_run.close(True).steps
    assert (step.action, step.blocks_run, step.blocks_total) == ("compute", 3, 3)


@pytest.mark.parametrize("mode", ["paper", "per block"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_can_be_cached(mode, dtype):
    run = Run(ToyModel(STACK), falling(10), mode=mode, **R_1)
    outputs = run.evaluate_all(falling(10)[:4], lambda i: [condition(COND, noise(1).to(dtype))])
    run.block_run.close(True)
    assert "R" in run.actions
    assert {output.dtype for [output] in outputs} == {dtype}


# Steps


def test_samplers_are_placed_by_sigma_not_by_count():
    """heun evaluates both ends of a step; the report says where each evaluation stood."""
    run = Run(ToyModel(STACK[:1]), [10.0, 6.0, 3.0, 1.0, 0.0], threshold=0.0)
    run.evaluate_all([10.0, 6.0, 6.0, 3.0, 3.0, 1.0, 1.0], lambda i: [condition(COND, 1.0 + i)])
    report = run.block_run.close(True)
    assert [step.step for step in report.steps] == [0, 1, 1, 2, 2, 3, 3]
    assert [step.sigma for step in report.steps] == [10.0, 6.0, 6.0, 3.0, 3.0, 1.0, 1.0]
    # Twice at a sigma is no change between steps: each step's first evaluation is held against the first before it.
    assert [step.change for step in report.steps] == [None, 1.0, None, 1.0, None, 0.5, None]


@pytest.mark.parametrize(
    ("sigmas", "expected"),
    [
        (falling(12), "CCCCCCRCRCCC"),
        ([s + 1.0 for s in falling(12)], "CCCCCCRCRCRC"),
        (falling(12)[::-1], "CCCCCCRCRCRC"),
    ],
    ids=["to zero", "handed over", "flipped"],
)
def test_any_schedule_can_be_cached(sigmas, expected):
    """Similar from step 5 on: a run that ends at sigma 0 has a tail of 2, the others have none."""
    run = Run(ToyModel(STACK), sigmas, reuse_interval=1)
    run.evaluate_all(sigmas[:-1], lambda i: [condition(COND, 100.0 + (i if i >= 4 else 50.0 * (-1) ** i))])
    report = run.block_run.close(True)
    assert [step.step for step in report.steps] == list(range(12))
    assert run.actions == expected


@pytest.mark.parametrize(
    ("steps", "settings", "words"),
    [
        (4, {}, "4 steps"),
        (20, {"start_step": 25}, "leave no step"),
        (20, {"start_step": 25, "end_step": 30}, "leave no step"),
        (20, {"start_step": -30, "end_step": -25}, "leave no step"),
        (20, {"end_step": -25}, "leave no step"),
        (20, {"start_step": -3, "end_step": 5}, "leave no step"),
    ],
)
def test_a_run_that_cannot_be_cached_well_is_warned_of(steps, settings, words):
    [warning] = Run(ToyModel(STACK), falling(steps), **settings).block_run.report.warnings
    assert words in warning


def test_an_ordinary_run_is_not_warned_of():
    assert Run(ToyModel(STACK), falling(20), start_step=2, end_step=-2).block_run.report.warnings == []


# What is no run


@pytest.mark.parametrize("sigmas", [[math.nan, 1.0, 0.0], [math.inf, 1.0, 0.0], [1.0]])
def test_a_schedule_that_is_none_is_refused_before_the_run(sigmas):
    with pytest.raises(ValueError, match="the schedule has"):
        Run(ToyModel(STACK), sigmas)


@pytest.mark.parametrize("sigma", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at_evaluation", [0, 3])
def test_a_sigma_that_is_no_number_leaves_the_plain_model(sigma, at_evaluation):
    """The host gives up then, and runs what follows without the cache: nothing may be counted, or go on."""
    run = Run(ToyModel(STACK), falling(10), reuse_interval=2)
    for i in range(at_evaluation):
        run.evaluate(10.0 - i, [condition(COND, 1.0 + i / 64)])
    with pytest.raises(ValueError, match="sigma is") as raised:
        run.block_run.begin_evaluation(torch.tensor([sigma]))
    run.block_run.give_up(raised.value)
    run.block_run.count_plain_pass()
    assert run.block_run.position is None
    assert not run.block_run.streams
    report = run.block_run.close(True)
    assert report.evaluations == at_evaluation
    assert report.stopped == f"the cache gave up in evaluation {at_evaluation + 1}"
    assert f"sigma is {sigma}" in report.warnings[-1]


@pytest.mark.parametrize("mode", ["paper", "per block"])
@pytest.mark.parametrize("begins", [0, 1])
def test_a_model_under_gradients_gets_no_cache(mode, begins):
    """From evaluation `begins` on a weight is trained: outputs and gradients are the plain model's."""
    weight = torch.tensor(2.0)
    run = Run(ToyModel([lambda x: x * weight, lambda x: x + 100.0]), falling(10), mode=mode, reuse_interval=3)
    for i in range(6):
        weight.requires_grad_(i >= begins)
        weight.grad = None
        [output] = run.evaluate(10.0 - i, [condition(COND, 1.0 + i / 64)])
        if i >= begins:
            assert torch.equal(output, torch.full((1, 6, 4), 2.0 * (1.0 + i / 64) + 100.0))
            output.sum().backward()
            assert weight.grad == 6 * 4 * (1.0 + i / 64)
            assert not any(stream.nbytes for stream in run.block_run.streams.values())
    report = run.block_run.close(True)
    assert run.actions == "CCCCCC"
    assert report.stopped and [warning for warning in report.warnings if "gradients go through the model" in warning]


def test_a_model_whose_weights_could_be_trained_is_cached_without_gradients():
    weight = torch.tensor(2.0, requires_grad=True)
    run = Run(ToyModel([lambda x: x * weight]), falling(10), reuse_interval=1)
    with torch.no_grad():
        run.evaluate_all(falling(10)[:4], lambda i: [condition(COND, 1.0 + i / 64)])
    run.block_run.close(True)
    assert run.actions == "CCRC"
