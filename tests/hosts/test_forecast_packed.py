"""Sound and picture in one packed latent, as MiniMax-H3 and LTX-2 sample them. What holds for all models: the contract."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from bwcache_pack.bwcache_core.advice import parts_line
from bwcache_pack.tests.hosts.calls import Calls, Truth
from bwcache_pack.tests.hosts.conftest import small_lab
from bwcache_pack.tests.hosts.lab import STEPS, difference

pytestmark = pytest.mark.comfyui
SMOOTH = {"plan": "0-1 4/8", "corrector": False}


@pytest.fixture(params=["minimax_h3", "ltxav"])
def packed(request, comfyui):
    return small_lab(comfyui, request.param)


def test_the_templates_of_minimax_halve_their_work(comfyui):
    """20 steps, res_multistep, simple, no guidance."""
    lab = small_lab(comfyui, "minimax_h3")
    watched = Truth(lab, speedup=2.0)
    latents = watched.sample(steps=20, sampler="res_multistep")
    report = watched.report
    assert len(watched.ran) == report.evaluations / 2 == 10 and watched.ran == report.planned
    assert 0.0 < watched.worst < 0.25
    assert report.plan.endswith("/20@12")
    assert torch.isfinite(latents).all()


def test_a_checkpoint_of_minimax_is_detected_and_halved(comfyui):
    """A file of it, as a user loads it: with nothing but the names and shapes of its tensors."""
    lab = small_lab(comfyui, "minimax_h3")
    save_file(lab.module().state_dict(), comfyui.folder / "tiny_minimax_h3.safetensors")
    model = comfyui.nodes.UNETLoader().load_unet("tiny_minimax_h3.safetensors", "default")[0]
    assert type(model.model).__name__ == "MiniMaxH3"
    plain = lab.sample(model, steps=20, sampler="res_multistep")
    assert torch.isfinite(plain).all()
    off, on = lab.cached(model.clone(), speedup=1.0), lab.cached(model.clone(), speedup=2.0)
    assert difference(lab.sample(off.model, steps=20, sampler="res_multistep"), plain) == 0.0
    assert difference(lab.sample(on.model, steps=20, sampler="res_multistep"), plain) > 0.0
    assert (on.report.evaluations, on.report.evaluations_reused) == (20, 10)


def shaken(lab, part: int, strength: float):
    """Noise on what the model says of the picture or of the sound."""
    sizes = [torch.Size(shape).numel() for shape in lab.recipe.shapes]
    chosen = [slice(0, sizes[0]), slice(sizes[0], sum(sizes))][part]

    def patch(model):
        model, generator = model.clone(), torch.Generator().manual_seed(4)

        def calc_cond_batch(executor, model, conds, x, timestep, *args, **kwargs):
            result = [d.clone() for d in executor(model, conds, x, timestep, *args, **kwargs)]
            for d in result:
                d[..., chosen] += strength * torch.randn(d[..., chosen].shape, generator=generator)
            return result

        model.add_wrapper_with_key("calc_cond_batch", "shaken", calc_cond_batch)
        return model

    return patch


@pytest.mark.parametrize("part", [0, 1], ids=["picture", "sound"])
def test_each_part_has_an_error_of_its_own(comfyui, part):
    """The one with fewer numbers would drown in a mean over both. By hand, at the first step that has a forecast."""
    lab = small_lab(comfyui, "minimax_h3")
    size = torch.Size(lab.recipe.latent).numel()
    watched = Calls(lab, after=shaken(lab, part, 2.0), plan="0-1 4/8", threshold=10.0, corrector=False)
    watched.sample()
    before, now = (watched.evaluations[n].calls[0].velocity(0) for n in (0, 1))
    picture, sound, whole = (float((now - before)[..., cut].abs().sum() / now[..., cut].abs().sum())
                             for cut in (slice(0, size), slice(size, None), slice(None)))  # fmt: skip
    assert max(picture, sound) > 1.2 * whole, "the parts err alike here"
    step = watched.report.steps[1]
    assert step.parts == {"picture": pytest.approx(picture, rel=1e-3), "sound": pytest.approx(sound, rel=1e-3)}
    assert step.error == max(step.parts.values())


def test_a_packed_mask_leaves_the_sound_alone(packed):
    """Sound that is given: the picture is made to it. Its part of the error does not count."""
    from comfy.nested_tensor import NestedTensor

    noise, latent = packed.noise(), packed.noise(seed=9)
    picture, sound = noise.unbind()
    mask = NestedTensor([torch.ones_like(picture[:, :1]), torch.zeros_like(sound[:, :1])])

    def sample(model):
        guider = packed.guider(model, cfg=packed.recipe.cfg)
        return packed.host.run(guider, noise, packed.sigmas(), "euler", latent=latent, mask=mask)

    plain = sample(packed.plain)
    off, on = packed.cached(speedup=1.0), packed.cached(**SMOOTH, threshold=10.0)
    same, reused = sample(off.model), sample(on.model)
    for here, there in zip(same.unbind(), plain.unbind(), strict=True):
        assert difference(here, there) == 0.0
    assert difference(reused.unbind()[1], plain.unbind()[1]) < 1e-4
    assert difference(reused.unbind()[0], plain.unbind()[0]) > 1e-4
    assert on.report.evaluations_reused == 5
    shaken_sound = packed.cached(**SMOOTH, threshold=10.0)
    sample(shaken(packed, 1, 20.0)(shaken_sound.model))
    assert [s.error for s in shaken_sound.report.steps] == [s.error for s in on.report.steps]


def test_the_report_tells_of_picture_and_sound(packed):
    cached = packed.cached(**SMOOTH, threshold=10.0)
    packed.sample(cached.model)
    parts = {name for step in cached.report.steps for name in step.parts}
    assert parts == {"picture", "sound"}
    assert "Largest error of a forecast: picture " in parts_line(cached.report)


def test_a_latent_of_one_part_has_no_parts(comfyui):
    lab = small_lab(comfyui, "flux")
    cached = lab.cached(**SMOOTH, threshold=10.0)
    lab.sample(cached.model)
    assert any(step.error for step in cached.report.steps)
    assert not any(step.parts for step in cached.report.steps)
    assert parts_line(cached.report) == ""


def test_a_callback_sees_in_reused_steps_what_it_sees_in_computed_ones(packed):
    """Both parts, since ComfyUI unpacks them for it."""
    seen = []
    cached = packed.cached(**SMOOTH, threshold=10.0)
    for model in (packed.plain, cached.model):
        packed.sample(model, callback=lambda step, denoised, x, total: seen.append(denoised))
    assert len(seen) == 2 * STEPS
    parts = [denoised.unbind() if denoised.is_nested else [denoised] for denoised in seen]
    assert len({tuple(part.shape for part in each) for each in parts}) == 1
    assert all(torch.isfinite(part).all() for each in parts for part in each)
