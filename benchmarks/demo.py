"""python dev.py demo: the cache at work on a small trained video model, in files to look at.

Samples one prompt uncached, with the cache in two modes, and with fewer steps, and writes to out/: the clips side by side,
the steps that each mode computed, the errors of its forecasts, and a table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from tqdm import tqdm

from ..bwcache_core.config import BlockConfig, ForecastConfig
from ..bwcache_core.plan import rounded
from ..hosts.runs import Host, Job, Outcome, open_host, run, scale_of
from ..nodes.charts import error_curve, reuse_map
from ..nodes.quality import measure
from .measure import BlockCounter

PAPER_THRESHOLD = 0.05  # TinyWan's blocks change by 0.02 to 0.045 until two thirds of a run
SPEEDUP = 2.0
TILE = 288  # width and height of one clip on screen, in pixels
CAPTION = 24
FRAME_MS = 200


@dataclass(frozen=True)
class Method:
    """One line of the comparison. config: None samples plainly. steps: 0 for those of the job."""

    name: str
    config: ForecastConfig | BlockConfig | None = None
    steps: int = 0


@dataclass(frozen=True)
class Row:
    """What a method gave. speedup: block executions of the uncached run over its own; time_ratio: the same of wall time,
    the median of pairs of runs, since the machine's speed changes while the demo runs."""

    method: Method
    steps: int
    outcome: Outcome
    speedup: float
    time_ratio: float


def main() -> None:
    """Run the demo on the host at hand."""
    args = parse_arguments()
    host = open_host(args.model)
    prompt = args.prompt or host.zoo.prompts(1)[0]
    job = Job((prompt,), (args.seed,), args.steps)
    rows = compare(host, job, methods(args.steps, args.threshold), args.repeats)
    folder = args.out / host.name.replace(" ", "-").lower()
    folder.mkdir(parents=True, exist_ok=True)
    save_clips(folder / "clips.webp", rows)
    for row in rows:
        if row.method.config:
            reuse_map(row.outcome.report).savefig(folder / f"steps-{row.method.name}.png")
            error_curve(row.outcome.report).savefig(folder / f"errors-{row.method.name}.png")
    text = table(rows, host, job)
    (folder / "table.md").write_text(text, encoding="utf-8")
    sys.stdout.write(f"\n{text}\nWritten to {folder}\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__)
    parser.add_argument("--model", default="tinywan", help="tinywan, postcards, market (in ComfyUI), or a folder")
    parser.add_argument("--prompt", default="", help="one that the model knows; its first if empty")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threshold", type=float, default=PAPER_THRESHOLD, help="of the paper mode")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each method")
    parser.add_argument("--out", type=Path, default=Path("out"))
    return parser.parse_args()


def methods(steps: int, threshold: float) -> list[Method]:
    return [
        Method("uncached"),
        Method("forecast", ForecastConfig(speedup=SPEEDUP)),
        Method("paper", BlockConfig(threshold=threshold)),
        Method("fewer-steps", steps=rounded(steps / SPEEDUP)),
    ]


def compare(host: Host, job: Job, chosen: Sequence[Method], repeats: int) -> list[Row]:
    """One row per method, the uncached one first; what the first round takes is warm-up if there is another."""
    counter = BlockCounter(host.model.get_model_object("diffusion_model"))
    rounds: list[list[tuple[Outcome, int]]] = []
    with tqdm(total=repeats * len(chosen), desc=host.name, unit="run") as progress:
        for _ in range(repeats):
            rounds.append([])
            for method in chosen:
                with counter.counting():
                    outcome = run(host, job_for(job, method), method.config)
                rounds[-1].append((outcome, counter.count))
                progress.update()
    timed = rounds[1:] or rounds
    rows = []
    for i, method in enumerate(chosen):
        ratio = statistics.median(pairs[0][0].seconds / pairs[i][0].seconds for pairs in timed)
        (_, plain), (outcome, blocks) = rounds[-1][0], rounds[-1][i]
        rows.append(Row(method, job_for(job, method).steps, outcome, plain / blocks, ratio))
    return rows


def job_for(job: Job, method: Method) -> Job:
    return replace(job, steps=method.steps) if method.steps else job


def table(rows: Sequence[Row], host: Host, job: Job) -> str:
    """Markdown: cost in block executions and in time, and fidelity to the uncached clip of the same seed."""
    side = 2 * host.zoo.latent_shape[-1]
    lines = [
        f'{host.zoo.name}, "{job.prompts[0]}", seed {job.seeds[0]}, {job.steps} steps, {job.sampler}, guidance '
        f"{scale_of(host.zoo, job):g}, {side}x{side} pixels, {host.name}, torch {torch.__version__}",
        "",
        "| method | steps | fewer block executions | less wall time | PSNR, dB | SSIM |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        quality = measure(row.outcome.clip, rows[0].outcome.clip, 1.0)
        fidelity = ("-", "-") if row is rows[0] else (f"{quality.psnr:.1f}", f"{quality.ssim:.4f}")
        cells = (row.method.name, row.steps, f"{row.speedup:.2f}x", f"{row.time_ratio:.2f}x", *fidelity)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def save_clips(path: Path, rows: Sequence[Row]) -> None:
    """Animated WebP of all clips side by side, each with its method and cost above it."""
    captions = [f"{row.method.name}  {row.speedup:.2f}x" for row in rows]
    strip = torch.stack([row.outcome.clip for row in rows])
    frames = [draw_frame(strip[:, i], captions) for i in range(strip.shape[1])]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, lossless=True)


def draw_frame(tiles: torch.Tensor, captions: Sequence[str]) -> Image.Image:
    """One picture from tiles (methods, 3, H, W) in [0, 1]."""
    pixels = (rearrange(tiles, "m c h w -> m h w c") * 255).round().to(torch.uint8).numpy()
    picture = Image.new("RGB", (TILE * len(captions), TILE + CAPTION), "white")
    draw = ImageDraw.Draw(picture)
    for i, (tile, caption) in enumerate(zip(pixels, captions, strict=True)):
        image = Image.fromarray(np.ascontiguousarray(tile)).resize((TILE - 4, TILE - 4), Image.Resampling.NEAREST)
        picture.paste(image, (i * TILE + 2, CAPTION + 2))
        draw.text((i * TILE + 6, 4), caption, fill="black", font_size=15)
    return picture


if __name__ == "__main__":
    main()
