"""Zoo models sampled with and without the cache in plain torch, many prompts in a batch: what plans are chosen by.

ComfyUI's samplers are linear in the denoised latents D = x - sigma * v, so a sampler is the steps that nodes/
sampler_response.py measures of ComfyUI's own function: x of the next evaluation is decay * x + sum_i weights[i] * D,
newest first. Forecast and corrector are the pack's own (bwcache_core/track.py), for each condition, before guidance.
Agrees with the pack in ComfyUI up to rounding; one decision holds for the whole batch.

Shapes: B = clips; latents x, outputs v and D are (B, C, F, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import torch

from ..bwcache_core.corrector import SamplerStep
from ..bwcache_core.schedule import Schedule, schedule_of
from ..bwcache_core.track import Place, Track
from ..zoo import sampling
from ..zoo.models import EMBEDDED, PlainModel, ZooModel, load_plain

SAMPLERS = ("euler", "res_multistep", "uni_pc", "dpmpp_2m", "heun")
DISCARD_PENULTIMATE = ("uni_pc",)  # comfy/samplers.py, DISCARD_PENULTIMATE_SIGMA_SAMPLERS: one sigma more, less the one before 0


@dataclass(frozen=True)
class Setting:
    """What is sampled. scale: of guidance; 1 is one pass a step, and models with embedded guidance always take one."""

    sampler: str
    steps: int
    shift: float
    scale: float

    @property
    def schedule(self) -> Schedule:
        """ComfyUI's "simple" scheduler, as KSampler asks it for this sampler."""
        discards = self.sampler in DISCARD_PENULTIMATE
        sigmas = sampling.schedule(self.steps + discards, self.shift).tolist()
        return schedule_of([*sigmas[:-2], sigmas[-1]] if discards else sigmas)


def sampler_steps(setting: Setting) -> tuple[SamplerStep, ...]:
    """What the sampler does at each of its evaluations. Needs ComfyUI (hosts/runs.py, enter_comfyui), but for euler."""
    schedule = setting.schedule
    if setting.sampler == "euler":
        places = enumerate(pairwise(schedule.sigmas))
        return tuple(SamplerStep(here, to / here, (1.0 - to / here,), i) for i, (here, to) in places)
    import comfy.samplers

    from ..nodes.sampler_response import sampler_response

    patcher = SimpleNamespace(get_model_object=lambda name: SimpleNamespace(), model=None)
    sampler = comfy.samplers.sampler_object(setting.sampler)
    return sampler_response(SimpleNamespace(model_patcher=patcher), sampler, torch.tensor(schedule.sigmas))


class Batch:
    """A zoo model and the prompts and noise that it samples from. prompts and noise follow from the seed."""

    def __init__(self, model: ZooModel, count: int, seed: int = 0, device: str = "cpu") -> None:
        self.plain: PlainModel = load_plain(model, device)
        self.prompts = model.prompts(count, seed)
        self.noise = model.noise([1000 * seed + clip for clip in range(count)]).to(device)

    @property
    def model(self) -> ZooModel:
        return self.plain.model

    @property
    def embedded(self) -> bool:
        return self.model.guidance == EMBEDDED

    def outputs(self, x: torch.Tensor, sigma: float, scale: float) -> list[torch.Tensor]:
        """v of each condition: with the prompt, then without where guidance needs it."""
        return self.plain.velocities(x, sigma, self.prompts, self.model.scale if self.embedded else scale)

    def guided(self, conditions: Sequence[torch.Tensor], scale: float) -> torch.Tensor:
        """v or D of all conditions to what the sampler gets."""
        cond, *rest = conditions
        return rest[0] + scale * (cond - rest[0]) if rest else cond


@torch.inference_mode()
def sample(
    batch: Batch, setting: Setting, steps: Sequence[SamplerStep], computes: Collection[int] | None = None,
    corrector: bool = True, on_output: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Clean latents. steps: of the sampler. computes: steps of the schedule that compute; None for all, without a cache.

    on_output(guided v), if given, sees every computed evaluation.
    """
    x, newest, track = batch.noise.clone(), [], Track()
    reach = max(len(step.weights) for step in steps)
    for evaluation, step in enumerate(steps):
        place = Place(evaluation, step.step, setting.schedule.coordinate(step.sigma), step.sigma)
        if computes is not None and step.step not in computes:
            denoised = track.recall(place, x.new_tensor(step.sigma), x)
        else:
            outputs = batch.outputs(x, step.sigma, setting.scale)
            if on_output:
                on_output(batch.guided(outputs, setting.scale))
            denoised = [x - step.sigma * v for v in outputs]
            if computes is not None:
                denoised, _ = track.learn(place, x.new_tensor(step.sigma), x, denoised, steps if corrector else ())
                if track.slope is not None:
                    track.adopt(track.slope.flatten(1).tolist())
        newest = [batch.guided(denoised, setting.scale), *newest][:reach]
        x = step.decay * x + sum(weight * d for weight, d in zip(step.weights, newest, strict=False))
    return x


def psnr(clips: torch.Tensor, reference: torch.Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB of each of two batches of clips (B, ...) in [0, 1]; 120 where they are equal."""
    errors = ((clips - reference) ** 2).flatten(1).mean(1)
    return [-10.0 * math.log10(max(float(error), 1e-12)) for error in errors]
