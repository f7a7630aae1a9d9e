"""Plans measured on a few prompts against the automatic plan, on prompts that were not measured, in plain torch.

    python devtools/pack.py benchmarks.measured_plans        every model of the zoo; with COMFYUI_PATH every sampler of SAMPLERS

A row for each setting: dB of the automatic plan at each speed-up, what plans from 1, 2 and 4 prompts brought more, and how far
the order of expected errors agrees with that of measured ones over all its plans (rank correlation).

Measures what mode measure does: a fixed sample of the outputs along the sampler's own path.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from ..bwcache_core.calibration import rank_correlation
from ..bwcache_core.measure import GUIDED, Lesson, NothingLearned, Sampler, lesson
from ..bwcache_core.plan import automatic
from ..bwcache_core.planning import Knowledge, expected_error, measured_plan, together
from ..hosts.runs import enter_comfyui
from ..zoo.models import COMMITTED, EMBEDDED, ZooModel, open_model
from .simulate import Batch, Setting, psnr, sample, sampler_steps

AUTOMATIC = 0  # runs measured for the automatic plan
SAMPLERS, SCALES, STEPS, SHIFT = ("euler", "res_multistep", "uni_pc"), (1.0, 5.0), 20, 8.0
SPEEDUPS, RUNS = (1.5, 2.0, 2.5, 3.0), (1, 2, 4)
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
    model: ZooModel, setting: Setting, speedups: Sequence[float] = (2.0, 3.0), runs: Sequence[int] = RUNS
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


def agreement(of_one_setting: Sequence[Trial]) -> float | None:
    """Rank correlation of expected with measured errors, each plan once. None where nothing was expected."""
    plans = {trial.computes: (trial.expected, -trial.mean) for trial in of_one_setting if not math.isnan(trial.expected)}
    return rank_correlation(*zip(*plans.values(), strict=True)) if plans else None


def row(of_one_setting: Sequence[Trial]) -> str:
    """One setting in a line."""
    first, automatic_db, parts = of_one_setting[0], {}, []
    for trial in of_one_setting:
        if trial.runs == AUTOMATIC:
            automatic_db[trial.speedup] = trial.mean
            parts.append(f"{trial.speedup:g}x {trial.mean:.1f}")
        else:
            parts.append(f"{trial.mean - automatic_db[trial.speedup]:+.1f}")
    agrees, setting = agreement(of_one_setting), first.setting
    name = f"{first.model}, {setting.sampler}, {setting.steps}, {setting.shift:g}, {setting.scale:g}"
    return f"{name}: {' '.join(parts)}; rank correlation {'unknown' if agrees is None else f'{agrees:.2f}'}"


def zoo_settings(samplers: Sequence[str]) -> Iterator[tuple[str, ZooModel, Setting]]:
    """Every model of the zoo, by name, with each sampler at each guidance. Without a ComfyUI the first sampler alone."""
    root = os.environ.get("COMFYUI_PATH", "")
    if root:
        enter_comfyui(Path(root))
    for name in COMMITTED:
        model = open_model(name)
        for sampler in samplers if root else samplers[:1]:
            for scale in SCALES[:1] if model.guidance == EMBEDDED else SCALES:
                yield name, model, Setting(sampler, STEPS, SHIFT, scale)


def main() -> None:
    """Every setting of the zoo, and the rank correlations in one line."""
    agreed = []
    for _, model, setting in zoo_settings(SAMPLERS):
        rows = list(trials(model, setting, SPEEDUPS))
        agreed.append(agreement(rows))
        sys.stdout.write(f"{row(rows)}\n")
    known = [each for each in agreed if each is not None]
    sys.stdout.write(f"rank correlation of {len(known)} settings: mean {mean(known):.2f}, least {min(known):.2f}\n")


if __name__ == "__main__":
    main()
