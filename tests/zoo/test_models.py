"""The zoo's models and their scenes, without ComfyUI."""

import json
import re

import pytest
import torch

from bwcache_pack.zoo import training
from bwcache_pack.zoo.judge import FILE, load_judge
from bwcache_pack.zoo.market.data import SCENES as MARKET
from bwcache_pack.zoo.models import COMMITTED, load_plain, open_model
from bwcache_pack.zoo.muon import orthogonalised
from bwcache_pack.zoo.postcards.data import SCENES as POSTCARDS
from bwcache_pack.zoo.scenes import Renderer, Scenes, Words

NEW = ("postcards", "market")


@pytest.fixture(params=COMMITTED)
def model(request):
    return trained(request.param)


def trained(name):
    model = open_model(name)
    if not model.checkpoint.is_file():
        pytest.skip(f"{name} is not trained yet")
    return model


def drawn(scenes, seed=0):
    """A renderer of random pictures: the photographs are not part of this project."""
    generator = torch.Generator().manual_seed(seed)
    byte = torch.uint8
    pictures = {f"stamp.{s}": torch.randint(256, (4, 64, 64), generator=generator, dtype=byte) for s in scenes.subjects}
    pictures |= {f"place.{p}": torch.randint(256, (3, 64, 96), generator=generator, dtype=byte) for p in scenes.places}
    return Renderer(scenes, pictures, "cpu", generator)


def test_a_model_offers_prompts_noise_and_conditioning(model):
    prompts = model.prompts(20, seed=1)
    assert len(set(prompts)) == 20 and prompts == model.prompts(20, seed=1) != model.prompts(20, seed=2)
    assert model.noise([3, 4]).shape == (2, *model.latent_shape)
    assert torch.equal(model.noise([4]), model.noise([3, 4])[1:])
    positive, negative = model.conditioning(prompts[0], 3.5)
    assert positive[0][0].shape[0] == 1 and positive[0][0].shape[2] == negative[0][0].shape[2]
    assert (model.guidance == "embedded") == ("guidance" in positive[0][1])
    assert model.pixels(model.noise([0])).shape == (1, 5, 3, 2 * model.latent_shape[2], 2 * model.latent_shape[3])


def test_guidance_mixes_the_two_passes(model):
    plain, x, [prompt] = load_plain(model), model.noise([1]), model.prompts(1)
    passes = plain.velocities(x, 0.9, [prompt], 5.0)
    assert len(passes) == (2 if model.guidance == "cfg" else 1)
    expected = passes[-1] + 5.0 * (passes[0] - passes[-1]) if len(passes) == 2 else passes[0]
    assert torch.allclose(plain.velocity(x, 0.9, [prompt], 5.0), expected)
    assert len(plain.velocities(x, 0.9, [prompt], 1.0)) == 1


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tinywan"):
        open_model(tmp_path)


@pytest.mark.parametrize("scenes", [POSTCARDS, MARKET], ids=NEW)
def test_packing_clips_is_undone(scenes):
    renderer = drawn(scenes)
    clips = renderer.draw(renderer.random_labels(3))
    latents = scenes.pack(clips)
    assert latents.shape == (3, 16, scenes.frames, scenes.side // 2, scenes.side // 2)
    assert torch.allclose(scenes.pixels(latents), (clips + 1) / 2, atol=1e-6)


def test_the_file_beside_a_model_tells_the_scenes_it_was_trained_on():
    for name, scenes in zip(NEW, (POSTCARDS, MARKET), strict=True):
        assert open_model(name).language == scenes == Scenes.from_dict(scenes.to_dict())


def test_prompts_tell_labels_and_unknown_words_are_named():
    assert MARKET.prompt_of([0, 3, 4]) == "orange over meadow zooming in"
    assert MARKET.label_of("orange over meadow zooming in") == [0, 3, 4]
    assert MARKET.encode("").shape == MARKET.encode("orange over meadow zooming in").shape == (1, 5, 256)
    assert not MARKET.encode("").any() and not MARKET.pooled("").any()
    with pytest.raises(ValueError, match="purple"):
        MARKET.encode("purple over meadow zooming in")


def test_slots_are_apart_and_the_null_word_is_a_word():
    table = Words("slots", width=64, empty="null").table(3)
    assert torch.equal(table @ table.T, 16 * torch.eye(4))


def test_stamps_move_as_the_words_say():
    scenes = Scenes(("orange",), ("night",), MARKET.motions, side=32)
    pictures = {"stamp.orange": torch.full((4, 64, 64), 255, dtype=torch.uint8)}
    pictures["place.night"] = torch.zeros(3, 64, 96, dtype=torch.uint8)
    renderer = Renderer(scenes, pictures, "cpu", torch.Generator().manual_seed(0))
    clips = (renderer.draw(scenes.labels()) > 0.5)[:, :, 0].float()
    place = torch.arange(32.0)
    x = (clips.sum(2) * place).sum(2) / clips.sum((2, 3))
    y = (clips.sum(3) * place).sum(2) / clips.sum((2, 3))
    area, dx, dy = clips.sum((2, 3)), x[:, -1] - x[:, 0], y[:, -1] - y[:, 0]
    assert dx[0] < -6 and dx[1] > 6 and dy[2] < -6 and dy[3] > 6
    assert area[4, -1] > 2 * area[4, 0] and area[5, 0] > 2 * area[5, -1]


@pytest.mark.parametrize("name", NEW)
def test_prompts_are_followed(name):
    """Four prompts at 6 steps; the judge beside the model reads subject, place and motion."""
    model = trained(name)
    if not (model.checkpoint.parent / FILE).is_file():
        pytest.skip(f"{name} has no judge yet")
    prompts = model.prompts(4, seed=9)
    clips = model.pixels(load_plain(model).sample(model.noise(list(range(4))), prompts, steps=6))
    asked = torch.tensor([model.language.label_of(prompt) for prompt in prompts])
    read = load_judge(model.checkpoint.parent, model.language).read(clips)
    assert (read == asked).float().mean() >= 0.85


@pytest.mark.parametrize("name", COMMITTED)
def test_a_page_tells_what_was_measured(name):
    """Its table of changes and, where a network judges, of prompts followed; every picture on it is there."""
    folder = open_model(name).checkpoint.parent
    page, measured = (folder / "README.md").read_text(), json.loads((folder / "measured.json").read_text())
    for scale, curve in measured["changes"].items():
        told = " | ".join(f"{value:.3f}" for value in (curve[0], curve[1], min(curve), curve[-1]))
        assert re.search(rf"^\| (cfg|guidance) {float(scale):g} \| {re.escape(told)} \|$", page, re.MULTILINE), scale
    for key in {"followed", "judge"} & set(measured):
        assert f"| {' | '.join(f'{share:.3f}' for share in measured[key])} |" in page
    assert all((folder / link).is_file() for link in re.findall(r"!\[[^]]*\]\((.*?)\)", page))


def test_muon_brings_singular_values_near_one():
    matrices = torch.randn(3, 48, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrices).float())
    assert values.min() > 0.5 and values.max() < 1.4


@pytest.mark.parametrize("family", ["wan", "hunyuan"])
def test_a_training_goes_on_where_it_was_saved(family):
    """Also in another process: sets of names have another order there, so nothing may depend on one."""
    network = {"num_layers": 1, "ffn_dim": 128} if family == "wan" else {"double": 1, "single": 1}
    guidance = "cfg" if family == "wan" else "embedded"
    recipe = training.Recipe("small", family, guidance, 7.0, 5.0, network, batch=2, distil=0.0 if family == "wan" else 0.5)
    scenes = Scenes(("orange",), ("night",), ("left", "in"), MARKET.words if family == "hunyuan" else Words(), side=8)
    if family == "hunyuan":
        scenes = Scenes.from_dict({**scenes.to_dict(), "pooled_width": 768})
    pictures = {"stamp.orange": torch.full((4, 64, 64), 99, dtype=torch.uint8)}
    pictures["place.night"] = torch.full((3, 64, 96), 9, dtype=torch.uint8)
    first, second = (training.Trainer(scenes, recipe, pictures) for _ in range(2))
    for progress in (0.0, 0.3, 0.6):
        first.update(progress)
    second.restore(first.state())
    names = {id(p): name for name, p in second.model.named_parameters()}
    for group in second.optimizers[1].param_groups:
        assert (order := [names[id(p)] for p in group["params"]]) == sorted(order)
    assert (second.step, second.stage_step) == (first.step, first.stage_step)
    ours, theirs = first.ema.state_dict(), second.ema.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.isfinite(second.update(0.9))
