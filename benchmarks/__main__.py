"""python dev.py bench: measures how fast and how faithful every method is, and writes a dated result folder.

Interrupted, it goes on where it stopped when started with the same --out; several may share it, each with its own --only.
--quick takes under 5 minutes. --overhead measures instead what the cache itself costs: see --overhead --help.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ..hosts.runs import Host, open_host
from ..zoo.models import COMMITTED
from . import overhead
from .design import Setting, chosen, design, quick
from .measure import PROMPTS, Request, measure
from .report import write_report

ROOT = Path(__file__).parent
RESULTS, KEPT = ROOT / "results", ROOT.parent / "out" / "bench"


def main() -> None:
    """Measure what is missing, then write the report over everything that is there."""
    if "--overhead" in sys.argv:
        overhead.main()
        return
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    settings = wanted(args)
    if not settings:
        raise SystemExit(f"--only {args.only} leaves no setting: model/sampler/steps/scale/shift, with * for any.")
    hosts = {name: open_host(name) for name in dict.fromkeys(setting.model for setting in settings)}
    host = next(iter(hosts.values()))
    folder = args.out or RESULTS / f"{datetime.date.today()}-{host.name.replace(' ', '-').lower()}"
    folder.mkdir(parents=True, exist_ok=True)
    if not args.report:
        measure_all(args, hosts, settings, folder)
    write_report(folder, host, args.quick)
    sys.stdout.write(f"Written to {folder}\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__)
    parser.add_argument("--overhead", action="store_true", help="what the cache itself costs; has options of its own")
    parser.add_argument("--quick", action="store_true", help="one setting of 20 steps for each model")
    parser.add_argument("--only", default="", metavar="MODEL/SAMPLER/STEPS/SCALE/SHIFT", help="the first parts, * for any")
    parser.add_argument("--models", default=",".join(COMMITTED), help="names, or folders of other models")
    parser.add_argument("--methods", default="", help="names as in the tables, comma-separated; all if empty")
    parser.add_argument("--core", action="store_true", help="only the settings that every method runs")
    parser.add_argument("--threads", type=int, default=1, help="of torch; start two benches for two cores")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report anew")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def wanted(args: argparse.Namespace) -> list[Setting]:
    """The settings to run, those of every model in turn."""
    models = [name for name in args.models.split(",") if name]
    lists = [quick(name) if args.quick else design(name)[: 5 if args.core else None] for name in models]
    return chosen([setting for together in zip(*lists, strict=True) for setting in together], args.only)


def measure_all(args: argparse.Namespace, hosts: dict[str, Host], settings: Sequence[Setting], folder: Path) -> None:
    names, count = [name for name in args.methods.split(",") if name], 2 if args.quick else PROMPTS
    with tqdm(settings, desc="bench", unit="setting") as progress:
        for setting in progress:
            host = hosts[setting.model]
            if setting.sampler not in host.samplers:
                continue
            progress.set_description(setting.name)
            part = folder / f"runs-{setting.model}-{setting.sampler}.jsonl"
            measure(host, setting, Request(part, KEPT, names, count), progress.set_postfix_str)


if __name__ == "__main__":
    main()
