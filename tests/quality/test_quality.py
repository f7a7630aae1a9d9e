"""What the forecast mode is worth on the trained models: a broken rule or constant turns one of these red.

Two prompts in a batch, 20 steps of euler, sampled by benchmarks/simulate.py with the pack's own plan, forecast and corrector.
"""

from __future__ import annotations

from functools import cache
from statistics import mean

import pytest
import torch

from bwcache_pack.benchmarks.placement import learned
from bwcache_pack.benchmarks.simulate import Batch, Setting, psnr, sample, sampler_steps
from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.bwcache_core.plan import automatic
from bwcache_pack.hosts.runs import EmbeddedHost, Job, run
from bwcache_pack.zoo.models import open_model

STEPS, PROMPTS = 20, 2
MODELS = {"tinywan": 3.0, "postcards": 5.0, "market": 6.0}  # their usual guidance
UNGUIDED = ("tinywan",)  # also without guidance


class Bench:
    """One model at one strength of guidance; what was sampled once is kept."""

    def __init__(self, name: str, scale: float) -> None:
        torch.set_num_threads(1)
        model = open_model(name)
        self.batch, self.setting = Batch(model, PROMPTS), Setting("euler", STEPS, model.shift, scale)
        self.reference = self.clips(self.setting)
        self.psnr = cache(self._psnr)

    def clips(self, setting: Setting, **more) -> torch.Tensor:
        return self.batch.model.pixels(sample(self.batch, setting, sampler_steps(setting), **more))

    def _psnr(self, computes: tuple[int, ...], corrector: bool = True) -> float:
        return mean(psnr(self.clips(self.setting, computes=set(computes), corrector=corrector), self.reference))

    def forecast(self, speedup: float) -> float:
        """Mean PSNR in dB of the automatic plan."""
        return self.psnr(automatic(self.setting.schedule, speedup).computes)

    def fewer(self, count: int) -> float:
        clips = self.clips(Setting("euler", count, self.setting.shift, self.setting.scale))
        return mean(psnr(clips, self.reference))

    def oracle(self, count: int) -> float:
        """Of the plan made from outputs on two other prompts."""
        return self.psnr(learned(Batch(self.batch.model, PROMPTS, seed=1), self.setting).plan(count))


@cache
def bench(name: str, scale: float) -> Bench:
    return Bench(name, scale)


@pytest.fixture(params=[*MODELS.items(), *((name, 1.0) for name in UNGUIDED)], ids=lambda param: f"{param[0]}-{param[1]:g}")
def on(request) -> Bench:
    return bench(*request.param)


def test_twice_as_fast_is_worth_10_db_over_fewer_steps(on):
    assert on.forecast(2.0) >= on.fewer(STEPS // 2) + 10.0


def test_the_automatic_plan_is_near_one_that_was_made_for_the_model(on):
    assert on.forecast(2.0) >= on.oracle(STEPS // 2) - 5.0


def test_more_computed_steps_are_better(on):
    assert on.forecast(1.25) >= on.forecast(1.5) >= on.forecast(2.0)


def test_the_corrector_wins_some_db(on):
    computes = automatic(on.setting.schedule, 2.0).computes
    assert on.psnr(computes) >= on.psnr(computes, corrector=False) + 2.0


@pytest.mark.parametrize("name", ["tinywan", "postcards"])
def test_the_speedup_that_was_asked_for_is_what_comes_out(name):
    host = EmbeddedHost(open_model(name))
    job = Job(tuple(host.zoo.prompts(1)), (0,), steps=STEPS)
    for speedup in (1.5, 2.0, 2.5):
        report = run(host, job, ForecastConfig(speedup=speedup)).report
        computed = report.evaluations - report.evaluations_reused
        assert computed == round(STEPS / speedup), report.plan
