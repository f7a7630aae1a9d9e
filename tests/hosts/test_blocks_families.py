"""Every model class of nodes/families.py that this ComfyUI has: built small, put in place of a Wan 2.1, and cached."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

from bwcache_pack.nodes.families import FAMILIES
from bwcache_pack.tests.hosts import recipes
from bwcache_pack.tests.hosts.lab import FORCED, difference
from bwcache_pack.tests.hosts.test_blocks_comfyui import check

pytestmark = [pytest.mark.comfyui, pytest.mark.family("wan21_t2v")]
MODULES = {
    "WanModel": "wan.model", "VaceWanModel": "wan.model", "CameraWanModel": "wan.model", "WanModel_S2V": "wan.model",
    "HumoWanModel": "wan.model", "SCAILWanModel": "wan.model", "SCAIL2WanModel": "wan.model",
    "AnimateWanModel": "wan.model_animate", "WanAnimate2Model": "wan.model_animate2",
    "WanDancerModel": "wan.model_wandancer", "CausalWanModel": "wan.ar_model", "HunyuanVideo": "hunyuan_video.model",
    "LTXVModel": "lightricks.model", "AsymmDiTJoint": "genmo.joint_model.asymm_models_joint",
    "Flux": "flux.model", "Chroma": "chroma.model",
    "ChromaRadiance": "chroma_radiance.model", "QwenImageTransformer2DModel": "qwen_image.model",
    "OpenAISignatureMMDITWrapper": "modules.diffusionmodules.mmdit", "MMDiT": "aura.mmdit",
    "LensTransformer2DModel": "lens.model", "MageFlowTransformer2DModel": "mage_flow.model",
    "JoyImageTransformer3DModel": "joyimage.model", "MiniMaxH3Model": "minimax.model",
}  # fmt: skip
NEWER = {
    "SCAILWanModel", "SCAIL2WanModel", "WanAnimate2Model", "WanDancerModel", "CausalWanModel",
    "LensTransformer2DModel", "MageFlowTransformer2DModel", "JoyImageTransformer3DModel", "MiniMaxH3Model",
}  # than ComfyUI 0.8  # fmt: skip
SIZES = {"dim": 128, "ffn_dim": 256, "num_heads": 1, "num_layers": 4, "in_dim": 16, "out_dim": 16}
EXTRA = {"WanModel_S2V": {"audio_dim": 64, "audio_inject_layers": [0, 3]}}
ENCODERS = ("audio_proj", "motion_encoder", "face_encoder")  # large, and not needed without sound or a face


def model_class(name: str):
    """The class, or None where this ComfyUI has none of that name."""
    try:
        return getattr(importlib.import_module(f"comfy.ldm.{MODULES[name]}"), name, None)
    except ModuleNotFoundError:
        return None


def small(name: str) -> torch.nn.Module:
    """A model of class `name` with random weights."""
    import comfy.ops

    cls = model_class(name)
    if cls is None:
        pytest.skip(f"this ComfyUI has no {name}")
    module = cls(**SIZES, **EXTRA.get(name, {}), device="meta", dtype=torch.float32,
                 operations=comfy.ops.disable_weight_init)
    for encoder in ENCODERS:
        if hasattr(module, encoder):
            setattr(module, encoder, None)
    module.to_empty(device="cpu")
    module.load_state_dict(recipes.fill({key: tuple(value.shape) for key, value in module.state_dict().items()}))
    return module.eval().requires_grad_(False)


def in_place_of_wan(lab, module: torch.nn.Module):
    """A Wan 2.1 model whose diffusion model is `module`."""
    model = lab.host.load(lab.family)
    model.model.diffusion_model = module
    return model


def test_every_listed_class_exists_under_that_name(lab):
    assert MODULES.keys() == FAMILIES.keys() - {"TinyWan"}
    missing = {name for name in MODULES if model_class(name) is None}
    assert missing <= NEWER
    if tuple(map(int, lab.host.version.split(".")[:2])) >= (0, 33):
        assert missing == set()


@pytest.mark.parametrize("name", MODULES)
def test_every_listed_class_asks_for_a_hook_at_each_block(name, comfyui):
    """And calls DIFFUSION_MODEL wrappers, itself or through its parent, unless its row says otherwise."""
    cls = model_class(name)
    if cls is None:
        pytest.skip(f"this ComfyUI has no {name}")
    sources = [inspect.getsource(parent) for parent in cls.__mro__ if parent.__module__.startswith("comfy.ldm")]
    family = FAMILIES[name]
    for kind, _ in family.kinds:
        assert any(f'("{kind}", i) in blocks_replace' in source for source in sources)
    assert any("WrappersMP.DIFFUSION_MODEL" in source for source in sources) == family.wrapped


@pytest.mark.parametrize("name", [name for name in MODULES if "Wan" in name and "Vace" not in name])
def test_every_wan_class_is_cached(lab, name):
    """VACE and HunyuanVideo have recipes: see test_blocks_contract.py. For the others: test_blocks_other_models.py."""
    model = in_place_of_wan(lab, small(name))
    spy, cached = check(lab, model, FORCED)
    assert cached.actions == ["compute"] * 3 + ["reuse"] * 2 + ["compute"] * 3
    assert cached.report.model == name
    assert difference(spy.evaluations[3].head(0), spy.evaluations[2].head(0)) == 0.0
    per_block = lab.cached(model, **{**FORCED, "mode": "per block"})
    assert torch.isfinite(lab.sample(per_block.model)).all()
    assert per_block.actions[3] == "reuse"


def with_sound(model):
    """`model` with one audio track for all conditions, as WanSoundImageToVideo hands it on."""
    sound = torch.randn(1, 25, 64, 20, generator=torch.Generator().manual_seed(8))
    model = model.clone()

    def diffusion_model(executor, x, *args, **kwargs):
        return executor(x, *args, **{**kwargs, "audio_embed": sound.expand(len(x), -1, -1, -1)})

    model.add_wrapper_with_key("diffusion_model", "sound", diffusion_model)
    return model


@pytest.mark.parametrize("cfg", [4.0, 1.0])
def test_sound_is_injected_once_after_the_last_block_of_reused_steps(lab, cfg):
    """S2V writes it into the hidden states, as a function of them: it has to meet the kept features, clean each time."""
    module = small("WanModel_S2V")
    model = with_sound(in_place_of_wan(lab, module))
    assert difference(lab.sample(model), lab.sample(in_place_of_wan(lab, module))) > 0.01
    injected: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def before(m, args):
        injected.append((args[1], args[0].clone()))

    def after(m, args, out):
        injected[-1] += (out.clone(),)

    handles = [module.audio_injector.register_forward_pre_hook(before),
               module.audio_injector.register_forward_hook(after)]
    try:
        injected.clear()
        cached = lab.cached(model, **FORCED)
        spy, _ = lab.watch(cached.model, cfg=cfg)
    finally:
        for handle in handles:
            handle.remove()
    last = [(entered, left) for block, entered, left in injected if block == 3]
    assert cached.actions[3:5] == ["reuse"] * 2
    for evaluation in (3, 4):
        entered, left = last[evaluation]
        assert difference(entered, spy.evaluations[2].calls[0].produced[3]) == 0.0
        assert difference(left, entered) > 0.01
        assert difference(spy.evaluations[evaluation].calls[0].head, left) == 0.0
