"""What is found out about ComfyUI's samplers is what they do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.corrector import carried_tensors
from bwcache_pack.nodes.sampler_response import sampler_response

pytestmark = [pytest.mark.comfyui, pytest.mark.family("wan21_t2v")]
CARRIED = {
    "euler": 1, "heun": 2, "dpm_2": 2, "exp_heun_2_x0": 2, "dpmpp_2m": 2, "res_multistep": 2, "uni_pc": 4, "uni_pc_bh2": 4,
    "lms": 4, "gradient_estimation": 4, "deis": 4, "ipndm": 4,
}  # fmt: skip


@pytest.mark.parametrize("steps", [8, 9])
@pytest.mark.parametrize("name", CARRIED)
def test_a_sampler_does_what_it_is_found_to_do(lab, name, steps):
    """Run on denoised latents of random numbers, its latents are those that decay and weights give."""
    guider, sigmas = lab.guider(lab.plain), lab.sigmas(steps=steps, sampler=name)
    sampler = lab.host.samplers.sampler_object(name)
    found = sampler_response(guider, sampler, sigmas)
    assert carried_tensors(found) == CARRIED[name]
    generator, seen, given = torch.Generator().manual_seed(2), [], []

    def model(x, sigma, **options):
        seen.append(x)
        given.append(torch.randn(x.shape, generator=generator))
        return given[-1]

    model.inner_model = SimpleNamespace(model_patcher=lab.plain)
    seen.append(sampler.sampler_function(model, torch.randn(1, 1, 2, 2), sigmas, extra_args={}, disable=True))
    assert len(found) == len(given)
    for n, step in enumerate(found):
        denoised = sum(w * d for w, d in zip(step.weights, reversed(given[: n + 1]), strict=False))
        torch.testing.assert_close(seen[n + 1], step.decay * seen[n] + denoised, rtol=1e-3, atol=5e-3)
