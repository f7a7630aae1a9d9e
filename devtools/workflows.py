"""Writes example_workflows/*.json from the nodes of a running ComfyUI: python devtools/pack.py devtools.workflows

Values come from ComfyUI's own templates of 0.33 where there is one. tests/e2e/test_workflows.py checks the files.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from ..tests.e2e.server import install, make_base, pretend_raylight, running
from ..tests.hosts.checkouts import find_checkouts
from .graph import Graph, Link, Node
from .pack import ROOT

FOLDER = ROOT / "example_workflows"
HUB = "https://huggingface.co/Comfy-Org/"
WAN21 = HUB + "Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/"
WAN22 = HUB + "Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/"
HUNYUAN = HUB + "HunyuanVideo_repackaged/resolve/main/split_files/"
HUNYUAN15 = HUB + "HunyuanVideo_1.5_repackaged/resolve/main/split_files/"
ADDRESSES = (
    WAN21 + "diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors",
    WAN21 + "diffusion_models/wan2.1_i2v_480p_14B_fp16.safetensors",
    WAN21 + "diffusion_models/wan2.1_vace_14B_fp16.safetensors",
    WAN21 + "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    WAN21 + "clip_vision/clip_vision_h.safetensors",
    WAN22 + "vae/wan_2.1_vae.safetensors",
    WAN22 + "diffusion_models/wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
    WAN22 + "diffusion_models/wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
    WAN22 + "diffusion_models/wan2.2_ti2v_5B_fp16.safetensors",
    WAN22 + "vae/wan2.2_vae.safetensors",
    HUNYUAN + "diffusion_models/hunyuan_video_t2v_720p_bf16.safetensors",
    HUNYUAN + "text_encoders/llava_llama3_fp8_scaled.safetensors",
    HUNYUAN + "vae/hunyuan_video_vae_bf16.safetensors",
    HUB.replace("Comfy-Org", "comfyanonymous") + "flux_text_encoders/resolve/main/clip_l.safetensors",
    HUNYUAN15 + "diffusion_models/hunyuanvideo1.5_720p_t2v_fp16.safetensors",
    HUNYUAN15 + "text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    HUNYUAN15 + "text_encoders/byt5_small_glyphxl_fp16.safetensors",
    HUNYUAN15 + "vae/hunyuanvideo15_vae_fp16.safetensors",
)
FILES = {
    address.rsplit("/", 1)[1]: ("text_encoders" if "flux_text" in address else address.rsplit("/", 2)[1], address)
    for address in ADDRESSES
}
AVOID = "overexposed, static, blurred details, subtitles, worst quality, low quality, deformed, still picture"
PROMPT = "A fox runs through a snowy forest at dawn, breath in the cold air, tracking shot"
APPLY_HEIGHT = 380  # with the live view below the widgets
REPORT_HEIGHT = 640  # text and a chart
CALIBRATE_HEIGHT = 900
REPORT_WIDTH = 460
LIVE = """
**BWCache Apply** sits between the model and the sampler. `speedup` 2 computes half of the steps and foretells the others:
the strip on the node shows which ones. Set it to 1.5 for a video closer to the uncached one.

To compare, bypass BWCache Apply (Ctrl+B) and run the same seed again. **BWCache Report** says what a run saved, and what
to try if it saved little.
"""


def main() -> None:
    """Write every workflow."""
    info = object_info()
    FOLDER.mkdir(exist_ok=True)
    for name, build in WORKFLOWS.items():
        graph = Graph(name, info, FILES)
        build(graph)
        text = json.dumps(graph.to_json(), indent=1, ensure_ascii=True)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}\n")


def object_info() -> dict:
    """What the newest ComfyUI here says about its nodes and ours."""
    newest = max(find_checkouts(), key=lambda checkout: [int(part) for part in checkout.version.split(".")])
    with tempfile.TemporaryDirectory() as folder:
        make_base(Path(folder))
        pretend_raylight(Path(folder))
        checkpoint = install(Path(folder)) / "zoo" / "tinywan" / "tinywan.safetensors"
        checkpoint.touch()  # its nodes register where it is
        with running(newest, Path(folder)) as server:
            return server.get("/object_info")


def cached(graph: Graph, column: int, model: Link, title: str = "", **settings) -> tuple[Link, Link]:
    """BWCache Apply: the model and the stats."""
    apply = graph.add(column, "BWCacheApply", title, APPLY_HEIGHT, model=model, **settings)
    return apply["model"], apply["stats"]


def wan_texts(graph: Graph) -> tuple[Link, Link]:
    """Text encoder with a positive and a negative prompt."""
    clip = graph.add(0, "CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan")
    positive = graph.add(1, "CLIPTextEncode", "Positive prompt", 180, clip=clip["CLIP"], text=PROMPT)
    negative = graph.add(1, "CLIPTextEncode", "Negative prompt", 180, clip=clip["CLIP"], text=AVOID)
    return positive["CONDITIONING"], negative["CONDITIONING"]


def save(graph: Graph, column: int, latent: Link, vae: Link, fps: int, prefix: str, tiled: bool = False) -> None:
    """Latent to video file."""
    kind = "VAEDecodeTiled" if tiled else "VAEDecode"
    images = graph.add(column, kind, samples=latent, vae=vae)
    video = graph.add(column, "CreateVideo", images=images["IMAGE"], fps=float(fps))
    graph.add(column, "SaveVideo", "", 380, video=video["VIDEO"], filename_prefix=f"video/{prefix}")


def report(graph: Graph, column: int, stats: Link, latent: Link, title: str = "") -> Node:
    node = graph.add(column, "BWCacheReport", title, REPORT_HEIGHT, passthrough=latent, stats=stats)
    node.width = REPORT_WIDTH
    return node


def wan21_t2v(graph: Graph) -> None:
    graph.note(0, "## Wan 2.1 text to video, 1.3B\n\n" + LIVE)
    unet = graph.add(0, "UNETLoader", unet_name="wan2.1_t2v_1.3B_fp16.safetensors")
    vae = graph.add(0, "VAELoader", vae_name="wan_2.1_vae.safetensors")
    positive, negative = wan_texts(graph)
    empty = graph.add(1, "EmptyHunyuanLatentVideo", width=832, height=480, length=81)
    model, stats = cached(graph, 2, unet["MODEL"])
    shifted = graph.add(2, "ModelSamplingSD3", model=model, shift=8.0)
    latent = ksampler(graph, 3, shifted["MODEL"], positive, negative, empty["LATENT"], steps=30, cfg=6.0)
    report(graph, 3, stats, latent)
    save(graph, 4, latent, vae["VAE"], 16, "wan21_t2v")


def ksampler(graph: Graph, column: int, model: Link, positive: Link, negative: Link, latent: Link, **settings) -> Link:
    settings = {"seed": 0, "sampler_name": "uni_pc", "scheduler": "simple", **settings}
    conditions = {"positive": positive, "negative": negative, "latent_image": latent}
    return graph.add(column, "KSampler", model=model, **conditions, **settings)["LATENT"]


def wan21_i2v(graph: Graph) -> None:
    graph.note(0, "## Wan 2.1 image to video, 14B\n\nChoose the first frame in **Load Image**.\n" + LIVE)
    unet = graph.add(0, "UNETLoader", unet_name="wan2.1_i2v_480p_14B_fp16.safetensors")
    vae = graph.add(0, "VAELoader", vae_name="wan_2.1_vae.safetensors")
    positive, negative = wan_texts(graph)
    vision = graph.add(0, "CLIPVisionLoader", clip_name="clip_vision_h.safetensors")
    image = graph.add(0, "LoadImage", "First frame", 380, image="example.png")
    seen = graph.add(1, "CLIPVisionEncode", clip_vision=vision["CLIP_VISION"], image=image["IMAGE"], crop="none")
    start = graph.add(
        1, "WanImageToVideo", positive=positive, negative=negative, vae=vae["VAE"], width=832, height=480, length=81,
        clip_vision_output=seen["CLIP_VISION_OUTPUT"], start_image=image["IMAGE"],
    )  # fmt: skip
    model, stats = cached(graph, 2, unet["MODEL"])
    shifted = graph.add(2, "ModelSamplingSD3", model=model, shift=8.0)
    conditions = (start["positive"], start["negative"], start["latent"])
    latent = ksampler(graph, 3, shifted["MODEL"], *conditions, steps=20, cfg=6.0)
    report(graph, 3, stats, latent)
    save(graph, 4, latent, vae["VAE"], 16, "wan21_i2v")


TWO_EXPERTS = """
## Wan 2.2 14B: one BWCache Apply for each expert

Wan 2.2 14B is two models. The high-noise expert samples the first half of the steps, the low-noise expert the rest. They
are two runs, so **each gets its own BWCache Apply** and its own report. Steps count from 0 in each run.

The high-noise half decides layout and motion. If motion suffers, set its `speedup` to 1.5, and leave the other at 2.

With a 4-step LoRA no step can be spared: bypass both nodes.
"""


def wan22_14b(graph: Graph) -> None:
    graph.note(0, TWO_EXPERTS)
    high = graph.add(0, "UNETLoader", "High-noise expert", unet_name="wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors")
    low = graph.add(0, "UNETLoader", "Low-noise expert", unet_name="wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors")
    vae = graph.add(0, "VAELoader", vae_name="wan_2.1_vae.safetensors")
    positive, negative = wan_texts(graph)
    empty = graph.add(1, "EmptyHunyuanLatentVideo", width=832, height=480, length=81)
    texts = {"positive": positive, "negative": negative, "steps": 20, "cfg": 3.5, "sampler_name": "euler"}
    halves = {"high": (high, "enable", 0, 10, "enable"), "low": (low, "disable", 10, 10_000, "disable")}
    latent = empty["LATENT"]
    for column, (name, (unet, add_noise, first, last, leftover)) in zip((2, 3), halves.items(), strict=True):
        model, stats = cached(graph, column, unet["MODEL"], f"BWCache Apply ({name} noise)")
        shifted = graph.add(column, "ModelSamplingSD3", model=model, shift=5.0)
        sampler = graph.add(
            column, "KSamplerAdvanced", f"Sampler ({name} noise)", model=shifted["MODEL"], latent_image=latent,
            add_noise=add_noise, noise_seed=0, scheduler="simple", start_at_step=first, end_at_step=last,
            return_with_leftover_noise=leftover, **texts,
        )  # fmt: skip
        latent = sampler["LATENT"]
        report(graph, 4, stats, latent, f"BWCache Report ({name} noise)")
    save(graph, 5, latent, vae["VAE"], 16, "wan22_14b")


def wan22_5b(graph: Graph) -> None:
    text = "## Wan 2.2 5B, text or image to video\n\nFor image to video, connect a **Load Image** to `start_image`.\n"
    graph.note(0, text + LIVE)
    unet = graph.add(0, "UNETLoader", unet_name="wan2.2_ti2v_5B_fp16.safetensors")
    vae = graph.add(0, "VAELoader", vae_name="wan2.2_vae.safetensors")
    positive, negative = wan_texts(graph)
    start = graph.add(1, "Wan22ImageToVideoLatent", vae=vae["VAE"], width=1280, height=704, length=121)
    model, stats = cached(graph, 2, unet["MODEL"])
    shifted = graph.add(2, "ModelSamplingSD3", model=model, shift=8.0)
    latent = ksampler(graph, 3, shifted["MODEL"], positive, negative, start["LATENT"], steps=20, cfg=5.0)
    report(graph, 3, stats, latent)
    save(graph, 4, latent, vae["VAE"], 24, "wan22_5b")


VACE = """
## Wan 2.1 VACE, 14B: reference image to video

Connect a control video and masks to **WanVaceToVideo** as usual. In steps that are foretold, the control is foretold with
the rest of the model's output.
"""


def vace(graph: Graph) -> None:
    graph.note(0, VACE + LIVE)
    unet = graph.add(0, "UNETLoader", unet_name="wan2.1_vace_14B_fp16.safetensors")
    vae = graph.add(0, "VAELoader", vae_name="wan_2.1_vae.safetensors")
    positive, negative = wan_texts(graph)
    image = graph.add(0, "LoadImage", "Reference", 380, image="example.png")
    start = graph.add(
        1, "WanVaceToVideo", positive=positive, negative=negative, vae=vae["VAE"], width=832, height=480, length=81,
        reference_image=image["IMAGE"],
    )  # fmt: skip
    model, stats = cached(graph, 2, unet["MODEL"])
    shifted = graph.add(2, "ModelSamplingSD3", model=model, shift=8.0)
    conditions = (start["positive"], start["negative"], start["latent"])
    latent = ksampler(graph, 3, shifted["MODEL"], *conditions, steps=20, cfg=4.0)
    report(graph, 3, stats, latent)
    trimmed = graph.add(4, "TrimVideoLatent", samples=latent, trim_amount=start["trim_latent"])
    save(graph, 4, trimmed["LATENT"], vae["VAE"], 16, "vace")


def custom_sampling(graph: Graph, model: Link, guider: Link, latent: Link) -> Link:
    """SamplerCustomAdvanced with euler over the simple schedule."""
    noise = graph.add(3, "RandomNoise", noise_seed=0)
    sampler = graph.add(3, "KSamplerSelect", sampler_name="euler")
    sigmas = graph.add(3, "BasicScheduler", model=model, scheduler="simple", steps=20)
    done = graph.add(
        3, "SamplerCustomAdvanced", noise=noise["NOISE"], guider=guider, sampler=sampler["SAMPLER"],
        sigmas=sigmas["SIGMAS"], latent_image=latent,
    )  # fmt: skip
    return done["output"]


def hunyuan(graph: Graph) -> None:
    graph.note(0, "## HunyuanVideo text to video\n\n" + LIVE)
    unet = graph.add(0, "UNETLoader", unet_name="hunyuan_video_t2v_720p_bf16.safetensors")
    names = {"clip_name1": "clip_l.safetensors", "clip_name2": "llava_llama3_fp8_scaled.safetensors"}
    clip = graph.add(0, "DualCLIPLoader", type="hunyuan_video", **names)
    vae = graph.add(0, "VAELoader", vae_name="hunyuan_video_vae_bf16.safetensors")
    positive = graph.add(1, "CLIPTextEncode", "Prompt", 180, clip=clip["CLIP"], text=PROMPT)
    guided = graph.add(1, "FluxGuidance", conditioning=positive["CONDITIONING"], guidance=6.0)
    empty = graph.add(1, "EmptyHunyuanLatentVideo", width=848, height=480, length=73)
    model, stats = cached(graph, 2, unet["MODEL"])
    shifted = graph.add(2, "ModelSamplingSD3", model=model, shift=7.0)["MODEL"]
    guider = graph.add(3, "BasicGuider", model=shifted, conditioning=guided["CONDITIONING"])
    latent = custom_sampling(graph, shifted, guider["GUIDER"], empty["LATENT"])
    report(graph, 4, stats, latent)
    save(graph, 5, latent, vae["VAE"], 24, "hunyuan", tiled=True)


def hunyuan15(graph: Graph) -> None:
    graph.note(0, "## HunyuanVideo 1.5 text to video, 720p\n\n" + LIVE)
    unet = graph.add(0, "UNETLoader", unet_name="hunyuanvideo1.5_720p_t2v_fp16.safetensors")
    names = {"clip_name1": "qwen_2.5_vl_7b_fp8_scaled.safetensors", "clip_name2": "byt5_small_glyphxl_fp16.safetensors"}
    clip = graph.add(0, "DualCLIPLoader", type="hunyuan_video_15", **names)
    vae = graph.add(0, "VAELoader", vae_name="hunyuanvideo15_vae_fp16.safetensors")
    texts = {
        name: graph.add(1, "CLIPTextEncode", f"{name.title()} prompt", 180, clip=clip["CLIP"], text=text)["CONDITIONING"]
        for name, text in (("positive", PROMPT), ("negative", ""))
    }
    empty = graph.add(1, "EmptyHunyuanVideo15Latent", width=1280, height=720, length=121)
    model, stats = cached(graph, 2, unet["MODEL"])
    shifted = graph.add(2, "ModelSamplingSD3", model=model, shift=7.0)["MODEL"]
    guider = graph.add(3, "CFGGuider", model=shifted, cfg=6.0, **texts)
    latent = custom_sampling(graph, shifted, guider["GUIDER"], empty["LATENT"])
    report(graph, 4, stats, latent)
    save(graph, 5, latent, vae["VAE"], 24, "hunyuan15", tiled=True)


TINYWAN = """
## TinyWan: try the cache anywhere, without a download

A very small Wan 2.1 model that ships with the source of BWCache. It samples in seconds on a CPU.

Press **Run**: the same seed is sampled twice, plainly and with the cache. **BWCache Report** says what was saved,
**BWCache Compare** how far the two clips are apart and where. Then change `speedup` and run again: only the cached half is
sampled anew. Seed and steps are set once for both samplers.
"""


def tinywan(graph: Graph) -> None:
    graph.note(0, TINYWAN)
    tiny = graph.add(0, "BWCacheTinyWan")
    seed = graph.add(0, "PrimitiveInt", "Seed of both samplers", value=0)["INT"]
    steps = graph.add(0, "PrimitiveInt", "Steps of both samplers", value=30)["INT"]
    model, stats = cached(graph, 1, tiny["model"])
    conditions = (tiny["positive"], tiny["negative"], tiny["latent"])
    settings = {"seed": seed, "steps": steps, "cfg": 3.0, "sampler_name": "euler"}
    latents = {"plain": ksampler(graph, 2, tiny["model"], *conditions, **settings)}
    latent = ksampler(graph, 2, model, *conditions, **settings)
    graph.nodes[-2].title, graph.nodes[-1].title = "KSampler (plain)", "KSampler (cached)"
    clips = {"plain": graph.add(3, "BWCacheTinyWanDecode", "Decode (plain)", samples=latents["plain"])["images"]}
    through = report(graph, 3, stats, latent)["passthrough"]
    clips["cached"] = graph.add(4, "BWCacheTinyWanDecode", "Decode (cached)", samples=through)["images"]
    graph.add(4, "BWCacheCompare", "", 520, reference=clips["plain"], other=clips["cached"])
    for name, images in clips.items():
        saved = {"images": images, "filename_prefix": f"bwcache_tinywan_{name}", "fps": 5.0}
        graph.add(5, "SaveAnimatedWEBP", f"{name.title()} clip", 420, **saved)


MEASURE_FIRST = """
## TinyWan: measure, then render

What does a speed-up cost on **your** model? Measure it while you render as usual:

1. Press **Run**. **BWCache Apply** is in mode `measure`: the clip is the uncached one, and the node learns which steps this
model needs.
2. Change the seed or the prompt and press **Run** again, two or three times in all. Runs add up.
3. Set `mode` to `forecast` and press **Run**. Its plan is now made from what was measured, where that is better than the
automatic one. **BWCache Report** names it, **BWCache Compare** holds the clip against the uncached one.

What was learned lies in `bwcache/plans` in ComfyUI's user folder. It holds for this model with its LoRAs, this sampler, this
schedule and this cfg.
"""


def measure_first(graph: Graph) -> None:
    graph.note(0, MEASURE_FIRST)
    tiny = graph.add(0, "BWCacheTinyWan")
    seed = graph.add(0, "PrimitiveInt", "Seed of both samplers", value=0)["INT"]
    model, stats = cached(graph, 1, tiny["model"], mode="measure")
    conditions = (tiny["positive"], tiny["negative"], tiny["latent"])
    settings = {"seed": seed, "steps": 30, "cfg": 5.0, "sampler_name": "euler"}
    plain = ksampler(graph, 2, tiny["model"], *conditions, **settings)
    latent = ksampler(graph, 2, model, *conditions, **settings)
    graph.nodes[-2].title, graph.nodes[-1].title = "KSampler (plain)", "KSampler (measured, then cached)"
    through = report(graph, 3, stats, latent)["passthrough"]
    reference = graph.add(4, "BWCacheTinyWanDecode", "Decode (plain)", samples=plain)["images"]
    images = graph.add(4, "BWCacheTinyWanDecode", samples=through)["images"]
    graph.add(4, "BWCacheCompare", "", 520, reference=reference, other=images)
    graph.add(5, "SaveAnimatedWEBP", "", 420, images=images, filename_prefix="bwcache_measured", fps=5.0)


CALIBRATE = """
## TinyWan: calibrate in one go

Press **Run**. **BWCache Calibrate** takes the place of a sampler: it samples some seeds without a cache, learns from them which
steps this model needs, then tries plans for each speed-up and holds them against the uncached latents. That takes up to 11
times as long as one run; the node says so first.

It gives a chart of what each speed-up costs, and the plan that you `choose`. Here that goes straight into **BWCache Apply**, as
its plan `custom`. Paste it into your own workflow, or leave `plan` at `auto` there: what was measured is found again.
"""


def calibrate(graph: Graph) -> None:
    graph.note(0, CALIBRATE)
    tiny = graph.add(0, "BWCacheTinyWan")
    texts = {"positive": tiny["positive"], "negative": tiny["negative"]}
    sampler = graph.add(0, "KSamplerSelect", sampler_name="euler")["SAMPLER"]
    sigmas = graph.add(0, "BasicScheduler", model=tiny["model"], scheduler="simple", steps=30)["SIGMAS"]
    guider = graph.add(1, "CFGGuider", model=tiny["model"], cfg=5.0, **texts)["GUIDER"]
    given = {"sampler": sampler, "sigmas": sigmas, "latent_image": tiny["latent"]}
    measured = graph.add(1, "BWCacheCalibrate", "", CALIBRATE_HEIGHT, guider=guider, **given)
    measured.width = REPORT_WIDTH
    custom = {"mode": "forecast", "mode.plan": "custom", "mode.plan.steps": measured["plan"]}
    model, stats = cached(graph, 2, tiny["model"], **custom)
    fast = graph.add(3, "CFGGuider", "CFGGuider (cached)", model=model, cfg=5.0, **texts)["GUIDER"]
    noise = graph.add(3, "RandomNoise", "First seed of the calibration", noise_seed=0)["NOISE"]
    latent = graph.add(3, "SamplerCustomAdvanced", noise=noise, guider=fast, **given)["output"]
    through = report(graph, 4, stats, latent)["passthrough"]
    graph.add(2, "PreviewAny", "Every plan that was tried", 320, source=measured["table"])
    reference = graph.add(5, "BWCacheTinyWanDecode", "Decode (plain)", samples=measured["latent"])["images"]
    images = graph.add(5, "BWCacheTinyWanDecode", "Decode (cached)", samples=through)["images"]
    graph.add(5, "BWCacheCompare", "", 520, reference=reference, other=images)
    graph.add(6, "SaveAnimatedWEBP", "", 420, images=images, filename_prefix="bwcache_calibrated", fps=5.0)


WORKFLOWS = {
    "BWCache Wan 2.1 text to video": wan21_t2v,
    "BWCache Wan 2.1 image to video": wan21_i2v,
    "BWCache Wan 2.2 14B two experts": wan22_14b,
    "BWCache Wan 2.2 5B": wan22_5b,
    "BWCache Wan 2.1 VACE": vace,
    "BWCache HunyuanVideo": hunyuan,
    "BWCache HunyuanVideo 1.5": hunyuan15,
    "BWCache TinyWan": tinywan,
    "BWCache Measure then render": measure_first,
    "BWCache Calibrate": calibrate,
}

if __name__ == "__main__":
    main()
