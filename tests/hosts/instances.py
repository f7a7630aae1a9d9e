"""Small models of the families that have no recipe: made by ComfyUI's own classes from a configuration, not detected.

Detection takes some sizes for granted (3072 wide Mochi, 24 heads), so a checkpoint of these would be of full width.
INSTANCES have blocks that the block modes know. FORECAST_ONLY are models that only the forecast mode serves.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import torch

from bwcache_pack.nodes.families import FAMILIES

from . import recipes
from .lab import Lab
from .spy import Spy

TEXT, POOLED = 32, 24


@dataclass(frozen=True)
class Instance:
    """supported: class in comfy.supported_models. config: of the diffusion model. latent: channels and sizes.

    attributes: of the diffusion model that hold its blocks, in running order. head: what the last features enter.
    prompt: more of the conditioning, made from the number of text tokens. control: it takes a "control", for blocks of
    these kinds ("input": the first attribute, "output": the last). newer: configuration that ComfyUI 0.8 lacks.
    smaller: arguments of parts that the model's class builds in one size only, by the name that it calls them by.
    stand_ins: what makes a smaller class for one that takes no arguments, by that one's name.
    beside: makes the tensors of a checkpoint that belong to no diffusion model.
    """

    supported: str
    config: dict
    latent: tuple[int, ...] = (16, 4, 6)
    text: int = TEXT
    attributes: tuple[str, ...] = ("transformer_blocks",)
    head: str = "norm_out"
    prompt: dict = field(default_factory=dict)
    control: tuple[str, ...] = ()
    newer: dict = field(default_factory=dict)
    sound: tuple[int, ...] = ()
    cfg: float = 4.0
    smaller: dict[str, dict] = field(default_factory=dict)
    stand_ins: dict[str, Callable[[], type]] = field(default_factory=dict)
    beside: Callable[[], dict[str, torch.Tensor]] = dict

    @property
    def channels(self) -> int:
        return self.latent[0]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the parts of a latent, without the batch."""
        return [self.latent, self.sound] if self.sound else [self.latent]


DOUBLE_AND_SINGLE = {"attributes": ("double_blocks", "single_blocks"), "head": "final_layer"}
FLUX_EXTRAS = {"prompt": {"pooled_output": (POOLED,)}, "control": ("input", "output")}
FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": POOLED, "context_in_dim": TEXT,
    "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12],
    "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
CHROMA = {
    **{name: value for name, value in FLUX.items() if name != "guidance_embed"}, "image_model": "chroma",
    "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 1,
}  # fmt: skip
RADIANCE = {
    **CHROMA, "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16,
    "nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 4, "nerf_tile_size": 0,
    "nerf_final_head_type": "conv", "nerf_embedder_dtype": torch.float32, "use_x0": False,
}  # fmt: skip
QWEN_SIZES = {"num_layers": 4, "attention_head_dim": 32, "num_attention_heads": 2, "axes_dims_rope": (8, 12, 12)}
MOCHI = {
    "image_model": "mochi_preview", "depth": 4, "num_heads": 2, "hidden_size_x": 64, "hidden_size_y": 32,
    "mlp_ratio_x": 192.0, "mlp_ratio_y": 2.0, "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False,
    "out_bias": True, "attn_drop": 0.0, "posenc_preserve_area": True, "timestep_scale": 1000.0, "use_t5": True,
    "t5_feat_dim": TEXT, "t5_token_length": 8,
}  # fmt: skip
SD3 = {
    "in_channels": 16, "patch_size": 2, "depth": 2, "num_blocks": 4, "input_size": None, "adm_in_channels": POOLED,
    "pos_embed_scaling_factor": None, "pos_embed_max_size": 16, "num_patches": 256, "qk_norm": "rms",
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": TEXT, "out_features": 128}},
}  # fmt: skip
COSMOS = {
    "image_model": "cosmos_predict2", "max_img_h": 32, "max_img_w": 32, "max_frames": 8, "in_channels": 16,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "crossattn_emb_channels": TEXT,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True, "adaln_lora_dim": 16, "num_blocks": 4,
    "num_heads": 2,
}  # fmt: skip

INSTANCES = {
    "flux": Instance("Flux", FLUX, **DOUBLE_AND_SINGLE, **FLUX_EXTRAS),
    "flux2": Instance(
        "Flux2",
        {**FLUX, "image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1, "vec_in_dim": None,
         "axes_dim": [8, 8, 8, 8], "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True,
         "qkv_bias": False, "ops_bias": False},
        (128, 4, 6), **DOUBLE_AND_SINGLE, **FLUX_EXTRAS,
    ),
    "chroma": Instance("Chroma", CHROMA, **DOUBLE_AND_SINGLE, **FLUX_EXTRAS),
    "chroma_radiance": Instance(
        "ChromaRadiance", RADIANCE, (3, 48, 32), attributes=("double_blocks", "single_blocks"), head="",
        **FLUX_EXTRAS, newer={"use_sequential_txt_ids": False},
    ),
    "qwen_image": Instance(
        "QwenImage", {"image_model": "qwen_image", "in_channels": 64, "joint_attention_dim": TEXT, **QWEN_SIZES},
        (16, 1, 4, 6), control=("input",),
    ),
    "sd3": Instance(
        "SD3", SD3, attributes=("joint_blocks",), head="final_layer", prompt={"pooled_output": (POOLED,)},
        control=("output",),
    ),
    "auraflow": Instance(
        "AuraFlow", {"dim": 64, "n_layers": 4, "n_double_layers": 2, "n_heads": 2, "global_conddim": 64,
                     "cond_seq_dim": TEXT, "max_seq": 64},
        (4, 8, 6), attributes=("double_layers", "single_layers"), head="",
    ),
    "ltxv": Instance(
        "LTXV", {"image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32,
                 "num_attention_heads": 2, "caption_channels": TEXT, "num_layers": 4},
        (128, 3, 2, 3), prompt={"attention_mask": ()},
    ),
    "mochi": Instance(
        "GenmoMochi", MOCHI, (12, 3, 4, 6), attributes=("blocks",), head="final_layer", prompt={"attention_mask": ()}
    ),
    "kandinsky5": Instance(
        "Kandinsky5",
        {"image_model": "kandinsky5", "in_text_dim": TEXT, "in_text_dim2": POOLED, "time_dim": 64, "model_dim": 64,
         "ff_dim": 64, "num_text_blocks": 1, "num_visual_blocks": 4, "axes_dims": (8, 12, 12)},
        (16, 3, 4, 6), attributes=("visual_transformer_blocks",), head="out_layer", prompt={"pooled_output": (POOLED,)},
    ),
    "lens": Instance(
        "Lens", {"image_model": "lens", "in_channels": 128, "num_layers": 4, "attention_head_dim": 32,
                 "num_attention_heads": 2, "enc_hidden_dim": TEXT // 2, "axes_dims_rope": (8, 12, 12),
                 "selected_layer_index": (0, 1)},
        (128, 4, 6), control=("input",),
    ),
    "mage_flow": Instance(
        "MageFlow", {"image_model": "mage_flow", "joint_attention_dim": TEXT, **QWEN_SIZES}, (128, 4, 6),
        control=("input",),
    ),
    "joyimage": Instance(
        "JoyImage", {"image_model": "joyimage", "in_channels": 16, "hidden_size": 64, "patch_size": [1, 2, 2],
                     "num_layers": 4, "num_attention_heads": 2, "text_dim": TEXT, "theta": 10000, "rope_dim_list": [8, 12, 12]},
        (16, 1, 4, 6), attributes=("double_blocks",),
    ),
    "lumina2": Instance(
        "Lumina2", {"image_model": "lumina2", "in_channels": 16, "dim": 64, "n_layers": 4, "n_refiner_layers": 1,
                    "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": TEXT, "qk_norm": True, "axes_dims": [8, 12, 12],
                    "axes_lens": [32, 32, 32]},
        attributes=("layers",), head="final_layer", prompt={"attention_mask": ()},
    ),
    "cosmos_predict2": Instance(
        "CosmosT2IPredict2", COSMOS, (16, 2, 4, 6), attributes=("blocks",), head="final_layer"
    ),
}  # fmt: skip

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": (1, 2), "transformer_depth": [0, 1], "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1], "use_spatial_transformer": True, "legacy": False, "context_dim": TEXT,
}  # fmt: skip
SDXL = {
    **UNET, "num_head_channels": 32, "num_heads": -1, "use_linear_in_transformer": True, "num_classes": "sequential",
    "adm_in_channels": 6 * 256 + POOLED,
}  # fmt: skip
LTXAV = {
    "image_model": "ltxav", "in_channels": 128, "audio_in_channels": 128, "cross_attention_dim": 64,
    "audio_cross_attention_dim": 64, "attention_head_dim": 32, "audio_attention_head_dim": 32, "num_attention_heads": 2,
    "audio_num_attention_heads": 2, "caption_channels": TEXT // 2, "num_layers": 2,
    "connector_attention_head_dim": 8, "connector_num_attention_heads": 2, "connector_num_layers": 1,
}  # fmt: skip
MINIMAX = {
    "image_model": "minimax_h3", "hidden_size": 256, "num_layers": 3, "token_refiner_num_layers": 1,
    "num_attention_heads": 2, "attention_head_dim": 128, "ffn_hidden_size": 256, "text_dim": TEXT,
    "timestep_input_dim": 64, "time_embed_hidden_size": 64, "time_embed_dim": 64,
}  # fmt: skip
HIDREAM = {
    "image_model": "hidream", "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 1,
    "num_single_layers": 1, "attention_head_dim": 32, "num_attention_heads": 2, "caption_channels": [TEXT, TEXT],
    "text_emb_dim": POOLED, "axes_dims_rope": (8, 12, 12), "max_resolution": (32, 32), "llama_layers": [0, 1],
}  # fmt: skip
COGVIDEOX = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 32, "time_embed_dim": 64,
    "text_embed_dim": TEXT, "num_layers": 2, "sample_width": 6, "sample_height": 4, "sample_frames": 9,
    "max_text_seq_length": 7, "use_rotary_positional_embeddings": True,
}  # fmt: skip
COSMOS1 = {
    "image_model": "cosmos", "max_img_h": 32, "max_img_w": 32, "max_frames": 8, "in_channels": 16, "out_channels": 16,
    "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "crossattn_emb_channels": TEXT, "num_blocks": 2,
    "num_heads": 2, "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "affline_emb_norm": True,
    "use_adaln_lora": True, "adaln_lora_dim": 16, "block_x_format": "THWBD", "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
FLOW_RVS = {
    "image_model": "wan2.1", "model_type": "flow_rvs", "dim": 128, "ffn_dim": 256, "num_heads": 1, "num_layers": 2,
    "in_dim": 16, "out_dim": 16, "text_dim": TEXT,
}  # fmt: skip
KREA2 = {
    "image_model": "krea2", "features": 64, "tdim": 32, "txtdim": TEXT, "heads": 2, "kvheads": 2, "layers": 2,
    "txtlayers": 1, "txtheads": 2, "txtkvheads": 2,
}  # fmt: skip
FORECAST_ONLY = {
    "sd15": Instance("SD15", {**UNET, "num_heads": 2, "num_head_channels": -1, "use_linear_in_transformer": False,
                              "adm_in_channels": None}, (4, 8, 8)),
    "sdxl": Instance("SDXL", SDXL, (4, 8, 8), prompt={"pooled_output": (POOLED,)}),
    "ltxav": Instance("LTXAV", LTXAV, (128, 3, 2, 3), prompt={"attention_mask": ()}, sound=(8, 9, 16)),
    "minimax_h3": Instance("MiniMaxH3", MINIMAX, (24, 2, 4, 4), sound=(32, 2, 8), cfg=1.0),
    "hidream": Instance("HiDream", HIDREAM, prompt={"pooled_output": (POOLED,), "conditioning_llama3": (2, 7, TEXT)}),
    "cogvideox": Instance("CogVideoX_T2V", COGVIDEOX, (16, 3, 4, 6)),
    "cosmos": Instance("CosmosT2V", COSMOS1, (16, 2, 4, 6)),
    "krea2": Instance("Krea2", KREA2),
    "flow_rvs": Instance("WAN21_FlowRVS", FLOW_RVS, (16, 3, 4, 4)),
}  # fmt: skip


def supported_class(instance: Instance):
    """The class in comfy.supported_models, or None where this ComfyUI has none of that name."""
    import comfy.supported_models

    return getattr(comfy.supported_models, instance.supported, None)


def build(instance: Instance, version: str):
    """A ModelPatcher over the instance with random weights, for this version of ComfyUI."""
    import comfy.model_patcher

    newer = instance.newer if tuple(map(int, version.split(".")[:2])) > (0, 8) else {}
    settings = {**instance.config, **newer, "dtype": torch.float32}
    config = supported_class(instance)(settings)
    config.unet_config.update(settings)  # over what the class itself adds
    cpu = torch.device("cpu")
    with ExitStack() as stack:
        for name, arguments in instance.smaller.items():
            module, part = name.rsplit(".", 1)
            made = getattr(importlib.import_module(module), part)
            stack.enter_context(patch(name, partial(made, **arguments)))
        for name, make in instance.stand_ins.items():
            stack.enter_context(patch(name, make()))
        model = config.get_model(instance.beside(), "", device=cpu)
    module = model.diffusion_model
    module.load_state_dict(recipes.fill({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}))
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


class SmallLab(Lab):
    """A Lab over an instance."""

    made: dict[tuple, object] = {}  # noqa: RUF012 - one of each, shared by the tests of a process

    def __init__(self, host, family: str) -> None:
        self.host = host
        self.family = family
        self.recipe = {**INSTANCES, **FORECAST_ONLY}[family]

    @property
    def plain(self):
        key = (self.host.version, self.family)
        if key not in self.made:
            self.made[key] = build(self.recipe, self.host.version)
        return self.made[key].clone()

    @property
    def point(self) -> str:
        """The hook point of a model call."""
        family = FAMILIES.get(type(self.module()).__name__)
        return "apply_model" if family and not family.wrapped else "diffusion_model"

    def spy(self, model) -> Spy:
        module = self.module(model)
        blocks = [block for name in self.recipe.attributes for block in getattr(module, name)]
        return Spy(model, blocks, getattr(module, self.recipe.head, None), self.point)

    def noise(self, seed: int = 1, batch: int = 1, **sizes):
        """Picture alone, or a NestedTensor of picture and sound."""
        generator = torch.Generator().manual_seed(seed)
        parts = [torch.randn(batch, *shape, generator=generator) for shape in self.recipe.shapes]
        if len(parts) == 1:
            return parts[0]
        from comfy.nested_tensor import NestedTensor

        return NestedTensor(parts)

    def sample(self, model, *, noise=None, prompts=None, cfg: float | None = None, **request) -> torch.Tensor:
        """Latents; of picture and sound, one behind the other."""
        noise, cfg = self.noise() if noise is None else noise, self.recipe.cfg if cfg is None else cfg
        latents = super().sample(model, noise=noise, prompts=prompts or self.prompts(), cfg=cfg, **request)
        return torch.cat([part.flatten(1) for part in latents.unbind()], 1) if self.recipe.sound else latents

    def prompts(self, tokens: int = 7, **sizes) -> tuple:
        generator = torch.Generator().manual_seed(5)
        return tuple([self._prompt(tokens, generator)] for _ in range(2))

    def _prompt(self, tokens: int, generator: torch.Generator) -> list:
        text = torch.randn(1, tokens, self.recipe.text, generator=generator)
        named = {name: torch.randn(1, *shape, generator=generator) if shape else torch.ones(1, tokens, dtype=torch.long)
                 for name, shape in self.recipe.prompt.items()}  # fmt: skip
        return [text, named]

    def mask(self, noise: torch.Tensor) -> None:
        return None
