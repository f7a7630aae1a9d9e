"""How good the automatic plan is: against the oracle, fewer steps, and other rules, on every zoo model.

    for row in rows(model, setting, speedups=(2.0, 3.0)):     # one line of JSON each; resumable by `Row.key`
        ...
    print(table(all_rows))

Regret is the oracle's PSNR less the automatic plan's. The oracle's plan is made from outputs on prompts that are not
scored (oracle.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from statistics import mean

from ..bwcache_core.plan import automatic, rounded
from ..zoo.models import ZooModel
from .oracle import Oracle, inner_products
from .simulate import SAMPLERS, Batch, Setting, psnr, sample, sampler_steps

AUTOMATIC, ORACLE, FEWER = "automatic", "oracle", "fewer steps"
SPEEDUPS = (1.5, 2.0, 2.5, 3.0)
SCORED, MEASURED = 6, 4  # prompts that are scored, and those that the oracle learns from
RUNS = ((20, 5.0), (20, 12.0), (30, 8.0), (50, 5.0), (20, 8.0), (30, 5.0))  # steps, shift
SCALES = (1.0, 3.5, 5.0, 7.0)

Rule = Callable[[Setting, float], Sequence[int]]  # setting, speed-up -> computed steps


@dataclass(frozen=True)
class Row:
    """One method on one setting. psnr: dB of each prompt's clip, against the uncached run. computes: the plan."""

    model: str
    setting: Setting
    speedup: float
    method: str
    psnr: tuple[float, ...]
    computes: tuple[int, ...]

    @property
    def key(self) -> tuple:
        return self.model, self.setting, self.speedup, self.method


def settings(embedded: bool = False) -> list[Setting]:
    """Every pair of sampler, steps with shift, and scale at least once: a design, not the product of all."""
    if embedded:
        return [Setting(sampler, *run, 1.0) for sampler, run in zip(SAMPLERS, cycle(RUNS))]
    runs = cycle(RUNS)
    return [Setting(sampler, *next(runs), scale) for scale, sampler in product(SCALES, SAMPLERS)]


def rows(
    model: ZooModel, setting: Setting, speedups: Sequence[float] = SPEEDUPS, rules: Mapping[str, Rule] | None = None,
    device: str = "cpu",
) -> Iterator[Row]:
    """Every method at every speed-up. rules: further ones to hold beside, by name."""
    scored, steps = Batch(model, SCORED, 0, device), sampler_steps(setting)
    reference = model.pixels(sample(scored, setting, steps).cpu())
    oracle = learned(Batch(model, MEASURED, 1, device), setting)

    def row(method: str, speedup: float, computes: Sequence[int]) -> Row:
        clips = model.pixels(sample(scored, setting, steps, set(computes)).cpu())
        return Row(model.name, setting, speedup, method, tuple(psnr(clips, reference)), tuple(computes))

    for speedup in speedups:
        count = max(1, rounded(setting.steps / speedup))
        yield row(AUTOMATIC, speedup, automatic(setting.schedule, speedup).computes)
        yield row(ORACLE, speedup, oracle.plan(count))
        for name, rule in (rules or {}).items():
            yield row(name, speedup, rule(setting, speedup))
        fewer = Setting(setting.sampler, count, setting.shift, setting.scale)
        clips = model.pixels(sample(scored, fewer, sampler_steps(fewer)).cpu())
        yield Row(model.name, setting, speedup, FEWER, tuple(psnr(clips, reference)), ())


def learned(batch: Batch, setting: Setting) -> Oracle:
    """The oracle of a setting. It learns along euler's path, whatever the sampler: one evaluation a step."""
    setting = Setting("euler", setting.steps, setting.shift, setting.scale)
    outputs: list = []
    sample(batch, setting, sampler_steps(setting), on_output=outputs.append)
    return Oracle(inner_products(outputs), setting.schedule.widths)


def regrets(every: Sequence[Row]) -> dict[tuple, float]:
    """Mean regret in dB by (model, setting, speed-up)."""
    by_method: dict[str, dict[tuple, float]] = defaultdict(dict)
    for row in every:
        by_method[row.method][row.key[:3]] = mean(row.psnr)
    return {key: by_method[ORACLE][key] - value for key, value in by_method[AUTOMATIC].items()}


def table(every: Sequence[Row]) -> str:
    """Markdown: by model and speed-up the mean PSNR of each method over settings, mean and worst regret."""
    methods = list(dict.fromkeys(row.method for row in every))
    cells: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in every:
        cells[row.model, row.speedup][row.method].append(mean(row.psnr))
    lines = [f"| model | speed-up | {' | '.join(methods)} | regret, mean / worst |", "|---" * (len(methods) + 3) + "|"]
    regret = regrets(every)
    for (model, speedup), means in cells.items():
        own = [value for (name, _, at), value in regret.items() if (name, at) == (model, speedup)]
        numbers = " | ".join(f"{mean(means[method]):.1f}" if means[method] else "-" for method in methods)
        lines.append(f"| {model} | {speedup:g}x | {numbers} | {mean(own):.1f} / {max(own):.1f} |")
    return "\n".join(lines)
