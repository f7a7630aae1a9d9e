"""Checkpoints of the variants that tests/hosts/recipes.py has no table of tensors for.

Shapes come from ComfyUI's own class, built small and without memory; the file then goes through UNETLoader, which has
to detect the variant from it, as it detects the real one.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

from bwcache_pack.tests.hosts import recipes

LAYERS = 2
TALKING = 640  # width of a model that InfiniteTalk's 40 heads fit
SIZES = {"dim": recipes.DIM, "ffn_dim": recipes.FFN, "num_heads": 1, "num_layers": LAYERS, "in_dim": 16, "out_dim": 16}


class Absent(Exception):
    """This ComfyUI does not have what a cell needs. The message names it."""


@dataclass(frozen=True)
class Checkpoint:
    """module, name: of ComfyUI's class. sizes: its arguments where they differ from SIZES.

    metadata: what the file says of itself, for variants that no tensor gives away. left_out: prefixes of tensors that
    the file lacks. finish: last touches to the loaded diffusion model. model: class of comfy.supported_models that ComfyUI
    must detect.
    """

    module: str
    name: str
    model: str
    sizes: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    finish: Callable[[torch.nn.Module], None] | None = None

    def shapes(self) -> recipes.Shapes:
        module = comfyui_class(f"comfy.ldm.{self.module}", self.name)
        import comfy.ops

        arguments = {**SIZES, **self.sizes, "device": "meta", "dtype": torch.float32}
        built = module(**arguments, operations=comfy.ops.disable_weight_init)
        state = built.state_dict()
        return {key: tuple(value.shape) for key, value in state.items() if not key.startswith(self.left_out or ("-",))}


def comfyui_class(module: str, name: str):
    """A class of ComfyUI. Raises Absent where this version has none."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError):
        raise Absent(f"this ComfyUI has no {module}.{name}") from None


class FaceMotion(torch.nn.Module):
    """Stands in for Animate's motion encoder, 25 M weights over 512x512 pixels: that runs before the first block."""

    def get_motion(self, faces: torch.Tensor) -> torch.Tensor:
        """(frames, 3, H, W) to (frames, 512)."""
        rows = torch.nn.functional.adaptive_avg_pool2d(faces, (8, 64))
        return rows.mean(1).flatten(1)


class SoundTokens(torch.nn.Module):
    """Stands in for HuMo's audio projection, 39 M weights: that runs before the first block."""

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """(B, frames, 8, 5, 1280) to (B, frames, 16, 1536)."""
        return torch.nn.functional.pad(sound.mean(3), (0, 256)).repeat(1, 1, 2, 1)


def small_face_encoder(module: torch.nn.Module) -> None:
    module.motion_encoder = FaceMotion()


def small_audio_projection(module: torch.nn.Module) -> None:
    module.audio_proj = SoundTokens()


SMALL_EAR = {
    "left_out": ("audio_proj.audio_proj_glob_1.layer.weight", "audio_proj.audio_proj_glob_3"),
    "finish": small_audio_projection,
}


WAN_I2V = {"in_dim": 36, "model_type": "i2v"}
CHECKPOINTS = {
    "wan21_flf2v": Checkpoint("wan.model", "WanModel", "WAN21_I2V", {**WAN_I2V, "flf_pos_embed_token_number": 514}),
    "wan21_fun_control": Checkpoint("wan.model", "WanModel", "WAN21_FunControl2V", {**WAN_I2V, "in_dim": 48}),
    "wan21_talking": Checkpoint("wan.model", "WanModel", "WAN21_I2V", {**WAN_I2V, "dim": TALKING, "num_heads": 5}),
    "wan22_fun_control": Checkpoint("wan.model", "WanModel", "WAN21_T2V", {"in_dim": 52}),
    "wan22_ref_conv": Checkpoint("wan.model", "WanModel", "WAN21_T2V", {"in_dim": 52, "in_dim_ref_conv": 16}),
    "wan21_camera": Checkpoint("wan.model", "CameraWanModel", "WAN21_Camera", {"in_dim": 32}),
    "wan22_camera": Checkpoint("wan.model", "CameraWanModel", "WAN22_Camera",
                               {"in_dim": 36, "model_type": "camera_2.2"}),
    "wan22_s2v": Checkpoint("wan.model", "WanModel_S2V", "WAN22_S2V", {"num_layers": 5}),  # sound enters at 0 and 4
    "wan21_humo": Checkpoint("wan.model", "HumoWanModel", "WAN21_HuMo", **SMALL_EAR),
    "wan21_humo_17b": Checkpoint("wan.model", "HumoWanModel", "WAN21_HuMo", {"in_dim": 36}, **SMALL_EAR),
    "wan22_animate": Checkpoint("wan.model_animate", "AnimateWanModel", "WAN22_Animate",
                                {"in_dim": 36, "num_layers": 5}, left_out=("motion_encoder",),
                                finish=small_face_encoder),
    "wan_animate2": Checkpoint("wan.model_animate2", "WanAnimate2Model", "WAN_Animate2", {"in_dim": 36},
                               metadata={"transformer": {"model_type": "animate2"}}),
    "wan21_scail": Checkpoint("wan.model", "SCAILWanModel", "WAN21_SCAIL", {"in_dim": 20}),
    "wan21_scail2": Checkpoint("wan.model", "SCAIL2WanModel", "WAN21_SCAIL2", {"in_dim": 20}),
    "wan22_dancer": Checkpoint("wan.model_wandancer", "WanDancerModel", "WAN22_WanDancer",
                               {"in_dim": 36, "num_layers": 5}),
    "wan21_causal": Checkpoint("wan.ar_model", "CausalWanModel", "WAN21_CausalAR_T2V",
                               metadata={"transformer": {"causal_ar": True}}),
}  # fmt: skip


def hunyuan(channels: int = 16) -> recipes.Shapes:
    """Two double blocks and a single one; other channels at the door for images beside the latents."""
    shapes = recipes.RECIPES["hunyuan"].shapes() | recipes.patchify("img_in.proj", channels)
    return {name: shape for name, shape in shapes.items() if not name.startswith("single_blocks.1.")}


def hunyuan15(channels: int = 65) -> recipes.Shapes:
    shapes = recipes.RECIPES["hunyuan15"].shapes() | recipes.patchify("img_in.proj", channels, (1, 1, 1))
    return {
        name: shape for name, shape in shapes.items() if not name.startswith(("double_blocks.2.", "double_blocks.3."))
    }


def hunyuan_image(channels: int, out: int, patch: tuple[int, ...]) -> recipes.Shapes:
    """HunyuanImage: no pooled text, no guidance; a latent pixel is a token."""
    shapes = {name: shape for name, shape in hunyuan().items() if not name.startswith(("vector_in", "guidance_in"))}
    door = {"img_in.proj.weight": (recipes.DIM, channels, *patch), "img_in.proj.bias": (recipes.DIM,)}
    return shapes | door | recipes.linear("final_layer.linear", out, recipes.DIM)


TABLES: dict[str, tuple[Callable[[], recipes.Shapes], str]] = {
    "wan21_t2v": (lambda: recipes.wan(16, 16, LAYERS), "WAN21_T2V"),
    "wan21_i2v": (lambda: recipes.wan(36, 16, LAYERS, clip=True), "WAN21_I2V"),
    "wan22_i2v": (lambda: recipes.wan(36, 16, LAYERS), "WAN21_T2V"),
    "wan22_5b": (lambda: recipes.wan(48, 48, LAYERS), "WAN22_T2V"),
    "wan21_vace": (lambda: recipes.wan_vace(1, LAYERS), "WAN21_Vace"),
    "wan21_vace_last": (lambda: recipes.wan_vace(LAYERS, LAYERS), "WAN21_Vace"),
    "hunyuan": (hunyuan, "HunyuanVideo"),
    "hunyuan_i2v": (lambda: hunyuan(33), "HunyuanVideoI2V"),
    "hunyuan_skyreels": (lambda: hunyuan(32), "HunyuanVideoSkyreelsI2V"),
    "hunyuan15": (hunyuan15, "HunyuanVideo15"),
    "hunyuan_image": (lambda: hunyuan_image(64, 64, (1, 1)), "HunyuanImage21"),
    "hunyuan_image_refiner": (lambda: hunyuan_image(128, 64, (1, 1, 1)), "HunyuanImage21Refiner"),
    "hunyuan15_sr": (lambda: hunyuan15(98), "HunyuanVideo15_SR_Distilled"),
}
"""Variants with a table of tensors in recipes.py, here with fewer blocks, and the class that ComfyUI must detect."""


def write(name: str, folder: Path) -> Path:
    """Write one checkpoint unless it is there. Returns its path. Raises Absent."""
    path = folder / f"matrix_{name}.safetensors"
    if not path.exists():
        made = CHECKPOINTS.get(name)
        shapes = made.shapes() if made else TABLES[name][0]()
        metadata = {"config": json.dumps(made.metadata)} if made and made.metadata else None
        save_file(recipes.fill(shapes), path, metadata=metadata)
    return path


def detected(name: str) -> str:
    """Name of the class of comfy.supported_models that ComfyUI must take the file for."""
    return CHECKPOINTS[name].model if name in CHECKPOINTS else TABLES[name][1]
