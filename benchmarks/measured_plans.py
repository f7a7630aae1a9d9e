"""Plans measured on a few prompts against the automatic plan, on prompts that were not measured, in plain torch.

    for row in trials(open_model("market"), Setting("euler", 30, 8.0, 5.0), runs=(1, 2, 4)):
        ...

Measures what mode measure does: a fixed sample of the outputs along the sampler's own path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import torch

from ..bwcache_core.measure import GUIDED, Lesson, NothingLearned, Sampler, lesson
from ..bwcache_core.plan import automatic
from ..bwcache_core.planning import Knowledge, expected_error, measured_plan, together
from ..zoo.models import ZooModel
from .simulate import Batch, Setting, psnr, sample, sampler_steps

AUTOMATIC = 0  # runs measured for the automatic plan
CONDITIONS = ("cond", "uncond")
SCORED = 6  # prompts


@dataclass(frozen=True)
class Trial:
    """One plan on one setting. runs: prompts measured, AUTOMATIC for the automatic plan. psnr: dB of each prompt's clip
    against the uncached run. expected: root mean square of what the result misses, by what was measured."""

    model: str
    setting: Setting
    speedup: float
    runs: int
    psnr: tuple[float, ...]
    expected: float
    computes: tuple[int, ...]

    @property
    def mean(self) -> float:
        return mean(self.psnr)


def learn(batch: Batch, setting: Setting) -> list[Knowledge]:
    """What a run of each of the batch's prompts teaches, without those that teach nothing."""
    sampler, kept, sigmas = sampler_steps(setting), [], []
    asked = batch.outputs

    def outputs(x: torch.Tensor, sigma: float, scale: float) -> list[torch.Tensor]:
        found = asked(x, sigma, scale)
        sigmas.append(sigma)
        named = {GUIDED: batch.guided(found, scale), **dict(zip(CONDITIONS, found, strict=False))}
        numbers = Sampler(x[:1].shape, x.device)
        kept.append({name: [numbers.take(row) for row in v] for name, v in named.items()})
        return found

    batch.outputs = outputs
    sample(batch, setting, sampler)
    runs = [[{name: rows[clip] for name, rows in each.items()} for each in kept] for clip in range(len(batch.prompts))]
    return [taught.knowledge for run in runs if (taught := taught_by(setting, sigmas, run, sampler))]


def taught_by(setting: Setting, sigmas: Sequence[float], outputs: Sequence[dict], sampler: Sequence) -> Lesson | None:
    try:
        return lesson(setting.schedule, sigmas, outputs, sampler)
    except NothingLearned:
        return None


def trials(
    model: ZooModel, setting: Setting, speedups: Sequence[float] = (2.0, 3.0), runs: Sequence[int] = (1, 2, 4)
) -> Iterator[Trial]:
    """The automatic plan, and plans from the first `runs` of other prompts."""
    # "taught" is of prompts that are not scored; empty where the sampler lets nothing be learned
    taught = learn(Batch(model, max(runs), seed=1), setting)
    scored, steps, schedule = Batch(model, SCORED), sampler_steps(setting), setting.schedule
    reference = model.pixels(sample(scored, setting, steps))
    for speedup in speedups:
        plans = {AUTOMATIC: automatic(schedule, speedup).computes}
        known = {count: together(taught[:count]) for count in runs if count <= len(taught)}
        plans |= {count: measured_plan(each, schedule, speedup).computes for count, each in known.items()}
        seen: dict[tuple, tuple] = {}
        for count, computes in plans.items():
            if computes not in seen:
                clips = model.pixels(sample(scored, setting, steps, set(computes)))
                seen[computes] = tuple(psnr(clips, reference))
            expected = expected_error(together(taught), schedule, computes) if taught else math.nan
            yield Trial(model.name, setting, speedup, count, seen[computes], expected, computes)
