"""The example workflows of model families. Values come from ComfyUI's own templates, those of 0.33 where they differ."""

from __future__ import annotations

from .graph import Graph, Link
from .wiring import (
    COMPARE,
    COMPARE_HEIGHT,
    LIVE,
    PROMPT,
    SAMPLER_TOP,
    cached,
    custom_sampled,
    decoded,
    numbers,
    pictured,
    prompts,
    report,
    sampled,
    saved,
    wan_texts,
)

LITTLE_STEPS = """
With a turbo, lightning or 4-step LoRA (4 to 8 steps) there is nothing to gain, since each step counts there: leave BWCache
Apply out.
"""
SIZE = {"width": 832, "height": 480, "length": 81}


def wan_video(graph: Graph, unet: Link, conditions: tuple[Link, Link, Link], vae: Link, *, shift: float, fps: int = 16,
              prefix: str, trim: Link | None = None, **settings) -> None:
    """From a Wan model to a video: shift, cache, sampler, report, file."""
    shifted = graph.add(1, "ModelSamplingSD3", model=unet, shift=shift)["MODEL"]
    model, stats = cached(graph, 2, shifted)
    latents = sampled(graph, (model, shifted), conditions, **settings)
    through = report(graph, 4, stats, latents[0])["passthrough"]
    if trim:
        through = graph.add(4, "TrimVideoLatent", samples=through, trim_amount=trim)["LATENT"]
        with graph.muted(COMPARE):
            plain = graph.add(4, "TrimVideoLatent", "TrimVideoLatent (plain)", samples=latents[1], trim_amount=trim)
        latents = (latents[0], plain["LATENT"])
    images = decoded(graph, 5, (through, latents[1]), vae)
    saved(graph, 5, images, fps, prefix)


def wan21_t2v(graph: Graph) -> None:
    graph.note(0, "## Wan 2.1 text to video, 1.3B\n\n" + LIVE)
    unet = graph.add(1, "UNETLoader", unet_name="wan2.1_t2v_1.3B_fp16.safetensors")["MODEL"]
    vae = graph.add(1, "VAELoader", vae_name="wan_2.1_vae.safetensors")["VAE"]
    texts = wan_texts(graph)
    empty = graph.add(2, "EmptyHunyuanLatentVideo", **SIZE)["LATENT"]
    wan_video(graph, unet, (*texts, empty), vae, shift=8.0, prefix="wan21_t2v", steps=30, cfg=6.0)


def wan21_i2v(graph: Graph) -> None:
    graph.note(0, "## Wan 2.1 image to video, 14B\n\nChoose the first frame in **Load Image**.\n" + LIVE)
    unet = graph.add(1, "UNETLoader", unet_name="wan2.1_i2v_480p_14B_fp16.safetensors")["MODEL"]
    vae = graph.add(1, "VAELoader", vae_name="wan_2.1_vae.safetensors")["VAE"]
    positive, negative = wan_texts(graph)
    vision = graph.add(1, "CLIPVisionLoader", clip_name="clip_vision_h.safetensors")["CLIP_VISION"]
    image = graph.add(0, "LoadImage", "First frame", 380, image="example.png")["IMAGE"]
    seen = graph.add(1, "CLIPVisionEncode", clip_vision=vision, image=image, crop="none")["CLIP_VISION_OUTPUT"]
    start = graph.add(
        2, "WanImageToVideo", positive=positive, negative=negative, vae=vae, clip_vision_output=seen, start_image=image, **SIZE
    )
    conditions = (start["positive"], start["negative"], start["latent"])
    wan_video(graph, unet, conditions, vae, shift=8.0, prefix="wan21_i2v", steps=20, cfg=6.0)


EXPERTS = """
Wan 2.2 14B is two models. The high-noise expert samples the first 10 of 20 steps, the low-noise expert the rest. They are
two runs, so **each gets its own BWCache Apply** and its own report; the second report tells of both. With `speedup` 2, each
computes 5 of its 10 steps.

The high-noise half decides layout and motion. If motion suffers, set its `speedup` to 1.5, and leave the other at 2.

If you run one expert with guidance and the other with a 4-step LoRA, give BWCache Apply to the one with guidance alone.
"""


def wan22_t2v(graph: Graph) -> None:
    graph.note(0, "## Wan 2.2 14B text to video, two experts\n" + EXPERTS + LITTLE_STEPS)
    graph.note(0, LIVE)
    models = experts(graph, "t2v")
    vae = graph.add(1, "VAELoader", vae_name="wan_2.1_vae.safetensors")["VAE"]
    texts = wan_texts(graph)
    empty = graph.add(2, "EmptyHunyuanLatentVideo", **SIZE)["LATENT"]
    two_experts(graph, models, (*texts, empty), vae, "wan22_t2v")


def wan22_i2v(graph: Graph) -> None:
    text = "## Wan 2.2 14B image to video, two experts\n\nChoose the first frame in **Load Image**.\n"
    graph.note(0, text + EXPERTS + LITTLE_STEPS)
    graph.note(0, LIVE)
    models = experts(graph, "i2v")
    vae = graph.add(1, "VAELoader", vae_name="wan_2.1_vae.safetensors")["VAE"]
    positive, negative = wan_texts(graph)
    image = graph.add(1, "LoadImage", "First frame", 380, image="example.png")["IMAGE"]
    start = graph.add(2, "WanImageToVideo", positive=positive, negative=negative, vae=vae, start_image=image, **SIZE)
    two_experts(graph, models, (start["positive"], start["negative"], start["latent"]), vae, "wan22_i2v")


def experts(graph: Graph, kind: str) -> dict[str, Link]:
    """Both models, each with its shift, by name."""
    shifted = {}
    for name in ("high", "low"):
        file = f"wan2.2_{kind}_{name}_noise_14B_fp8_scaled.safetensors"
        unet = graph.add(1, "UNETLoader", f"{name.title()}-noise expert", unet_name=file)["MODEL"]
        shifted[name] = graph.add(1, "ModelSamplingSD3", model=unet, shift=5.0)["MODEL"]
    return shifted


def two_experts(graph: Graph, models: dict[str, Link], conditions: tuple[Link, Link, Link], vae: Link, prefix: str) -> None:
    """Two KSampler Advanced, one after the other, with a cache each; and, muted, the same without."""
    positive, negative, latent = conditions
    seed, steps, half = numbers(graph, 2, steps=20, steps_of_the_high_noise_expert=10)
    shared = {"positive": positive, "negative": negative, "noise_seed": seed, "steps": steps, "cfg": 3.5,
              "sampler_name": "euler", "scheduler": "simple"}  # fmt: skip
    graph.lowered |= {4: SAMPLER_TOP}
    latents, other = {"": latent, " (plain)": latent}, {}
    for name in ("high", "low"):
        model, stats = cached(graph, 3, models[name], f"BWCache Apply ({name} noise)")
        first = name == "high"
        part = {"add_noise": "enable", "start_at_step": 0, "end_at_step": half, "return_with_leftover_noise": "enable"} if first else {
            "add_noise": "disable", "start_at_step": half, "end_at_step": 10_000, "return_with_leftover_noise": "disable"}  # fmt: skip
        latents[""] = graph.add(4, "KSamplerAdvanced", f"Sampler ({name} noise)", model=model, latent_image=latents[""],
                                **part, **shared)["LATENT"]  # fmt: skip
        with graph.muted(COMPARE):
            title = f"Sampler (plain, {name} noise)"
            plain = {"model": models[name], "latent_image": latents[" (plain)"]}
            latents[" (plain)"] = graph.add(4 if first else 5, "KSamplerAdvanced", title, **plain, **part, **shared)["LATENT"]
        through = report(graph, 5, stats, latents[""], f"BWCache Report ({name} noise)", **other)["passthrough"]
        other = {"other_stats": stats}  # the second report tells of both
    images = decoded(graph, 6, (through, latents[" (plain)"]), vae)
    saved(graph, 6, images, 16, prefix)


def wan22_5b(graph: Graph) -> None:
    text = "## Wan 2.2 5B, text or image to video\n\nFor image to video, connect a **Load Image** to `start_image`.\n"
    graph.note(0, text + LIVE)
    unet = graph.add(1, "UNETLoader", unet_name="wan2.2_ti2v_5B_fp16.safetensors")["MODEL"]
    vae = graph.add(1, "VAELoader", vae_name="wan2.2_vae.safetensors")["VAE"]
    texts = wan_texts(graph)
    start = graph.add(2, "Wan22ImageToVideoLatent", vae=vae, width=1280, height=704, length=121)["LATENT"]
    wan_video(graph, unet, (*texts, start), vae, shift=8.0, fps=24, prefix="wan22_5b", steps=20, cfg=5.0)


VACE = """
## Wan 2.1 VACE, 14B: reference image to video

Connect a control video and masks to **WanVaceToVideo** as usual. In steps that are foretold, the control is foretold with
the rest of the model's output.
"""


def vace(graph: Graph) -> None:
    graph.note(0, VACE + LIVE)
    unet = graph.add(1, "UNETLoader", unet_name="wan2.1_vace_14B_fp16.safetensors")["MODEL"]
    vae = graph.add(1, "VAELoader", vae_name="wan_2.1_vae.safetensors")["VAE"]
    positive, negative = wan_texts(graph)
    image = graph.add(1, "LoadImage", "Reference", 380, image="example.png")["IMAGE"]
    start = graph.add(2, "WanVaceToVideo", positive=positive, negative=negative, vae=vae, reference_image=image, **SIZE)
    conditions = (start["positive"], start["negative"], start["latent"])
    wan_video(graph, unet, conditions, vae, shift=8.0, prefix="vace", trim=start["trim_latent"], steps=20, cfg=4.0)


def hunyuan(graph: Graph) -> None:
    graph.note(0, "## HunyuanVideo text to video\n\n" + LIVE)
    unet = graph.add(1, "UNETLoader", unet_name="hunyuan_video_t2v_720p_bf16.safetensors")["MODEL"]
    names = {"clip_name1": "clip_l.safetensors", "clip_name2": "llava_llama3_fp8_scaled.safetensors"}
    clip = graph.add(1, "DualCLIPLoader", type="hunyuan_video", **names)["CLIP"]
    vae = graph.add(1, "VAELoader", vae_name="hunyuan_video_vae_bf16.safetensors")["VAE"]
    shifted = graph.add(1, "ModelSamplingSD3", model=unet, shift=7.0)["MODEL"]
    model, stats = cached(graph, 2, shifted)
    positive = graph.add(2, "CLIPTextEncode", "Prompt", 180, clip=clip, text=PROMPT)["CONDITIONING"]
    empty = graph.add(2, "EmptyHunyuanLatentVideo", width=848, height=480, length=73)["LATENT"]
    guided = graph.add(2, "FluxGuidance", conditioning=positive, guidance=6.0)["CONDITIONING"]

    def guide(model: Link) -> Link:
        return graph.add(3, "BasicGuider", model=model, conditioning=guided)["GUIDER"]

    finish_video(graph, stats, custom_sampled(graph, (model, shifted), guide, empty), vae, "hunyuan")


def finish_video(graph: Graph, stats: Link, latents: tuple[Link, Link], vae: Link, prefix: str) -> None:
    """Report, decoding and file of a custom sampling, at 24 frames a second."""
    through = report(graph, 5, stats, latents[0])["passthrough"]
    images = decoded(graph, 6, (through, latents[1]), vae, tiled=True)
    saved(graph, 6, images, 24, prefix)


def hunyuan15(graph: Graph) -> None:
    text = "\nThe super resolution model of 1.5 is distilled to a few steps: leave BWCache Apply out there.\n"
    graph.note(0, "## HunyuanVideo 1.5 text to video, 720p\n\n" + LIVE + text)
    unet = graph.add(1, "UNETLoader", unet_name="hunyuanvideo1.5_720p_t2v_fp16.safetensors")["MODEL"]
    names = {"clip_name1": "qwen_2.5_vl_7b_fp8_scaled.safetensors", "clip_name2": "byt5_small_glyphxl_fp16.safetensors"}
    clip = graph.add(1, "DualCLIPLoader", type="hunyuan_video_15", **names)["CLIP"]
    vae = graph.add(1, "VAELoader", vae_name="hunyuanvideo15_vae_fp16.safetensors")["VAE"]
    shifted = graph.add(1, "ModelSamplingSD3", model=unet, shift=7.0)["MODEL"]
    model, stats = cached(graph, 2, shifted)
    positive, negative = prompts(graph, clip, negative="")
    empty = graph.add(2, "EmptyHunyuanVideo15Latent", width=1280, height=720, length=121)["LATENT"]

    def guide(model: Link) -> Link:
        return graph.add(3, "CFGGuider", model=model, positive=positive, negative=negative, cfg=6.0)["GUIDER"]

    finish_video(graph, stats, custom_sampled(graph, (model, shifted), guide, empty), vae, "hunyuan15")


MINIMAX = """
MiniMax-H3 makes picture and sound at once, in 20 steps and without guidance. With `speedup` 2, 10 of the 20 steps are
computed. Errors are measured on the picture and on the sound; the worse of them decides, and the report tells both.

With the 4- or 8-step turbo LoRA there is nothing to gain, since each step counts there: leave BWCache Apply out.
"""
SOUND_PROMPT = PROMPT + ". Snow crunches under its paws, wind in the trees, a bird calls far away."


def minimax_t2v(graph: Graph) -> None:
    graph.note(0, "## MiniMax-H3 text to video, with sound\n" + MINIMAX)
    graph.note(0, LIVE)
    minimax(graph, "minimax_h3_t2v", width=864, height=480)


def minimax_i2v(graph: Graph) -> None:
    text = "## MiniMax-H3 image to video, with sound\n\nChoose the first frame in **Load Image**. For a last frame too, connect a second "
    graph.note(0, text + "**Load Image** to `last_frame`.\n" + MINIMAX)
    graph.note(0, LIVE)
    image = graph.add(1, "LoadImage", "First frame", 380, image="example.png")["IMAGE"]
    minimax(graph, "minimax_h3_i2v", first_frame=image, width=640, height=640)


def minimax(graph: Graph, prefix: str, **frames) -> None:
    unet = graph.add(1, "UNETLoader", unet_name="minimax_h3_fl2va_pruned_int8_convrot.safetensors")["MODEL"]
    clip = graph.add(1, "CLIPLoader", clip_name="qwen3vl_32b_minimax_h3_nvfp4_awq.safetensors", type="minimax")["CLIP"]
    vae = graph.add(1, "VAELoader", "VAE of the picture", vae_name="minimax_h3_video_vae_fp16.safetensors")["VAE"]
    ear = graph.add(1, "VAELoader", "VAE of the sound", vae_name="minimax_h3_audio_vae_fp32.safetensors")["VAE"]
    model, stats = cached(graph, 2, unet)
    start = graph.add(2, "MiniMaxH3ImageToVideo", clip=clip, vae=vae, prompt=SOUND_PROMPT, length=124, **frames)

    def guide(model: Link) -> Link:
        return graph.add(3, "BasicGuider", model=model, conditioning=start["positive"])["GUIDER"]

    latents = custom_sampled(graph, (model, unet), guide, start["LATENT"], sampler="res_multistep")
    through = report(graph, 5, stats, latents[0])["passthrough"]
    images = decoded(graph, 6, (through, latents[1]), vae)
    sound = graph.add(6, "VAEDecodeAudio", samples=through, vae=ear)["AUDIO"]
    saved(graph, 6, images, 24, prefix, audio=sound)


LTX2 = """
## LTX-2 text to video with sound, two stages

The first stage runs 20 steps with guidance: there BWCache saves half of the steps. The second stage, at twice the size, has 3
steps with the distilled LoRA: there is nothing to gain, so it runs in full, and the whole gets faster by less than `speedup`.

ComfyUI's templates for LTX-2.3 and LTX-2.5, and those for LTX-2 called distilled, run 8 + 3 steps with distilled weights:
leave BWCache Apply out there. The same goes for the sampler euler_ancestral, which adds noise in every step. Here the first
stage samples with euler, as in ComfyUI's template for image to video.
"""


def ltx2(graph: Graph) -> None:
    graph.note(0, LTX2)
    graph.note(0, LIVE)
    checkpoint = {"ckpt_name": "ltx-2-19b-dev-fp8.safetensors"}
    loaded = graph.add(1, "CheckpointLoaderSimple", **checkpoint)
    clip = graph.add(1, "LTXAVTextEncoderLoader", text_encoder="gemma_3_12B_it_fp4_mixed.safetensors", **checkpoint)["CLIP"]
    ear = graph.add(1, "LTXVAudioVAELoader", **checkpoint)["Audio VAE"]
    length = graph.add(1, "PrimitiveInt", "Frames", value=121)["INT"]
    model, stats = cached(graph, 2, loaded["MODEL"])
    avoid = "blurry, low quality, still frame, frames, watermark, overlay, titles, has blurbox, has subtitles"
    positive, negative = prompts(graph, clip, SOUND_PROMPT, avoid)
    picture = graph.add(2, "EmptyLTXVLatentVideo", width=640, height=384, length=length)["LATENT"]
    sound = graph.add(2, "LTXVEmptyLatentAudio", audio_vae=ear, frames_number=length, frame_rate=25)["Latent"]
    guided = graph.add(3, "LTXVConditioning", positive=positive, negative=negative, frame_rate=25.0)
    latent = graph.add(3, "LTXVConcatAVLatent", video_latent=picture, audio_latent=sound)["latent"]
    sigmas = graph.add(3, "LTXVScheduler", latent=latent, steps=20)["SIGMAS"]

    def guide(model: Link) -> Link:
        conditions = {"positive": guided["positive"], "negative": guided["negative"]}
        return graph.add(3, "CFGGuider", model=model, cfg=4.0, **conditions)["GUIDER"]

    first, plain = custom_sampled(graph, (model, loaded["MODEL"]), guide, latent, sigmas=sigmas)
    through = report(graph, 5, stats, first)["passthrough"]
    ltx2_second(graph, loaded, ear, guided, (through, plain))


def ltx2_second(graph: Graph, loaded, ear: Link, guided, latents: tuple[Link, Link]) -> None:
    """The second stage on what the first one made; and, muted, the pictures of both first stages compared."""
    halves = graph.add(5, "LTXVSeparateAVLatent", av_latent=latents[0])
    lora = graph.add(1, "LoraLoaderModelOnly", model=loaded["MODEL"], lora_name="ltx-2-19b-distilled-lora-384.safetensors")["MODEL"]
    upscaler = graph.add(1, "LatentUpscaleModelLoader", model_name="ltx-2-spatial-upscaler-x2-1.0.safetensors")
    cropped = graph.add(6, "LTXVCropGuides", positive=guided["positive"], negative=guided["negative"], latent=halves["video_latent"])
    larger = graph.add(6, "LTXVLatentUpsampler", samples=cropped["latent"], upscale_model=upscaler["LATENT_UPSCALE_MODEL"],
                       vae=loaded["VAE"])["LATENT"]  # fmt: skip
    latent = graph.add(6, "LTXVConcatAVLatent", video_latent=larger, audio_latent=halves["audio_latent"])["latent"]
    guider = graph.add(7, "CFGGuider", model=lora, positive=cropped["positive"], negative=cropped["negative"], cfg=1.0)
    done = graph.add(
        8, "SamplerCustomAdvanced", "Second stage", guider=guider["GUIDER"], latent_image=latent,
        noise=graph.add(7, "RandomNoise", noise_seed=0)["NOISE"],
        sampler=graph.add(7, "KSamplerSelect", sampler_name="gradient_estimation")["SAMPLER"],
        sigmas=graph.add(7, "ManualSigmas", sigmas="0.909375, 0.725, 0.421875, 0.0")["SIGMAS"],
    )["denoised_output"]  # fmt: skip
    parts = graph.add(8, "LTXVSeparateAVLatent", av_latent=done)
    images = graph.add(8, "VAEDecodeTiled", samples=parts["video_latent"], vae=loaded["VAE"])["IMAGE"]
    sound = graph.add(8, "LTXVAudioVAEDecode", samples=parts["audio_latent"], audio_vae=ear)["Audio"]
    saved(graph, 8, images, 25, "ltx2", audio=sound)
    with graph.muted(COMPARE):
        plain = graph.add(5, "LTXVSeparateAVLatent", "LTXVSeparateAVLatent (plain)", av_latent=latents[1])["video_latent"]
        graph.add(6, "BWCacheCompare", "", COMPARE_HEIGHT, reference=plain, other=halves["video_latent"])


def image(graph: Graph, stats: Link, latents: tuple[Link, Link], vae: Link, prefix: str, column: int = 4) -> None:
    """Report, decoding and file of a picture."""
    through = report(graph, column, stats, latents[0])["passthrough"]
    pictured(graph, column + 1, decoded(graph, column + 1, (through, latents[1]), vae), prefix)


IMAGE_PROMPT = "A red fox in a snowy forest at dawn, breath in the cold air, soft light, photograph"
SAME_PICTURE = """
An image of half the steps is close to the uncached one, not equal to it: fine detail moves. For final pictures set `speedup`
to 1.5, or sample the seed that you like once more without the cache.
"""


def qwen_image(graph: Graph) -> None:
    graph.note(0, "## Qwen-Image 2512, text to image\n\nWith `speedup` 2, 25 of the 50 steps are computed.\n" + SAME_PICTURE + LITTLE_STEPS)
    graph.note(0, LIVE)
    unet = graph.add(1, "UNETLoader", unet_name="qwen_image_2512_fp8_e4m3fn.safetensors")["MODEL"]
    clip = graph.add(1, "CLIPLoader", clip_name="qwen_2.5_vl_7b_fp8_scaled.safetensors", type="qwen_image")["CLIP"]
    vae = graph.add(1, "VAELoader", vae_name="qwen_image_vae.safetensors")["VAE"]
    shifted = graph.add(1, "ModelSamplingAuraFlow", model=unet, shift=3.1)["MODEL"]
    model, stats = cached(graph, 2, shifted)
    texts = prompts(graph, clip, IMAGE_PROMPT, "low quality, deformed, oversaturated, waxy skin")
    empty = graph.add(2, "EmptySD3LatentImage", width=1328, height=1328)["LATENT"]
    latents = sampled(graph, (model, shifted), (*texts, empty), steps=50, cfg=4.0, sampler_name="euler")
    image(graph, stats, latents, vae, "qwen_image")


def z_image(graph: Graph) -> None:
    text = "## Z-Image, text to image\n\nWith `speedup` 2, 13 of the 25 steps are computed. Z-Image Turbo has 8 steps: leave BWCache Apply out there.\n"
    graph.note(0, text + SAME_PICTURE)
    graph.note(0, LIVE)
    unet = graph.add(1, "UNETLoader", unet_name="z_image_bf16.safetensors")["MODEL"]
    clip = graph.add(1, "CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2")["CLIP"]
    vae = graph.add(1, "VAELoader", vae_name="ae.safetensors")["VAE"]
    shifted = graph.add(1, "ModelSamplingAuraFlow", model=unet, shift=3.0)["MODEL"]
    model, stats = cached(graph, 2, shifted)
    texts = prompts(graph, clip, IMAGE_PROMPT, "")
    empty = graph.add(2, "EmptySD3LatentImage", width=1024, height=1024)["LATENT"]
    latents = sampled(graph, (model, shifted), (*texts, empty), steps=25, cfg=4.0, sampler_name="res_multistep")
    image(graph, stats, latents, vae, "z_image")


def flux2(graph: Graph) -> None:
    graph.note(0, "## Flux 2 dev, text to image\n\nWith `speedup` 2, 10 of the 20 steps are computed.\n" + SAME_PICTURE + LITTLE_STEPS)
    graph.note(0, LIVE)
    unet = graph.add(1, "UNETLoader", unet_name="flux2_dev_fp8mixed.safetensors")["MODEL"]
    clip = graph.add(1, "CLIPLoader", clip_name="mistral_3_small_flux2_bf16.safetensors", type="flux2")["CLIP"]
    vae = graph.add(1, "VAELoader", vae_name="full_encoder_small_decoder.safetensors")["VAE"]
    model, stats = cached(graph, 2, unet)
    positive = graph.add(2, "CLIPTextEncode", "Prompt", 180, clip=clip, text=IMAGE_PROMPT)["CONDITIONING"]
    empty = graph.add(2, "EmptyFlux2LatentImage", width=1024, height=1024)["LATENT"]
    guided = graph.add(2, "FluxGuidance", conditioning=positive, guidance=4.0)["CONDITIONING"]
    sigmas = graph.add(2, "Flux2Scheduler", steps=20, width=1024, height=1024)["SIGMAS"]

    def guide(model: Link) -> Link:
        return graph.add(3, "BasicGuider", model=model, conditioning=guided)["GUIDER"]

    image(graph, stats, custom_sampled(graph, (model, unet), guide, empty, sigmas=sigmas), vae, "flux2", column=5)


FAMILIES = {
    "BWCache MiniMax-H3 text to video": minimax_t2v,
    "BWCache MiniMax-H3 image to video": minimax_i2v,
    "BWCache LTX-2": ltx2,
    "BWCache Wan 2.2 14B two experts": wan22_t2v,
    "BWCache Wan 2.2 14B image to video": wan22_i2v,
    "BWCache Wan 2.2 5B": wan22_5b,
    "BWCache Wan 2.1 text to video": wan21_t2v,
    "BWCache Wan 2.1 image to video": wan21_i2v,
    "BWCache Wan 2.1 VACE": vace,
    "BWCache HunyuanVideo": hunyuan,
    "BWCache HunyuanVideo 1.5": hunyuan15,
    "BWCache Qwen-Image": qwen_image,
    "BWCache Flux 2": flux2,
    "BWCache Z-Image": z_image,
}
