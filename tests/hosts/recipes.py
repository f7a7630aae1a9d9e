"""Random checkpoints, 1 to 4 M parameters each, that ComfyUI's detection takes for real model families.

A family is a table of tensor shapes; the key's ending says how a tensor is filled. Width 128 makes one attention head:
detection derives the number of heads from the width. Widths that detection does not read (text 4096, CLIP 1280, pooled
text 768) are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

DIM = 128
FFN = 256
TEXT, FREQUENCIES = 4096, 256
CLIP, SIGLIP, POOLED = 1280, 1152, 768
HUNYUAN_TEXT = 64  # this width is detected

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def patchify(name: str, channels: int, patch: tuple[int, int, int] = (1, 2, 2)) -> Shapes:
    return {f"{name}.weight": (DIM, channels, *patch), f"{name}.bias": (DIM,)}


def wan_block(name: str, clip: bool = False) -> Shapes:
    shapes: Shapes = {f"{name}.modulation": (1, 6, DIM), **layer_norm(f"{name}.norm3", DIM)}
    for attention in (f"{name}.self_attn", f"{name}.cross_attn"):
        for projection in "qkvo":
            shapes |= linear(f"{attention}.{projection}", DIM, DIM)
        shapes |= {f"{attention}.norm_q.weight": (DIM,), f"{attention}.norm_k.weight": (DIM,)}
    if clip:
        shapes |= linear(f"{name}.cross_attn.k_img", DIM, DIM) | linear(f"{name}.cross_attn.v_img", DIM, DIM)
        shapes |= {f"{name}.cross_attn.norm_k_img.weight": (DIM,)}
    return shapes | linear(f"{name}.ffn.0", FFN, DIM) | linear(f"{name}.ffn.2", DIM, FFN)


def wan(channels_in: int, channels_out: int, layers: int = 4, clip: bool = False) -> Shapes:
    shapes = patchify("patch_embedding", channels_in)
    shapes |= linear("text_embedding.0", DIM, TEXT) | linear("text_embedding.2", DIM, DIM)
    shapes |= linear("time_embedding.0", DIM, FREQUENCIES) | linear("time_embedding.2", DIM, DIM)
    shapes |= linear("time_projection.1", 6 * DIM, DIM)
    for index in range(layers):
        shapes |= wan_block(f"blocks.{index}", clip)
    if clip:  # the bias of proj.0 is what makes it image-to-video
        shapes |= layer_norm("img_emb.proj.0", CLIP) | linear("img_emb.proj.1", CLIP, CLIP)
        shapes |= linear("img_emb.proj.3", DIM, CLIP) | layer_norm("img_emb.proj.4", DIM)
    return shapes | linear("head.head", 4 * channels_out, DIM) | {"head.modulation": (1, 2, DIM)}


def wan_vace(vace_layers: int, layers: int = 4) -> Shapes:
    """VACE blocks add after every (layers / vace_layers)-th block: after the last one too if there are as many."""
    shapes = wan(16, 16, layers) | patchify("vace_patch_embedding", 96)
    for index in range(vace_layers):
        name = f"vace_blocks.{index}"
        shapes |= wan_block(name) | linear(f"{name}.after_proj", DIM, DIM)
    return shapes | linear("vace_blocks.0.before_proj", DIM, DIM)


def two_layers(name: str, inputs: int) -> Shapes:
    return linear(f"{name}.in_layer", DIM, inputs) | linear(f"{name}.out_layer", DIM, DIM)


def hunyuan_refiner(name: str) -> Shapes:
    shapes = linear(f"{name}.adaLN_modulation.1", 2 * DIM, DIM)
    shapes |= layer_norm(f"{name}.norm1", DIM) | layer_norm(f"{name}.norm2", DIM)
    shapes |= linear(f"{name}.self_attn.qkv", 3 * DIM, DIM) | linear(f"{name}.self_attn.proj", DIM, DIM)
    return shapes | linear(f"{name}.mlp.0", 4 * DIM, DIM) | linear(f"{name}.mlp.2", DIM, 4 * DIM)


def query_key_norms(name: str) -> Shapes:
    """".scale" loads in every version; ".weight" leaves these norms uninitialised before 0.9."""
    return {f"{name}.query_norm.scale": (DIM,), f"{name}.key_norm.scale": (DIM,)}


def hunyuan_double(name: str) -> Shapes:
    shapes: Shapes = {}
    for stream in (f"{name}.img", f"{name}.txt"):
        shapes |= linear(f"{stream}_mod.lin", 6 * DIM, DIM) | query_key_norms(f"{stream}_attn.norm")
        shapes |= linear(f"{stream}_attn.qkv", 3 * DIM, DIM) | linear(f"{stream}_attn.proj", DIM, DIM)
        shapes |= linear(f"{stream}_mlp.0", 4 * DIM, DIM) | linear(f"{stream}_mlp.2", DIM, 4 * DIM)
    return shapes


def hunyuan_single(name: str) -> Shapes:
    shapes = linear(f"{name}.modulation.lin", 3 * DIM, DIM) | query_key_norms(f"{name}.norm")
    return shapes | linear(f"{name}.linear1", 7 * DIM, DIM) | linear(f"{name}.linear2", DIM, 5 * DIM)


def hunyuan_shared(double: int) -> Shapes:
    shapes = two_layers("time_in", FREQUENCIES) | linear("final_layer.adaLN_modulation.1", 2 * DIM, DIM)
    shapes |= linear("txt_in.input_embedder", DIM, HUNYUAN_TEXT)
    shapes |= two_layers("txt_in.t_embedder", FREQUENCIES) | two_layers("txt_in.c_embedder", HUNYUAN_TEXT)
    for index in range(2):
        shapes |= hunyuan_refiner(f"txt_in.individual_token_refiner.blocks.{index}")
    for index in range(double):
        shapes |= hunyuan_double(f"double_blocks.{index}")
    return shapes


def hunyuan() -> Shapes:
    shapes = hunyuan_shared(double=2) | patchify("img_in.proj", 16)
    shapes |= two_layers("vector_in", POOLED) | two_layers("guidance_in", FREQUENCIES)
    for index in range(2):
        shapes |= hunyuan_single(f"single_blocks.{index}")
    return shapes | linear("final_layer.linear", 4 * 16, DIM)


def hunyuan15() -> Shapes:
    """1.5 has no single blocks; latents are 32 channels, joined by 32 of an image and 1 mask."""
    shapes = hunyuan_shared(double=4) | patchify("img_in.proj", 65, (1, 1, 1)) | {"cond_type_embedding.weight": (3, DIM)}
    shapes |= layer_norm("vision_in.proj.0", SIGLIP) | linear("vision_in.proj.1", SIGLIP, SIGLIP)
    shapes |= linear("vision_in.proj.3", DIM, SIGLIP) | layer_norm("vision_in.proj.4", DIM)
    return shapes | linear("final_layer.linear", 32, DIM)


TIME_LAYERS = ("time_embedding.0.weight", "time_in.in_layer.weight", "txt_in.t_embedder.in_layer.weight")
HEADS = ("head.head", "final_layer.linear")
SLOW = FREQUENCIES // 4  # of the cosines and of the sines, the half that turns under 1.6 radians in 160 timesteps


def fill(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random float32 tensors: unit scales, small biases, matrices that keep the size of what they multiply.

    Trained models change smoothly from step to step. So here: the clock's fast hands are cut off, and the head is weak.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("modulation"):
            tensors[name] = noise * DIM**-0.5
        elif len(shape) > 1:
            tensors[name] = noise / noise[0].numel() ** 0.5
        else:
            tensors[name] = torch.ones(shape) if name.endswith((".weight", ".scale")) else noise * 0.02
        if name in TIME_LAYERS:
            tensors[name].unflatten(1, (2, -1))[..., :-SLOW] = 0.0
        if name.startswith(HEADS):
            tensors[name] *= 0.3
    return tensors


@dataclass(frozen=True)
class Recipe:
    """shapes: makes the table of tensors. model: class ComfyUI must detect. channels, text: of latents and prompts.

    attributes: attribute names of the diffusion model that hold its blocks, in running order.
    """

    shapes: Callable[[], Shapes]
    model: str
    channels: int = 16
    text: int = TEXT
    attributes: tuple[str, ...] = ("blocks",)
    head: str = "head"


HUNYUAN_PARTS = {"attributes": ("double_blocks", "single_blocks"), "head": "final_layer", "text": HUNYUAN_TEXT}

RECIPES = {
    "wan21_t2v": Recipe(lambda: wan(16, 16), "WAN21"),
    "wan21_i2v": Recipe(lambda: wan(36, 16, clip=True), "WAN21"),
    "wan22_i2v": Recipe(lambda: wan(36, 16), "WAN21"),
    "wan22_5b": Recipe(lambda: wan(48, 48), "WAN22", channels=48),
    "wan21_vace": Recipe(lambda: wan_vace(vace_layers=2), "WAN21_Vace"),
    "wan21_vace_last": Recipe(lambda: wan_vace(vace_layers=4), "WAN21_Vace"),
    "hunyuan": Recipe(hunyuan, "HunyuanVideo", **HUNYUAN_PARTS),
    "hunyuan15": Recipe(hunyuan15, "HunyuanVideo15", channels=32, **HUNYUAN_PARTS),
}


def file_name(family: str) -> str:
    return f"tiny_{family}.safetensors"


def write(family: str, folder: Path) -> Path:
    """Write one checkpoint unless it is there. Returns its path."""
    path = folder / file_name(family)
    if not path.exists():
        save_file(fill(RECIPES[family].shapes()), path)
    return path
