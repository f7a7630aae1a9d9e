"""What the block modes promise on every host and model family: the same tests over the embedded host and ComfyUI."""

from __future__ import annotations

import statistics

import pytest
import torch

from bwcache_pack.bwcache_core.paper import model_pass
from bwcache_pack.bwcache_core.paper.similarity import token_sample
from bwcache_pack.tests.hosts.lab import FORCED, STEPS, difference
from bwcache_pack.tests.hosts.spy import options_of

COND, UNCOND = 0, 1
BLOCK_MODES = ["paper", "per block"]


def off(mode: str) -> dict:
    """Settings under which nothing is reused."""
    return {"mode": mode, "threshold": 0.0}


def half_similar(lab, mode: str) -> dict:
    """Settings of `mode` under which half of the blocks of step 1, or half of the steps, count as similar."""
    changes = lab.once("changes", mode, make=lambda: measured_changes(lab, mode))
    return {"mode": mode, "threshold": statistics.median(changes), "reuse_interval": 1}


def measured_changes(lab, mode: str) -> list[float]:
    cached = lab.cached(mode=mode, threshold=0.0)
    lab.sample(cached.model)
    steps = cached.report.steps
    return list(steps[1].block_changes.values()) if mode == "per block" else [step.change for step in steps[1:]]


@pytest.mark.parametrize("mode", BLOCK_MODES)
def test_output_is_bit_identical_while_nothing_may_be_reused(lab, mode):
    cached = lab.cached(**off(mode))
    assert difference(lab.sample(cached.model), lab.uncached()) == 0.0
    assert cached.actions == ["compute"] * STEPS
    assert cached.report.finished


@pytest.mark.family("wan21_t2v", "wan21_i2v", "wan22_i2v", "wan22_5b", "wan21_vace", "hunyuan", "hunyuan15")
def test_reused_steps_hand_the_last_computed_features_to_the_head(lab):
    """Each condition its own, even when batching changes between the step that computes and the ones that reuse."""
    cached = lab.cached(**FORCED)
    spy, _ = lab.watch(cached.model, one_by_one=lambda evaluation: evaluation in (2, 4))
    assert cached.actions == ["compute"] * 3 + ["reuse"] * 2 + ["compute"] * 3
    assert [e.groups for e in spy.evaluations[2:5]] == [[[UNCOND], [COND]], [[UNCOND, COND]], [[UNCOND], [COND]]]
    kept = spy.evaluations[2]
    assert difference(kept.head(COND), kept.head(UNCOND)) > 0.1, "the test could not tell them apart"
    for evaluation in spy.evaluations[3:5]:
        assert evaluation.blocks_run == 0
        assert difference(evaluation.head(COND), kept.head(COND)) == 0.0
        assert difference(evaluation.head(UNCOND), kept.head(UNCOND)) == 0.0
    assert difference(spy.evaluations[5].head(COND), kept.head(COND)) > 0.0
    assert not any(evaluation.input_written for evaluation in spy.evaluations)


def test_per_block_reuse_adds_each_blocks_last_residual(lab):
    cached = lab.cached(**{**FORCED, "mode": "per block"})
    spy, _ = lab.watch(cached.model, one_by_one=lambda evaluation: evaluation == 2)
    assert cached.actions[3] == "reuse"
    computed, reused = spy.evaluations[2], spy.evaluations[3]
    assert (computed.blocks_run, reused.blocks_run) == (2 * cached.report.block_count, 0)
    for condition in (COND, UNCOND):
        before, now = computed.call_of(condition), reused.call_of(condition)
        for key, left in before.left.items():
            for name in left.keys() & now.left[key].keys():
                residual = before.rows(left[name] - before.entered[key][name], condition)
                entered = now.rows(now.entered[key][name], condition)
                left_now = now.rows(now.left[key][name], condition)
                assert difference(left_now, entered + residual) == 0.0, (key, name)


def test_per_block_runs_exactly_the_blocks_it_does_not_report_as_reused(lab):
    settings = half_similar(lab, "per block")
    cached = lab.cached(**settings)
    spy, _ = lab.watch(cached.model)
    blocks = set(range(cached.report.block_count))
    assert 0 < cached.report.blocks_reused < cached.report.blocks_total
    assert "partial" in cached.actions
    for evaluation, step in zip(spy.evaluations, cached.report.steps, strict=True):
        for call in evaluation.calls:
            assert sorted(call.ran) == sorted(blocks - set(step.reused_blocks))


@pytest.mark.family("wan21_t2v", "wan22_5b", "wan21_vace", "hunyuan")
@pytest.mark.parametrize("mode", BLOCK_MODES)
def test_batching_of_conditions_changes_no_decision(lab, mode):
    settings = half_similar(lab, mode)
    reports, outputs = [], []
    for one_by_one in (None, lambda evaluation: True, lambda evaluation: evaluation % 2 == 0):
        cached = lab.cached(**settings)
        outputs.append(lab.sample(cached.model, one_by_one=one_by_one))
        reports.append(cached.report)
    decisions = [[(step.action, step.reused_blocks) for step in report.steps] for report in reports]
    assert decisions[0] == decisions[1] == decisions[2]
    assert 0 < reports[0].blocks_reused < reports[0].blocks_total
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(outputs[2], outputs[0], rtol=1e-3, atol=1e-3)


@pytest.mark.family("wan21_t2v", "hunyuan")
@pytest.mark.parametrize("mode", BLOCK_MODES)
def test_runs_know_nothing_of_each_other(lab, mode):
    """The same run gives the same latents before and after another seed and another size, as in a second pass."""
    settings = half_similar(lab, mode)
    cached = lab.cached(**settings)
    first = lab.sample(cached.model)
    upscaled = lab.sample(cached.model, noise=lab.noise(seed=2, frames=3, size=6))
    again = lab.sample(cached.model)
    fresh = lab.cached(**settings)
    assert difference(again, first) == 0.0
    assert difference(lab.sample(fresh.model, noise=lab.noise(seed=2, frames=3, size=6)), upscaled) == 0.0
    assert cached.stats.runs[0].blocks_reused > 0
    assert [s.action for s in cached.stats.runs[0].steps] == [s.action for s in cached.stats.runs[2].steps]


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_attaching_leaves_the_model_as_it_was(lab):
    model = lab.plain
    before = lab.sample(model)
    cached = lab.cached(model, **FORCED)
    lab.sample(cached.model)
    assert difference(lab.sample(model), before) == 0.0
    assert not any(model.wrappers.get(point, {}).get("bwcache") for point in model.wrappers)
    assert len(cached.stats.runs) == 1


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_a_second_apply_replaces_the_first(lab):
    first = lab.cached(**FORCED)
    second = lab.cached(first.model, **off("paper"))
    assert difference(lab.sample(second.model), lab.uncached()) == 0.0
    assert len(first.stats.runs) == 0
    assert second.report.blocks_total == STEPS * second.report.block_count


@pytest.mark.family("wan21_t2v")
def test_the_forecast_mode_and_the_block_modes_replace_each_other(lab):
    """Whichever comes last is the only one: no wrapper of the other stays."""
    for first, second in ((FORCED, {"speedup": 1.0}), ({"speedup": 2.0}, off("paper"))):
        before = lab.cached(**first)
        after = lab.cached(before.model, **second)
        points = {point for point, by_key in after.model.wrappers.items() if by_key.get("bwcache")}
        assert points == {point for point, by_key in lab.cached(**second).model.wrappers.items() if by_key.get("bwcache")}
        assert difference(lab.sample(after.model), lab.uncached()) == 0.0
        assert (len(before.stats.runs), len(after.stats.runs)) == (0, 1)


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_a_downstream_clone_keeps_one_state(lab):
    """ComfyUI before 0.14 copies model options deeply on clone, which splits state that lives in them."""
    cached = lab.cached(**FORCED)
    expected = lab.sample(cached.model)
    assert difference(lab.sample(cached.model.clone().clone()), expected) == 0.0
    assert cached.actions[3:5] == ["reuse"] * 2


def other_pack(model, block: tuple[str, int], calls: list):
    """`model` with another pack's hook on one block, which adds to what the block makes."""

    def hook(args, extra):
        calls.append(1)
        out = extra["original_block"](args)
        return {**out, "img": out["img"] + torch.linspace(-1.0, 1.0, out["img"].shape[-1])}

    model = model.clone()
    model.set_model_patch_replace(hook, "dit", *block)
    return model


@pytest.mark.family("wan21_t2v", "hunyuan")
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("mode", BLOCK_MODES)
def test_another_packs_block_hook_is_called_on_computed_steps(lab, order, mode):
    block = ("double_block", 1)
    expected = lab.sample(other_pack(lab.plain, block, []))
    assert difference(expected, lab.uncached()) > 0.01, "the other hook does nothing here"
    for settings, count in ((off(mode), STEPS), ({**FORCED, "mode": mode}, STEPS - 2)):
        calls: list = []
        if order == "before":
            cached = lab.cached(other_pack(lab.plain, block, calls), **settings)
            model = cached.model
        else:
            cached = lab.cached(**settings)
            model = other_pack(cached.model, block, calls)
        out = lab.sample(model)
        assert len(calls) == count
        assert (difference(out, expected) == 0.0) == (count == STEPS)


def laid_over(model, block: tuple[str, int], evaluation: int):
    """`model` with wrappers inside ours that put a plain hook over ours on one block, in one evaluation."""
    model, evaluations = model.clone(), []

    def predict_noise(executor, *args, **kwargs):
        evaluations.append(1)
        return executor(*args, **kwargs)

    def lay_over(executor, *args, **kwargs):
        hooks = options_of(args, kwargs).setdefault("patches_replace", {}).setdefault("dit", {})
        if len(evaluations) == evaluation + 1:
            hooks[block] = lambda block_args, extra: extra["original_block"](block_args)
        return executor(*args, **kwargs)

    model.add_wrapper_with_key("predict_noise", "laid_over", predict_noise)
    model.add_wrapper_with_key("diffusion_model", "laid_over", lay_over)
    return model


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_a_hook_laid_over_ours_on_the_last_block_makes_the_step_compute(lab):
    """Blocks of a reused step hand on what entered the first one: without our last hook, that would reach the head."""
    cached = lab.cached(**FORCED)
    spy, _ = lab.watch(laid_over(cached.model, lab.block_keys[-1], evaluation=3))
    assert cached.actions[3] == "compute"
    assert sorted(spy.evaluations[3].calls[-1].ran) == list(range(cached.report.block_count))
    assert cached.actions[:3] == ["compute"] * 3


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_a_hook_laid_over_ours_on_another_block_changes_no_reused_step(lab):
    expected = lab.sample(lab.cached(**FORCED).model)
    cached = lab.cached(**FORCED)
    assert difference(lab.sample(laid_over(cached.model, lab.block_keys[0], evaluation=3)), expected) == 0.0
    assert cached.actions[3] == "reuse"


@pytest.mark.family("wan21_t2v", "wan21_vace", "hunyuan", "hunyuan15")
def test_a_batch_of_two_latents_is_judged_and_reused_row_by_row(lab):
    noise = lab.noise(batch=2)
    assert difference(lab.sample(lab.cached(**off("paper")).model, noise=noise), lab.sample(lab.plain, noise=noise)) == 0.0
    spy, _ = lab.watch(lab.cached(**FORCED).model, noise=noise, one_by_one=lambda evaluation: evaluation == 3)
    for condition in (COND, UNCOND):
        kept, reused = spy.evaluations[2].head(condition), spy.evaluations[3].head(condition)
        assert kept.shape[0] == 2
        assert difference(kept[0], kept[1]) > 0.1
        assert difference(reused, kept) == 0.0
    assert spy.evaluations[3].blocks_run == 0


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_without_guidance_only_one_condition_is_kept(lab):
    cached = lab.cached(**FORCED)
    spy, _ = lab.watch(cached.model, cfg=1.0)
    assert spy.evaluations[3].groups == [[COND]]
    assert spy.evaluations[3].blocks_run == 0
    assert difference(spy.evaluations[3].head(COND), spy.evaluations[2].head(COND)) == 0.0
    assert cached.report.steps[2].conditions.keys() == {"cond"}


@pytest.mark.family("wan21_t2v", "hunyuan")
@pytest.mark.parametrize("mode", BLOCK_MODES)
def test_samplers_with_two_evaluations_a_step_count_steps_not_evaluations(lab, mode):
    cached = lab.cached(**off(mode))
    assert difference(lab.sample(cached.model, sampler="heun"), lab.uncached("heun")) == 0.0
    assert [step.step for step in cached.report.steps] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    reusing = lab.cached(**half_similar(lab, mode))
    assert torch.isfinite(lab.sample(reusing.model, sampler="heun")).all()
    assert reusing.report.blocks_reused > 0


@pytest.mark.family("wan21_t2v")
def test_a_slice_of_a_schedule_has_no_tail_where_another_sampler_goes_on(lab):
    """As KSamplerAdvanced does for the high-noise expert of Wan 2.2: the last steps here are not the last of all."""
    settings = {"mode": "paper", "threshold": 1.0, "reuse_interval": 2, "start_step": 6}
    first_half, second_half = lab.cached(**settings), lab.cached(**settings)
    lab.sample(first_half.model, steps=16, last=8)
    lab.sample(second_half.model, steps=16, first=8)
    assert first_half.actions == ["compute"] * 6 + ["reuse"] * 2
    assert second_half.actions == ["compute"] * 8


@pytest.mark.family("wan21_t2v")
def test_a_run_of_few_steps_is_warned_about(lab):
    cached = lab.cached(mode="paper", threshold=0.1)
    lab.sample(cached.model, steps=4)
    assert any("4 steps" in warning for warning in cached.report.warnings)
    lab.sample(cached.model, steps=8)
    assert cached.report.warnings == []


@pytest.mark.family("wan21_t2v", "hunyuan")
@pytest.mark.parametrize("tokens", [slice(None), slice(13, 14)], ids=["all tokens", "one token that is not sampled"])
@pytest.mark.parametrize("mode", BLOCK_MODES)
def test_broken_features_are_reported_and_never_reused(lab, monkeypatch, mode, tokens):
    """NaN out of the last block, in the evaluation before the ones that would be reused."""
    monkeypatch.setattr(model_pass, "SAMPLED_TOKENS", 4)
    cached = lab.cached(**{**FORCED, "mode": mode})
    assert not {13} & {*token_sample(20, 4), *token_sample(27, 4)}, "Wan has 20 tokens here, HunyuanVideo 7 more of text"
    spy = lab.spy(cached.model)

    def poison(module, args, out):
        if len(spy.evaluations) == 3:
            out = out.clone()
            out[:, tokens] = float("nan")
        return out

    handle = spy.blocks[-1].register_forward_hook(poison)
    try:
        with spy.watching():
            lab.sample(spy.model)
    finally:
        handle.remove()
    assert "NaN" in cached.report.steps[2].fault
    assert cached.actions[3] == "compute"
    assert cached.report.finished
