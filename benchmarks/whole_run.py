"""Whole runs of TinyWan where blocks dominate: the speed-up achieved, over the ideal of steps / computed steps.

The plain run and the cached ones take turns at every evaluation (lockstep.py), and CPU time counts: other work may share
the cores, and would slow one run more than another.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from ..bwcache_core.config import BlockConfig, ForecastConfig
from ..bwcache_core.report import RunStats
from ..hosts.runs import Host, Job
from ..nodes.attach import attach
from .lockstep import cpu_seconds

PROMPTS = ("red circle moving left",)
METHODS = {"forecast": ForecastConfig(speedup=2.0), "paper": BlockConfig(threshold=0.05)}


@dataclass(frozen=True)
class TimedRun:
    """One cached run and the plain run of the same seed beside it. computed: evaluations that ran the blocks."""

    method: str
    seed: int
    side: int
    steps: int
    host: str
    evaluations: int
    computed: int
    cpu_seconds: float
    plain_cpu_seconds: float

    @property
    def ideal(self) -> float:
        return self.evaluations / self.computed

    @property
    def achieved(self) -> float:
        return self.plain_cpu_seconds / self.cpu_seconds


@dataclass(frozen=True)
class Achieved:
    """One method on one host: medians over seeds of the speed-up in CPU time, of the ideal one, and of their ratio."""

    host: str
    method: str
    seeds: int
    achieved: float
    ideal: float
    share: float


def measure(host: Host, part: Path, seeds: int, side: int, steps: int) -> list[TimedRun]:
    """The runs of every seed that `part` does not hold yet, appended to it as they end."""
    done = {run.seed for run in read_runs(part) if run.host == host.name}
    missing = [seed for seed in range(seeds) if seed not in done]
    if missing:
        host.sample(host.model, Job(PROMPTS, (0,), steps=2, side=side))  # warm-up
    for seed in tqdm(missing, desc=f"whole runs, {side}x{side} latents, {host.name}", unit="seed"):
        runs = timed(host, seed, side, steps)
        with open(part, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(run)) + "\n" for run in runs)
    return read_runs(part)


def timed(host: Host, seed: int, side: int, steps: int) -> list[TimedRun]:
    """The plain run and one of each method, in turn."""
    stats = {method: RunStats() for method in METHODS}
    models = [host.load(), *(attach(host.load(), config, stats[method]) for method, config in METHODS.items())]
    job = Job(PROMPTS, (seed,), steps=steps, side=side)
    plain, *cached = cpu_seconds(models, lambda model: host.sample(model, job))
    runs = []
    for method, seconds in zip(METHODS, cached, strict=True):
        report = stats[method].runs[-1]
        computed = report.evaluations - report.evaluations_reused
        runs.append(TimedRun(method, seed, side, steps, host.name, report.evaluations, computed, seconds, plain))
    return runs


def read_runs(part: Path) -> list[TimedRun]:
    """Runs of one file; a last line cut off by an interruption is left out."""
    lines = part.read_text(encoding="utf-8").splitlines() if part.exists() else []
    return [TimedRun(**json.loads(line)) for line in lines if line.endswith("}")]


def summary(runs: Iterable[TimedRun]) -> list[Achieved]:
    """One line for each host and method."""
    groups: dict[tuple[str, str], list[TimedRun]] = {}
    for run in runs:
        groups.setdefault((run.host, run.method), []).append(run)
    return [
        Achieved(
            *names,
            len(group),
            statistics.median(run.achieved for run in group),
            statistics.median(run.ideal for run in group),
            statistics.median(run.achieved / run.ideal for run in group),
        )
        for names, group in groups.items()
    ]
