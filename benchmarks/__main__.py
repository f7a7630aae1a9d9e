"""python dev.py bench: measures how fast and how faithful every method is, and writes a dated result folder.

Interrupted, it goes on where it stopped when started with the same --out. --quick takes under 5 minutes.
--overhead measures instead what the cache itself costs: see --overhead --help.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from ..hosts.runs import Host, open_host
from ..zoo.tinywan.checkpoint import DEFAULT_PATH
from . import front, overhead, summary

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure what is missing, then write the report over everything that is there."""
    if "--overhead" in sys.argv:
        overhead.main()
        return
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    host = open_host(args.checkpoint)
    folder = args.out or RESULTS / f"{datetime.date.today()}-{host.name.replace(' ', '-').lower()}"
    folder.mkdir(parents=True, exist_ok=True)
    if not args.report:
        few = (front.PROMPTS[:2], front.SEEDS[:1])
        prompts, seeds = few if args.quick else (front.PROMPTS[: args.prompts], front.SEEDS[: args.seeds])
        for setting in settings(args, host):
            jobs = setting.jobs(prompts, seeds, args.side)
            part = folder / f"runs-{setting.sampler}.jsonl"
            front.measure(host, setting, jobs, part, names=[name for name in args.methods.split(",") if name])
    report(folder, host, args)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__)
    parser.add_argument("--overhead", action="store_true", help="what the cache itself costs; has options of its own")
    parser.add_argument("--quick", action="store_true", help="2 prompts, 1 seed, 2 samplers, 20 steps, cfg 5")
    parser.add_argument("--samplers", default=",".join(front.SAMPLERS))
    parser.add_argument("--steps", default=",".join(map(str, front.STEPS)))
    parser.add_argument("--cfgs", default=",".join(f"{cfg:g}" for cfg in front.CFGS))
    parser.add_argument("--methods", default="", help="names as in the tables, comma-separated; all if empty")
    parser.add_argument("--prompts", type=int, default=len(front.PROMPTS), help="how many of the fixed prompts")
    parser.add_argument("--seeds", type=int, default=len(front.SEEDS), help="how many of the fixed seeds")
    parser.add_argument("--side", type=int, default=12, help="latent height and width")
    parser.add_argument("--threads", type=int, default=1, help="of torch; start two benches for two cores")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report anew")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def settings(args: argparse.Namespace, host: Host) -> list[front.Setting]:
    """The most telling ones first."""
    samplers = [s for s in args.samplers.split(",") if s in getattr(host, "samplers", [s])]
    if args.quick:
        return [front.Setting(sampler, 20, 5.0) for sampler in samplers if sampler in ("euler", "uni_pc")]
    steps, cfgs = map(int, args.steps.split(",")), [float(cfg) for cfg in args.cfgs.split(",")]
    grid = [(count, cfg) for count in steps for cfg in cfgs]
    return [front.Setting(sampler, count, cfg) for count, cfg in grid for sampler in samplers]


def report(folder: Path, host: Host, args: argparse.Namespace) -> None:
    """README.md of the result folder: conditions, fronts, tables, charts."""
    points = [point for part in sorted(folder.glob("runs-*.jsonl")) for point in front.read_points(part)]
    all_marks = summary.marks(points)
    note = f"TinyWan, {2 * args.side}x{2 * args.side} pixels, {host.name}"
    summary.save_charts(all_marks, folder, note)
    lines = [f"# Fidelity and speed, {datetime.date.today()}", "", *conditions(host, args, points), ""]
    lines += ["## Where adaptive is ahead", "", *summary.leads(all_marks), ""]
    for steps, cfg in sorted({(setting.steps, setting.cfg) for setting in all_marks}):
        lines += [f"## PSNR in dB, {steps} steps, cfg {cfg:g}", "", summary.overview(all_marks, steps, cfg), ""]
    for setting, setting_marks in all_marks.items():
        name = f"{setting.sampler}, {setting.steps} steps, cfg {setting.cfg:g}"
        image = f"![{name}](front-{setting.sampler}-{setting.steps}-cfg{setting.cfg:g}.png)"
        lines += [f"## {name}", "", image, "", "PSNR in dB at equal speed-up:", "", summary.front_table(setting_marks)]
        lines += [
            "",
            "<details><summary>all settings</summary>",
            "",
            summary.table(setting_marks),
            "",
            "</details>",
            "",
        ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(f"Written to {folder}\n")


def conditions(host: Host, args: argparse.Namespace, points: list[front.Point]) -> list[str]:
    """Everything needed to repeat the numbers."""
    prompts, seeds = {point.prompt for point in points}, sorted({point.seed for point in points})
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS, capture_output=True, text=True
    ).stdout.strip()
    return [
        f"- Host: {host.name}, torch {torch.__version__}, Python {platform.python_version()}; written at commit {commit}.",
        f"- Machine: {platform.machine()}, {os.cpu_count()} cores, {'a GPU' if torch.cuda.is_available() else 'no GPU'}; "
        f"{args.threads} thread(s), float32. Other work shared the machine, so no wall time is reported here.",
        f"- Model: TinyWan, {2 * args.side}x{2 * args.side} pixels, 5 frames; {len(prompts)} prompts, seeds {seeds}; where "
        'a setting has fewer, its column "runs" says so. Scheduler "simple", shift 8.',
        "- Speed-up: block executions of the uncached run over those of the method. "
        "Fidelity: against the uncached run of the same seed; clips that are equal count as 100 dB.",
        "- EasyCache and LazyCache are ComfyUI's own, with their input protected (they write into it in float32). "
        "TeaCache, MagCache and first block are their signals as policies of this bench: the packs do not load here.",
    ]


if __name__ == "__main__":
    main()
