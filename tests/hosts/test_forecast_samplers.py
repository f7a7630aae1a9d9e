"""Samplers and schedules of every kind: nothing is foretold that would err by more than the threshold."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.nodes.sampler_response import LINEAR, sampler_response
from bwcache_pack.tests.hosts.calls import Calls, Truth
from bwcache_pack.tests.hosts.conftest import small_lab
from bwcache_pack.tests.hosts.lab import difference
from bwcache_pack.tests.matrix.combinations import SAMPLERS

pytestmark = [pytest.mark.comfyui, pytest.mark.family("wan21_t2v")]
STEPS = 16
THRESHOLD = ForecastConfig().threshold
REUSING = ("euler", "heun", "heunpp2", "dpm_2", "lms", "dpmpp_2m", "ipndm", "deis", "res_multistep", "ddim", "uni_pc",
           "uni_pc_bh2", "gradient_estimation")  # fmt: skip
NOISY = ("euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "ddpm", "lcm", "er_sde",
         "seeds_2", "seeds_3", "res_multistep_ancestral")  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_gets_a_forecast_that_errs_by_more_than_the_threshold(lab, sampler):
    watched = Truth(lab, speedup=2.0)
    latents = watched.sample(sampler=sampler, steps=STEPS)
    report = watched.report
    assert report.warnings == [] and report.stopped == "" and report.finished
    assert watched.worst <= THRESHOLD, watched.errors
    assert torch.isfinite(latents).all()
    share = report.evaluations_reused / report.evaluations
    if sampler in REUSING:
        assert 0.3 <= share <= 0.6, share
    if sampler in NOISY:
        assert share == 0.0
        reasons = [step.reason for step in report.steps if step.step not in report.planned]
        assert reasons and set(reasons) <= {"fresh noise in the latent", "its forecast would err by more than the threshold"}


def test_all_samplers_of_this_comfyui_are_tried(lab):
    import comfy.samplers

    known = {name.removesuffix("_gpu") for name in comfy.samplers.KSampler.SAMPLERS}  # these differ in where noise is drawn
    assert known <= set(SAMPLERS)


def custom(lab, function, model=None, sigmas=None, watched=None, **settings):
    """Sample with a sampler function of one's own. Returns the watcher and the latents."""
    import comfy.samplers

    watched = watched or Truth(lab, model, **settings)
    sigmas = lab.sigmas(steps=STEPS) if sigmas is None else sigmas
    guider = lab.guider(watched.model)
    noise = lab.noise()

    def sample():
        with torch.inference_mode():
            return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.KSAMPLER(function), sigmas,
                                 disable_pbar=True, seed=1)  # fmt: skip

    return watched, watched.counting(sample)


def euler_step(x, denoised, sigma, following):
    return x + (x - denoised) / sigma * (following - sigma)


def alone(model, x, sigmas, extra_args=None, **options):
    """Euler."""
    for sigma, following in pairwise(sigmas.tolist()):
        x = euler_step(x, model(x, x.new_full((len(x),), sigma), **extra_args), sigma, following)
    return x


def refining(model, x, sigmas, extra_args=None, **options):
    """Three evaluations at each sigma, each with fresh noise on what the one before made: SelfRefineVideo and its kin."""
    generator = torch.Generator().manual_seed(3)
    for sigma, following in pairwise(sigmas.tolist()):
        for _ in range(3):
            denoised = model(x, x.new_full((len(x),), sigma), **extra_args)
            x = (1.0 - sigma) * denoised + sigma * torch.randn(x.shape, generator=generator)
        x = euler_step(x, denoised, sigma, following)
    return x


def test_another_latent_at_the_same_sigma_computes(lab):
    watched, latents = custom(lab, refining, speedup=3.0)
    assert watched.worst <= THRESHOLD
    again = [n for n in range(len(watched.evaluations)) if n % 3]
    assert all(watched.evaluations[n].ran for n in again)
    assert watched.report.finished and torch.isfinite(latents).all()


def restarting(model, x, sigmas, extra_args=None, **options):
    """Down to the tenth step, back up to the fourth with fresh noise, and down again."""
    generator, levels = torch.Generator().manual_seed(3), sigmas.tolist()
    path = [*range(11), *range(4, len(levels))]
    for here, there in pairwise(path):
        denoised = model(x, x.new_full((len(x),), levels[here]), **extra_args)
        if there < here:
            x = (1.0 - levels[there]) * denoised + levels[there] * torch.randn(x.shape, generator=generator)
        else:
            x = euler_step(x, denoised, levels[here], levels[there])
    return x


def test_after_a_restart_the_first_evaluation_computes_and_reuse_goes_on(lab):
    watched, _ = custom(lab, restarting, speedup=2.0)
    sigmas = [evaluation.sigma for evaluation in watched.evaluations]
    [up] = [n for n in range(1, len(sigmas)) if sigmas[n] > sigmas[n - 1]]
    assert watched.evaluations[up].ran
    assert watched.report.steps[up].reason == "sigma went back up"
    assert watched.worst <= THRESHOLD
    reused = [n for n, evaluation in enumerate(watched.evaluations) if not evaluation.ran]
    assert min(reused) < up < max(reused)


def editing(fresh: bool, bare: bool):
    """FlowEdit: source and target pass at one sigma, the source on noise, with options that have no wrappers."""

    def sample(model, x, sigmas, extra_args=None, **options):
        generator = torch.Generator().manual_seed(3)
        source = torch.randn(x.shape, generator=generator)
        edited, noise = source.clone(), torch.randn(x.shape, generator=generator)
        for sigma, following in pairwise(sigmas.tolist()):
            noise = torch.randn(x.shape, generator=generator) if fresh else noise
            level = x.new_full((len(x),), sigma)
            noised = (1.0 - sigma) * source + sigma * noise
            target = noised + edited - source
            there = model(noised, level, **{**extra_args, **({"model_options": {}} if bare else {})})
            here = model(target, level, **extra_args)
            edited = edited + (following - sigma) * ((target - here) - (noised - there)) / sigma
        return edited

    return sample


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
def test_two_latents_at_one_sigma_in_turn_are_kept_apart_or_computed(lab, fresh, bare):
    watched, latents = custom(lab, editing(fresh, bare), speedup=2.0)
    assert watched.worst <= THRESHOLD, watched.errors
    assert watched.report.finished and watched.report.warnings == []
    assert torch.isfinite(latents).all()
    off, plain = custom(lab, editing(fresh, bare), speedup=1.0)
    assert difference(plain, custom(lab, editing(fresh, bare), watched=Plain(lab))[1]) == 0.0
    assert watched.report.evaluations == off.report.evaluations == (STEPS if bare else 2 * STEPS)


def test_an_evaluation_that_asks_no_model_changes_nothing(lab):
    """The same path as euler, with an evaluation of something else on bare options before every step."""

    def with_others(model, x, sigmas, extra_args=None, **options):
        for sigma, following in pairwise(sigmas.tolist()):
            level = x.new_full((len(x),), sigma)
            model(torch.ones_like(x), level, **{**extra_args, "model_options": {}})
            x = euler_step(x, model(x, level, **extra_args), sigma, following)
        return x

    one, expected = custom(lab, alone, speedup=2.0)
    other, latents = custom(lab, with_others, speedup=2.0)
    assert difference(latents, expected) == 0.0
    assert [step.action for step in other.report.steps] == [step.action for step in one.report.steps]
    assert one.report.evaluations_reused > 4


class Plain(Calls):
    """No cache at all, with the interface of a watcher."""

    def __init__(self, lab) -> None:
        super().__init__(lab, speedup=1.0)
        self.model = lab.plain


# Schedules that are not what they seem


def stepping(inner, tells: bool = True):
    """Euler over inner(sigmas): a sampler that runs another schedule than it was handed. tells: and says so."""

    def sample(model, x, sigmas, extra_args=None, **options):
        runs = inner(sigmas)
        if tells:
            extra_args["model_options"]["transformer_options"]["sample_sigmas"] = runs
        for sigma, following in pairwise(runs.tolist()):
            denoised = model(x, x.new_full((len(x),), sigma), **extra_args)
            x = euler_step(x, denoised, sigma, following)
        return x

    return sample


def padded(sigmas: torch.Tensor) -> torch.Tensor:
    """RES4LYF's resample: zeros as flags at both ends."""
    return torch.cat([torch.zeros(1), sigmas, torch.zeros(1)])


@pytest.mark.parametrize("tells", [True, False])
def test_zeros_as_flags_change_nothing(lab, tells):
    sigmas = lab.sigmas(steps=STEPS)
    clean, expected = custom(lab, stepping(lambda s: s), sigmas=sigmas, speedup=2.0)
    flagged, latents = custom(lab, stepping(lambda s: s[1:-1], tells), sigmas=padded(sigmas), speedup=2.0)
    assert flagged.report.plan == clean.report.plan
    assert [s.action for s in flagged.report.steps] == [s.action for s in clean.report.steps]
    assert flagged.worst <= THRESHOLD and clean.report.evaluations_reused == STEPS / 2
    # ComfyUI scales noise by the first sigma, which is the flag here: the latents differ, what is decided does not
    assert latents.shape == expected.shape


@pytest.mark.parametrize("tells", [True, False])
def test_a_rising_schedule_with_flags_is_taken_for_what_it_is(lab, tells):
    """Unsample: a video is turned into noise."""
    rising = torch.cat([torch.zeros(1), lab.sigmas(steps=STEPS).flip(0)[1:], torch.zeros(1)])
    watched, latents = custom(lab, stepping(lambda s: s[1:-1], tells), sigmas=rising, speedup=2.0)
    assert watched.worst <= THRESHOLD, watched.errors
    assert watched.report.warnings == [] and watched.report.finished
    assert 0 < watched.report.evaluations_reused
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize("part", [slice(0, 9), slice(8, 17), slice(4, 13)])
def test_a_part_of_a_schedule_lands_on_the_speedup(lab, part):
    """Handed the part, as SplitSigmas and KSamplerAdvanced do, or told of it by a sampler that runs only that."""
    sigmas = lab.sigmas(steps=STEPS)
    handed, _ = custom(lab, stepping(lambda s: s), sigmas=sigmas[part], speedup=2.0)
    told, _ = custom(lab, stepping(lambda s: s[part]), sigmas=sigmas, speedup=2.0)
    for watched in (handed, told):
        assert len(watched.evaluations) == 8 and len(watched.ran) == 4, watched.report.plan
        assert watched.ran == watched.report.planned
        assert watched.worst <= THRESHOLD


def test_two_experts_halve_each(lab):
    """Wan 2.2 14B: 10 + 10 steps on two models with a cache each, through KSamplerAdvanced: 5 + 5."""
    sample = lab.host.nodes.KSamplerAdvanced().sample
    experts = [Calls(lab, speedup=2.0), Calls(lab, lab.host.load(lab.family), speedup=2.0)]
    latent = {"samples": torch.zeros_like(lab.noise())}
    for expert, noise, first, last, rest in ((experts[0], "enable", 0, 10, "enable"), (experts[1], "disable", 10, 10_000, "disable")):
        settings = (noise, 1, 20, 3.5, "euler", "simple", *lab.prompts(), latent, first, last, rest)

        def run(expert=expert, settings=settings):
            with torch.inference_mode():
                return sample(expert.model, *settings)[0]

        latent = expert.counting(run)
    for expert in experts:
        assert (len(expert.ran), len(expert.evaluations)) == (5, 10), expert.report.plan
    assert torch.isfinite(latent["samples"]).all()


@pytest.mark.parametrize("factor", [1.5, 0.7])
def test_sigmas_that_are_multiplied_stay_a_flow(lab, factor):
    watched, latents = custom(lab, stepping(lambda s: s), sigmas=lab.sigmas(steps=STEPS) * factor, speedup=2.0)
    assert watched.worst <= THRESHOLD, watched.errors
    assert watched.report.warnings == []
    assert watched.report.evaluations_reused >= STEPS / 4
    assert torch.isfinite(latents).all()


def test_one_step_a_run_is_plain_and_says_nothing(lab, caplog):
    """Tiled and regional samplers: 12 runs of one step."""
    cached = lab.cached(speedup=2.0)
    sigmas = lab.sigmas(steps=12)
    for n in range(12):
        guided = [lab.host.run(lab.guider(model), lab.noise(), sigmas[n : n + 2], "euler") for model in (cached.model, lab.plain)]
        assert difference(*guided) == 0.0
        assert (cached.report.evaluations, cached.report.cache_bytes, cached.report.warnings) == (1, 0, [])
    assert not [record for record in caplog.records if record.name.startswith("bwcache_pack") and record.levelname == "WARNING"]


@pytest.mark.parametrize("first", [math.nan, math.inf])
def test_a_first_sigma_that_is_no_number_is_sampled_as_without_us(lab, first):
    """The one path that must never fail: the report says why, and the sampler gets what it would get."""
    sigmas = lab.sigmas(steps=8)
    sigmas[0] = first
    cached = lab.cached(speedup=2.0)
    ours = lab.host.run(lab.guider(cached.model), lab.noise(), sigmas.clone(), "euler")
    theirs = lab.host.run(lab.guider(lab.plain), lab.noise(), sigmas.clone(), "euler")
    assert torch.equal(torch.nan_to_num(ours, 7.0), torch.nan_to_num(theirs, 7.0))
    assert cached.report.finished and "not cached" in cached.report.stopped
    assert "no finite number" in cached.report.warnings[0]


def test_an_evaluation_at_sigma_0_runs_the_model_and_is_never_learned_from(lab):
    """Autoregressive samplers fill the model's memory that way, whatever step the plan has there."""

    def sample(model, x, sigmas, extra_args=None, **options):
        for sigma, following in pairwise(sigmas.tolist()):
            x = euler_step(x, model(x, x.new_full((len(x),), sigma), **extra_args), sigma, following)
        return x + 0.0 * model(x, x.new_zeros(len(x)), **extra_args)

    watched, ours = custom(lab, sample, sigmas=lab.sigmas(steps=8), watched=Calls(lab, plan="0-1 4/8", corrector=False))
    euler, expected = custom(lab, alone, sigmas=lab.sigmas(steps=8), watched=Calls(lab, plan="0-1 4/8", corrector=False))
    assert watched.ran == [0, 1, 4, 8] and euler.ran == [0, 1, 4]
    assert difference(ours, expected) == 0.0
    assert watched.report.faults == [] and watched.report.warnings == []


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_an_evaluation_at_no_number_costs_the_cache_and_nothing_else(lab, at, broken):
    def sample(model, x, sigmas, extra_args=None, **options):
        for n, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
            denoised = model(x, x.new_full((len(x),), broken if n == at else sigma), **extra_args)
            x = euler_step(x, torch.zeros_like(x) if n == at else denoised, sigma, following)
        return x

    watched, ours = custom(lab, sample, sigmas=lab.sigmas(steps=8), watched=Calls(lab, plan="0-1 4/8", corrector=False))
    _, theirs = custom(lab, sample, sigmas=lab.sigmas(steps=8), watched=Plain(lab))
    report = watched.report
    assert report.finished and report.evaluations == 8
    assert all(evaluation.ran for evaluation in watched.evaluations[at:])
    assert "sigma is" in report.warnings[0]
    if at == 0:
        assert difference(ours, theirs) == 0.0


# What is asked of the sampler beforehand


KNOWN = [(module, name) for module, names in LINEAR.items() if module.startswith("comfy.") for name in names]


@pytest.mark.parametrize(("module", "name"), KNOWN, ids=[name for _, name in KNOWN])
def test_nothing_that_a_sampler_is_probed_with_is_the_users(lab, module, name):
    """uni_pc writes 0.001 into the end of the sigmas it is given. Another prompt may use the same tensor."""
    import sys

    import comfy.samplers

    sampler = comfy.samplers.KSAMPLER(getattr(sys.modules[module], name))
    sigmas = lab.sigmas(steps=8)
    before = sigmas.clone()
    assert sampler_response(lab.guider(lab.plain), sampler, sigmas)
    assert torch.equal(sigmas, before)
    seen = []

    def outer_sample(executor, noise, latent, sampler, sigmas, *args, **kwargs):
        seen.append(torch.equal(sigmas, before))
        return executor(noise, latent, sampler, sigmas.clone(), *args, **kwargs)

    cached = lab.cached(speedup=2.0)
    cached.model.add_wrapper_with_key("outer_sample", "inside", outer_sample)
    lab.host.run(lab.guider(cached.model), lab.noise(), sigmas, name.removeprefix("sample_").replace("unipc", "uni_pc"))
    assert seen == [True] and torch.equal(sigmas, before)
    assert cached.report.plan.split("/")[0].endswith("7"), "the protected end stays"


@pytest.mark.parametrize("family", ["cosmos_predict2", "flow_rvs"])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "res_multistep"])
def test_the_corrector_harms_no_parametrisation(comfyui, family, sampler):
    """There D is not x - sigma * output. Over three seeds, the corrected video is hardly further from the plain one, or the
    same where the corrector stays out."""
    lab = small_lab(comfyui, family)
    distance = {True: 0.0, False: 0.0}
    for seed in range(3):
        plain = lab.sample(lab.plain, noise=lab.noise(seed), steps=STEPS, sampler=sampler)
        for corrector in distance:
            cached = lab.cached(speedup=2.0, threshold=10.0, corrector=corrector)
            latents = lab.sample(cached.model, noise=lab.noise(seed), steps=STEPS, sampler=sampler)
            distance[corrector] += float((latents - plain).abs().mean() / plain.abs().mean())
            assert cached.report.evaluations_reused == STEPS / 2
    assert distance[True] <= 1.25 * distance[False], distance  # weights are random: an error in x for one in D is 1.5


# A guider that goes round the hooks


@pytest.mark.parametrize("goes", ["past the conditions", "past the evaluation"])
def test_a_guider_that_goes_round_the_hooks_runs_plainly_and_the_report_says_so(lab, goes):
    """As NAG's and other packs' guiders: the model is asked by a function of their own."""
    import comfy.samplers

    from bwcache_pack.bwcache_core.advice import verdict

    def ask(guider, x, timestep, model_options):
        options = {name: value for name, value in model_options["transformer_options"].items() if name not in ("wrappers", "bwcache")}
        conds = [guider.conds["positive"]]
        return comfy.samplers.calc_cond_batch(guider.inner_model, conds, x, timestep, {**model_options, "transformer_options": options})[0]

    class Guider(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 - ComfyUI's own signature
            return ask(self, x, timestep, model_options)

    if goes == "past the evaluation":
        Guider.outer_predict_noise = Guider.predict_noise
    latents = {}
    cached = lab.cached(speedup=2.0)
    for name, model in {"cached": cached.model, "plain": lab.plain}.items():
        guider = Guider(model)
        guider.set_conds(*lab.prompts())
        latents[name] = lab.host.run(guider, lab.noise(), lab.sigmas(), "euler")
    assert difference(latents["cached"], latents["plain"]) == 0.0
    assert cached.report.finished and cached.report.evaluations == 0
    assert "past the cache" in verdict(cached.report)


@pytest.mark.parametrize("kind", ["pair", "none"])
def test_a_guider_may_return_more_than_one_latent(lab, kind):
    """LanPaint's, for a sampler of its own: one at each of two strengths of guidance. Where it returns no latent at all, the
    cache gives up and says so."""
    import comfy.samplers

    class Guider(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 - ComfyUI's own signature
            result = super().predict_noise(x, timestep, model_options, seed)
            return (result, 2.0 * result) if kind == "pair" else {"x": result}

    def euler(model, x, sigmas, extra_args=None, **options):
        for sigma, following in pairwise(sigmas.tolist()):
            made = model(x, x.new_full((len(x),), sigma), **extra_args)
            x = euler_step(x, made[0] if kind == "pair" else made["x"], sigma, following)
        return x

    def sample(model):
        guider = Guider(model)
        guider.set_conds(*lab.prompts())
        guider.set_cfg(4.0)
        noise = lab.noise()
        with torch.inference_mode():
            return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.KSAMPLER(euler), lab.sigmas(steps=STEPS), disable_pbar=True)

    cached, usual = lab.cached(speedup=2.0, corrector=False), lab.cached(speedup=2.0, corrector=False)
    latents, plain = sample(cached.model), sample(lab.plain)
    if kind == "none":
        assert difference(latents, plain) == 0.0
        assert "the guider returned dict" in cached.report.warnings[0]
    else:
        assert difference(latents, lab.sample(usual.model, steps=STEPS)) == 0.0
        assert cached.report.evaluations_reused == STEPS / 2 and cached.report.warnings == []
