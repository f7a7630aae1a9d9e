"""Small models of classes that fewer people sample: 3D, pixels without a VAE, upscalers, and image models of old.

UNSAMPLED names the classes of comfy.supported_models that have no cell, as no sampler runs them, and what they do.
"""

from __future__ import annotations

import torch

from bwcache_pack.tests.hosts import recipes
from bwcache_pack.tests.hosts.instances import COGVIDEOX, POOLED, SDXL, TEXT, UNET, Instance

from .models import ATTENTION_MASK, CASCADE, HUNYUAN_DIT, PIXART, SVD, Z_IMAGE

SEEN = {"sd21_unclip_l": 768, "sd21_unclip_h": 1024}  # width of what CLIP saw of an image
SD1 = {**UNET, "num_heads": 2, "num_head_channels": -1, "use_linear_in_transformer": False, "adm_in_channels": None}
SD2 = {**UNET, "num_heads": -1, "num_head_channels": 32, "use_linear_in_transformer": True, "adm_in_channels": None}
MIDDLELESS = {**SDXL, "transformer_depth_middle": -1}  # no attention in the middle
SMALLER_SDXL = {"prompt": {"pooled_output": (POOLED,)}}
STAGE_B = {
    **{name: value for name, value in CASCADE.items() if not name.startswith("c_clip_text")}, "stable_cascade_stage": "b",
    "c_hidden": [64, 64, 64, 64], "nhead": [-1, -1, 2, 2], "blocks": [[1, 1, 1, 1], [1, 1, 1, 1]],
    "block_repeat": [[1, 1, 1, 1], [1, 1, 1, 1]], "c_clip": POOLED,
}  # fmt: skip
PIXELS = {
    **Z_IMAGE, "image_model": "zimage_pixel", "patch_size": 16, "in_channels": 3, "decoder_in_channels": 768,
    "decoder_hidden_size": 64, "decoder_num_res_blocks": 1, "decoder_max_freqs": 2,
}  # fmt: skip
PIXELDIT = {
    "image_model": "pixeldit_t2i", "num_groups": 2, "hidden_size": 64, "pixel_hidden_size": 8, "pixel_num_groups": 2,
    "pixel_attn_hidden_size": 32, "patch_depth": 2, "pixel_depth": 1, "txt_embed_dim": TEXT, "txt_max_length": 16,
}  # fmt: skip
PID = {**PIXELDIT, "image_model": "pid", "lq_hidden_dim": 16, "lq_num_res_blocks": 1}
HUNYUAN_3D = {
    "image_model": "hunyuan3d2", "context_in_dim": TEXT, "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2,
    "depth_single_blocks": 2, "guidance_embed": True,
}  # fmt: skip
HUNYUAN_3D_21 = {
    "image_model": "hunyuan3d2_1", "hidden_size": 64, "context_dim": TEXT, "depth": 5, "num_heads": 2, "num_moe_layers": 1,
    "num_experts": 2, "guidance_cond_proj_dim": None,
}  # fmt: skip
SPLAT_TOKENS, SPLAT_REFERENCE = 24, 4
TRIPOSPLAT = {
    "image_model": "triposplat", "q_token_length": SPLAT_TOKENS, "model_channels": 64, "cond_channels": TEXT, "num_blocks": 2,
    "num_refiner_blocks": 1, "num_head_channels": 32, "cond2_channels": SPLAT_REFERENCE,
}  # fmt: skip
TRELLIS = {
    "image_model": "trellis2", "resolution": 32, "model_channels": 64, "cond_channels": TEXT, "num_blocks": 2, "num_heads": 2,
}  # fmt: skip
HIDREAM_O1 = {
    "image_model": "hidream_o1",
    "text_config_overrides": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                              "num_key_value_heads": 2, "head_dim": 32, "rope_dims": [8, 4, 4]},
    "vision_config_overrides": {"hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "depth": 1,
                                "num_position_embeddings": 16},
}  # fmt: skip
SEEDVR = {
    "image_model": "seedvr2", "norm_eps": 1e-5, "num_layers": 2, "mlp_type": "swiglu", "vid_dim": 64, "txt_in_dim": TEXT,
    "heads": 2, "head_dim": 32, "rope_dim": 32, "mm_layers": 1, "vid_out_norm": True,
}  # fmt: skip
MUSIC_TEXT = 8 * 4096  # of MiniMax Music 3: all layers of its language model
MUSIC = 64  # width of its small model


def small_music():
    """MiniMaxMusic3DiT in another size: ComfyUI's own class has one size only, 2.4 billion weights."""
    from comfy.ldm.minimax_music import dit

    class Blocks(dit.ContinuousTransformer):
        def __init__(self, operations, **kind) -> None:
            torch.nn.Module.__init__(self)
            self.project_in = operations.Linear(256 + MUSIC, MUSIC, bias=False, **kind)
            self.project_out = operations.Linear(MUSIC, 128, bias=False, **kind)
            self.rotary_pos_emb = dit.RotaryEmbedding(16, **kind)
            blocks = [dit.TransformerBlock(MUSIC, 32, MUSIC, operations=operations, **kind) for _ in range(2)]
            self.layers = torch.nn.ModuleList(blocks)

    class Transformer(dit.DiffusionTransformer):
        def __init__(self, operations, **kind) -> None:
            torch.nn.Module.__init__(self)
            self.transformer = Blocks(operations, **kind)
            self.timestep_features = dit.FourierFeatures(1, MUSIC, **kind)
            layers = [operations.Linear(MUSIC, MUSIC, **kind) for _ in range(2)]
            self.to_timestep_embed = torch.nn.Sequential(layers[0], torch.nn.SiLU(), layers[1])
            self.preprocess_conv = operations.Conv1d(256 + MUSIC, 256 + MUSIC, 1, bias=False, **kind)
            self.postprocess_conv = operations.Conv1d(128, 128, 1, bias=False, **kind)

    class Music(dit.MiniMaxMusic3DiT):
        def __init__(self, operations, dtype, device, **_) -> None:
            torch.nn.Module.__init__(self)
            kind, self.dtype = {"dtype": dtype, "device": device}, dtype
            self.latent_conditioners = torch.nn.Sequential(operations.Conv1d(4096, MUSIC, 3, padding=1, **kind))
            self.diffusion_transformer = Transformer(operations, **kind)
            self.cond_layer_logits = torch.nn.Parameter(torch.empty(8, **kind))
            self.cond_layer_scale = torch.nn.Parameter(torch.empty(1, **kind))

    return Music


def projection() -> dict[str, torch.Tensor]:
    """Of Stable Zero123, beside its diffusion model: it brings what CLIP saw, and the camera, to the width of the text."""
    return recipes.fill({"cc_projection.weight": (TEXT, TEXT + 4), "cc_projection.bias": (TEXT,)})


RARER = {
    "sd15_edit": Instance("SD15_instructpix2pix", {**SD1, "in_channels": 8}, (4, 8, 8)),
    "sdxl_edit": Instance("SDXL_instructpix2pix", {**SDXL, "in_channels": 8}, (4, 8, 8), **SMALLER_SDXL),
    "sdxl_refiner": Instance("SDXLRefiner", {**SDXL, "adm_in_channels": 5 * 256 + POOLED}, (4, 8, 8), **SMALLER_SDXL),
    "ssd1b": Instance("SSD1B", {**MIDDLELESS, "transformer_depth_output": [0, 1, 1, 2]}, (4, 8, 8), **SMALLER_SDXL),
    "vega": Instance("Segmind_Vega", MIDDLELESS, (4, 8, 8), **SMALLER_SDXL),
    "koala_700m": Instance("KOALA_700M", {**SDXL, "transformer_depth_middle": -2}, (4, 8, 8), **SMALLER_SDXL),
    "koala_1b": Instance("KOALA_1B", {**SDXL, "transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 2, 2]},
                         (4, 8, 8), **SMALLER_SDXL),
    **{name: Instance(f"SD21Unclip{name[-1].upper()}", {**SD2, "num_classes": "sequential", "adm_in_channels": 2 * width},
                      (4, 8, 8)) for name, width in SEEN.items()},
    "zero123": Instance("Stable_Zero123", {**SD1, "in_channels": 8}, (4, 8, 8), text=TEXT + 4, beside=projection),
    "sd_upscaler": Instance("SD_X4Upscaler", {**SD2, "num_heads": 2, "num_head_channels": -1, "in_channels": 7,
                                              "num_classes": 1000, "disable_self_attentions": [True, False]}, (4, 8, 8)),
    "lotus": Instance("LotusD", {**SD2, "num_classes": "sequential", "adm_in_channels": 4}, (4, 8, 8)),
    "stable_cascade_b": Instance("Stable_Cascade_B", STAGE_B, (4, 16, 16), prompt={"pooled_output": (1, POOLED)}),
    "sv3d_u": Instance("SV3D_u", {**SVD, "adm_in_channels": 256}, (4, 8, 8)),
    "sv3d_p": Instance("SV3D_p", {**SVD, "adm_in_channels": 1280}, (4, 8, 8)),
    "pixart_alpha": Instance("PixArtAlpha", {**PIXART, "image_model": "pixart_alpha", "hidden_size": 96, "micro_condition": True},
                             (4, 36, 36)),
    "hunyuan_dit1": Instance(
        "HunyuanDiT1", {**HUNYUAN_DIT, "image_model": "hydit1", "size_cond": True, "use_style_cond": True}, (4, 8, 8),
        prompt={"attention_mask": (), "attention_mask_mt5xl": (), "conditioning_mt5xl": (7, TEXT)},
    ),
    "cogvideox_inpaint": Instance("CogVideoX_Inpaint", {**COGVIDEOX, "in_channels": 48}, (16, 3, 4, 6)),
    "z_image_pixels": Instance("ZImagePixelSpace", PIXELS, (3, 64, 96), **ATTENTION_MASK, newer={"pad_tokens_multiple": 8}),
    "pixeldit": Instance("PixelDiTT2I", PIXELDIT, (3, 32, 48)),
    "pid": Instance("PiD", PID, (3, 64, 96)),
    "hunyuan3d": Instance("Hunyuan3Dv2", HUNYUAN_3D, (64, 24)),
    "hunyuan3d_mini": Instance("Hunyuan3Dv2mini", {**HUNYUAN_3D, "depth": 1}, (64, 24)),
    "hunyuan3d_21": Instance("Hunyuan3Dv2_1", HUNYUAN_3D_21, (64, 24)),
    "triposplat": Instance("TripoSplat", TRIPOSPLAT, (SPLAT_TOKENS, 16), sound=(1, 5)),
    "trellis": Instance("Trellis2", TRELLIS, (32, 24, 1)),
    "hidream_o1": Instance("HiDreamO1", HIDREAM_O1, (3, 64, 96)),
    "seedvr": Instance("SeedVR2", SEEDVR, (16, 3, 4, 6)),
    "minimax_music": Instance(
        "MiniMaxMusic3", {"audio_model": "minimax_music3"}, (128, 24), text=MUSIC_TEXT,
        stand_ins={"comfy.ldm.minimax_music.dit.MiniMaxMusic3DiT": small_music},
    ),
}  # fmt: skip
UNSAMPLED = {
    "DepthAnything3": "tells how far away things are",
    "RT_DETR_v4": "finds objects in a picture",
    "SAM3": "cuts objects out of a picture",
    "SAM31": "cuts objects out of a picture",
}
