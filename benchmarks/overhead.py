"""python dev.py bench --overhead: what the forecast mode itself costs.

A computed and a reused evaluation at the latent sizes of real models, where the model is replaced by tensors that are
there already, so that all of the time is the cache's; and whole runs of TinyWan, what was achieved over the ideal.
--quick takes under a minute and only shows that all of it works.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from tqdm import tqdm

from ..bwcache_core.config import ForecastConfig
from ..bwcache_core.corrector import SamplerStep
from ..bwcache_core.run import ForecastRun
from ..bwcache_core.schedule import schedule_of
from ..bwcache_core.track import Call
from ..hosts.runs import open_host
from . import whole_run
from .counts import HostReads, Operators

RESULTS = Path(__file__).parent / "results"
STEPS = 24
WARM_UP = 6  # evaluations
LABELS = ("cond", "uncond")


@dataclass(frozen=True)
class Shape:
    """Latents (C, F, H, W) of a model at one resolution, and how many conditions a step asks for."""

    name: str
    latent: tuple[int, int, int, int]
    conditions: int


SHAPES = (
    Shape("Wan 14B, 480p, 81 frames", (16, 21, 60, 104), 2),
    Shape("Wan 14B, 720p, 81 frames", (16, 21, 90, 160), 2),
    Shape("HunyuanVideo, 720p, 129 frames", (16, 33, 90, 160), 1),
    Shape("HunyuanVideo 1.5, 720p, 121 frames", (32, 31, 45, 80), 2),
)


@dataclass(frozen=True)
class Cost:
    """What the cache did in one evaluation: median milliseconds, most host reads and operators, bytes held after it."""

    shape: str
    latent: tuple[int, ...]
    action: str
    milliseconds: float
    host_reads: int
    operators: int
    held: int


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)  # so that a thread's CPU time is that of its work
    host = open_host("tinywan")
    folder = args.out or RESULTS / f"{datetime.date.today()}-overhead-{host.name.replace(' ', '-').lower()}"
    folder.mkdir(parents=True, exist_ok=True)
    costs = [cost for shape in tqdm(SHAPES[: 1 if args.quick else None], desc="shapes") for cost in costs_of(shape, args.device)]
    runs = whole_run.measure(host, folder / "whole_runs.jsonl", args.seeds, args.side, args.steps)
    found = {"costs": [asdict(cost) for cost in costs], "whole_runs": [asdict(line) for line in whole_run.summary(runs)]}
    (folder / "overhead.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (folder / "README.md").write_text("\n".join(report(found, args, host.name)) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py bench --overhead", description=__doc__)
    parser.add_argument("--overhead", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one shape, a short run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seeds", type=int, default=3, help="of the whole runs")
    parser.add_argument("--side", type=int, default=32, help="latent height and width of the whole runs")
    parser.add_argument("--steps", type=int, default=20, help="of the whole runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.side, args.steps = 1, 8, 10
    return args


@torch.inference_mode()
def costs_of(shape: Shape, device: str) -> list[Cost]:
    """A computed evaluation after reused ones, and a reused one."""
    timed = [(action, time, held) for action, time, _, held in evaluations(shape, device)][WARM_UP:]
    counted = [(action, counts) for action, _, counts, _ in evaluations(shape, device, count=True)][WARM_UP:]
    costs = []
    for action in ("compute", "reuse"):
        seconds = [time for done, time, _ in timed if done == action]
        reads, operators = (max(counts[i] for done, counts in counted if done == action) for i in (0, 1))
        held = max(held for *_, held in timed)
        costs.append(Cost(shape.name, shape.latent, action, 1e3 * statistics.median(seconds), reads, operators, held))
    return costs


def evaluations(shape: Shape, device: str, count: bool = False) -> list[tuple[str, float, tuple[int, int], int]]:
    """A run on Euler's path at speedup 2: action, seconds, (host reads, operators), bytes held, of each evaluation.

    Clean latents that drift a little stand for the model's.
    """
    sigmas = torch.linspace(1.0, 0.0, STEPS + 1).tolist()
    sampler = [SamplerStep(a, b / a, (1.0 - b / a,), i) for i, (a, b) in enumerate(pairwise(sigmas))]
    run = ForecastRun(ForecastConfig(), schedule_of(sigmas), "", sampler)
    generator = torch.Generator(device).manual_seed(0)
    x, clean, drift = (torch.randn(1, *shape.latent, generator=generator, device=device) for _ in range(3))
    call, found = Call("call", LABELS[: shape.conditions]), []
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        made = [clean + 0.01 * i * drift for _ in call.labels]
        reads, operators = HostReads(), Operators()
        timestep = torch.full((1,), sigma, device=device)
        with reads if count else nullcontext(), operators if count else nullcontext():
            seconds, denoised = evaluate(run, call, x, timestep, made)
        step = run.report.steps[-1]
        found.append((step.action, seconds, (reads.count, operators.count), step.cache_bytes))
        x = x + (x - denoised[0]) / sigma * (following - sigma)
    run.close(True)
    return found


def evaluate(run: ForecastRun, call: Call, x: torch.Tensor, sigma: torch.Tensor, made: Sequence[torch.Tensor]):
    """Seconds of the cache in one evaluation, and the denoised latents that it gave."""
    settle(x.device)
    began = clock(x.device)
    run.begin(sigma, x)
    denoised = run.call(call, sigma, x, lambda: list(made))
    run.end(denoised[0])
    settle(x.device)
    return clock(x.device) - began, denoised


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def clock(device: torch.device) -> float:
    """On the CPU time of this thread alone: other processes do not count."""
    return time.perf_counter() if device.type == "cuda" else time.thread_time()


def report(found: dict, args: argparse.Namespace, host: str) -> list[str]:
    """README.md of the result folder."""
    lines = [
        f"# What the forecast mode itself costs, {datetime.date.today()}", "",
        *(["QUICK: one shape and a short run.", ""] if args.quick else []),
        f"- {host}, torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores; one thread on "
        f"{args.device}, CPU time on the CPU. Latents in float32, as ComfyUI's samplers keep them.",
        "- The cache alone, at speedup 2 with the corrector on euler: the model is replaced by tensors that are there. "
        f"Medians of a run of {STEPS} steps.",
        "", *costs_table(found["costs"]), "",
        f"Whole runs: TinyWan at {args.side}x{args.side} latents, 5 frames, {args.steps} steps of euler, cfg 3; plain and "
        "cached runs in turn at every evaluation, CPU time, medians over seeds 0 and up.",
        "", *runs_table(found["whole_runs"]),
    ]  # fmt: skip
    return lines


def costs_table(costs: Sequence[dict]) -> list[str]:
    rows = ["| latents | step | ms | host reads | operators | MiB held |", "|---" * 6 + "|"]
    for c in costs:
        numbers = f"{c['milliseconds']:.1f} | {c['host_reads']} | {c['operators']} | {c['held'] / 2**20:.0f}"
        rows.append(f"| {c['shape']} | {c['action']} | {numbers} |")
    return rows


def runs_table(lines: Sequence[dict]) -> list[str]:
    rows = ["| host | method | seeds | steps / computed steps | achieved | achieved over ideal |", "|---" * 6 + "|"]
    for a in lines:
        numbers = f"{a['seeds']} | {a['ideal']:.3f}x | {a['achieved']:.3f}x | {a['share']:.3f}"
        rows.append(f"| {a['host']} | {a['method']} | {numbers} |")
    return rows
