"""Parts that the example workflows are wired of: model files, prompts, samplers with and without the cache, reports.

Columns from left to right: 0 notes, 1 loaders, 2 BWCache Apply and conditioning, then samplers, reports, decoding, files.
"""

from __future__ import annotations

from .graph import Graph, Link, Node

HUB = "https://huggingface.co/"
COMFY = HUB + "Comfy-Org/"
WAN21 = COMFY + "Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/"
WAN22 = COMFY + "Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/"
HUNYUAN = COMFY + "HunyuanVideo_repackaged/resolve/main/split_files/"
HUNYUAN15 = COMFY + "HunyuanVideo_1.5_repackaged/resolve/main/split_files/"
MINIMAX = COMFY + "MiniMax-H3/resolve/main/"
QWEN = COMFY + "Qwen-Image_ComfyUI/resolve/main/split_files/"
FLUX2 = COMFY + "flux2-dev/resolve/main/split_files/"
LTX2 = HUB + "Lightricks/LTX-2/resolve/main/"
ADDRESSES = {
    "diffusion_models": (
        WAN21 + "diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors",
        WAN21 + "diffusion_models/wan2.1_i2v_480p_14B_fp16.safetensors",
        WAN21 + "diffusion_models/wan2.1_vace_14B_fp16.safetensors",
        WAN22 + "diffusion_models/wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
        WAN22 + "diffusion_models/wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
        WAN22 + "diffusion_models/wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors",
        WAN22 + "diffusion_models/wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors",
        WAN22 + "diffusion_models/wan2.2_ti2v_5B_fp16.safetensors",
        HUNYUAN + "diffusion_models/hunyuan_video_t2v_720p_bf16.safetensors",
        HUNYUAN15 + "diffusion_models/hunyuanvideo1.5_720p_t2v_fp16.safetensors",
        MINIMAX + "diffusion_models/minimax_h3_fl2va_pruned_int8_convrot.safetensors",
        QWEN + "diffusion_models/qwen_image_2512_fp8_e4m3fn.safetensors",
        FLUX2 + "diffusion_models/flux2_dev_fp8mixed.safetensors",
        COMFY + "z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors",
    ),
    "text_encoders": (
        WAN21 + "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
        HUNYUAN + "text_encoders/llava_llama3_fp8_scaled.safetensors",
        HUB + "comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors",
        HUNYUAN15 + "text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
        HUNYUAN15 + "text_encoders/byt5_small_glyphxl_fp16.safetensors",
        MINIMAX + "text_encoders/qwen3vl_32b_minimax_h3_nvfp4_awq.safetensors",
        FLUX2 + "text_encoders/mistral_3_small_flux2_bf16.safetensors",
        COMFY + "z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",
        COMFY + "ltx-2/resolve/main/split_files/text_encoders/gemma_3_12B_it_fp4_mixed.safetensors",
    ),
    "clip_vision": (WAN21 + "clip_vision/clip_vision_h.safetensors",),
    "vae": (
        WAN22 + "vae/wan_2.1_vae.safetensors",
        WAN22 + "vae/wan2.2_vae.safetensors",
        HUNYUAN + "vae/hunyuan_video_vae_bf16.safetensors",
        HUNYUAN15 + "vae/hunyuanvideo15_vae_fp16.safetensors",
        MINIMAX + "vae/minimax_h3_video_vae_fp16.safetensors",
        MINIMAX + "vae/minimax_h3_audio_vae_fp32.safetensors",
        QWEN + "vae/qwen_image_vae.safetensors",
        HUB + "black-forest-labs/FLUX.2-small-decoder/resolve/main/full_encoder_small_decoder.safetensors",
        COMFY + "z_image_turbo/resolve/main/split_files/vae/ae.safetensors",
    ),
    "checkpoints": (LTX2 + "ltx-2-19b-dev-fp8.safetensors",),
    "loras": (LTX2 + "ltx-2-19b-distilled-lora-384.safetensors",),
    "latent_upscale_models": (LTX2 + "ltx-2-spatial-upscaler-x2-1.0.safetensors",),
}
FILES = {address.rsplit("/", 1)[1]: (folder, address) for folder, of in ADDRESSES.items() for address in of}
"""Folder and address of each model file, by its name: those of ComfyUI's own templates."""

AVOID = "overexposed, static, blurred details, subtitles, worst quality, low quality, deformed, still picture"
PROMPT = "A fox runs through a snowy forest at dawn, breath in the cold air, tracking shot"
APPLY_HEIGHT, CUSTOM = 380, 90  # with the live view below the widgets; more for those of a custom plan
REPORT_HEIGHT, REPORT_WIDTH = 600, 460  # text and a chart
COMPARE_HEIGHT = 440  # text and a row of frames
SAMPLER_TOP = 110  # where samplers begin: the stats link passes above them
COMPARE = "Compare with an uncached run: click here, press Ctrl+M, then Run"
LIVE = """
**BWCache Apply** sits between the model and the sampler. `speedup` 2 computes half of the steps and foretells the others:
the strip on the node shows which ones. Set it to 1.5 for a result closer to the uncached one.

**BWCache Report** says what a run saved, and what to try if it saved little.

To compare, unmute the box below: click its title, press Ctrl+M, then Run. The same seed is then sampled without the cache
as well, which takes its full time. Or bypass BWCache Apply with Ctrl+B.
"""


def cached(graph: Graph, column: int, model: Link, title: str = "", **settings) -> tuple[Link, Link]:
    """BWCache Apply: the model and the stats."""
    height = APPLY_HEIGHT + (CUSTOM if settings.get("mode.plan") == "custom" else 0)
    apply = graph.add(column, "BWCacheApply", title, height, model=model, **settings)
    return apply["model"], apply["stats"]


def report(graph: Graph, column: int, stats: Link, latent: Link, title: str = "", **more: Link) -> Node:
    node = graph.add(column, "BWCacheReport", title, REPORT_HEIGHT, passthrough=latent, stats=stats, **more)
    node.width = REPORT_WIDTH
    return node


def prompts(graph: Graph, clip: Link, positive: str = PROMPT, negative: str = AVOID) -> tuple[Link, Link]:
    """A positive and a negative prompt."""
    texts = (("Positive prompt", positive), ("Negative prompt", negative))
    nodes = [graph.add(2, "CLIPTextEncode", title, 180, clip=clip, text=text) for title, text in texts]
    return nodes[0]["CONDITIONING"], nodes[1]["CONDITIONING"]


def wan_texts(graph: Graph) -> tuple[Link, Link]:
    """Text encoder with a positive and a negative prompt."""
    clip = graph.add(1, "CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan")
    return prompts(graph, clip["CLIP"])


def numbers(graph: Graph, column: int, seed: int = 0, **steps: int) -> list[Link]:
    """Seed and steps, set once for the cached sampler and the one that it is compared with."""
    titles = {"Seed": seed, **{name.replace("_", " ").capitalize(): count for name, count in steps.items()}}
    return [graph.add(column, "PrimitiveInt", title, value=value)["INT"] for title, value in titles.items()]


def sampled(graph: Graph, models: tuple[Link, Link], conditions: tuple[Link, Link, Link], steps: int, **settings) -> tuple[Link, Link]:
    """KSampler twice, cached and, muted, plain. models: cached and plain. conditions: positive, negative, latent.

    Returns both latents.
    """
    seed, count = numbers(graph, 2, steps=steps)
    names = dict(zip(("positive", "negative", "latent_image"), conditions, strict=True))
    settings = {"seed": seed, "steps": count, "sampler_name": "uni_pc", "scheduler": "simple", **names, **settings}
    graph.lowered[3] = SAMPLER_TOP
    latent = graph.add(3, "KSampler", model=models[0], **settings)["LATENT"]
    with graph.muted(COMPARE):
        plain = graph.add(3, "KSampler", "KSampler (plain)", model=models[1], **settings)["LATENT"]
    return latent, plain


def custom_sampled(
    graph: Graph, models: tuple[Link, Link], guide, latent: Link, steps: int = 20, sampler: str = "euler", sigmas: Link | None = None
) -> tuple[Link, Link]:
    """SamplerCustomAdvanced twice, cached and, muted, plain. guide: makes a guider node in column 3 for a model.

    sigmas: the simple schedule where none are given. Returns both latents.
    """
    graph.lowered[3], graph.lowered[4] = SAMPLER_TOP, SAMPLER_TOP
    guider = guide(models[0])
    noise = graph.add(3, "RandomNoise", noise_seed=0)["NOISE"]
    chosen = graph.add(3, "KSamplerSelect", sampler_name=sampler)["SAMPLER"]
    sigmas = sigmas or graph.add(3, "BasicScheduler", model=models[1], scheduler="simple", steps=steps)["SIGMAS"]
    shared = {"noise": noise, "sampler": chosen, "sigmas": sigmas, "latent_image": latent}
    done = graph.add(4, "SamplerCustomAdvanced", guider=guider, **shared)["output"]
    with graph.muted(COMPARE):
        plain = graph.add(4, "SamplerCustomAdvanced", "SamplerCustomAdvanced (plain)", guider=guide(models[1]), **shared)
    return done, plain["output"]


def decoded(graph: Graph, column: int, latents: tuple[Link, Link], vae: Link, tiled: bool = False) -> Link:
    """Images of the cached latent; and, muted below, those of the plain one, compared. Returns the cached ones."""
    kind = "VAEDecodeTiled" if tiled else "VAEDecode"
    images = graph.add(column, kind, samples=latents[0], vae=vae)["IMAGE"]
    with graph.muted(COMPARE):
        plain = graph.add(column - 1, kind, f"{kind} (plain)", samples=latents[1], vae=vae)["IMAGE"]
        graph.add(column, "BWCacheCompare", "", COMPARE_HEIGHT, reference=plain, other=images)
    return images


def saved(graph: Graph, column: int, images: Link, fps: int, prefix: str, **audio: Link) -> None:
    """Images to a video file. audio: its sound, where there is one."""
    video = graph.add(column, "CreateVideo", images=images, fps=float(fps), **audio)
    graph.add(column, "SaveVideo", "", 380, video=video["VIDEO"], filename_prefix=f"video/{prefix}")


def pictured(graph: Graph, column: int, images: Link, prefix: str) -> None:
    graph.add(column, "SaveImage", "", 420, images=images, filename_prefix=prefix)
