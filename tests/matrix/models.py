"""Small models of classes that only the matrix samples, made like those of tests/hosts/instances.py."""

from __future__ import annotations

import torch

from bwcache_pack.tests.hosts import recipes
from bwcache_pack.tests.hosts.instances import (
    COGVIDEOX,
    COSMOS,
    COSMOS1,
    FLUX,
    FLUX_EXTRAS,
    POOLED,
    TEXT,
    UNET,
    Instance,
)

AUDIO_TEXT = 768  # of Stable Audio: as wide as what it is told of seconds
ATTENTION_MASK = {"prompt": {"attention_mask": ()}}

Z_IMAGE = {
    "image_model": "lumina2", "in_channels": 16, "dim": 256, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2,
    "n_kv_heads": 2, "cap_feat_dim": TEXT, "qk_norm": True, "axes_dims": [32, 48, 48], "axes_lens": [64, 32, 32],
    "rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True, "time_scale": 1000.0,
}  # fmt: skip
OMNIGEN2 = {
    "image_model": "omnigen2", "hidden_size": 96, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 4,
    "num_kv_heads": 2, "multiple_of": 32, "axes_dim_rope": [8, 8, 8], "axes_lens": [64, 32, 32], "text_feat_dim": TEXT,
    "timestep_scale": 1000.0,
}  # fmt: skip
BOOGU = {
    **{name: value for name, value in OMNIGEN2.items() if name != "text_feat_dim"}, "image_model": "boogu",
    "num_double_stream_layers": 1, "instruction_feat_dim": TEXT,
}  # fmt: skip
ACE = {
    "audio_model": "ace", "num_layers": 2, "inner_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2,
    "mlp_ratio": 2.0, "text_embedding_dim": TEXT, "lyric_encoder_vocab_size": 32, "lyric_hidden_size": 64,
    "ssl_latent_dims": [8, 8],
}  # fmt: skip
ACE_15 = {
    "audio_model": "ace1.5", "hidden_size": 64, "intermediate_size": 64, "num_dit_layers": 2, "num_heads": 2,
    "num_kv_heads": 2, "head_dim": 32, "text_hidden_dim": TEXT, "num_lyric_layers": 1, "num_timbre_layers": 1,
    "num_tokenizer_layers": 1, "encoder_hidden_size": 64, "encoder_intermediate_size": 64, "encoder_num_heads": 2,
    "fsq_dim": 64, "sliding_window": 8,
}  # fmt: skip
STABLE_AUDIO = {
    "audio_model": "dit1.0", "io_channels": 64, "embed_dim": 128, "cond_token_dim": AUDIO_TEXT, "global_cond_dim": 1536,
    "project_cond_tokens": True, "num_heads": 2, "depth": 2,
}  # fmt: skip
IDEOGRAM = {
    "image_model": "ideogram4", "in_channels": 128, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32,
    "intermediate_size": 128, "adaln_dim": 64, "llm_features_dim": TEXT, "mrope_section": [6, 5, 5],
}  # fmt: skip
ERNIE = {
    "image_model": "ernie", "hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 128,
    "text_in_dim": TEXT, "rope_axes_dim": (8, 12, 12),
}  # fmt: skip
PIXART = {
    "image_model": "pixart_sigma", "micro_condition": False, "input_size": 64, "hidden_size": 64, "depth": 2, "num_heads": 2,
    "caption_channels": TEXT, "pe_interpolation": 1, "model_max_length": 7,
}  # fmt: skip
HUNYUAN_DIT = {
    "image_model": "hydit", "hidden_size": 64, "depth": 2, "num_heads": 2, "text_states_dim": TEXT,
    "text_states_dim_t5": TEXT, "text_len": 7, "text_len_t5": 7,
}  # fmt: skip
CASCADE = {
    "stable_cascade_stage": "c", "c_cond": 64, "c_hidden": [64, 64], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]],
    "c_clip_text": TEXT, "c_clip_text_pooled": POOLED,
}  # fmt: skip
LONGCAT = {**FLUX, "guidance_embed": False, "vec_in_dim": None, "txt_ids_dims": [1, 2]}
KANDINSKY_IMAGE = {
    "image_model": "kandinsky5", "in_text_dim": TEXT, "in_text_dim2": POOLED, "time_dim": 64, "model_dim": 64, "ff_dim": 64,
    "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (8, 12, 12), "visual_embed_dim": 64,
    "rope_scale_factor": (1.0, 1.0, 1.0),
}  # fmt: skip
SVD = {
    **UNET, "in_channels": 8, "num_head_channels": 32, "num_heads": -1, "use_linear_in_transformer": True,
    "adm_in_channels": 768, "num_classes": "sequential", "use_temporal_attention": True, "use_temporal_resblock": True,
    "extra_ff_mix_layer": True, "use_spatial_context": True, "merge_strategy": "learned_with_images", "merge_factor": 0.0,
    "video_kernel_size": [3, 1, 1],
}  # fmt: skip


def of_seconds(**parts: int) -> dict[str, torch.Tensor]:
    """Tensors of Stable Audio's embedders of seconds, by their name and the longest that each one takes."""
    from comfy.ldm.audio.embedders import NumberConditioner

    tensors = {}
    for name, longest in parts.items():
        embedder = NumberConditioner(AUDIO_TEXT, min_val=0, max_val=longest)
        shapes = {key: tuple(value.shape) for key, value in embedder.state_dict().items()}
        tensors |= {f"conditioner.conditioners.{name}.{key}": value for key, value in recipes.fill(shapes).items()}
    return tensors


SMALL_LYRICS = {"comfy.ldm.ace.model.LyricEncoder": {
    "output_size": 64, "attention_heads": 2, "linear_units": 64, "num_blocks": 1,
}}  # fmt: skip
SMALL_ADAPTER = {"comfy.ldm.anima.model.LLMAdapter": {
    "source_dim": TEXT, "target_dim": TEXT, "model_dim": TEXT, "num_layers": 1, "num_heads": 2,
}}  # fmt: skip
MODELS = {
    "z_image": Instance("ZImage", Z_IMAGE, **ATTENTION_MASK, newer={"pad_tokens_multiple": 8}),
    "anima": Instance(
        "Anima", {**COSMOS, "image_model": "anima", "num_blocks": 2}, (16, 1, 4, 6), smaller=SMALL_ADAPTER,
    ),
    "omnigen2": Instance("Omnigen2", OMNIGEN2, **ATTENTION_MASK),
    "boogu": Instance("Boogu", BOOGU, **ATTENTION_MASK),
    "ernie": Instance("ErnieImage", ERNIE, (128, 4, 6)),
    "ideogram4": Instance("Ideogram4", IDEOGRAM, (128, 4, 6)),
    "longcat_image": Instance("LongCatImage", LONGCAT),
    "flux_schnell": Instance("FluxSchnell", {**FLUX, "guidance_embed": False}, **FLUX_EXTRAS),
    "kandinsky5_image": Instance("Kandinsky5Image", KANDINSKY_IMAGE, (16, 1, 4, 6), prompt={"pooled_output": (POOLED,)}),
    "pixart_sigma": Instance("PixArtSigma", PIXART, (4, 36, 36)),
    "hunyuan_dit": Instance(
        "HunyuanDiT", HUNYUAN_DIT, (4, 8, 8),
        prompt={"attention_mask": (), "attention_mask_mt5xl": (), "conditioning_mt5xl": (7, TEXT)},
    ),
    "stable_cascade": Instance("Stable_Cascade_C", CASCADE, (16, 8, 8), prompt={"pooled_output": (1, POOLED)}),
    "sd20": Instance("SD20", {**UNET, "num_heads": -1, "num_head_channels": 32, "use_linear_in_transformer": True,
                              "adm_in_channels": None}, (4, 8, 8)),
    "svd": Instance("SVD_img2vid", SVD, (4, 8, 8)),
    "cosmos_i2v": Instance("CosmosI2V", {**COSMOS1, "in_channels": 17}, (16, 2, 4, 6)),
    "cosmos_predict2_i2v": Instance("CosmosI2VPredict2", {**COSMOS, "in_channels": 17, "num_blocks": 2}, (16, 2, 4, 6)),
    "cogvideox_i2v": Instance("CogVideoX_I2V", {**COGVIDEOX, "in_channels": 32}, (16, 3, 4, 6)),
    "flux_fill": Instance("FluxInpaint", {**FLUX, "in_channels": 96}, **FLUX_EXTRAS),
    "ace_step": Instance("ACEStep", ACE, (8, 16, 12), smaller=SMALL_LYRICS),
    "ace_step15": Instance("ACEStep15", ACE_15, (64, 24)),
    "stable_audio": Instance(
        "StableAudio", STABLE_AUDIO, (64, 24), text=AUDIO_TEXT,
        beside=lambda: of_seconds(seconds_start=512, seconds_total=512),
    ),
    "stable_audio3": Instance(
        "StableAudio3", {**STABLE_AUDIO, "io_channels": 256, "global_cond_dim": AUDIO_TEXT, "timestep_features_type": "learned",
                         "global_cond_type": "adaLN", "global_cond_shared_embed": True, "local_add_cond_dim": 257},
        (256, 24), text=AUDIO_TEXT, beside=lambda: of_seconds(seconds_total=384),
    ),
}  # fmt: skip
