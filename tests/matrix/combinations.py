"""What people wire together with the cache: each combination is a workflow, a function from a Desk to latents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from . import parts
from .desk import Desk, Variant

Workflow = Callable[[Desk, Variant], dict]


@dataclass(frozen=True)
class Combination:
    """title: as the table shows it. run: the workflow. changes, live: inputs that steer it, as of a Variant.

    guided: it runs a negative prompt too, so that the strength of guidance counts.
    """

    title: str
    run: Workflow
    changes: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    guided: bool = True


def alone(desk: Desk, variant: Variant) -> dict:
    return desk.ksampler(desk.apply(desk.model()), *variant.wire(desk))


def sampled(**request) -> Workflow:
    """The KSampler node with some of its widgets set otherwise."""

    def run(desk: Desk, variant: Variant) -> dict:
        return desk.ksampler(desk.apply(desk.model()), *variant.wire(desk), **request)

    return run


def patched_before(patch: Callable) -> Workflow:
    """Another node that takes and gives a model, between the loader and BWCache Apply."""

    def run(desk: Desk, variant: Variant) -> dict:
        return desk.ksampler(desk.apply(patch(desk, desk.model())), *variant.wire(desk))

    return run


def patched_after(patch: Callable) -> Workflow:
    """Another node that takes and gives a model, between BWCache Apply and the sampler."""

    def run(desk: Desk, variant: Variant) -> dict:
        return desk.ksampler(patch(desk, desk.apply(desk.model())), *variant.wire(desk))

    return run


def windows(schedule: str, frames: int = 9, **settings) -> Workflow:
    """Context windows of four latent frames over a longer video."""

    def run(desk: Desk, variant: Variant) -> dict:
        desk.frames = frames
        inputs = {"context_schedule": schedule, "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid",
                  "freenoise": False, **settings}  # fmt: skip
        if desk.checkpoint.startswith("wan"):
            node, sizes = "WanContextWindowsManualNode", {"context_length": 13, "context_overlap": 4}
        else:
            node, sizes = "ContextWindowsManualNode", {"context_length": 4, "context_overlap": 1, "dim": 2}
        model = desk.node(f"nodes_context_windows.{node}", model=desk.model(), **inputs, **sizes)
        return desk.ksampler(desk.apply(model), *variant.wire(desk))

    return run


def prompted(rewrite: Callable[[Desk, list], list]) -> Workflow:
    """Another positive prompt, made from the variant's own by nodes."""

    def run(desk: Desk, variant: Variant) -> dict:
        positive, negative, latent = variant.wire(desk)
        return desk.ksampler(desk.apply(desk.model()), rewrite(desk, positive), negative, latent)

    return run


def beside(desk: Desk, positive: list, tokens: int = 7, **extra) -> list:
    """`positive` combined with a second prompt, in all else equal to it."""
    second = [[desk.prompt("second", tokens)[0][0], {**positive[0][1], **extra}]]
    return desk.node("nodes.ConditioningCombine", conditioning_1=positive, conditioning_2=second)


def two_positives(desk: Desk, positive: list) -> list:
    return beside(desk, positive)


def two_lengths(desk: Desk, positive: list) -> list:
    return beside(desk, positive, tokens=5)


def area(desk: Desk, positive: list) -> list:
    """A second prompt for the upper half."""
    second = beside(desk, positive)[-1:]
    where = "nodes.ConditioningSetArea"
    half = desk.node(where, conditioning=second, width=desk.width, height=desk.width // 2, x=0, y=0, strength=1.0)
    return positive + half


def area_in_time(desk: Desk, positive: list) -> list:
    """A second prompt for the last frames."""
    where = "nodes_video_model.ConditioningSetAreaPercentageVideo"
    share = {"width": 1.0, "height": 1.0, "temporal": 0.5, "x": 0.0, "y": 0.0, "z": 0.5, "strength": 1.0}
    return positive + desk.node(where, conditioning=beside(desk, positive)[-1:], **share)


def masked(desk: Desk, positive: list) -> list:
    """A second prompt under a mask."""
    mask = torch.zeros(1, desk.size, desk.size)
    mask[:, :, : desk.size // 2] = 1.0
    second = beside(desk, positive)[-1:]
    where = "nodes.ConditioningSetMask"
    return positive + desk.node(where, conditioning=second, mask=mask, set_cond_area="default", strength=1.0)


def scheduled(desk: Desk, positive: list) -> list:
    """One prompt takes over from another in mid-run."""
    where = "nodes.ConditioningSetTimestepRange"
    first = desk.node(where, conditioning=positive, start=0.0, end=0.3)
    return first + desk.node(where, conditioning=beside(desk, positive)[-1:], start=0.3, end=1.0)


def batched(desk: Desk, variant: Variant) -> dict:
    positive, negative, latent = variant.wire(desk)
    return desk.ksampler(desk.apply(desk.model()), positive, negative, parts.repeated(latent, 2))


def conditions_flip(desk: Desk, variant: Variant) -> dict:
    """Cond and uncond in one model call or in two, in turn, as free memory has it."""

    def one_by_one(executor, evaluation, *args, **kwargs):
        if evaluation % 2 == 0:
            return executor(*args, **kwargs)
        with desk.bench.host.one_by_one(executor.class_obj):
            return executor(*args, **kwargs)

    model = parts.counted(desk.model(), one_by_one)
    return desk.ksampler(desk.apply(model), *variant.wire(desk))


def guidance_by_step(strength: Callable[[int], float]) -> Callable:
    """A patch that sets cfg in each evaluation, as nodes for guidance schedules do."""

    def patch(desk: Desk, model):
        def scheduled_guidance(executor, evaluation, *args, **kwargs):
            guider = executor.class_obj
            before, guider.cfg = guider.cfg, guider.cfg * strength(evaluation)
            try:
                return executor(*args, **kwargs)
            finally:
                guider.cfg = before

        return parts.counted(model, scheduled_guidance)

    return patch


def dual_cfg(style: str) -> Workflow:
    """Three conditions, as Phantom's workflow wires them."""

    def run(desk: Desk, variant: Variant) -> dict:
        positive, negative, latent = variant.wire(desk)
        model = desk.apply(desk.model())
        guider = desk.node("nodes_custom_sampler.DualCFGGuider", model=model, cond1=positive, cond2=negative,
                           negative=desk.prompt("third"), cfg_conds=3.0, cfg_cond2_negative=2.0,
                           style=style)  # fmt: skip
        return desk.sampler_custom(guider, desk.euler(), desk.sigmas(model), latent)

    return run


def dual_model(desk: Desk, variant: Variant) -> dict:
    """The negative prompt on a model of its own."""
    positive, negative, latent = variant.wire(desk)
    model = desk.apply(desk.model())
    other = desk.bench.twin(desk.checkpoint)
    guider = desk.node("nodes_custom_sampler.DualModelGuider", model=model, positive=positive, cfg=4.0,
                       model_negative=other, negative=negative)  # fmt: skip
    return desk.sampler_custom(guider, desk.euler(), desk.sigmas(model), latent)


def perp_neg(desk: Desk, variant: Variant) -> dict:
    """Three conditions in one call: positive, negative, empty."""
    positive, negative, latent = variant.wire(desk)
    model = desk.apply(desk.model())
    guider = desk.node("nodes_perpneg.PerpNegGuider", model=model, positive=positive, negative=negative,
                       empty_conditioning=desk.prompt("empty"), cfg=4.0, neg_scale=1.0)  # fmt: skip
    return desk.sampler_custom(guider, desk.euler(), desk.sigmas(model), latent)


def basic_guider(desk: Desk, variant: Variant) -> dict:
    positive, _, latent = variant.wire(desk)
    model = desk.apply(desk.model())
    guider = desk.node("nodes_custom_sampler.BasicGuider", model=model, conditioning=positive)
    return desk.sampler_custom(guider, desk.euler(), desk.sigmas(model), latent)


def guider_again(desk: Desk, variant: Variant) -> dict:
    """A cached CFGGuider node that two SamplerCustomAdvanced share: the second run knows the names of its prompts."""
    positive, negative, latent = variant.wire(desk)
    model = desk.apply(desk.model())
    where = "nodes_custom_sampler.CFGGuider"
    guider = desk.node(where, model=model, positive=positive, negative=negative, cfg=4.0)
    sigmas = desk.sigmas(model)
    first = desk.sampler_custom(guider, desk.euler(), sigmas, latent)
    second = desk.sampler_custom(guider, desk.euler(), sigmas, latent)
    assert torch.equal(first["samples"], second["samples"]), "the second run of a guider differs from its first"
    return second


def split_sigmas(desk: Desk, variant: Variant) -> dict:
    """Two samplers on the two halves of one schedule."""
    positive, negative, latent = variant.wire(desk)
    model = desk.apply(desk.model())
    where = "nodes_custom_sampler.CFGGuider"
    guider = desk.node(where, model=model, positive=positive, negative=negative, cfg=4.0)
    high, low = desk.node("nodes_custom_sampler.SplitSigmas", sigmas=desk.sigmas(model, steps=14), step=6)
    return desk.sampler_custom(guider, desk.euler(), low, desk.sampler_custom(guider, desk.euler(), high, latent))


def lora_on_one_prompt(desk: Desk, positive: list) -> list:
    return hooked(desk, positive, desk.bench.lora_hook(desk.checkpoint))


def lora_with_keyframes(desk: Desk, positive: list) -> list:
    """The LoRA's strength changes in mid-run."""
    first = desk.node("nodes_hooks.CreateHookKeyframe", strength_mult=1.0, start_percent=0.0)
    both = desk.node("nodes_hooks.CreateHookKeyframe", strength_mult=0.5, start_percent=0.5, prev_hook_kf=first)
    hooks = desk.node("nodes_hooks.SetHookKeyframes", hooks=desk.bench.lora_hook(desk.checkpoint), hook_kf=both)
    return hooked(desk, positive, hooks)


def hooked(desk: Desk, positive: list, hooks) -> list:
    where = "nodes_hooks.ConditioningSetProperties"
    return desk.node(where, cond_NEW=positive, strength=1.0, set_cond_area="default", hooks=hooks)


def slices(desk: Desk, variant: Variant) -> dict:
    """Two KSampler Advanced on one model, each with a part of the schedule."""
    positive, negative, latent = variant.wire(desk)
    model = desk.apply(desk.model())
    half = desk.ksampler_advanced(model, positive, negative, latent, first=0, last=6, steps=14)
    return desk.ksampler_advanced(model, positive, negative, half, first=6, last=14, steps=14)


def two_experts(lora: bool) -> Workflow:
    """Wan 2.2 14B: two models, one BWCache Apply for each, two KSampler Advanced."""

    def run(desk: Desk, variant: Variant) -> dict:
        positive, negative, latent = variant.wire(desk)
        high = desk.bench.lora(desk.model(), desk.pick("LoRA", 1.0, 0.3)) if lora else desk.model()
        low = desk.bench.twin(desk.checkpoint)
        half = desk.ksampler_advanced(desk.apply(high), positive, negative, latent, first=0, last=6, steps=14)
        return desk.ksampler_advanced(desk.apply(low), positive, negative, half, first=6, last=14, steps=14)

    return run


def image_to_image(desk: Desk, variant: Variant) -> dict:
    """Part of the noise on latents that are there."""
    positive, negative, latent = variant.wire(desk)
    latent = parts.filled(desk, latent)
    return desk.ksampler(desk.apply(desk.model()), positive, negative, latent, denoise=0.6)


def upscaled(desk: Desk, variant: Variant) -> dict:
    """A second pass at twice the size with the same model."""
    model = desk.apply(desk.model())
    positive, negative, latent = variant.wire(desk)
    small = desk.ksampler(model, positive, negative, latent)
    large = desk.node("nodes.LatentUpscaleBy", samples=small, upscale_method="bilinear", scale_by=2.0)
    desk.size *= 2
    positive, negative, _ = variant.wire(desk)
    return desk.ksampler(model, positive, negative, {"samples": large["samples"]}, denoise=0.6)


def inpainted(desk: Desk, variant: Variant) -> dict:
    """A mask on the latents: half of each frame stays."""
    positive, negative, latent = variant.wire(desk)
    latent = parts.half_masked(desk, parts.filled(desk, latent))
    return desk.ksampler(desk.apply(desk.model()), positive, negative, latent)


def applied_twice(desk: Desk, variant: Variant) -> dict:
    """Two BWCache Apply in a row: the second replaces the first."""
    return desk.ksampler(desk.apply(desk.apply(desk.model())), *variant.wire(desk))


def applied_on_branches(desk: Desk, variant: Variant) -> dict:
    """Two BWCache Apply on one loaded model, each with a sampler of its own."""
    model, wired = desk.model(), variant.wire(desk)
    first, second = desk.apply(model), desk.apply(model)
    one = desk.ksampler(first, *wired)
    other = desk.ksampler(second, *wired, seed=2)
    return {"samples": torch.cat([one["samples"], other["samples"]])}


def cloned(desk: Desk, model):
    return model.clone().clone()


def merged(desk: Desk, variant: Variant) -> dict:
    """ModelMergeSimple with BWCache Apply on its first input, which is the one that goes on."""
    other = desk.bench.twin(desk.checkpoint)
    ratio = desk.pick("ratio", 0.7, 0.3)
    where = "nodes_model_merging.ModelMergeSimple"
    model = desk.node(where, model1=desk.apply(desk.model()), model2=other, ratio=ratio)
    return desk.ksampler(model, *variant.wire(desk))


def merge(desk: Desk, model):
    other = desk.bench.twin(desk.checkpoint)
    ratio = desk.pick("ratio", 0.7, 0.3)
    return desk.node("nodes_model_merging.ModelMergeSimple", model1=model, model2=other, ratio=ratio)


def compiled(keys: str) -> Callable:
    """torch.compile as TorchCompileModel does it, with a backend that runs each graph as it is."""

    def patch(desk: Desk, model):
        from comfy_api.torch_helpers import set_torch_compile_wrapper

        count = len(model.get_model_object("diffusion_model").blocks)
        names = ["diffusion_model"] if keys == "model" else [f"diffusion_model.blocks.{i}" for i in range(count)]
        model = model.clone()
        set_torch_compile_wrapper(model=model, backend="eager", keys=names)
        return model

    return patch


def weights(kind: str) -> Workflow:
    """The loader's choice of how weights are held."""

    def run(desk: Desk, variant: Variant) -> dict:
        return desk.ksampler(desk.apply(desk.model(kind)), *variant.wire(desk))

    return run


def previewed(desk: Desk, variant: Variant) -> dict:
    """Previews on: ComfyUI decodes latents while it samples."""
    with previews():
        return desk.ksampler(desk.apply(desk.model()), *variant.wire(desk))


@contextmanager
def previews():
    from comfy.cli_args import LatentPreviewMethod, args

    before, args.preview_method = args.preview_method, LatentPreviewMethod.Latent2RGB
    try:
        yield
    finally:
        args.preview_method = before


def infinite_talk(apply_first: bool) -> Workflow:
    """InfiniteTalk: its node takes and gives a model. One prompt: with two in a batch it fails by itself."""

    def run(desk: Desk, variant: Variant) -> dict:
        positive, negative, _ = variant.wire(desk)
        model = desk.apply(desk.model()) if apply_first else desk.model()
        model, positive, negative, latent = parts.infinite_talk(desk, model, positive=positive, negative=negative)
        return desk.ksampler(model if apply_first else desk.apply(model), positive, negative, latent, cfg=1.0)

    return run


def autoregressive(desk: Desk, variant: Variant) -> dict:
    """A causal model, frame after frame, as its own sampler runs it."""
    positive, negative, latent = variant.wire(desk)
    model = desk.apply(desk.model())
    where = "nodes_custom_sampler.CFGGuider"
    guider = desk.node(where, model=model, positive=positive, negative=negative, cfg=1.0)
    sampler = desk.node("nodes_ar_video.SamplerARVideo", num_frame_per_block=1)
    return desk.sampler_custom(guider, sampler, desk.sigmas(model), latent)


def node_patch(where: str, **inputs) -> Callable:
    """A node that takes a model and gives one. An input "scale" is what the cell changes."""

    def patch(desk: Desk, model):
        turned = {name: desk.pick("scale", value, value * 2) if name == "scale" else value
                  for name, value in inputs.items()}  # fmt: skip
        return desk.node(where, model=model, **turned)

    return patch


SLG = {"start_percent": 0.0, "end_percent": 1.0, "double_layers": "1", "single_layers": ""}
slg = node_patch("nodes_slg.SkipLayerGuidanceDiT", scale=2.0, **SLG)
slg_simple = node_patch("nodes_slg.SkipLayerGuidanceDiTSimple", **SLG)
nag = node_patch("nodes_nag.NAGuidance", nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)
shift = node_patch("nodes_model_advanced.ModelSamplingSD3", shift=3.0)
apg = {"eta": 1.0, "norm_threshold": 5.0, "momentum": 0.5}

SAMPLERS = (
    "euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "exp_heun_2_x0",
    "exp_heun_2_x0_sde", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun", "dpmpp_3m_sde", "ddpm", "lcm",
    "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp", "er_sde", "seeds_2",
    "seeds_3", "sa_solver", "sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2",
)  # fmt: skip
SCHEDULERS = ("sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic",
              "kl_optimal")  # fmt: skip

COMBINATIONS = {
    "alone": Combination("alone", alone),
    "slg": Combination("skip layer guidance (SkipLayerGuidanceDiT), before", patched_before(slg), ("scale",)),
    "slg_after": Combination("skip layer guidance (SkipLayerGuidanceDiT), after", patched_after(slg), ("scale",)),
    "slg_simple": Combination("skip layer guidance (SkipLayerGuidanceDiTSimple)", patched_before(slg_simple)),
    "slg_simple_after": Combination("skip layer guidance (simple), after", patched_after(slg_simple)),
    "pag": Combination("perturbed attention: an extra pass with its own attention", patched_before(parts.perturbed),
                       ("scale",)),
    "sag": Combination("self attention guidance: an extra pass on another input", patched_before(parts.blurred),
                       ("scale",)),
    "nag": Combination("NAG (NAGuidance)", patched_before(nag)),
    "rescale_cfg": Combination("RescaleCFG", patched_after(
        node_patch("nodes_model_advanced.RescaleCFG", multiplier=0.7))),
    "cfg_zero_star": Combination("CFGZeroStar", patched_after(node_patch("nodes_cfg.CFGZeroStar"))),
    "cfg_norm": Combination("CFGNorm", patched_after(node_patch("nodes_cfg.CFGNorm", strength=1.0))),
    "tcfg": Combination("TCFG", patched_after(node_patch("nodes_tcfg.TCFG"))),
    "apg": Combination("APG", patched_after(node_patch("nodes_apg.APG", **apg))),
    "mahiro": Combination("Mahiro", patched_after(node_patch("nodes_mahiro.Mahiro"))),
    "windows_static": Combination("context windows, static", windows("standard_static")),
    "windows_uniform": Combination("context windows, uniform", windows("standard_uniform", frames=12)),
    "windows_looped": Combination("context windows, looped", windows("looped_uniform", frames=12, closed_loop=True)),
    "windows_batched": Combination("context windows, batched", windows("batched")),
    "windows_freenoise": Combination("context windows with FreeNoise", windows("standard_static", freenoise=True)),
    "two_positives": Combination("two positive prompts", prompted(two_positives), ("second",)),
    "two_lengths": Combination("two positive prompts of other lengths", prompted(two_lengths), ("second",)),
    "area": Combination("a prompt for an area", prompted(area), ("second",)),
    "area_in_time": Combination("a prompt for some frames", prompted(area_in_time), ("second",)),
    "masked": Combination("a prompt under a mask", prompted(masked), ("second",)),
    "scheduled": Combination("prompts with timestep ranges", prompted(scheduled), ("second",)),
    "cfg_1": Combination("cfg 1", sampled(cfg=1.0), guided=False),
    "cfg_by_step": Combination("cfg that changes in every step",
                               patched_before(guidance_by_step(lambda evaluation: 1.0 - evaluation / 16))),
    "cfg_to_1": Combination("cfg that goes down to 1",
                            patched_after(guidance_by_step(lambda evaluation: 1.0 if evaluation < 4 else 0.25))),
    "cfg_override": Combination("CFGOverride", patched_after(
        node_patch("nodes_custom_sampler.CFGOverride", cfg=2.0, start_percent=0.5, end_percent=1.0))),
    "batch": Combination("a batch of two", batched),
    "flip": Combination("cond and uncond batched and split in turn", conditions_flip),
    "dual_cfg": Combination("DualCFGGuider", dual_cfg("regular"), ("third",)),
    "dual_cfg_nested": Combination("DualCFGGuider, nested", dual_cfg("nested"), ("third",)),
    "dual_model": Combination("DualModelGuider", dual_model),
    "perp_neg": Combination("PerpNegGuider", perp_neg, ("empty",)),
    "fresca": Combination("FreSca", patched_after(
        node_patch("nodes_fresca.FreSca", scale_low=1.0, scale_high=1.25, freq_cutoff=1))),
    "epsilon_scaling": Combination("EpsilonScaling", patched_after(
        node_patch("nodes_eps.EpsilonScaling", scaling_factor=1.01))),
    "score_rescaling": Combination("TemporalScoreRescaling", patched_after(
        node_patch("nodes_eps.TemporalScoreRescaling", tsr_k=0.95, tsr_sigma=1.0))),
    "unet_pag": Combination("PerturbedAttentionGuidance", patched_after(
        node_patch("nodes_pag.PerturbedAttentionGuidance", scale=2.0)), ("scale",)),
    "unet_sag": Combination("SelfAttentionGuidance", patched_before(
        node_patch("nodes_sag.SelfAttentionGuidance", scale=0.5, blur_sigma=2.0)), ("scale",)),
    "basic_guider": Combination("BasicGuider", basic_guider, guided=False),
    "guider_again": Combination("SamplerCustomAdvanced with a reused guider", guider_again),
    "split_sigmas": Combination("SplitSigmas and two samplers", split_sigmas),
    "lora": Combination("a LoRA, before", patched_before(parts.lora), ("LoRA",)),
    "lora_after": Combination("a LoRA, after", patched_after(parts.lora), ("LoRA",)),
    "lora_hook": Combination("a LoRA hook on one prompt", prompted(lora_on_one_prompt)),
    "lora_keyframes": Combination("a LoRA hook with keyframes", prompted(lora_with_keyframes)),
    "slices": Combination("two slices of a schedule (KSamplerAdvanced)", slices),
    "two_experts": Combination("two experts, two KSamplerAdvanced", two_experts(lora=False)),
    "two_experts_lora": Combination("two experts, a LoRA on one", two_experts(lora=True), ("LoRA",)),
    "denoise": Combination("denoise under 1", image_to_image),
    "upscaled": Combination("a second pass at twice the size", upscaled),
    "inpainted": Combination("a latent mask", inpainted),
    "differential": Combination("DifferentialDiffusion", parts.with_mask(
        patched_after(node_patch("nodes_differential_diffusion.DifferentialDiffusion")))),
    "applied_twice": Combination("two BWCache Apply in a row", applied_twice),
    "branches": Combination("two BWCache Apply on one model", applied_on_branches),
    "shift": Combination("ModelSamplingSD3, before", patched_before(shift)),
    "shift_after": Combination("ModelSamplingSD3, after", patched_after(shift)),
    "block_hook": Combination("another pack's block hook, before", patched_before(parts.block_hook), ("hook",)),
    "block_hook_after": Combination("another pack's block hook, after", patched_after(parts.block_hook), ("hook",)),
    "attention": Combination("an attention override, before", patched_before(parts.attention_override)),
    "attention_after": Combination("an attention override, after", patched_after(parts.attention_override)),
    "model_function": Combination("a wrapper of the model function", patched_after(parts.model_function)),
    "cloned": Combination("clones downstream", patched_after(cloned)),
    "merged": Combination("ModelMergeSimple, after", merged, ("ratio",)),
    "merge_before": Combination("ModelMergeSimple, before", patched_before(merge), ("ratio",)),
    "compiled": Combination("torch.compile of the model, before", patched_before(compiled("model"))),
    "compiled_after": Combination("torch.compile of the model, after", patched_after(compiled("model"))),
    "compiled_blocks": Combination("torch.compile of each block", patched_after(compiled("blocks"))),
    "fp8": Combination("fp8 weights", weights("fp8_e4m3fn")),
    "quantised": Combination("weights unpacked at each use, as GGUF's", weights("quantised")),
    "bf16": Combination("bfloat16 arithmetic (ModelComputeDtype)", patched_before(
        node_patch("nodes_model_advanced.ModelComputeDtype", dtype="bf16"))),
    "previews": Combination("previews on", previewed),
    "uni3c": Combination("Uni3C", patched_before(parts.uni3c), ("render",), live=("render",)),
    "uni3c_after": Combination("Uni3C, after", patched_after(parts.uni3c), ("render",), live=("render",)),
    "infinite_talk": Combination("InfiniteTalk, before", infinite_talk(False), ("sound", "start image"), guided=False),
    "infinite_talk_after": Combination("InfiniteTalk, after", infinite_talk(True), ("sound", "start image"), guided=False),
    "autoregressive": Combination("autoregressive sampling (SamplerARVideo)", autoregressive, guided=False),
    **{f"sampler_{name}": Combination(f"sampler {name}", sampled(sampler=name)) for name in SAMPLERS},
    **{f"scheduler_{name}": Combination(f"scheduler {name}", sampled(scheduler=name)) for name in SCHEDULERS},
}  # fmt: skip
