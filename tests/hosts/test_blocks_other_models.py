"""Models other than Wan and HunyuanVideo: what the block modes promise, on a small instance of each."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.nodes.families import FAMILIES, UnsupportedModelError
from bwcache_pack.tests.hosts.instances import INSTANCES, SmallLab, supported_class
from bwcache_pack.tests.hosts.lab import FORCED, STEPS, difference
from bwcache_pack.tests.hosts.test_blocks_contract import BLOCK_MODES, half_similar, off

pytestmark = pytest.mark.comfyui
COND, UNCOND = 0, 1
UNHOOKED = ("kandinsky5", "lumina2", "cosmos_predict2")
HOOKED = [name for name in INSTANCES if name not in UNHOOKED]


@pytest.fixture
def small(request, comfyui) -> SmallLab:
    instance = INSTANCES[request.param]
    if supported_class(instance) is None:
        pytest.skip(f"this ComfyUI has no {instance.supported}")
    return SmallLab(comfyui, request.param)


def on(*names: str):
    return pytest.mark.parametrize("small", names, indirect=True)


@on(*HOOKED)
def test_output_is_bit_identical_while_nothing_may_be_reused(small):
    plain = small.sample(small.plain)
    for mode in BLOCK_MODES:
        cached = small.cached(**off(mode))
        assert difference(small.sample(cached.model), plain) == 0.0
        assert cached.actions == ["compute"] * STEPS
        assert cached.report.blocks_total == STEPS * cached.report.block_count


@on(*HOOKED)
def test_reused_steps_hand_the_last_computed_features_to_the_head(small):
    """Each condition its own, even when batching changes between the step that computes and the ones that reuse."""
    cached = small.cached(**FORCED)
    spy, out = small.watch(cached.model, one_by_one=lambda evaluation: evaluation in (2, 4))
    assert torch.isfinite(out).all()
    assert cached.actions == ["compute"] * 3 + ["reuse"] * 2 + ["compute"] * 3
    last, kept = small.block_keys[-1], spy.evaluations[2]
    features = [{who[0]: rows for who, rows in e.features(last).items()} for e in spy.evaluations[:5]]
    for evaluation, left in zip(spy.evaluations[3:5], features[3:], strict=True):
        assert evaluation.blocks_run == 0
        for condition in (COND, UNCOND):
            assert difference(left[condition], features[2][condition]) == 0.0
            if small.recipe.head:
                assert difference(evaluation.head(condition), kept.head(condition)) == 0.0
    assert difference(features[2][COND], features[2][UNCOND]) > 0.01, "the test could not tell them apart"
    assert difference(features[2][COND], features[1][COND]) > 0.0
    assert not any(evaluation.input_written for evaluation in spy.evaluations)


@on(*HOOKED)
def test_per_block_reuse_adds_each_blocks_last_residual(small):
    cached = small.cached(**{**FORCED, "mode": "per block"})
    spy, out = small.watch(cached.model, one_by_one=lambda evaluation: evaluation == 2)
    assert torch.isfinite(out).all()
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


@on(*HOOKED)
def test_per_block_runs_exactly_the_blocks_it_does_not_report_as_reused(small):
    cached = small.cached(**half_similar(small, "per block"))
    spy, _ = small.watch(cached.model)
    blocks = set(range(cached.report.block_count))
    assert 0 < cached.report.blocks_reused < cached.report.blocks_total
    for evaluation, step in zip(spy.evaluations, cached.report.steps, strict=True):
        for call in evaluation.calls:
            assert sorted(call.ran) == sorted(blocks - set(step.reused_blocks))


@on(*UNHOOKED)
@pytest.mark.parametrize("mode", BLOCK_MODES)
def test_a_model_without_block_hooks_is_refused_and_sent_to_forecast(small, mode):
    with pytest.raises(UnsupportedModelError, match="Mode forecast serves every model"):
        small.cached(mode=mode)


@on("kandinsky5")
def test_a_block_hook_of_kandinsky_cannot_call_the_block(small):
    """It passes x= to a block that calls it visual_embed. Once this fails, families.py can have a row for it."""
    model = small.plain
    model.set_model_patch_replace(lambda args, extra: {"x": extra["original_block"](args)}, "dit", "double_block", 0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'x'"):
        small.sample(model)


def with_control(small: SmallLab, strength_of):
    """The plain model with a control, of strength_of(evaluation), after each of its blocks that take one."""
    model, evaluations = small.plain, []
    adds: dict[str, list] = {}

    def predict_noise(executor, *args, **kwargs):
        evaluations.append(1)
        return executor(*args, **kwargs)

    def apply_model(executor, x, t, c_concat, c_crossattn, control, *args, **kwargs):
        strength = strength_of(len(evaluations) - 1)
        control = {kind: [strength * add.expand(len(x), -1, -1) for add in parts] for kind, parts in adds.items()}
        return executor(x, t, c_concat, c_crossattn, control, *args, **kwargs)

    tokens, width = image_tokens(small)
    generator = torch.Generator().manual_seed(3)
    for kind in ("input", "output"):
        attribute = small.recipe.attributes[0 if kind == "input" else -1]
        count = len(getattr(small.module(), attribute)) if kind in small.recipe.control else 0
        adds[kind] = [torch.randn(1, tokens, width, generator=generator) for _ in range(count)]
    model.add_wrapper_with_key("predict_noise", "control", predict_noise)
    model.add_wrapper_with_key("apply_model", "control", apply_model)
    last = adds[small.recipe.control[-1]][-1]
    return model, last


def image_tokens(small: SmallLab) -> tuple[int, int]:
    """Number and width of the hidden states of the image in the first block."""
    spy, _ = small.watch(small.cached(**off("paper")).model, steps=1)
    features = spy.evaluations[0].calls[0].entered[small.block_keys[0]]["img"]
    return features.shape[1:]


@on(*[name for name in INSTANCES if INSTANCES[name].control])
def test_a_control_after_the_last_block_acts_once_in_reused_steps_too(small):
    """With the strength that it has by then. What is kept is the features without it."""
    def controlled():
        return with_control(small, lambda evaluation: 0.1 if evaluation < 3 else 0.3)

    (model, add), (watched, _), (reused, _) = controlled(), controlled(), controlled()
    plain = small.sample(model)
    assert difference(plain, small.sample(small.plain)) > 0.01, "the control does nothing here"
    assert difference(small.sample(small.cached(watched, **off("paper")).model), plain) == 0.0
    cached = small.cached(reused, **FORCED)
    spy, _ = small.watch(cached.model)
    assert cached.actions[3:5] == ["reuse"] * 2
    if not small.recipe.head:
        return
    for condition in (COND, UNCOND):
        kept = spy.evaluations[2].head(condition)
        for evaluation in spy.evaluations[3:5]:
            torch.testing.assert_close(evaluation.head(condition), kept + 0.2 * add, rtol=1e-4, atol=1e-4)


def test_every_row_has_an_instance_or_a_recipe(comfyui):
    """Wan and HunyuanVideo: recipes.py and test_blocks_families.py. MiniMax-H3, which takes one prompt: tests/matrix."""
    made = {type(SmallLab(comfyui, name).module()).__name__ for name in HOOKED if supported_class(INSTANCES[name])}
    others = {name for name in FAMILIES if "Wan" not in name and name not in ("HunyuanVideo", "MiniMaxH3Model")}
    if all(supported_class(instance) for instance in map(INSTANCES.get, HOOKED)):
        assert made == others
    assert made <= others
