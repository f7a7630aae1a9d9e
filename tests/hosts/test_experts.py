"""Runs that share a schedule or have few steps: the two experts of Wan 2.2, distilled LoRAs, the two stages of LTX-2."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.bwcache_core.advice import verdict
from bwcache_pack.tests.hosts.calls import Calls
from bwcache_pack.tests.hosts.conftest import small_lab
from bwcache_pack.tests.hosts.lab import Lab

pytestmark = pytest.mark.comfyui
LEAVE_OUT = "A model made for so few steps needs each of them: leave BWCache Apply out here."
STAGES = (  # LTX-2 with its distilled LoRA, ManualSigmas of ComfyUI's own template: 8 steps, then 3
    (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0),
    (0.85, 0.725, 0.421875, 0.0),
)


def shifted(model, shift: float):
    """The ModelSamplingSD3 node."""
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    return ModelSamplingSD3().patch(model, shift)[0]


class Experts:
    """Two models of one kind through KSamplerAdvanced, each with a cache of its own."""

    def __init__(self, comfyui, shift: float = 0.0) -> None:
        self.lab = Lab(comfyui, "wan22_i2v")
        models = [self.lab.plain, comfyui.load("wan22_i2v")]
        if shift:
            models = [shifted(model, shift) for model in models]
        self.high, self.low = (Calls(self.lab, model, speedup=2.0) for model in models)
        self.latent = {"samples": torch.zeros_like(self.lab.noise())}

    def sample(self, watched: Calls, first: int, last: int, steps: int, cfg: float) -> None:
        """Steps first to last of `steps`, on what the run before left."""
        sample = self.lab.host.nodes.KSamplerAdvanced().sample
        noise, rest = ("enable" if first == 0 else "disable"), ("enable" if last < steps else "disable")
        settings = (noise, 1, steps, cfg, "euler", "simple", *self.lab.prompts(), self.latent, first, last, rest)

        def run():
            with torch.inference_mode():
                return sample(watched.model, *settings)[0]

        self.latent = watched.counting(run)


@pytest.mark.parametrize("shift", [0.0, 5.0, 12.0])
@pytest.mark.parametrize(("boundary", "computed"), [(10, 5 + 5), (5, 3 + 8), (14, 7 + 3)])
def test_two_experts_compute_half_of_the_steps_of_both(comfyui, shift, boundary, computed):
    """Halves of a step go up."""
    experts = Experts(comfyui, shift)
    experts.sample(experts.high, 0, boundary, 20, 3.5)
    experts.sample(experts.low, boundary, 20, 20, 3.5)
    assert len(experts.high.evaluations) + len(experts.low.evaluations) == 20
    assert len(experts.high.ran) + len(experts.low.ran) == computed, (experts.high.report.plan, experts.low.report.plan)
    assert torch.isfinite(experts.latent["samples"]).all()
    for expert in (experts.high, experts.low):
        assert LEAVE_OUT not in verdict(expert.report)


def test_a_mixed_run_caches_where_there_is_something_and_says_where_there_is_not(comfyui):
    """10 high-noise steps of 20 with guidance, then 4 low-noise steps of 8 with a LoRA and without guidance."""
    experts = Experts(comfyui, shift=5.0)
    experts.sample(experts.high, 0, 10, 20, 3.5)
    experts.sample(experts.low, 4, 8, 8, 1.0)
    assert (len(experts.high.ran), len(experts.high.evaluations)) == (5, 10)
    assert LEAVE_OUT not in verdict(experts.high.report)
    assert verdict(experts.low.report).endswith(LEAVE_OUT)


@pytest.mark.parametrize("steps", [4, 8])
def test_a_distilled_run_is_told_to_leave_the_cache_out(comfyui, steps):
    """Lightning, turbo and lightx2v LoRAs: one model over all steps, no guidance."""
    lab = Lab(comfyui, "wan21_t2v")
    cached = lab.cached(speedup=2.0)
    lab.sample(cached.model, steps=steps, cfg=1.0)
    assert cached.report.evaluations_reused > 0
    assert verdict(cached.report).endswith(LEAVE_OUT)


def test_two_and_two_steps_have_nothing_to_reuse(comfyui):
    """The 4-step LoRAs of Wan 2.2 14B."""
    experts = Experts(comfyui, shift=5.0)
    experts.sample(experts.high, 0, 2, 4, 1.0)
    experts.sample(experts.low, 2, 4, 4, 1.0)
    for expert in (experts.high, experts.low):
        assert len(expert.ran) == 2
        assert verdict(expert.report).endswith("A run of 2 steps has nothing to reuse. Leave BWCache Apply out here.")


@pytest.mark.parametrize("stage", STAGES, ids=["8 steps", "3 steps"])
def test_the_distilled_stages_of_ltx_are_told_to_leave_the_cache_out(comfyui, stage):
    lab = small_lab(comfyui, "ltxav")
    cached = lab.cached(speedup=2.0, threshold=10.0)
    comfyui.run(lab.guider(cached.model, cfg=1.0), lab.noise(), torch.tensor(stage), "euler")
    assert cached.report.evaluations_reused > 0
    assert verdict(cached.report).endswith(LEAVE_OUT)


@pytest.mark.parametrize("steps", [20, 40])
def test_ltx_without_the_distilled_lora_halves(comfyui, steps):
    lab = small_lab(comfyui, "ltxav")
    watched = Calls(lab, speedup=2.0, threshold=10.0)
    watched.sample(steps=steps)
    assert len(watched.ran) == steps / 2
    assert LEAVE_OUT not in verdict(watched.report)
