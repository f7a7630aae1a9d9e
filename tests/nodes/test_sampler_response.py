"""What samplers are found to do, against their formulas."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.hosts.embedded import SAMPLERS, TinySampler, sample_euler
from bwcache_pack.nodes.sampler_response import sampler_response

GUIDER = SimpleNamespace(model_patcher=SimpleNamespace(model=None))
SIGMAS = torch.tensor([1.0, 0.9, 0.6, 0.2, 0.0])


def test_euler_takes_in_of_the_denoised_latent_what_it_gives_up_of_its_own():
    steps = sampler_response(GUIDER, SAMPLERS["euler"], SIGMAS)
    assert [step.sigma for step in steps] == pytest.approx(SIGMAS[:-1].tolist())
    for step, (sigma, following) in zip(steps, pairwise(SIGMAS.tolist()), strict=True):
        assert step.decay == pytest.approx(following / sigma)
        assert step.weights == pytest.approx([1.0 - following / sigma])


def test_a_slice_of_a_schedule_ends_where_it_ends():
    *_, last = sampler_response(GUIDER, SAMPLERS["euler"], SIGMAS[1:3])
    assert (last.sigma, last.decay) == pytest.approx((0.9, 0.6 / 0.9))
    assert sampler_response(GUIDER, SAMPLERS["euler"], SIGMAS[:1]) == ()


def named_euler(function):
    function.__name__ = "sample_euler"
    return TinySampler(function)


@named_euler
def churning(model, x, sigmas, **options):
    return sample_euler(model, x + torch.randn_like(x), sigmas, **options)


@named_euler
def leaving_all_scales(model, x, sigmas, **options):
    return sample_euler(model, x, sigmas, **options) / 0.0


@pytest.mark.parametrize("sampler", [churning, leaving_all_scales, SAMPLERS["heun"], sample_euler, object()])
def test_samplers_that_add_noise_or_are_not_known_are_not_corrected(sampler):
    assert sampler_response(GUIDER, sampler, SIGMAS) == ()


def test_random_numbers_are_put_back():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    sampler_response(GUIDER, churning, SIGMAS)
    assert torch.equal(torch.rand(2), expected)


def test_samplers_find_the_schedule_of_the_model_that_they_ask():
    asked = []

    def asking(model, x, sigmas, **options):
        asked.append((model.inner_model.model_patcher, model.inner_model.inner_model))
        return sample_euler(model, x, sigmas, **options)

    assert sampler_response(GUIDER, named_euler(asking), SIGMAS)
    assert asked == [(GUIDER.model_patcher, GUIDER.model_patcher.model)]
