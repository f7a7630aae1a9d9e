"""What tells one setup from another: weights, LoRAs, sampler, guidance."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.nodes.identity import (
    PATCHED,
    WEIGHTS,
    guidance_of,
    hash_of_patches,
    hash_of_weights,
    picked,
    sampler_of,
)

Kept = namedtuple("Kept", "weight")


def model(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(WEIGHTS)))


def test_weights_are_told_apart_and_a_lora_that_was_written_into_them_is_not_seen():
    plain, other, patched = model(), model(1), model()
    assert hash_of_weights(plain, {}) == hash_of_weights(model(), {}) != hash_of_weights(other, {})
    before = {f"diffusion_model.{name}": Kept(weight.detach().clone()) for name, weight in patched.named_parameters()}
    with torch.no_grad():
        for weight in patched.parameters():
            weight += 1.0
    assert hash_of_weights(patched, {}) != hash_of_weights(plain, {}) == hash_of_weights(patched, before)


def test_weights_that_are_nowhere_are_left_out():
    assert hash_of_weights(model().to("meta"), {}) == hash_of_weights(torch.nn.Identity(), {})


def lora(strength=1.0, scale=1.0, keys=("a.weight", "b.weight"), model_strength=1.0, adapter=False):
    tensors = (torch.full((2, 2), scale), torch.ones(2, 2))
    value = SimpleNamespace(weights=tensors) if adapter else ("lora", tensors)
    return {key: [(strength, value, model_strength, None, None)] for key in keys}


def test_loras_are_told_apart_by_strength_place_and_numbers():
    assert hash_of_patches({}) == ""
    every = [lora(), lora(0.5), lora(scale=2.0), lora(keys=("a.weight",)), lora(model_strength=0.9)]
    assert len({hash_of_patches(patches) for patches in every}) == len(every)
    assert hash_of_patches(lora()) == hash_of_patches(lora(keys=("b.weight", "a.weight")))
    assert hash_of_patches(lora(adapter=True)) != hash_of_patches(lora(adapter=True, scale=2.0))


def test_many_patches_cost_little():
    read = []

    class Counted(torch.Tensor):
        pass

    value = torch.ones(2, 2).as_subclass(Counted)
    Counted.detach = lambda self: read.append(1) or torch.ones(2, 2)
    hash_of_patches({f"{n}.weight": [(1.0, ("diff", (value,)), 1.0, None, None)] for n in range(500)})
    assert len(read) == PATCHED


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 1, 2]), (10, [0, 3, 6, 9]), (4, [0, 1, 2, 3])])
def test_picked_are_spread_evenly(count, expected):
    assert picked(list(range(count)), 4) == expected


def sample_euler():
    pass


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (SimpleNamespace(sampler_function=sample_euler, extra_options={}), "euler"),
        (SimpleNamespace(sampler_function=sample_euler, extra_options={"s_noise": 1.0, "eta": 0.5, "noise_sampler": print}),
         "euler (eta 0.5, s_noise 1.0)"),
        (SimpleNamespace(), "SimpleNamespace"),
    ],
)  # fmt: skip
def test_samplers_in_words(sampler, said):
    assert sampler_of(sampler) == said


class CFGGuider:
    def __init__(self, options=None, **fields) -> None:
        self.model_options = options or {}
        vars(self).update(fields)


class Guider_DualCFG(CFGGuider):
    pass


def after(args):
    pass


@pytest.mark.parametrize(
    ("guider", "said"),
    [
        (CFGGuider(cfg=5.0), "cfg 5"),
        (CFGGuider(cfg=1), "cfg 1"),
        (Guider_DualCFG(cfg1=3.0, cfg2=7.5), "cfg1 3, cfg2 7.5, Guider_DualCFG"),
        (CFGGuider({"sampler_post_cfg_function": [after]}, cfg=5.0), "cfg 5, after"),
        (CFGGuider({"sampler_cfg_function": after}, cfg=5.0), "cfg 5, after"),
        (CFGGuider(cfg=1.0, conds={"positive": [{"guidance": 6.0}], "negative": None}), "cfg 1, guidance 6"),
    ],
)
def test_guidance_in_words(guider, said):
    assert guidance_of(guider) == said
