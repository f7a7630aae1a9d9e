"""What a sampler makes of the model's outputs, for the corrector: found out by running it on a model of unit vectors.

Asks ComfyUI's own sampling function, whatever its version, instead of knowing its formulas. A run of some milliseconds on
the processor; random numbers are put back as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch

from ..bwcache_core.corrector import SamplerStep, sampler_steps

LINEAR = {"euler", "dpmpp_2m", "res_multistep", "unipc", "unipc_bh2"}  # no noise, and measured: benchmarks/NOTES.md
MOST_EVALUATIONS = 2  # per step, with room to spare


def sampler_response(guider, sampler, sigmas: torch.Tensor) -> tuple[SamplerStep, ...]:
    """What `sampler` does at each evaluation of a run over `sigmas` (steps + 1,). Empty where that is not known.

    sampler: ComfyUI's KSAMPLER. guider: some samplers ask its model for the noise schedule. Raises what they raise.
    """
    function = getattr(sampler, "sampler_function", None)
    if sampler_name(function) not in LINEAR or len(sigmas) < 2:
        return ()
    model = UnitModel(guider.model_patcher, room=MOST_EVALUATIONS * len(sigmas))
    with torch.random.fork_rng(devices=[]):  # one with churn draws noise
        result = function(model, model.latent(), sigmas.float().cpu(), extra_args={}, disable=True, **sampler.extra_options)
    gains = [*model.seen, result.flatten().tolist()]
    sound = all(math.isfinite(gain) for row in gains for gain in row) and not any(row[-1] for row in gains)
    return sampler_steps([*model.sigmas, float(sigmas[-1])], gains) if sound else ()


def sampler_name(function: Callable | None) -> str:
    """Name of a sampling function of ComfyUI: "euler"."""
    return getattr(function, "__name__", "").removeprefix("sample_")


class UnitModel:
    """The denoised latent of evaluation j is the j-th unit vector, so what comes back as a latent holds the gains.

    room: evaluations that there may be, and one number more that stays 0 unless the sampler adds noise.
    """

    def __init__(self, patcher, room: int) -> None:
        self.inner_model = SimpleNamespace(model_patcher=patcher, inner_model=getattr(patcher, "model", None))
        self.room = room
        self.sigmas: list[float] = []
        self.seen: list[Sequence[float]] = []

    def latent(self) -> torch.Tensor:
        return torch.zeros(1, self.room + 1, 1, 1)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **options) -> torch.Tensor:
        denoised = self.latent()
        denoised[0, len(self.seen)] = 1.0
        self.seen.append(x.flatten().tolist())
        self.sigmas.append(float(sigma))
        return denoised
