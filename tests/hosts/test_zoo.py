"""The zoo's models in ComfyUI: each loads completely, computes what its plain class computes, and samples the same clip."""

from __future__ import annotations

import logging

import pytest
import torch

from bwcache_pack.tests.hosts.lab import difference
from bwcache_pack.zoo.models import COMMITTED, load_plain, open_model

pytestmark = pytest.mark.comfyui

CLASSES = {"wan": ("WAN21", "WanModel"), "hunyuan": ("HunyuanVideo", "HunyuanVideo")}
STEPS = 6
LARGEST_FILE = 10_000_000  # bytes


@pytest.fixture(params=COMMITTED)
def model(request):
    model = open_model(request.param)
    if not model.checkpoint.is_file():
        pytest.skip(f"{model.name} is not trained yet")
    return model


@pytest.fixture
def loaded(comfyui, checkpoints, model, caplog):
    """The model in ComfyUI, and what its loader logged."""
    name = f"zoo_{model.name}.safetensors"
    (checkpoints / name).write_bytes(model.checkpoint.read_bytes())
    with caplog.at_level(logging.DEBUG):
        return comfyui.nodes.UNETLoader().load_unet(name, "default")[0], [r.getMessage() for r in caplog.records]


def through_comfyui(comfyui, patcher, model, prompt, noise, scale):
    positive, negative = model.conditioning(prompt, scale)
    guider = comfyui.guider(patcher, positive, negative, scale if model.guidance == "cfg" else 1.0)
    latents = comfyui.run(guider, noise, comfyui.sigmas(patcher, STEPS, "euler"), "euler")
    return patcher.model.process_latent_in(latents)


def test_every_key_is_read_and_none_is_missing(loaded, model):
    patcher, messages = loaded
    assert (type(patcher.model).__name__, type(patcher.model.diffusion_model).__name__) == CLASSES[model.family]
    assert messages
    assert [m for m in messages if "missing" in m or "unexpected" in m or "left over" in m] == []
    assert model.checkpoint.stat().st_size <= LARGEST_FILE


def test_comfyui_samples_what_the_plain_class_samples(comfyui, loaded, model):
    patcher, plain = loaded[0], load_plain(model)
    [prompt] = model.prompts(1, seed=3)
    noise = model.noise([5])
    for scale in (1.0, model.scale):
        theirs = through_comfyui(comfyui, patcher, model, prompt, noise, scale)
        ours = plain.sample(noise, [prompt], scale, STEPS)
        assert difference(ours, theirs) < 2e-2 * float(theirs.std()), scale


def test_the_default_shift_is_the_models_own(comfyui, loaded, model):
    plain = []
    load_plain(model).sample(model.noise([0]), model.prompts(1), 1.0, STEPS, callback=lambda step, s, x, v: plain.append(s))
    assert torch.allclose(comfyui.sigmas(loaded[0], STEPS, "euler")[:-1], torch.tensor(plain), atol=1e-6)
