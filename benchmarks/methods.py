"""The methods of the bench, each at its points: a config, a model patch, or a number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from ..bwcache_core.config import PAPER, PER_BLOCK, BlockConfig, ForecastConfig
from ..bwcache_core.plan import Plan, rounded
from ..bwcache_core.planning import Knowledge, measured_plan
from ..bwcache_core.published_plans import LISTS, PublishedList
from ..bwcache_core.schedule import Schedule
from ..hosts.runs import Job
from .design import SPEEDUPS, Setting
from .left_out import CHOSEN_WITHOUT, constants_without
from .oracle import Oracle
from .rivals import easycache, magcache, residual_cache, teacache, tuned

FORECAST, ORACLE, LEFT_OUT = "forecast", "oracle's plan", "forecast (model left out)"
MEASURED = "forecast (measured plan)"
FEWER_STEPS, EASYCACHE = "fewer steps", "EasyCache"
TEACACHE, MAGCACHE = "TeaCache signal", "MagCache signal"
PAPER_INTERVALS = (0, 1)  # R: as published, and the least there is
PER_BLOCK_THRESHOLDS = (0.04, 0.08)
EASYCACHE_THRESHOLDS = (0.1, 0.2, 0.4)
SIGNAL_SPEEDUPS = (2.0, 3.0)
FAMILIES = {"wan": "Wan 2.1 14B", "hunyuan": "HunyuanVideo 1.5"}
PUBLISHED: tuple[PublishedList, ...] = tuple(
    next(listed for listed in LISTS if listed.name == name)
    for name in (
        "Wan 2.1 14B, LeMiCa, 25 of 50", "Wan 2.1 14B, LeMiCa, 17 of 50",
        "HunyuanVideo 1.5, LeMiCa, 25 of 50", "HunyuanVideo 1.5, LeMiCa, 15 of 50",
        "Qwen-Image, MeanCache, 25 of 50", "Qwen-Image, MeanCache, 17 of 50",
    )
)  # fmt: skip
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the line, that the oracle chooses from
TRUSTED = 10.0  # threshold: a plan that is not ours runs as it is


@dataclass(frozen=True)
class Method:
    """One point: a method's name and its setting in words. around: what the run happens inside of."""

    name: str
    setting: str
    config: ForecastConfig | BlockConfig | None = None
    patch: Callable | None = None
    steps: int = 0
    around: Callable[[], AbstractContextManager] = nullcontext

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.setting

    def job(self, job: Job) -> Job:
        return replace(job, steps=self.steps) if self.steps else job


@dataclass(frozen=True)
class Known:
    """What a plain run on other prompts told of a setting.

    inner: products of the guided outputs of each step, and widths of the steps: what the oracle plans from.
    modulations, magnitudes: by evaluation, for TeaCache's and MagCache's signals.
    """

    inner: np.ndarray
    widths: Sequence[float]
    modulations: Sequence[torch.Tensor]
    magnitudes: Sequence[float]

    def best_plan(self, count: int) -> Plan:
        """The oracle's plan with `count` computed steps, for the share of the line under which plans cost least: a run
        measures which one that is."""
        oracles = [Oracle(self.inner, self.widths, share) for share in SHARES]
        plans = [(oracle, oracle.plan(count)) for oracle in oracles]
        _, computes = min(((oracle.cost(plan).mean(), plan) for oracle, plan in plans), key=lambda found: found[0])
        return Plan(computes, len(self.widths))


def plain_and_paper(steps: int) -> list[Method]:
    """What every setting has beside ours."""
    counts = dict.fromkeys(rounded(steps / speedup) for speedup in SPEEDUPS)
    points = [Method(FEWER_STEPS, f"{count}", steps=count) for count in counts]
    for interval in PAPER_INTERVALS:
        words = f"threshold 0.15, R {interval or '10 %'}"
        points.append(Method(PAPER, words, BlockConfig(mode=PAPER, reuse_interval=interval)))
    return points


def others(family: str, native: bool, known: Known) -> list[Method]:
    """What only the settings of the core have. native: the host is ComfyUI."""
    points = [*published(family), *signals(known)]
    for threshold in PER_BLOCK_THRESHOLDS:
        points.append(Method(PER_BLOCK, f"{threshold:g}", BlockConfig(mode=PER_BLOCK, threshold=threshold)))
    if native:
        points += [Method(EASYCACHE, f"{threshold:g}", patch=easycache(threshold)) for threshold in EASYCACHE_THRESHOLDS]
    return points


def signals(known: Known) -> list[Method]:
    """TeaCache's and MagCache's signals, tuned to compute as many evaluations as the speed-ups leave."""
    points = []
    for speedup in SIGNAL_SPEEDUPS:
        count = rounded(len(known.magnitudes) / speedup)
        for name, signal, numbers in ((TEACACHE, teacache, known.modulations), (MAGCACHE, magcache, known.magnitudes)):
            computes = tuned(partial(signal, numbers), count)
            points.append(Method(name, f"{speedup:g}x", patch=residual_cache(set(computes))))
    return points


def ours(setting: Setting, known: Known) -> list[Method]:
    """The forecast mode by its own plan and by the oracle's."""
    points = []
    for speedup in SPEEDUPS:
        config = ForecastConfig(speedup=speedup)
        points.append(Method(FORECAST, f"{speedup:g}x", config))
        if setting.model in CHOSEN_WITHOUT:
            around = partial(constants_without, setting.model)
            points.append(Method(LEFT_OUT, f"{speedup:g}x", config, around=around))
        plan = known.best_plan(rounded(setting.steps / speedup)).text
        points.append(Method(ORACLE, f"{speedup:g}x", ForecastConfig(plan=plan, threshold=TRUSTED)))
    return points


def measured(knowledge: Knowledge | None, schedule: Schedule) -> list[Method]:
    """The forecast mode by plans of its own runs in mode measure, where they taught something."""
    if knowledge is None:
        return []
    plans = {speedup: measured_plan(knowledge, schedule, speedup).text for speedup in SPEEDUPS}
    return [Method(MEASURED, f"{speedup:g}x", ForecastConfig(speedup=speedup, plan=plan)) for speedup, plan in plans.items()]


def published(family: str) -> list[Method]:
    """Published lists of the family, and of another, as plans."""
    lists = [listed for listed in PUBLISHED if listed.model in (FAMILIES[family], "Qwen-Image")]
    return [Method(p.method, p.name.rpartition(", ")[2], ForecastConfig(plan=p.text, threshold=TRUSTED)) for p in lists]
