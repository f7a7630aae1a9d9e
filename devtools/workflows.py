"""Writes example_workflows/*.json from the nodes of a running ComfyUI: python devtools/pack.py devtools.workflows

Those of model families are in families.py, those of TinyWan here. tests/e2e/test_workflows.py checks the files.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from ..tests.e2e.server import install, make_base, pretend_raylight, running
from ..tests.hosts.checkouts import find_checkouts
from .families import FAMILIES
from .graph import Graph, Link
from .pack import ROOT
from .wiring import FILES, REPORT_WIDTH, cached, report

FOLDER = ROOT / "example_workflows"
CALIBRATE_HEIGHT = 900


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


def ksampler(graph: Graph, column: int, model: Link, positive: Link, negative: Link, latent: Link, **settings) -> Link:
    settings = {"seed": 0, "sampler_name": "uni_pc", "scheduler": "simple", **settings}
    conditions = {"positive": positive, "negative": negative, "latent_image": latent}
    return graph.add(column, "KSampler", model=model, **conditions, **settings)["LATENT"]


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
    **FAMILIES,
    "BWCache TinyWan": tinywan,
    "BWCache Measure then render": measure_first,
    "BWCache Calibrate": calibrate,
}

if __name__ == "__main__":
    main()
