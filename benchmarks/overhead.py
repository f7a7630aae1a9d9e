"""python dev.py bench --overhead: what the cache itself costs, at the block shapes of real models.

Interrupted, it goes on where it stopped when started with the same --out. --quick takes under a minute, at an eighth of
the width, and only shows that all of it works.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from ..bwcache_core.config import BWCacheConfig
from ..hosts.runs import ComfyHost, EmbeddedHost, Host
from . import indicator, whole_run
from .account import Account
from .clocks import clock_for
from .counts import counts_of
from .overhead_report import write_report
from .shapes import HUNYUAN_15, SHAPES, WAN, WAN_14B, Shape, build

RESULTS = Path(__file__).parent / "results"
COMPUTED, REUSED = 4, 4  # evaluations of each case; the first two warm up
FORCED = {"start_step": COMPUTED, "target_speedup": 10.0, "max_reuse": 100}
MODES = {
    "output": BWCacheConfig(**FORCED),
    "features": BWCacheConfig(**FORCED, cache_point="features"),
    "paper": BWCacheConfig(mode="paper", threshold=1.0, reuse_interval=100, start_step=COMPUTED),
    "per block": BWCacheConfig(mode="per block", threshold=1.0, reuse_interval=100, start_step=COMPUTED),
}
TIMED = ("output", "features", "per block")  # paper costs what features does, less the forecasts it does not judge
SHARES = ("own_share", "reused_model_share", "reused_own_share", "reused_share")
NARROW = 8  # of width, in --quick


@dataclass(frozen=True)
class Case:
    """One shape in one mode: medians in seconds of a computed and of a reused evaluation, one condition.

    tokens: measured; real_tokens: of the full latents. blocks: measured; full_blocks: of the full model.
    block, rest: one block, and the rest of the model. own: of the cache, in a computed evaluation. reused, reused_own:
    a whole reused evaluation, and the cache's part of it. bytes: held at the end.
    """

    shape: str
    mode: str
    tokens: int
    real_tokens: int
    blocks: int
    full_blocks: int
    block: float
    rest: float
    own: float
    reused: float
    reused_own: float
    bytes: int

    @property
    def depth(self) -> float:
        return self.full_blocks / self.blocks

    @property
    def full_step(self) -> float:
        """Seconds of a computed evaluation of the full model."""
        return self.rest + self.full_blocks * self.block

    @property
    def own_share(self) -> float:
        """The cache's part of a computed evaluation at full depth, as if all of it were paid for each block."""
        return self.own * self.depth / self.full_step

    @property
    def reused_model_share(self) -> float:
        """What the model itself runs in a reused evaluation (embeddings, text refiner, head), over a computed one."""
        return (self.reused - self.reused_own) / self.full_step

    @property
    def reused_own_share(self) -> float:
        """What the cache adds to a reused evaluation, over a computed one, again as if paid for each block."""
        return self.reused_own * self.depth / self.full_step

    @property
    def reused_share(self) -> float:
        """A reused evaluation over a computed one at full depth."""
        return self.reused_model_share + self.reused_own_share


def main() -> None:
    """Measure what is missing, then write the report over everything that is there."""
    args = parse_arguments()
    torch.set_num_threads(1)  # so that a thread's CPU time is that of its work
    root = os.environ.get("COMFYUI_PATH", "")
    hosts = [EmbeddedHost(), *([ComfyHost(Path(root))] if root else [])]
    name = hosts[-1].name
    folder = args.out or RESULTS / f"{datetime.date.today()}-overhead-{name.replace(' ', '-').lower()}"
    folder.mkdir(parents=True, exist_ok=True)
    found = measure_all(args, folder, hosts)
    write_report(folder, {"conditions": conditions(args, name), **found})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py bench --overhead", description=__doc__)
    parser.add_argument("--overhead", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="narrow models, short runs: under a minute")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--blocks", type=int, default=2, help="of each model, all with one set of weights")
    parser.add_argument("--seeds", type=int, default=3, help="of the whole runs")
    parser.add_argument("--side", type=int, default=64, help="latent height and width of the whole runs")
    parser.add_argument("--steps", type=int, default=20, help="of the whole runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.side, args.steps = 1, 8, 10
    return args


def measure_all(args: argparse.Namespace, folder: Path, hosts: Sequence[Host]) -> dict:
    """All measurements by name, as plain lists and dicts. hosts: the embedded one, and a ComfyUI if there is one."""
    comfyui = len(hosts) > 1
    cases = measure_cases(args, folder / "cases.jsonl", comfyui)
    narrow = replace(WAN_14B.scaled(), width=128, heads=1, ffn=256)
    module = build(narrow, WAN_14B.blocks, torch.float32, torch.device("cpu"), comfyui)
    counts = counts_of(module, narrow, MODES, COMPUTED)
    with torch.inference_mode():
        accuracies = [indicator.on_tinywan(args.side, args.steps)]
        accuracies += [indicator.on_a_random_walk(*walk) for walk in indicator.WALKS[: 1 if args.quick else None]]
    part = folder / "whole_runs.jsonl"
    for host in hosts:
        runs = whole_run.measure(host, part, args.seeds, args.side, args.steps)
    return {
        "cases": [{**asdict(c), **{name: getattr(c, name) for name in SHARES}} for c in cases],
        "counts": [asdict(count) for count in counts],
        "indicator": [asdict(accuracy) for accuracy in accuracies],
        "whole_runs": [asdict(line) for line in whole_run.summary(runs)],
    }


def measure_cases(args: argparse.Namespace, part: Path, comfyui: bool) -> list[Case]:
    """Every shape in every mode that `part` does not hold yet. Without ComfyUI there is no HunyuanVideo."""
    done = {case.shape for case in read_cases(part)}
    wanted = (WAN_14B, HUNYUAN_15) if args.quick else SHAPES
    missing = [shape for shape in wanted if shape.name not in done and (comfyui or shape.kind == WAN)]
    device = torch.device(args.device)
    with tqdm(total=len(missing) * (COMPUTED + REUSED), desc="shapes", unit="evaluation") as progress:
        for shape in missing:
            cases = measure_shape(shape, args, device, comfyui, progress.update)
            with open(part, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(case)) + "\n" for case in cases)
    return read_cases(part)


def measure_shape(
    real: Shape, args: argparse.Namespace, device: torch.device, comfyui: bool, advance: Callable[[], object]
) -> list[Case]:
    """All modes of one shape, in turn at every evaluation."""
    shape = real if device.type == "cuda" else real.scaled()
    if args.quick:
        shape = replace(shape, width=shape.width // NARROW, heads=shape.heads // NARROW, ffn=shape.ffn // NARROW)
    blocks = max(args.blocks, 3) if shape.patch == 2 and shape.kind != WAN else args.blocks  # 1 double, 2 single
    module = build(shape, blocks, torch.bfloat16, device, comfyui)
    accounts = {mode: Account(module, shape, clock_for(device), MODES[mode]) for mode in TIMED}
    evaluations: dict[str, list] = {mode: [] for mode in TIMED}
    for _ in range(COMPUTED + REUSED):
        for mode, account in accounts.items():
            evaluations[mode].append(account.evaluate())
        advance()
    return [case_of(mode, real, shape, blocks, evaluations[mode], accounts[mode].bytes_held) for mode in TIMED]


def case_of(mode: str, real: Shape, shape: Shape, blocks: int, evaluations: list, held: int) -> Case:
    """Medians, without the evaluations that warm up."""
    computed = [e for e in evaluations[2:] if e.action == "compute"]
    reused = [e for e in evaluations if e.action == "reuse"]
    if not (computed and reused):
        actions = [e.action for e in evaluations]
        raise RuntimeError(f"{real.name}, {mode}: expected computed and reused evaluations, found {actions}")
    values = [statistics.median(getattr(e, name) for e in computed) for name in ("blocks", "rest", "own")]
    values += [statistics.median(getattr(e, name) for e in reused[1:]) for name in ("total", "own")]
    sizes = (shape.tokens, real.tokens, blocks, real.blocks)
    return Case(real.name, mode, *sizes, values[0] / blocks, *values[1:], held)


def read_cases(part: Path) -> list[Case]:
    """Cases of one file; a last line cut off by an interruption is left out."""
    lines = part.read_text(encoding="utf-8").splitlines() if part.exists() else []
    return [Case(**json.loads(line)) for line in lines if line.endswith("}")]


def conditions(args: argparse.Namespace, host: str) -> dict:
    """Everything needed to repeat the numbers."""
    cuda = args.device == "cuda"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    return {
        "host": host,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"
        + (f", {torch.cuda.get_device_name()}" if cuda else ", no GPU"),
        "threads": torch.get_num_threads(),
        "keeps_memory": "MALLOC_TRIM_THRESHOLD_" in os.environ,
        "clock": clock_for(torch.device(args.device)).name,
        "quick": args.quick,
        "scaled": not cuda,
        "blocks": args.blocks,
        "computed": COMPUTED - 2,
        "reused": REUSED - 1,
        "steps": args.steps,
        "side": args.side,
    }


if __name__ == "__main__":
    main()
