"""What nodes/attach_blocks.py reads of a model call, without a host."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.nodes.attach_blocks import shapes_of, stream_keys


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
