"""What ComfyUI alone can do to a cache of blocks: areas, ranges, windows, guidance passes, samplers, controls, other caches."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.tests.hosts.lab import FORCED, difference
from bwcache_pack.tests.matrix.variants import constant_control

pytestmark = [pytest.mark.comfyui, pytest.mark.family("wan21_t2v")]
OFF = {"mode": "paper", "threshold": 0.0}
ALWAYS = {"mode": "paper", "threshold": 1.0, "reuse_interval": 1}  # every other step


def prompt(lab, seed: int, **extra) -> list:
    text = torch.randn(1, 7, lab.recipe.text, generator=torch.Generator().manual_seed(seed))
    return lab.host.prompt(lab.family, text, 5, 4, **extra)


def check(lab, model, settings: dict, **request):
    """Sample with `settings` over `model`: off changes nothing, and what is reused is each condition's own past.

    Returns the spy and the cached model. Features of a reused evaluation equal those of the one before, bit by bit.
    """
    plain = lab.sample(model, **request)
    assert difference(lab.sample(lab.cached(model, **OFF).model, **request), plain) == 0.0
    cached = lab.cached(model, **settings)
    spy, out = lab.watch(cached.model, **request)
    assert torch.isfinite(out).all()
    reused = [e for e, step in enumerate(cached.report.steps) if step.action == "reuse"]
    last = lab.block_keys[-1]
    for evaluation in reused:
        now, before = spy.evaluations[evaluation].features(last), spy.evaluations[evaluation - 1].features(last)
        assert now.keys() == before.keys()
        assert [difference(now[who], before[who]) for who in now] == [0.0] * len(now)
        assert spy.evaluations[evaluation].blocks_run == 0
    return spy, cached


def all_differ(features: dict) -> bool:
    """No two conditions hold the same, so a mix-up would show."""
    return all(
        difference(a, b) > 0.01
        for i, a in enumerate(features.values())
        for b in list(features.values())[:i]
        if a.shape == b.shape
    )


def test_an_area_prompt_shares_its_name_between_cond_and_uncond(lab):
    """ComfyUI gives the negative prompt a copy of the area, name and all."""
    positive = prompt(lab, 1) + prompt(lab, 2, area=(2, 4, 0, 0))
    spy, cached = check(lab, lab.plain, FORCED, prompts=(positive, prompt(lab, 3)))
    features = spy.evaluations[3].features(lab.block_keys[-1])
    assert cached.actions[3] == "reuse"
    assert len(features) == 4
    assert len({who[1] for who in features}) < len(features)
    assert all_differ(features)


def guidance_by_evaluation(lab, cfg_of):
    """The plain model under a guidance schedule; at 1 the negative prompt does not run."""
    model, count = lab.plain, iter(range(1_000))

    def predict_noise(executor, *args, **kwargs):
        executor.class_obj.set_cfg(cfg_of(next(count)))
        return executor(*args, **kwargs)

    model.add_wrapper_with_key("predict_noise", "guidance", predict_noise)
    return model


def test_a_negative_prompt_that_comes_back_is_computed(lab):
    """What it left behind is older than what the positive prompt would be reused from."""
    model = guidance_by_evaluation(lab, lambda evaluation: 1.0 if evaluation in (3, 4) else 4.0)
    cached = lab.cached(model, **{**FORCED, "reuse_interval": 3, "end_step": 5})
    spy, _ = lab.watch(cached.model)
    assert cached.actions[:6] == ["compute"] * 3 + ["reuse"] * 2 + ["compute"]
    assert sorted(spy.evaluations[5].calls[0].ran) == list(range(len(lab.block_keys)))
    assert "no features that fit" in cached.report.steps[5].reason


def test_a_negative_prompt_that_is_dropped_in_mid_run_hands_nothing_to_its_namesake(lab):
    """Guidance schedules do that. What shared a name with it is then the first of that name in the evaluation."""
    model = guidance_by_evaluation(lab, lambda evaluation: 4.0 if evaluation < 3 else 1.0)
    cached = lab.cached(model, **FORCED)
    positive = prompt(lab, 1) + prompt(lab, 2, area=(2, 4, 0, 0))
    spy, _ = lab.watch(cached.model, prompts=(positive, prompt(lab, 3)))
    last = lab.block_keys[-1]
    before, now = spy.evaluations[2].features(last), spy.evaluations[3].features(last)
    assert cached.actions[3] == "reuse"
    assert (len(before), len(now)) == (4, 2)
    assert all_differ(before)
    assert [difference(now[who], before[who]) for who in now] == [0.0] * 2


def test_two_positive_prompts_of_different_length(lab):
    text = torch.randn(1, 5, lab.recipe.text, generator=torch.Generator().manual_seed(4))
    positive = prompt(lab, 1) + lab.host.prompt(lab.family, text, 5, 4)
    spy, cached = check(lab, lab.plain, FORCED, prompts=(positive, prompt(lab, 3)))
    assert cached.actions[3] == "reuse"
    assert all_differ(spy.evaluations[3].features(lab.block_keys[-1]))


@pytest.mark.parametrize("ending_first", [True, False])
def test_a_prompt_that_ends_in_mid_run_hands_nothing_to_the_other(lab, ending_first):
    """Two positive prompts, one of which ends with the last computed step: what is left is found by its name."""
    ending, staying = prompt(lab, 1, start_percent=0.0, end_percent=2.5 / 8), prompt(lab, 2)
    positive = ending + staying if ending_first else staying + ending
    cached = lab.cached(**FORCED)
    spy, _ = lab.watch(cached.model, prompts=(positive, prompt(lab, 3)))
    last = lab.block_keys[-1]
    before, now = spy.evaluations[2].features(last), spy.evaluations[3].features(last)
    assert (len(before), len(now)) == (3, 2)
    assert all_differ(before)
    assert cached.actions[3] == "reuse"
    assert [difference(now[who], before[who]) for who in now] == [0.0] * 2


def test_a_prompt_that_starts_in_mid_run_is_computed_first(lab):
    """Timestep ranges: one prompt takes over from another, with an evaluation where both are active."""
    positive = prompt(lab, 1, start_percent=0.0, end_percent=0.3) + prompt(lab, 2, start_percent=0.3, end_percent=1.0)
    spy, cached = check(lab, lab.plain, {**ALWAYS, "reuse_interval": 7}, prompts=(positive, prompt(lab, 3)), steps=12)
    names = [frozenset(who[1] for who in e.features(lab.block_keys[-1])) for e in spy.evaluations]
    newcomers = [e for e in range(1, 12) if names[e] - names[e - 1]]
    assert newcomers
    assert all(cached.actions[e] in ("compute", "partial") for e in newcomers)
    assert cached.report.evaluations_reused > 0


@pytest.mark.parametrize(
    ("schedule", "frames"), [("standard_static", 9), ("batched", 9), ("standard_uniform", 9), ("standard_uniform", 12)]
)
def test_context_windows_keep_their_features_apart(lab, schedule, frames):
    """All windows share the names of the prompts.

    Uniform windows move from step to step: over 9 frames mostly to places without a past, over 12 they change order.
    """
    windows = {"context_length": 13, "context_overlap": 4, "context_schedule": schedule, "context_stride": 1,
               "closed_loop": False, "fuse_method": "pyramid", "freenoise": False}
    model = lab.host.node("nodes_context_windows", "WanContextWindowsManualNode", model=lab.plain, **windows)
    spy, cached = check(lab, model, ALWAYS, noise=lab.noise(frames=frames))
    features = spy.evaluations[3].features(lab.block_keys[-1])
    assert len({who[2] for who in features}) > 1
    assert all_differ(features)
    if (schedule, frames) != ("standard_uniform", 9):
        assert cached.report.evaluations_reused > 0


@pytest.mark.family("wan21_t2v", "hunyuan")
@pytest.mark.parametrize("order", ["before", "after"])
def test_skip_layer_guidance_is_a_condition_of_its_own(lab, order):
    """SkipLayerGuidanceDiT runs the cond again, name and sigma alike, with hooks of its own on the skipped layers."""

    def guided(model):
        inputs = {"scale": 3.0, "start_percent": 0.0, "end_percent": 1.0, "double_layers": "1", "single_layers": ""}
        return lab.host.node("nodes_slg", "SkipLayerGuidanceDiT", model=model, **inputs)

    def sample_watched(settings):
        cached = lab.cached(guided(lab.plain) if order == "before" else None, **settings)
        spy, out = lab.watch(cached.model if order == "before" else guided(cached.model))
        return cached, spy, out

    _, _, out = sample_watched(OFF)
    assert difference(out, lab.sample(guided(lab.plain))) == 0.0
    cached, spy, _ = sample_watched(FORCED)
    last = lab.block_keys[-1]
    kept, reused = spy.evaluations[2].features(last), spy.evaluations[3].features(last)
    assert cached.actions[3] == "reuse"
    assert spy.evaluations[3].blocks_run == 0
    assert len(reused) == 3
    assert all_differ(reused)
    assert kept.keys() == reused.keys()
    assert [difference(kept[who], reused[who]) for who in kept] == [0.0] * 3
    assert spy.evaluations[2].blocks_run == 2 * len(lab.block_keys) - 1


def test_a_guider_with_a_second_model_keeps_both_apart(lab):
    """DualModelGuider runs the negative prompt on another model, as a cond of the first."""
    try:
        from comfy_extras.nodes_custom_sampler import DualModelGuider
    except ImportError:
        pytest.skip("DualModelGuider came with ComfyUI 0.24")
    other = lab.host.load(lab.family)
    with torch.no_grad():
        for parameter in lab.module(other).blocks.parameters():
            parameter.mul_(1.1)

    def run(model):
        positive, negative = lab.prompts()
        guider = DualModelGuider.execute(model, positive, 4.0, other, negative).args[0]
        return lab.host.run(guider, lab.noise(), lab.sigmas(), "euler")

    assert difference(run(lab.cached(**OFF).model), run(lab.plain)) == 0.0
    cached = lab.cached(**FORCED)
    spy = lab.spy(cached.model)
    run(spy.model)
    last = lab.block_keys[-1]
    kept, reused = spy.evaluations[2].features(last), spy.evaluations[3].features(last)
    assert cached.actions[3] == "reuse"
    assert len({who[3] for who in reused}) == 2
    assert kept.keys() == reused.keys()
    assert [difference(kept[who], reused[who]) for who in kept] == [0.0] * 2
    assert all_differ(reused)


def test_a_lora_on_one_prompt_runs_it_in_a_call_of_its_own(lab):
    """Hooks change weights between the model calls of one evaluation."""
    import comfy.hooks

    generator = torch.Generator().manual_seed(9)
    name = "diffusion_model.blocks.0.ffn.0"
    lora = {f"{name}.lora_up.weight": torch.randn(256, 4, generator=generator),
            f"{name}.lora_down.weight": torch.randn(4, 128, generator=generator)}
    hooks = comfy.hooks.create_hook_lora(lora=lora, strength_model=1.0, strength_clip=1.0)
    positive = comfy.hooks.set_hooks_for_conditioning(prompt(lab, 1), hooks=hooks)
    prompts = (positive, prompt(lab, 3))
    assert difference(lab.sample(lab.plain, prompts=prompts), lab.sample(lab.plain, prompts=(prompt(lab, 1), prompts[1]))) > 0.01
    spy, cached = check(lab, lab.plain, FORCED, prompts=prompts)
    assert cached.actions[3] == "reuse"
    assert sorted(spy.evaluations[2].groups) == [[0], [1]]
    assert all_differ(spy.evaluations[3].features(lab.block_keys[-1]))


@pytest.mark.parametrize(("node", "name"), [("EasyCacheNode", "EasyCache"), ("LazyCacheNode", "LazyCache")])
@pytest.mark.parametrize("order", ["before", "after"])
def test_another_cache_on_the_same_model_is_warned_about(lab, node, name, order):
    inputs = {"reuse_threshold": 0.0, "start_percent": 0.15, "end_percent": 0.95, "verbose": False}
    cached = lab.cached(lab.host.node("nodes_easycache", node, model=lab.plain, **inputs) if order == "before" else None,
                        **OFF)
    model = cached.model
    if order == "after":
        model = lab.host.node("nodes_easycache", node, model=model, **inputs)
    lab.sample(model)
    assert cached.report.rivals == [name]


def test_a_cache_that_wraps_the_model_call_is_warned_about(lab):
    def model_function(apply_model, call):
        return apply_model(call["input"], call["timestep"], **call["c"])

    model_function.__module__ = "custom_nodes.ComfyUI-TeaCache.nodes"
    model = lab.plain
    model.set_model_unet_function_wrapper(model_function)
    cached = lab.cached(model, **OFF)
    lab.sample(cached.model)
    assert "TeaCache" in cached.report.rivals


@pytest.mark.family("wan21_vace_last")
@pytest.mark.parametrize("cfg", [4.0, 1.0])
def test_vace_adds_after_the_last_block_act_once_on_reused_steps(lab, cfg):
    """What reaches the head is the kept feature plus what VACE makes of this very step; the kept one stays clean.

    With one condition as with two: those are put together into a new tensor, a single one need not be.
    """
    skips, calls, module = [], [], lab.module()
    handles = [block.register_forward_hook(lambda m, a, out: skips.append(out[0].clone())) for block in module.vace_blocks]
    handles.append(module.register_forward_pre_hook(lambda m, a, k: calls.append((a, k)), with_kwargs=True))
    try:
        spy, _ = lab.watch(lab.cached(**FORCED).model, cfg=cfg)
        per_call = len(skips) // len(calls)
        by_call = [skips[i : i + per_call] for i in range(0, len(skips), per_call)]
        kept = spy.evaluations[2].calls[0].produced[len(lab.block_keys) - 1]
        for evaluation in (3, 4):
            first, second = by_call[evaluation][-2:]
            reached = spy.evaluations[evaluation].calls[0].head
            assert difference(reached, kept + first * 1.0 + second * 0.5) == 0.0
        skips.clear()
        arguments, named = calls[3]
        with torch.inference_mode():
            module(*arguments, **{**named, "transformer_options": {}})
    finally:
        for handle in handles:
            handle.remove()
    plain = [difference(ours, theirs) for ours, theirs in zip(by_call[3], skips, strict=True)]
    assert plain == [0.0] * per_call, "VACE blocks saw something else than in a computed step"


@pytest.mark.family("hunyuan", "hunyuan15")
@pytest.mark.parametrize("cfg", [4.0, 1.0])
def test_hunyuan_control_adds_after_the_last_block_act_once_on_reused_steps(lab, cfg):
    tokens = 5 * (2 * 2 if lab.family == "hunyuan" else 4 * 4)
    pattern = torch.randn(1, tokens, 128, generator=torch.Generator().manual_seed(6))
    control = constant_control(pattern)
    prompts = [[(text, {**extra, "control": control}) for text, extra in prompt] for prompt in lab.prompts()]
    plain = lab.sample(lab.plain, prompts=prompts)
    assert difference(plain, lab.sample(lab.plain)) > 0.01
    assert difference(lab.sample(lab.cached(**OFF).model, prompts=prompts), plain) == 0.0
    spy, _ = lab.watch(lab.cached(**FORCED).model, prompts=prompts, cfg=cfg)
    kept = spy.evaluations[2]
    for reused in spy.evaluations[3:5]:
        assert reused.blocks_run == 0
        moved = pattern * (reused.sigma - kept.sigma)
        torch.testing.assert_close(reused.head(0) - kept.head(0), moved, rtol=1e-4, atol=1e-5)


def test_a_latent_of_odd_size_is_padded_and_cached(lab):
    noise = lab.noise(size=5)
    check(lab, lab.plain, FORCED, noise=noise, prompts=lab.prompts())


def test_the_ksampler_node_runs_as_the_suite_does(lab):
    """nodes.common_ksampler, as the KSampler and KSampler Advanced nodes call it, decides as this suite's own loop."""
    positive, negative = lab.prompts()
    latent = {"samples": torch.zeros_like(lab.noise())}
    cached = lab.cached(**ALWAYS)
    with torch.inference_mode():
        lab.host.nodes.common_ksampler(cached.model, 1, 8, 4.0, "euler", "simple", positive, negative, latent)
        whole = cached.actions
        lab.host.nodes.common_ksampler(
            cached.model, 1, 8, 4.0, "euler", "simple", positive, negative, latent, start_step=2, last_step=6
        )
    lab.sample(cached.model)
    assert whole == cached.actions
    assert len(cached.stats.runs[1].steps) == 4
    assert "reuse" in whole
