"""What samplers are found to do, against their formulas, and which of them are asked at all."""

import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.hosts import embedded
from bwcache_pack.hosts.embedded import SAMPLERS, TinySampler, sample_euler
from bwcache_pack.nodes import sampler_response as asking
from bwcache_pack.nodes.sampler_response import is_known, sampler_response

GUIDER = SimpleNamespace(model_patcher=SimpleNamespace(model="the model"))
SIGMAS = torch.tensor([1.0, 0.9, 0.6, 0.2, 0.0])


def churning(model, x, sigmas, **options):
    return sample_euler(model, x + torch.randn_like(x), sigmas, **options)


def leaving_all_scales(model, x, sigmas, **options):
    return sample_euler(model, x, sigmas, **options) / 0.0


def writing(model, x, sigmas, **options):
    """As uni_pc writes 0.001 into the end."""
    sigmas[-1] = 0.001
    return sample_euler(model, x, sigmas, **options)


def inquiring(model, x, sigmas, **options):
    SEEN.append((model.inner_model.model_patcher, model.inner_model.inner_model, sigmas.device.type, options["churn"]))
    return sample_euler(model, x, sigmas, callback=options["callback"])


SEEN: list = []


@pytest.fixture
def ours(monkeypatch):
    """The samplers of this file count as known ones."""
    known = ("churning", "leaving_all_scales", "writing", "inquiring")
    monkeypatch.setitem(asking.LINEAR, __name__, known)
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(**{n: globals()[n] for n in known}, __file__=__file__))
    SEEN.clear()


def test_euler_takes_in_of_the_denoised_latent_what_it_gives_up_of_its_own():
    steps = sampler_response(GUIDER, SAMPLERS["euler"], SIGMAS)
    assert [step.sigma for step in steps] == pytest.approx(SIGMAS[:-1].tolist())
    assert [step.step for step in steps] == [0, 1, 2, 3]
    for step, (sigma, following) in zip(steps, pairwise(SIGMAS.tolist()), strict=True):
        assert step.decay == pytest.approx(following / sigma)
        assert step.weights == pytest.approx([1.0 - following / sigma])


def test_both_evaluations_of_a_step_are_told_apart_and_belong_to_it():
    """Heun: ahead along the first slope, then from the start along the mean of both; one where sigma ends at 0."""
    steps = sampler_response(GUIDER, SAMPLERS["heun"], SIGMAS)
    assert [step.step for step in steps] == [0, 0, 1, 1, 2, 2, 3]
    assert [step.sigma for step in steps] == pytest.approx([1.0, 0.9, 0.9, 0.6, 0.6, 0.2, 0.2])
    first, second = steps[:2]
    assert (first.decay, *first.weights) == pytest.approx((0.9, 0.1))
    # x + ((x - D0) / 1 + (x1 - D1) / 0.9) / 2 * (-0.1), x1 = 0.9 x + 0.1 D0, in terms of x1: decay 1
    assert second.decay == pytest.approx(1.0)
    assert second.weights == pytest.approx([0.1 / 0.9 / 2, -0.1 / 0.9 / 2], abs=1e-6)


def test_a_slice_of_a_schedule_ends_where_it_ends():
    *_, last = sampler_response(GUIDER, SAMPLERS["euler"], SIGMAS[1:3])
    assert (last.sigma, last.decay) == pytest.approx((0.9, 0.6 / 0.9))
    assert sampler_response(GUIDER, SAMPLERS["euler"], SIGMAS[:1]) == ()


@pytest.mark.parametrize("function", [churning, leaving_all_scales])
def test_a_known_sampler_that_adds_noise_or_has_no_numbers_is_not_corrected(ours, function):
    """A version of ComfyUI may change what it does."""
    assert is_known(function)
    assert sampler_response(GUIDER, TinySampler(function), SIGMAS) == ()


@pytest.mark.parametrize("sampler", [TinySampler(churning), sample_euler, object(), SimpleNamespace(sampler_function=None)])
def test_samplers_that_are_not_known_are_not_asked(sampler):
    assert sampler_response(GUIDER, sampler, SIGMAS) == ()


def test_a_sampler_is_known_by_the_object_not_by_its_name(monkeypatch):
    """Other packs have samplers of the same names, wrap ComfyUI's, or put their own in its place."""

    def mine(*args, **kwargs):
        return sample_euler(*args, **kwargs)

    mine.__name__ = mine.__qualname__ = "sample_euler"
    mine.__module__ = embedded.__name__
    assert is_known(sample_euler)
    assert not is_known(mine)
    monkeypatch.setattr(embedded, "sample_euler", mine)
    assert not is_known(mine) and not is_known(sample_euler)


def test_nothing_of_the_users_is_written_into(ours):
    sigmas, options = SIGMAS.clone(), {}
    steps = sampler_response(GUIDER, TinySampler(writing, options), sigmas)
    assert torch.equal(sigmas, SIGMAS) and options == {}
    assert steps[-1].decay == 0.0, "what it ends at is the user's"


def test_random_numbers_are_put_back(ours):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    sampler_response(GUIDER, TinySampler(churning), SIGMAS)
    assert torch.equal(torch.rand(2), expected)


def test_samplers_find_the_model_that_they_ask_for_the_noise_schedule_and_their_options(ours):
    assert sampler_response(GUIDER, TinySampler(inquiring, {"churn": 2}), SIGMAS)
    assert SEEN == [(GUIDER.model_patcher, "the model", "cpu", 2)]


@pytest.mark.parametrize(("steps", "asked"), [(asking.MOST_STEPS, True), (asking.MOST_STEPS + 1, False)])
def test_runs_of_very_many_steps_are_not_asked_about(steps, asked):
    assert bool(sampler_response(GUIDER, SAMPLERS["euler"], torch.linspace(1.0, 0.0, steps + 1))) is asked
