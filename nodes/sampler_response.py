"""What a sampler makes of the model's outputs, found out by running it on a model of unit vectors.

Asks ComfyUI's own sampling function, whatever its version, instead of knowing its formulas. A run of some milliseconds on
the processor, with copies of all that it is handed; random numbers are put back as they were.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch

from ..bwcache_core.corrector import SamplerStep, sampler_steps

# No noise, one latent in and one out, and measured: benchmarks/NOTES.md. By module, since other packs have samplers of
# the same names.
LINEAR = {
    "comfy.k_diffusion.sampling": (
        "sample_euler", "sample_heun", "sample_dpm_2", "sample_exp_heun_2_x0", "sample_dpmpp_2m", "sample_res_multistep",
        "sample_lms", "sample_gradient_estimation", "sample_deis", "sample_ipndm",
    ),
    "comfy.extra_samplers.uni_pc": ("sample_unipc", "sample_unipc_bh2"),
    f"{__package__.rpartition('.')[0]}.hosts.embedded": ("sample_euler", "sample_heun"),  # the host of our own
}
UNCORRECTED = ("sample_deis", "sample_ipndm")  # they use each output four times: corrections lose (benchmarks/NOTES.md)
MOST_EVALUATIONS = 2  # per step, with room to spare
MOST_STEPS = 500  # takes a fraction of a second; its cost grows with the square, and so fine steps need no correction


def sampler_response(guider, sampler, sigmas: torch.Tensor) -> tuple[SamplerStep, ...]:
    """What `sampler` does at each evaluation of a run over `sigmas` (steps + 1,). Empty where that is not known, and over
    MOST_STEPS.

    sampler: ComfyUI's KSAMPLER. guider: some samplers ask its model for the noise schedule. Raises what they raise.
    """
    function = getattr(sampler, "sampler_function", None)
    if not is_known(function) or not 2 <= len(sigmas) <= MOST_STEPS + 1:
        return ()
    model = UnitModel(guider.model_patcher, room=MOST_EVALUATIONS * len(sigmas))
    schedule = sigmas.detach().to("cpu", torch.float32, copy=True)  # uni_pc writes into its end
    options = dict(getattr(sampler, "extra_options", {}))
    with torch.random.fork_rng(devices=[]):  # one with churn draws noise
        result = function(model, model.latent(), schedule, extra_args={}, callback=model.on_step, disable=True, **options)
    gains = [*model.seen, result.flatten().tolist()]
    sound = all(math.isfinite(gain) for row in gains for gain in row) and not any(row[-1] for row in gains)
    if not sound or min(model.sigmas) <= 0:
        return ()
    return sampler_steps([*model.sigmas, float(sigmas[-1])], gains, model.steps)


def is_known(function: Callable | None) -> bool:
    """Whether `function` is ComfyUI's own, as it came: not of the same name, not wrapped, not put in its place."""
    for module, names in LINEAR.items():
        loaded = sys.modules.get(module)
        for name in names:
            if loaded is not None and function is getattr(loaded, name, None):
                return defined_in(function) == getattr(loaded, "__file__", "")
    return False


def is_corrected(sampler) -> bool:
    """Whether corrections are worth it on a sampler that is known."""
    return getattr(getattr(sampler, "sampler_function", None), "__name__", "") not in UNCORRECTED


def defined_in(function: Callable) -> str:
    """The file that a function's code is from, below decorators such as torch.no_grad."""
    while (inner := getattr(function, "__wrapped__", None)) is not None:
        function = inner
    return getattr(getattr(function, "__code__", None), "co_filename", "")


class UnitModel:
    """The denoised latent of evaluation j is the j-th unit vector, so what comes back as a latent holds the gains.

    room: evaluations that there may be, and one number more that stays 0 unless the sampler adds noise.
    """

    def __init__(self, patcher, room: int) -> None:
        self.inner_model = SimpleNamespace(model_patcher=patcher, inner_model=getattr(patcher, "model", None))
        self.room = room
        self.sigmas: list[float] = []
        self.seen: list[Sequence[float]] = []
        self._called: list[int] = []  # how many evaluations there had been when each step told of its first

    def latent(self) -> torch.Tensor:
        return torch.zeros(1, self.room + 1, 1, 1)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **options) -> torch.Tensor:
        denoised = self.latent()
        denoised[0, len(self.seen)] = 1.0
        self.seen.append(x.flatten().tolist())
        self.sigmas.append(float(sigma.flatten()[0]))
        return denoised

    def on_step(self, *told, **more) -> None:
        """The sampler's callback: once a step, after its first evaluation."""
        self._called.append(len(self.seen))

    @property
    def steps(self) -> list[int]:
        """The step that each evaluation belongs to."""
        firsts = dict.fromkeys(count - 1 for count in self._called)  # uni_pc tells of its end, too
        return [max(sum(first <= n for first in firsts) - 1, 0) for n in range(len(self.seen))]
