"""What acts in reused steps, and what makes a step compute whatever the plan says: prompts, controls, hooks, guidance."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.tests.hosts.calls import Calls, Truth, foretold
from bwcache_pack.tests.hosts.lab import STEPS, difference
from bwcache_pack.tests.hosts.spy import held_tensors

pytestmark = [pytest.mark.comfyui, pytest.mark.family("wan21_t2v")]
COMPUTED = [0, 1, 4]
PLAN = {"plan": "0-1 4/8", "threshold": 10.0, "corrector": False}  # of 8 steps, 2, 3, 5, 6 and 7 are reused
REUSED = [n for n in range(STEPS) if n not in COMPUTED]
OTHERS = "conditions that were not there before"


def prompt(lab, seed: int, **extra) -> list:
    text = torch.randn(1, 7, lab.recipe.text, generator=torch.Generator().manual_seed(seed))
    return lab.host.prompt(lab.family, text, 5, 4, **extra)


def ranged(lab, seed: int, start: float, end: float) -> list:
    return prompt(lab, seed, start_percent=start, end_percent=end)


class Changes:
    """Notes what `look` sees in each evaluation of a plain run, and so where it changed."""

    def __init__(self, lab, model, look, point: str = "diffusion_model", **request) -> None:
        self.seen: list[set] = []
        model = model.clone()

        def predict_noise(executor, *args, **kwargs):
            self.seen.append(set())
            return executor(*args, **kwargs)

        def below(executor, *args, **kwargs):
            options = next(a for a in reversed((*kwargs.values(), *args)) if isinstance(a, dict) and "sigmas" in a)
            self.seen[-1] |= set(look(options))
            return executor(*args, **kwargs)

        model.add_wrapper_with_key("predict_noise", "changes", predict_noise)
        model.add_wrapper_with_key(point, "changes", below)
        lab.sample(model, **request)

    @property
    def steps(self) -> list[int]:
        return [n for n in range(1, len(self.seen)) if self.seen[n] != self.seen[n - 1]]


@pytest.mark.parametrize("start", [0.2, 0.5, 0.8])
def test_where_a_prompt_takes_over_the_step_computes_and_then_is_reused_again(lab, start):
    prompts = (ranged(lab, 1, 0.0, start) + ranged(lab, 2, start, 1.0), prompt(lab, 3))
    changed = Changes(lab, lab.plain, lambda options: options["uuids"], prompts=prompts).steps
    assert changed, "no prompt takes over here"
    watched = Calls(lab, **PLAN)
    watched.sample(prompts=prompts)
    assert watched.ran == sorted({*COMPUTED, *changed})
    for n in set(changed) - set(COMPUTED):
        assert watched.report.steps[n].reason == OTHERS
    assert watched.report.evaluations_reused >= 3
    off = lab.cached(speedup=1.0)
    assert difference(lab.sample(off.model, prompts=prompts), lab.sample(lab.plain, prompts=prompts)) == 0.0


def control(lab, first: float, last: float, previous=None):
    """A ControlNet that acts from `first` to `last` of a run. Its list `asked` has the sigma of each call."""
    from comfy.controlnet import ControlBase

    class Control(ControlBase):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[float] = []

        def get_control(self, x_noisy, t, cond, batched_number, *transformer_options):
            earlier = None
            if self.previous_controlnet is not None:
                earlier = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, *transformer_options)
            if self.timestep_range is not None and not self.timestep_range[1] <= float(t[0]) <= self.timestep_range[0]:
                return earlier
            self.asked.append(float(t[0]))
            add = torch.full((1, 20, 128), 0.5)
            return {"input": [add] * 4, "output": [add] * 4}

        def copy(self):
            return self

    made = Control()
    made.set_cond_hint(torch.zeros(1, 3, 8, 8), 1.0, (first, last))
    return made.set_previous_controlnet(previous) if previous else made


@pytest.mark.family("hunyuan")
@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (0.0, 0.4), (0.6, 1.0)])
def test_where_a_control_net_begins_or_ends_the_step_computes_and_no_reused_step_asks_it(lab, chained, first, last):
    """Also the one behind another, that acts all the time."""
    inner = control(lab, first, last)
    outer = control(lab, 0.0, 1.0, inner) if chained else inner
    prompts = tuple([(text, {**extra, "control": outer}) for text, extra in p] for p in lab.prompts())
    plain = lab.sample(lab.plain, prompts=prompts)
    sigmas = lab.sigmas().tolist()[:STEPS]
    acts = [any(abs(sigma - seen) < 1e-4 for seen in inner.asked) for sigma in sigmas]
    changed = [n for n in range(1, STEPS) if acts[n] != acts[n - 1]]
    assert bool(changed) == ((first, last) != (0.0, 1.0))
    inner.asked.clear(), outer.asked.clear()
    watched = Calls(lab, **PLAN)
    latents = watched.sample(prompts=prompts)
    assert watched.ran == sorted({*COMPUTED, *changed})
    evaluated = {n for n in range(STEPS) if any(abs(sigmas[n] - seen) < 1e-4 for seen in inner.asked)}
    assert evaluated == {n for n in watched.ran if acts[n]}
    assert difference(latents, plain) > 1e-4
    assert difference(lab.sample(lab.cached(speedup=1.0).model, prompts=prompts), plain) == 0.0


def test_where_a_lora_hook_changes_its_strength_the_step_computes(lab):
    import comfy.hooks

    names = lab.module().state_dict()
    generator = torch.Generator().manual_seed(8)
    weights = {}
    for name, value in names.items():
        if name.endswith("ffn.0.weight"):
            layer = f"diffusion_model.{name.removesuffix('.weight')}"
            weights[f"{layer}.lora_up.weight"] = torch.randn(value.shape[0], 4, generator=generator) * 0.1
            weights[f"{layer}.lora_down.weight"] = torch.randn(4, value.shape[1], generator=generator) * 0.1
    hooks = comfy.hooks.create_hook_lora(weights, 1.0, 1.0)
    frames = comfy.hooks.HookKeyframeGroup()
    frames.add(comfy.hooks.HookKeyframe(1.0, 0.0))
    frames.add(comfy.hooks.HookKeyframe(0.2, 0.8))
    hooks.set_keyframes_on_hooks(frames)
    prompts = (prompt(lab, 1, hooks=hooks), prompt(lab, 3))
    [hook] = hooks.hooks

    def sample(model):
        strengths = []

        def predict_noise(executor, *args, **kwargs):
            result = executor(*args, **kwargs)
            strengths.append(hook.hook_keyframe.strength)
            return result

        model = model.clone()
        model.add_wrapper_with_key("predict_noise", "strengths", predict_noise)
        return lab.sample(model, prompts=prompts), strengths

    plain, strengths = sample(lab.plain)
    changed = [n for n in range(1, STEPS) if strengths[n] != strengths[n - 1]]
    assert changed and set(changed) <= set(REUSED), strengths
    watched = Calls(lab, **PLAN)
    latents, cached_strengths = watched.counting(lambda: sample(watched.model))
    assert watched.ran == sorted({*COMPUTED, *changed})
    assert cached_strengths == strengths
    assert difference(latents, plain) > 1e-4
    assert difference(sample(lab.cached(speedup=1.0).model)[0], plain) == 0.0


def only_in(model, steps, change, point: str = "predict_noise"):
    """`model` with change(guider) made in these evaluations alone."""
    model, count = model.clone(), iter(range(1_000))

    def predict_noise(executor, *args, **kwargs):
        guider, n = executor.class_obj, next(count)
        before = guider.cfg
        if n in steps:
            change(guider)
        try:
            return executor(*args, **kwargs)
        finally:
            guider.cfg = before

    model.add_wrapper_with_key(point, "only in", predict_noise)
    return model


def test_guidance_acts_in_reused_steps(lab):
    """A cfg schedule that changes nothing but reused steps changes the video; what runs is the same."""
    expected = lab.sample(lab.cached(**PLAN).model)
    for before in (True, False):
        watched = Calls(lab, **{"before" if before else "after": lambda m: only_in(m, REUSED, lambda g: g.set_cfg(6.0))}, **PLAN)
        assert difference(watched.sample(), expected) > 0.01
        assert watched.ran == COMPUTED


def test_a_negative_prompt_that_is_dropped_and_comes_back_is_computed(lab):
    """At cfg 1 it does not run. What it left behind is older than what the positive prompt would be foretold from."""
    watched = Calls(lab, before=lambda m: only_in(m, (3, 5, 6), lambda g: g.set_cfg(1.0)), **PLAN)
    watched.sample()
    assert watched.ran == [0, 1, 3, 4, 5, 7]
    assert [watched.evaluations[n].calls[0].present for n in (2, 3, 4, 6)] == [(True, True), (True, False), (True, True), (True, False)]
    assert [watched.report.steps[n].action for n in (2, 6)] == ["reuse", "reuse"]
    assert watched.report.steps[3].reason == watched.report.steps[7].reason == OTHERS


@pytest.mark.parametrize("order", ["before", "after"])
def test_functions_before_and_after_guidance_are_called_in_reused_steps(lab, order):
    seen = {"pre": [], "cfg": [], "post": []}

    def pre_cfg(args):
        seen["pre"].append([d.clone() for d in args["conds_out"]])
        return args["conds_out"]

    def cfg_function(args):
        seen["cfg"].append(args["cond_scale"])
        return args["uncond"] + (args["cond"] - args["uncond"]) * args["cond_scale"]

    def post_cfg(args):
        seen["post"].append((args["cond_denoised"].clone(), args["uncond_denoised"].clone()))
        return args["denoised"] * 0.9

    def guided(model):
        model = model.clone()
        model.set_model_sampler_pre_cfg_function(pre_cfg)
        model.set_model_sampler_cfg_function(cfg_function)
        model.set_model_sampler_post_cfg_function(post_cfg)
        return model

    watched = Calls(lab, **{order: guided}, **PLAN)
    watched.sample()
    assert watched.ran == COMPUTED
    assert [len(calls) for calls in seen.values()] == [STEPS] * 3
    for n in REUSED:
        for condition in (0, 1):
            expected = foretold(watched.evaluations, n, 0, condition, range(STEPS))
            torch.testing.assert_close(seen["pre"][n][condition], expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(seen["post"][n][condition], expected, rtol=1e-4, atol=1e-4)


def test_what_a_guider_writes_into_its_answers_spoils_nothing(lab):
    """Computed or foretold, each answer is the guider's own."""

    def spoil(model):
        model = model.clone()

        def pre_cfg(args):
            mine = [d.clone() for d in args["conds_out"]]
            for d in args["conds_out"]:
                d.fill_(float("nan"))
            return mine

        model.set_model_sampler_pre_cfg_function(pre_cfg)
        return model

    latents = lab.sample(spoil(lab.cached(**PLAN).model))
    assert difference(latents, lab.sample(lab.cached(**PLAN).model)) == 0.0


def slg(model):
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    result = SkipLayerGuidanceDiT.execute(model=model, scale=2.0, start_percent=0.2, end_percent=0.8,
                                          double_layers="1", single_layers="")  # fmt: skip
    return result.args[0]


@pytest.mark.parametrize("order", ["before", "after"])
def test_an_extra_guidance_pass_that_comes_and_goes_is_computed_first(lab, order):
    """Skip layer guidance asks again for the positive prompt, over part of the run: a call of its own."""
    watched = Calls(lab, **{order: slg}, **PLAN)
    watched.sample()
    passes = [len(evaluation.calls) for evaluation in watched.evaluations]
    [came] = [n for n in range(1, STEPS) if passes[n] > passes[n - 1]]
    [went] = [n for n in range(1, STEPS) if passes[n] < passes[n - 1]]
    assert set(passes) == {1, 2} and came in REUSED and went > came + 1, passes
    assert [n for n, e in enumerate(watched.evaluations) if e.calls[0].computed is not None] == COMPUTED
    assert watched.evaluations[came].calls[1].computed is not None
    assert watched.report.steps[came].action == "partial"
    for n in range(came + 1, went):
        second = watched.evaluations[n].calls[1]
        assert (second.computed is not None) == (n in COMPUTED)
        if n in REUSED:
            expected = foretold(watched.evaluations, n, 1, 0, range(STEPS), since=came)
            torch.testing.assert_close(second.given[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "batched"])
def test_each_context_window_has_its_own_line(lab, schedule):
    """Static windows are reused. Uniform ones move every step: what is not known is computed."""
    from comfy_extras.nodes_context_windows import WanContextWindowsManualNode

    inputs = {"context_schedule": schedule, "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid",
              "freenoise": False, "context_length": 13, "context_overlap": 4}  # fmt: skip
    model = WanContextWindowsManualNode.execute(model=lab.plain, **inputs).args[0]
    noise = lab.noise(frames=12 if schedule == "standard_uniform" else 9)
    plain = lab.sample(model, noise=noise)
    assert difference(lab.sample(lab.cached(model, speedup=1.0).model, noise=noise), plain) == 0.0
    watched = Calls(lab, model, **PLAN)
    first = watched.sample(noise=noise)
    assert len(watched.evaluations[0].calls) > 1
    reasons = {step.reason for step in watched.report.steps}
    assert ("a context window that was not there before" in reasons) == (schedule == "standard_uniform")
    if schedule == "standard_static":
        assert watched.ran == COMPUTED
        for n in REUSED:
            for place in range(len(watched.evaluations[n].calls)):
                expected = foretold(watched.evaluations, n, place, 0, range(STEPS))
                torch.testing.assert_close(watched.evaluations[n].calls[place].given[0], expected, rtol=1e-4, atol=1e-4)
    for before, now in pairwise(watched.evaluations):
        known = [call.frames for call in before.calls]
        assert all(call.computed is not None for call in now.calls if call.frames not in known)
    assert all(call.frames for evaluation in watched.evaluations for call in evaluation.calls)
    assert difference(watched.sample(noise=noise), first) == 0.0
    assert torch.isfinite(first).all()


def test_a_negative_prompt_on_a_model_of_its_own_keeps_both_apart(lab):
    guiders = pytest.importorskip("comfy_extras.nodes_custom_sampler")
    if not hasattr(guiders, "DualModelGuider"):
        pytest.skip(f"ComfyUI {lab.host.version} has no DualModelGuider")
    other = lab.host.load(lab.family)
    with torch.no_grad():
        for parameter in other.model.diffusion_model.parameters():
            parameter.mul_(1.05 if parameter.ndim > 1 else 1.0)
    positive, negative = lab.prompts()
    watched = Calls(lab, **PLAN)
    guider = guiders.DualModelGuider.execute(model=watched.model, positive=positive, cfg=4.0, model_negative=other,
                                             negative=negative).args[0]  # fmt: skip
    ran = []
    handle = other.model.diffusion_model.register_forward_pre_hook(lambda *_: ran.append(len(watched.evaluations) - 1))
    try:
        watched.counting(lambda: lab.host.run(guider, lab.noise(), lab.sigmas(), "euler"))
    finally:
        handle.remove()
    assert watched.ran == sorted(set(ran)) == COMPUTED
    for n in REUSED:
        for place, call in enumerate(watched.evaluations[n].calls):
            for condition, wanted in enumerate(call.present):
                if wanted:
                    expected = foretold(watched.evaluations, n, place, condition, range(STEPS))
                    torch.testing.assert_close(call.given[condition], expected, rtol=1e-4, atol=1e-4)


def test_a_mask_leaves_the_given_part_alone_and_out_of_the_error(lab):
    """Inpainting: the sampler overwrites what the model says there."""
    noise, latent = lab.noise(), lab.noise(seed=9)
    mask = torch.ones(1, 1, *noise.shape[2:])
    mask[..., :2] = 0.0
    guided = {}
    for name, settings in {"off": {"speedup": 1.0}, "on": PLAN}.items():
        cached = lab.cached(**settings)
        guider = lab.guider(cached.model)
        guided[name] = (cached, lab.host.run(guider, noise, lab.sigmas(), "euler", latent=latent, mask=mask))
    plain = lab.host.run(lab.guider(lab.plain), noise, lab.sigmas(), "euler", latent=latent, mask=mask)
    assert difference(guided["off"][1], plain) == 0.0
    cached, latents = guided["on"]
    assert difference(latents[..., :2], plain[..., :2]) < 1e-4
    assert difference(latents[..., 2:], plain[..., 2:]) > 1e-3
    assert cached.report.evaluations_reused == len(REUSED)


def sample_training(model, x, sigmas, extra_args=None, **options):
    """As ComfyUI's node for LoRA training: evaluations under gradients, each followed by its backward pass."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone()
        for sigma in sigmas[:-1].tolist():
            row = x.detach().clone().requires_grad_(True)
            denoised = model(row, x.new_full((len(x),), sigma).requires_grad_(True), **extra_args)
            denoised.square().mean().backward()
            assert row.grad is not None and float(row.grad.abs().max()) > 0
    return x.detach()


def test_a_model_under_gradients_gets_no_cache_and_the_report_says_why(lab):
    import comfy.samplers

    def differentiable(executor, model, conds, x, timestep, *args, **kwargs):  # rope in 0.33.0 has no backward pass
        return [x * 0.5 * torch.sigmoid(x + i) for i, _ in enumerate(conds)]

    held = []

    def look(executor, *args, **kwargs):
        result = executor(*args, **kwargs)
        run = executor.class_obj.model_options["transformer_options"]["bwcache"]
        held.append(sum(tensor().grad_fn is not None for tensor in held_tensors(run) if tensor() is not args[0]))
        return result

    outside = lab.plain.clone()
    outside.add_wrapper_with_key("predict_noise", "look", look)
    cached = lab.cached(outside, speedup=2.0)
    model = cached.model.clone()
    model.add_wrapper_with_key("calc_cond_batch", "trained", differentiable)
    sampler = comfy.samplers.KSAMPLER(sample_training)
    with torch.inference_mode(False):
        noise = lab.noise()
        lab.guider(model).sample(noise, torch.zeros_like(noise), sampler, lab.sigmas(), disable_pbar=True, seed=1)
    report = cached.report
    assert report.finished and not report.warnings
    assert (report.evaluations, report.evaluations_reused, report.cache_bytes) == (STEPS, 0, 0)
    assert held == [0] * len(held)
    assert "gradient" in report.stopped


def tiled(model):
    """The two halves of each latent as rows of one batch, tile by tile, as packs for large pictures run a model."""

    def in_tiles(apply_model, args):
        tiles = torch.cat(args["input"].chunk(2, dim=-1))
        options = {**args["c"]["transformer_options"], "cond_or_uncond": 2 * args["c"]["transformer_options"]["cond_or_uncond"]}
        words = {"c_crossattn": args["c"]["c_crossattn"].repeat(2, 1, 1), "transformer_options": options}
        made = apply_model(tiles, args["timestep"].repeat(2), **{**args["c"], **words})
        return torch.cat(made.chunk(2), dim=-1)

    model = model.clone()
    model.set_model_unet_function_wrapper(in_tiles)
    return model


@pytest.mark.parametrize("dropped", [(), (3, 4, 5, 6, 7)], ids=["guided", "guidance dropped"])
def test_tiles_in_one_batch_get_no_row_of_another(lab, dropped):
    """Below the cache: what it keeps belongs to a condition, whatever rows it was computed in."""
    watched = Truth(lab, tiled(lab.plain), before=lambda m: only_in(m, dropped, lambda g: g.set_cfg(1.0)), speedup=2.0)
    latents = watched.sample()
    plain = lab.sample(only_in(tiled(lab.plain), dropped, lambda g: g.set_cfg(1.0)))
    assert 0.0 < watched.worst < ForecastConfig().threshold
    assert watched.report.evaluations_reused >= 3
    assert float((latents - plain).abs().mean() / plain.abs().mean()) < 0.05
    assert difference(plain, lab.uncached()) > 0.01, "tiles change nothing here"
