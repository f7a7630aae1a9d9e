"""python dev.py demo: the cache at work on a trained video model, in files to look at.

Samples one prompt uncached, with the cache, and with fewer steps at equal cost, and writes to out/: the clips side by
side, the similarity indicator over the steps, the maps of reused blocks, and a table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from tqdm import tqdm

from ..bwcache_core.config import ADAPTIVE, PAPER, BWCacheConfig
from ..hosts.runs import Host, Job, Outcome, open_host, run
from ..nodes.charts import change_curve, reuse_map
from ..zoo.tinywan.checkpoint import DEFAULT_PATH
from .fidelity import psnr, ssim

PAPER_THRESHOLD = 0.05  # TinyWan's features change by 0.02 to 0.045 until two thirds of a run
TILE = 288  # width and height of one clip on screen, in pixels
CAPTION = 24
FRAME_MS = 200


@dataclass(frozen=True)
class Method:
    """One line of the comparison. config: None samples plainly."""

    name: str
    job: Job
    config: BWCacheConfig | None = None


@dataclass(frozen=True)
class Row:
    """What a method gave. blocks: executed in a run, plain_blocks: by the uncached model over the same job.

    time_ratio: plain wall time over its own, the median of pairs of runs.
    """

    method: Method
    outcome: Outcome
    blocks: int
    plain_blocks: int
    time_ratio: float

    @property
    def block_ratio(self) -> float:
        return self.plain_blocks / self.blocks


def main() -> None:
    """Run the demo on the host at hand."""
    args = parse_arguments()
    host = open_host(args.checkpoint)
    job = Job(args.prompt, args.seed, args.steps, side=args.side)
    measured, rows = compare(host, job, args.threshold, repeats=1)
    _, timed = compare(host, replace(job, side=args.timing_side), args.threshold, args.repeats)
    folder = args.out / host.name.replace(" ", "-").lower()
    folder.mkdir(parents=True, exist_ok=True)
    save_clips(folder / "clips.webp", rows)
    change_curve(measured.report).savefig(folder / "indicator.png")
    for row in rows:
        if row.outcome.report:
            reuse_map(row.outcome.report).savefig(folder / f"reuse-{row.method.name}.png")
    text = f"{fidelity_table(rows, host, job)}\n{time_table(timed)}"
    (folder / "table.md").write_text(text, encoding="utf-8")
    sys.stdout.write(f"\n{text}\nWritten to {folder}\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__)
    parser.add_argument("--prompt", default="red circle moving left", help="colour shape moving direction")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--side", type=int, default=12, help="latent height and width of the clips, half of the pixels")
    parser.add_argument(
        "--timing-side", type=int, default=24, help="the same for timing: larger, so that blocks dominate"
    )
    parser.add_argument("--threshold", type=float, default=PAPER_THRESHOLD, help="of the paper mode")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each method")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--out", type=Path, default=Path("out"))
    return parser.parse_args()


def compare(host: Host, job: Job, threshold: float, repeats: int) -> tuple[Outcome, list[Row]]:
    """A run that only measures the indicator, and one row per method. The first run is warm-up and timed for nothing."""
    measured = run(host, job, BWCacheConfig(mode=PAPER, threshold=0.0))
    plain_blocks = measured.report.blocks_total
    paper = Method("paper", job, BWCacheConfig(mode=PAPER, threshold=threshold))
    ratio = run(host, job, paper.config).report.block_ratio
    fewer = Method("fewer-steps", replace(job, steps=round(job.steps / ratio)))
    methods = [Method("uncached", job), paper, Method("adaptive", job, BWCacheConfig(mode=ADAPTIVE)), fewer]
    outcomes = {method.name: [] for method in methods}
    with tqdm(total=repeats * len(methods), desc=host.name, unit="run") as progress:
        for _ in range(repeats):
            for method in methods:
                outcomes[method.name].append(run(host, method.job, method.config))
                progress.update()
    plain = outcomes["uncached"]
    return measured, [row_of(method, outcomes[method.name], plain, plain_blocks, job.steps) for method in methods]


def row_of(method: Method, outcomes: list[Outcome], plain: list[Outcome], plain_blocks: int, steps: int) -> Row:
    """Times are compared round by round, since the machine's speed changes while the demo runs."""
    ratios = [reference.seconds / outcome.seconds for reference, outcome in zip(plain, outcomes, strict=True)]
    report = outcomes[-1].report
    blocks = report.blocks_total - report.blocks_reused if report else plain_blocks * method.job.steps // steps
    return Row(method, outcomes[-1], blocks, plain_blocks, statistics.median(ratios))


def fidelity_table(rows: list[Row], host: Host, job: Job) -> str:
    """Markdown table: cost in block executions, and fidelity to the uncached clip of the same seed."""
    lines = [
        f'"{job.prompt}", seed {job.seed}, {job.steps} steps, {job.sampler}, cfg {job.cfg:g}, '
        f"{2 * job.side}x{2 * job.side} pixels, {host.name}, torch {torch.__version__}",
        "",
        "| method | steps | block executions | fewer by | PSNR, dB | SSIM |",
        "|---|---|---|---|---|---|",
    ]
    plain = rows[0].outcome.clip
    for row in rows:
        clip = row.outcome.clip
        fidelity = ("-", "-") if row is rows[0] else (f"{psnr(clip, plain):.1f}", f"{ssim(clip, plain):.4f}")
        cells = (row.method.name, row.method.job.steps, row.blocks, f"{row.block_ratio:.2f}x", *fidelity)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def time_table(rows: list[Row]) -> str:
    """Markdown table: wall time against block executions, both as ratios to the uncached run."""
    side = 2 * rows[0].method.job.side
    lines = [f"At {side}x{side} pixels, where the blocks take nearly all of the time:", ""]
    lines += ["| method | steps | fewer block executions | wall time faster by |", "|---|---|---|---|"]
    lines += [
        f"| {row.method.name} | {row.method.job.steps} | {row.block_ratio:.2f}x | {row.time_ratio:.2f}x |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def save_clips(path: Path, rows: Iterable[Row]) -> None:
    """Animated WebP of all clips side by side, each with its method and cost above it."""
    rows = list(rows)
    captions = [f"{row.method.name}  {row.block_ratio:.2f}x" for row in rows]
    strip = torch.stack([row.outcome.clip for row in rows])
    frames = [draw_frame(strip[:, i], captions) for i in range(strip.shape[1])]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, lossless=True)


def draw_frame(tiles: torch.Tensor, captions: list[str]) -> Image.Image:
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
