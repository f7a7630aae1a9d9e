"""TinyWan and its host against ComfyUI: the same weights give the same numbers, so what is measured here holds there."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file

from bwcache_pack.hosts.embedded import TinyPatcher, sample
from bwcache_pack.tests.hosts import recipes
from bwcache_pack.tests.hosts.lab import Lab, difference
from bwcache_pack.zoo.sampling import null_context
from bwcache_pack.zoo.sampling import sample as sample_plainly
from bwcache_pack.zoo.tinywan.checkpoint import load_checkpoint
from bwcache_pack.zoo.tinywan.words import encode_batch
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig

pytestmark = [pytest.mark.comfyui, pytest.mark.family("wan21_t2v")]


@pytest.fixture
def tinywan() -> TinyWan:
    weights = recipes.fill(recipes.RECIPES["wan21_t2v"].shapes())
    module = TinyWan(TinyWanConfig.from_state_dict(weights))
    module.load_state_dict(weights)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("per_frame", [False, True], ids=["one timestep", "a timestep per frame"])
@pytest.mark.parametrize("shape", [(1, 16, 5, 4, 4), (2, 16, 3, 6, 8), (1, 16, 1, 5, 7)], ids=str)
def test_tinywan_computes_what_wanmodel_computes(lab, tinywan, shape, per_frame):
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(shape, generator=generator), torch.randn(shape[0], 6, 4096, generator=generator)
    timestep = torch.rand(shape[0], shape[2], generator=generator) * 1000 if per_frame else torch.full(shape[:1], 700.0)
    lab.sample(lab.plain, steps=1)  # ComfyUI loads weights when it samples
    with torch.inference_mode():
        theirs = lab.module()(x, timestep, context, transformer_options={})
        ours = tinywan(x, timestep, context)
    assert theirs.std() > 0.1
    assert difference(ours, theirs) < 1e-4


def test_both_hosts_sample_the_same_latents(lab, embedded):
    """Euler, heun; guidance on and off; a slice of a schedule. Values are of size 1 to 4."""
    ours = Lab(embedded, "wan21_t2v")
    for request in ({}, {"sampler": "heun"}, {"cfg": 1.0}, {"first": 2, "last": 6}, {"steps": 20}):
        theirs = lab.plain.model.process_latent_in(lab.sample(lab.plain, **request))
        assert difference(ours.sample(ours.plain, **request), theirs) < 1e-3, request


def test_a_cached_run_is_the_same_on_both_hosts(lab, embedded):
    settings = {"mode": "paper", "threshold": 0.05, "reuse_interval": 2}
    ours, theirs = Lab(embedded, "wan21_t2v").cached(**settings), lab.cached(**settings)
    latents = Lab(embedded, "wan21_t2v").sample(ours.model, steps=20)
    expected = lab.plain.model.process_latent_in(lab.sample(theirs.model, steps=20))
    assert ours.actions == theirs.actions
    assert 0 < ours.report.evaluations_reused
    assert difference(latents, expected) < 1e-3


def test_the_hooked_host_samples_what_the_plain_loop_samples(tinywan):
    """tinywan/host.py, with nothing attached, against the few lines of tinywan/sample.py."""
    cond = encode_batch(["red circle moving left"])
    noise = torch.randn(1, 16, 5, 12, 12, generator=torch.Generator().manual_seed(0))
    for batched in (True, False):
        ours = sample(TinyPatcher(tinywan), noise, cond, null_context(cond), cfg=3.0, steps=12, batched=batched)
        assert difference(ours, sample_plainly(tinywan, noise, cond, cfg=3.0, steps=12, batched=batched)) < 1e-4


def test_comfyui_loads_a_tinywan_file_completely(comfyui, checkpoints, tinywan, caplog):
    """No key missing, none left over: ComfyUI takes the file for a Wan 2.1 text-to-video model."""
    save_file(tinywan.state_dict(), checkpoints / "from_tinywan.safetensors")
    with caplog.at_level(logging.DEBUG):
        model = comfyui.nodes.UNETLoader().load_unet("from_tinywan.safetensors", "default")[0]
    assert type(model.model).__name__ == "WAN21"
    assert type(model.get_model_object("diffusion_model")).__name__ == "WanModel"
    assert caplog.records
    problems = [r.getMessage() for r in caplog.records if "missing" in r.getMessage() or "unexpected" in r.getMessage()
                or "left over" in r.getMessage()]
    assert problems == []


def test_every_recipe_is_detected_and_loads_completely(comfyui, caplog):
    for family, recipe in recipes.RECIPES.items():
        caplog.clear()
        with caplog.at_level(logging.DEBUG):
            model = comfyui.load(family)
        assert type(model.model).__name__ == recipe.model
        assert not [r for r in caplog.records if "missing" in r.getMessage() or "unexpected" in r.getMessage()], family


def test_loading_reports_a_missing_key(comfyui, checkpoints, caplog):
    """The two tests above look for words in a log: this is what they would find."""
    weights = recipes.fill(recipes.RECIPES["wan21_t2v"].shapes())
    del weights["blocks.0.ffn.0.bias"]
    save_file({**weights, "blocks.0.ffn.9.bias": torch.zeros(1)}, checkpoints / "damaged.safetensors")
    with caplog.at_level(logging.DEBUG):
        comfyui.nodes.UNETLoader().load_unet("damaged.safetensors", "default")
    messages = " ".join(record.getMessage() for record in caplog.records)
    assert "ffn.0.bias" in messages
    assert "ffn.9.bias" in messages
    assert "missing" in messages
    assert "unexpected" in messages or "left over" in messages


def test_the_shipped_checkpoint_loads_in_comfyui(lab, checkpoints):
    from bwcache_pack.zoo.tinywan.checkpoint import DEFAULT_PATH

    if not DEFAULT_PATH.is_file():
        pytest.skip(f"{DEFAULT_PATH.name} is not made yet: python dev.py train")
    (checkpoints / "shipped.safetensors").write_bytes(DEFAULT_PATH.read_bytes())
    model = lab.host.nodes.UNETLoader().load_unet("shipped.safetensors", "default")[0]
    theirs, ours = model.get_model_object("diffusion_model"), load_checkpoint(DEFAULT_PATH)
    x, timestep = torch.randn(1, 16, 5, 12, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])
    context = encode_batch(["red circle moving left"])
    lab.sample(model, noise=x, steps=1)
    with torch.inference_mode():
        assert difference(ours(x, timestep, context), theirs(x, timestep, context, transformer_options={})) < 1e-4
