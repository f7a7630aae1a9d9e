"""What BWCache Calibrate's trials on one prompt bring on others, in plain torch.

    python devtools/pack.py benchmarks.tried_plans           every model of the zoo; with COMFYUI_PATH every sampler of SAMPLERS

A row for each speed-up of each setting: the plan that is taken, how much closer than the automatic one it came in its trials, and
on prompts that nothing was tried on. Calibrates as the node does with its defaults, by the same code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean as mean

from ..bwcache_core.calibration import Trial, request_of
from ..bwcache_core.plan import Plan, automatic
from ..bwcache_core.planning import Found, together
from ..bwcache_core.report import RunReport, StepReport
from ..bwcache_core.tried import AUTOMATIC
from ..nodes.quality import latent_psnr
from ..nodes.trials import Bench, calibrate
from ..zoo.models import ZooModel
from .measured_plans import learn, zoo_settings
from .simulate import Batch, Setting, sample, sampler_steps

SAMPLERS = ("euler", "res_multistep", "uni_pc", "dpmpp_2m")
SPEEDUPS = "2 3"
SCORED = 4  # prompts


@dataclass(frozen=True)
class Taken:
    """What is taken at a speed-up. tried, others: dB closer than the automatic plan, in its trials and on other prompts."""

    speedup: float
    kind: str
    tried: float
    others: float


class PlainBench(Bench):
    """The runs of a calibration without ComfyUI: one prompt of a model, a noise for each seed."""

    def __init__(self, model: ZooModel, setting: Setting) -> None:
        super().__init__(None, None)
        self.batch, self.setting, self.steps = Batch(model, 1), setting, sampler_steps(setting)
        self.schedule = setting.schedule

    def refuse_rivals(self) -> None:
        """There are none."""

    def keep(self, trials: Sequence[Trial]) -> None:
        """In no file."""

    def measure(self, seed: int) -> dict:
        latent = self.compare_with(seed)
        self._measured.add(seed)
        self._learned += learn(self.batch, self.setting)
        self.found = Found(together(self._learned)) if self._learned else Found()
        return latent

    def compare_with(self, seed: int) -> dict:
        self.batch.noise = self.batch.model.noise([seed])
        return {"samples": sample(self.batch, self.setting, self.steps)}

    def _cached(self, plan: Plan, seed: int, uncached: dict, what: str) -> tuple[RunReport, float]:
        self.batch.noise = self.batch.model.noise([seed])
        latent = sample(self.batch, self.setting, self.steps, set(plan.computes))
        ran = [StepReport(n, s.step, s.sigma, calls_run=s.step in plan.computes, calls_total=1) for n, s in enumerate(self.steps)]
        report = RunReport("forecast", 0.0, list(self.schedule.sigmas), steps=ran)
        return report, latent_psnr(latent, uncached["samples"])


def taken(model: ZooModel, setting: Setting, speedups: str = SPEEDUPS) -> Iterator[Taken]:
    """What a calibration on one prompt gives, on others."""
    verdict = calibrate(PlainBench(model, setting), request_of(speedups, "at least 0 dB", 0, 2, 2)).verdict
    scored, steps = Batch(model, SCORED, seed=3), sampler_steps(setting)
    reference = sample(scored, setting, steps)

    def score(plan: Plan) -> float:
        latents = sample(scored, setting, steps, set(plan.computes))
        return mean(latent_psnr(*pair) for pair in zip(latents, reference, strict=True))

    for best in verdict.best:
        plain = next(each for each in verdict.tried if (each.speedup, each.kind) == (best.speedup, AUTOMATIC))
        if best.kind == AUTOMATIC:
            yield Taken(best.speedup, AUTOMATIC, 0.0, 0.0)
        else:
            others = score(best.plan) - score(automatic(setting.schedule, best.speedup))
            yield Taken(best.speedup, best.kind, best.psnr - plain.psnr, others)


def main() -> None:
    """Every setting of the zoo, then the means."""
    found = []
    for name, model, setting in zoo_settings(SAMPLERS):
        for each in taken(model, setting):
            found.append(each)
            place = f"{name}, {setting.sampler}, {setting.scale:g}, {each.speedup:g}x"
            numbers = f"{each.tried:+.1f} in its trials, {each.others:+.1f} on other prompts"
            sys.stdout.write(f"{place}: {each.kind}, {numbers}\n")
    others = [each.others for each in found if each.kind != AUTOMATIC]
    means = f"{mean(others):+.1f} dB in the mean of those, {min(others):+.1f} at worst" if others else "none"
    sys.stdout.write(f"another plan at {len(others)} of {len(found)} places: {means}\n")


if __name__ == "__main__":
    main()
