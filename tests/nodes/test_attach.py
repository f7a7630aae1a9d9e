"""What nodes/attach.py reads of a model call, without a host."""

from __future__ import annotations

import torch

from bwcache_pack.nodes.attach import shapes_of, stream_keys


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
