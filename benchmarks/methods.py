"""The methods of the bench, each over a sweep of its setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..bwcache_core.config import ADAPTIVE, CUSTOM, PAPER, PER_BLOCK, PRESETS, BWCacheConfig
from ..hosts.runs import Host, Job, run
from .rivals import FirstBlock, MagCache, TeaCache, magnitude_ratios, native_cache, residual_cache

FEWER_STEPS = "fewer steps"
SPEEDUPS = (1.5, 2.0, 2.5, 3.0)
NATIVE_THRESHOLDS = (0.1, 0.2, 0.4)
TEACACHE_THRESHOLDS = (0.02, 0.035, 0.06)
MAGCACHE_THRESHOLDS = (0.03, 0.08, 0.2)
FIRST_BLOCK_THRESHOLDS = (0.12, 0.2, 0.3)
PAPER_SETTINGS = ((0.03, 0), (0.15, 0), (0.06, 1), (0.06, 2))  # threshold, R
PER_BLOCK_THRESHOLDS = (0.04, 0.1)
TOLERANCES = (*PRESETS.values(), 0.015, 0.1)
TARGETS = (1.4, 1.5, 2.0, 2.5, 3.0, 3.25)  # the outer ones so that the front holds at 1.5x and 3x


@dataclass(frozen=True)
class Method:
    """One point of a sweep: a name, its setting in words, and either a config, a model patch, or a step count."""

    name: str
    setting: str
    config: BWCacheConfig | None = None
    patch: Callable | None = None
    steps: int = 0

    def job(self, job: Job) -> Job:
        return replace(job, steps=self.steps) if self.steps else job


def own_methods() -> list[Method]:
    """Everything this pack offers."""
    points = [
        Method("paper", f"threshold {t:g}, R {r or '10 %'}", BWCacheConfig(mode=PAPER, threshold=t, reuse_interval=r))
        for t, r in PAPER_SETTINGS
    ]
    points += [
        Method("per block", f"threshold {t:g}", BWCacheConfig(mode=PER_BLOCK, threshold=t))
        for t in PER_BLOCK_THRESHOLDS
    ]
    points += [
        Method("adaptive", f"tolerance {t:g}", BWCacheConfig(mode=ADAPTIVE, preset=CUSTOM, tolerance=t))
        for t in TOLERANCES
    ]
    points += [Method("adaptive target", f"{t:g}x", BWCacheConfig(mode=ADAPTIVE, target_speedup=t)) for t in TARGETS]
    return points


def fewer_steps(job: Job) -> list[Method]:
    counts = dict.fromkeys(round(job.steps / speedup) for speedup in SPEEDUPS)
    return [Method(FEWER_STEPS, f"{count} steps", steps=count) for count in counts]


def rival_methods(host: Host, job: Job) -> list[Method]:
    """Other caches. The native ones only where the host is ComfyUI."""
    ratios = calibrate(host, job)
    points = [Method("TeaCache signal", f"{t:g}", patch=residual_cache(TeaCache(t))) for t in TEACACHE_THRESHOLDS]
    points += [
        Method("MagCache signal", f"{t:g}", patch=residual_cache(MagCache(t, ratios))) for t in MAGCACHE_THRESHOLDS
    ]
    points += [
        Method("first block signal", f"{t:g}", patch=residual_cache(FirstBlock(t))) for t in FIRST_BLOCK_THRESHOLDS
    ]
    if host.name.startswith("ComfyUI"):
        for node in ("EasyCache", "LazyCache"):
            points += [Method(node, f"{t:g}", patch=native_cache(node, t)) for t in NATIVE_THRESHOLDS]
    return points


def calibrate(host: Host, job: Job) -> Sequence[float]:
    """MagCache's ratios from one plain run of a prompt and seed that the bench does not use."""
    never = residual_cache(TeaCache(0.0))
    run(host, replace(job, prompt="green circle moving left", seed=10_000), patch=never)
    return magnitude_ratios(never.state)
