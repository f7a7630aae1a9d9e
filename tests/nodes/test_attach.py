"""What nodes/attach.py reads of a model call, without a host."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.config import BWCacheConfig
from bwcache_pack.hosts.embedded import SAMPLERS, TinySampler, sample_euler
from bwcache_pack.nodes.attach import open_session, shapes_of, stream_keys
from bwcache_pack.nodes.families import BlockLayout, Family


def test_shapes_are_those_of_one_row():
    """Cond and uncond in one call or in two have the same ones, a reference that comes in mid-run changes them."""
    latent, words, reference = torch.zeros(2, 16, 3, 4, 4), torch.zeros(2, 7, 64), torch.zeros(1, 16, 1, 4, 4)
    plain = shapes_of([latent, torch.zeros(2), words, None, {"sigmas": torch.zeros(2)}])
    assert plain == ((16, 3, 4, 4), (), (7, 64))
    assert plain == shapes_of([latent[:1], torch.zeros(1), words[:1], None, {}])
    assert plain != shapes_of([latent, torch.zeros(2), words, [reference], {}])


def test_keys_tell_inputs_apart():
    options = {"cond_or_uncond": [1, 0], "uuids": ["a", "b"]}
    latent = torch.zeros(2, 16, 3, 4, 4)
    uncond, cond = stream_keys(options, latent, "model", ((7, 64),))
    assert (uncond.inputs, cond.inputs) == (((7, 64),), ((7, 64),))
    assert uncond != stream_keys(options, latent, "model")[0]


def keys(**changed) -> set:
    """Keys of a call for two conditions, with parts of it changed."""
    parts = {"conditions": [1, 0], "uuids": ["a", "b"], "frames": [0, 1], "model": object, "dtype": torch.float32,
             "shape": (2, 16, 3, 4, 4), "device": "cpu", **changed}
    window = SimpleNamespace(index_list=parts["frames"])
    options = {"cond_or_uncond": parts["conditions"], "uuids": parts["uuids"], "context_window": window}
    latent = torch.zeros(parts["shape"], dtype=parts["dtype"], device=parts["device"])
    return set(stream_keys(options, latent, parts["model"]))


@pytest.mark.parametrize(
    "changed",
    [{"conditions": [3, 2]}, {"uuids": ["c", "d"]}, {"frames": [0, 2]}, {"model": int}, {"device": "meta"},
     {"shape": (2, 16, 3, 4, 6)}, {"shape": (4, 16, 3, 4, 4)}, {"dtype": torch.float16}],
    ids=lambda changed: " ".join(changed),
)
def test_every_part_of_an_identity_tells_conditions_apart(changed):
    assert len(keys()) == 2
    assert keys() == keys()
    assert not keys() & keys(**changed)


@pytest.mark.parametrize("shape", [(2,), (2, 16), (3, 16, 3, 4, 4)])
def test_an_input_that_is_no_batch_of_latents_is_refused(shape):
    with pytest.raises(ValueError, match="2 conditions"):
        keys(shape=shape)


@pytest.mark.parametrize(
    ("sampler", "settings", "corrected"),
    [
        (SAMPLERS["euler"], {}, True),
        (SAMPLERS["heun"], {}, False),  # not measured to gain
        (SAMPLERS["euler"], {"corrector": False}, False),
        (SAMPLERS["euler"], {"cache_point": "features"}, False),
        (SAMPLERS["euler"], {"mode": "paper"}, False),
        (sample_euler, {}, False),  # not a KSAMPLER of ComfyUI
    ],
)
def test_only_a_sampler_that_is_known_is_corrected(sampler, settings, corrected):
    session = opened(sampler, **settings)
    assert bool(session.sampler) == corrected and not session.report.warnings


def test_a_sampler_that_will_not_be_asked_is_not_corrected_and_the_report_says_so():
    def sample_euler(model, x, sigmas, disable=None):
        raise RuntimeError("no model of mine")

    session = opened(TinySampler(sample_euler))
    assert session.sampler == ()
    [warning] = session.report.warnings
    assert warning.startswith("The corrector is off") and "TypeError" in warning


def opened(sampler, **settings):
    layout = BlockLayout("model", (("double_block", 0),), Family("family", ()))
    guider = SimpleNamespace(model_options={}, model_patcher=None)
    noise, sigmas = torch.zeros(1, 16, 3, 4, 4), torch.linspace(1.0, 0.0, 11)
    return open_session(BWCacheConfig(**settings), layout, guider, None, noise, None, sampler, sigmas)
