"""The embedded host: what nodes/attach.py needs of ComfyUI, around a TinyWan. attach.py runs on it unchanged.

A run: TinyGuider.sample -> OUTER_SAMPLE -> sampler -> PREDICT_NOISE -> CALC_COND_BATCH -> conditions, batched or one by
one -> DIFFUSION_MODEL -> model, with wrappers at each name in capitals. One contract suite, tests/hosts, runs over this host
and over ComfyUI. Left out: areas, hooks, masks, several devices, loading.
Shapes: B = latent batch, N = words.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import torch

from ..zoo.sampling import TIMESTEPS, schedule

OUTER_SAMPLE, PREDICT_NOISE = "outer_sample", "predict_noise"
CALC_COND_BATCH, DIFFUSION_MODEL = "calc_cond_batch", "diffusion_model"
COND, UNCOND = 0, 1


def copy_options(value):
    """Copy of nested option dicts and lists. Everything else is shared, which is how run state travels down."""
    if isinstance(value, dict):
        return {key: copy_options(item) for key, item in value.items()}
    return list(value) if isinstance(value, list) else value


class WrapperExecutor:
    """What a wrapper gets as its first argument: calling it runs the next wrapper, at the end the function itself."""

    def __init__(self, function: Callable, class_obj: object, wrappers: Sequence[Callable]) -> None:
        self.function = function
        self.class_obj = class_obj
        self.wrappers = wrappers

    def __call__(self, *args, **kwargs):
        if not self.wrappers:
            return self.function(*args, **kwargs)
        inner = WrapperExecutor(self.function, self.class_obj, self.wrappers[1:])
        return self.wrappers[0](inner, *args, **kwargs)


def wrapped(hook_point: str, function: Callable, class_obj: object, transformer_options: dict) -> WrapperExecutor:
    """`function` inside all wrappers that the options hold for `hook_point`, the first added outermost."""
    by_key = transformer_options.get("wrappers", {}).get(hook_point, {})
    return WrapperExecutor(function, class_obj, [wrapper for added in by_key.values() for wrapper in added])


class TinyPatcher:
    """A model and what is attached to it. Clones share the module; nothing is ever written on the module."""

    def __init__(self, diffusion_model: torch.nn.Module) -> None:
        self.diffusion_model = diffusion_model
        self.model_options: dict = {"transformer_options": {}}
        self.wrappers: dict[str, dict[str, list[Callable]]] = {}

    def clone(self) -> TinyPatcher:
        clone = TinyPatcher(self.diffusion_model)
        clone.model_options = copy_options(self.model_options)
        clone.wrappers = copy_options(self.wrappers)
        return clone

    def get_model_object(self, name: str) -> object:
        return getattr(self, name)

    def add_wrapper_with_key(self, hook_point: str, key: str, wrapper: Callable) -> None:
        self.wrappers.setdefault(hook_point, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, hook_point: str, key: str) -> None:
        self.wrappers.get(hook_point, {}).pop(key, None)

    def set_model_patch_replace(self, patch: Callable, name: str, block_name: str, number: int) -> None:
        """Replace the block hook at (block_name, number); `name` is "dit"."""
        options = self.model_options["transformer_options"]
        options.setdefault("patches_replace", {}).setdefault(name, {})[block_name, number] = patch


class Condition(NamedTuple):
    """One prompt of a guider. index: COND or UNCOND. context: words (1 or B, N, 4096)."""

    index: int
    uuid: uuid.UUID
    context: torch.Tensor


class TinyGuider:
    """Samples with classifier-free guidance. batched: cond and uncond in one model call where their lengths agree."""

    def __init__(self, model_patcher: TinyPatcher, batched: bool = True) -> None:
        self.model_patcher = model_patcher
        self.model_options = model_patcher.model_options
        self.batched = batched
        self.conditions: list[Condition] = []
        self.cfg = 1.0

    def set_conds(self, positive: torch.Tensor, negative: torch.Tensor) -> None:
        """Words of the two prompts, (1 or B, N, 4096). The negative one runs first, as in ComfyUI."""
        pairs = ((UNCOND, negative), (COND, positive))
        self.conditions = [Condition(index, uuid.uuid4(), context) for index, context in pairs]

    def set_cfg(self, cfg: float) -> None:
        """Strength of guidance. 1 needs no negative prompt, so that one does not run."""
        self.cfg = cfg

    @torch.inference_mode()
    def sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ) -> torch.Tensor:
        """Latents (B, 16, F, H, W) from noise of that shape, along sigmas (steps + 1,), with one of SAMPLERS.

        latent_image: what to start from, zeros for nothing. callback(step, denoised, x, steps) sees every step.
        """
        plain_options = self.model_options
        self.model_options = copy_options(plain_options)
        options = self.model_options.setdefault("transformer_options", {})
        options["wrappers"] = copy_options(self.model_patcher.wrappers)
        try:
            run = wrapped(OUTER_SAMPLE, self.outer_sample, self, options)
            return run(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)
        finally:
            self.model_options = plain_options

    def outer_sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ) -> torch.Tensor:
        options = copy_options(self.model_options)
        options["transformer_options"]["sample_sigmas"] = sigmas
        first, last = float(sigmas[0]), float(sigmas[-1])

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return self.outer_predict_noise(x, sigma, options, seed)

        def on_step(state: dict) -> None:
            callback(state["i"], state["denoised"], state["x"], len(sigmas) - 1)

        x = first * noise + (1.0 - first) * latent_image
        x = sampler.sampler_function(denoise, x, sigmas, callback=on_step if callback else None, **sampler.extra_options)
        return x / (1.0 - last)

    def outer_predict_noise(self, x, timestep, model_options, seed=None) -> torch.Tensor:
        predict = wrapped(PREDICT_NOISE, self.predict_noise, self, self.model_options["transformer_options"])
        return predict(x, timestep, model_options, seed)

    def predict_noise(self, x, timestep, model_options, seed=None) -> torch.Tensor:
        """Clean latents as the guided model sees them in x at noise level `timestep` (B,), which is sigma."""
        asked = [[c for c in self.conditions if c.index == index] for index in (COND, UNCOND)]
        conds = [[{"condition": c} for c in found] for found in asked]
        if self.cfg == 1.0:
            conds[UNCOND] = None
        call = wrapped(CALC_COND_BATCH, self.calc_cond_batch, None, model_options["transformer_options"])
        cond, uncond = call(self.model_patcher.diffusion_model, conds, x, timestep, model_options)
        return cond if conds[UNCOND] is None else uncond + (cond - uncond) * self.cfg

    def calc_cond_batch(self, model, conds, x, timestep, model_options) -> list[torch.Tensor]:
        """Clean latents of each condition, (B, 16, F, H, W); zeros for None."""
        needed = [entry["condition"] for entries in reversed(conds) for entry in entries or ()]  # uncond first
        denoised = [torch.zeros_like(x) for _ in conds]
        for group in self.batches(needed):
            velocities = self.apply_model(group, x, timestep, model_options).chunk(len(group))
            for condition, velocity in zip(group, velocities, strict=True):
                denoised[condition.index] = x - velocity * timestep.view(-1, 1, 1, 1, 1)
        return denoised

    def batches(self, conditions: list[Condition]) -> list[list[Condition]]:
        lengths = {condition.context.shape[1] for condition in conditions}
        return [conditions] if self.batched and len(lengths) == 1 else [[condition] for condition in conditions]

    def apply_model(self, group: list[Condition], x, timestep, model_options) -> torch.Tensor:
        """Velocities of the conditions in `group`, stacked: (len(group) * B, 16, F, H, W)."""
        options = copy_options(model_options["transformer_options"])
        options["cond_or_uncond"] = [condition.index for condition in group]
        options["uuids"] = [condition.uuid for condition in group]
        options["sigmas"] = timestep
        count, model = len(group), self.model_patcher.diffusion_model
        context = torch.cat([condition.context.expand(len(x), -1, -1) for condition in group]).to(x)
        forward = wrapped(DIFFUSION_MODEL, model, model, options)
        return forward(x.repeat(count, 1, 1, 1, 1), timestep.repeat(count) * TIMESTEPS, context, None, None, options)


def sample_euler(
    model: Callable, x: torch.Tensor, sigmas: torch.Tensor, extra_args=None, callback: Callable | None = None, disable=None
) -> torch.Tensor:
    """One evaluation per step, along the slope at its start. model(x, sigma of each row): denoised."""
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        denoised = model(x, x.new_full((len(x),), sigma))
        if callback:
            callback({"i": step, "x": x, "denoised": denoised})
        x = x + (x - denoised) / sigma * (following - sigma)
    return x


def sample_heun(
    model: Callable, x: torch.Tensor, sigmas: torch.Tensor, extra_args=None, callback: Callable | None = None, disable=None
) -> torch.Tensor:
    """Two evaluations per step, along the mean of the slopes at its start and its end; one where the end is sigma 0."""
    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        denoised = model(x, x.new_full((len(x),), sigma))
        if callback:
            callback({"i": step, "x": x, "denoised": denoised})
        slope = (x - denoised) / sigma
        if following > 0:
            ahead = x + slope * (following - sigma)
            slope = (slope + (ahead - model(ahead, x.new_full((len(x),), following))) / following) / 2
        x = x + slope * (following - sigma)
    return x


class TinySampler(NamedTuple):
    """A sampling function and its options, as in ComfyUI's KSAMPLER."""

    sampler_function: Callable
    extra_options: Mapping = MappingProxyType({})


SAMPLERS = {"euler": TinySampler(sample_euler), "heun": TinySampler(sample_heun)}


def sample(
    patcher: TinyPatcher,
    noise: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    cfg: float = 3.0,
    steps: int = 30,
    sampler: str = "euler",
    batched: bool = True,
    callback: Callable | None = None,
):
    """Clean latents (B, 16, F, H, W) from noise, in one call. The same numbers as sample.sample, within rounding."""
    guider = TinyGuider(patcher, batched)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(noise, torch.zeros_like(noise), SAMPLERS[sampler], schedule(steps), callback=callback)
