"""The trial of tried plans in plain torch, on a short run."""

from __future__ import annotations

import pytest

from bwcache_pack.benchmarks import tried_plans
from bwcache_pack.benchmarks.simulate import Setting
from bwcache_pack.benchmarks.tried_plans import PlainBench, taken
from bwcache_pack.bwcache_core import tried
from bwcache_pack.bwcache_core.calibration import request_of
from bwcache_pack.bwcache_core.tried import AUTOMATIC, EVEN
from bwcache_pack.nodes.trials import calibrate
from bwcache_pack.zoo.models import open_model

EIGHT = Setting("euler", 8, 8.0, 5.0)


@pytest.fixture(scope="module")
def model():
    return open_model("tinywan")


def test_a_plain_bench_is_calibrated_as_a_guider_is(model):
    verdict = calibrate(PlainBench(model, EIGHT), request_of("2", "2x", 0, 1, 2)).verdict
    assert {(trial.computed, trial.total) for trial in verdict.trials} == {(4, 8)}
    assert [trial.seed for trial in verdict.trials if trial.kind == AUTOMATIC] == [1, 0]
    assert verdict.trials[0].unseen and verdict.trials[0].expected > 0
    assert 10 < verdict.chosen.psnr < 90 and len({trial.psnr for trial in verdict.trials}) == len(verdict.trials)


def test_what_is_taken_is_scored_on_other_prompts(model, monkeypatch):
    """On so few steps the even plan is much closer."""
    monkeypatch.setattr(tried_plans, "SCORED", 1)
    [each] = taken(model, EIGHT, "2")
    assert each.kind == EVEN and each.tried > 3 and each.others != each.tried and abs(each.others) > 0.1
    monkeypatch.setattr(tried, "CLEARLY", 100.0)
    monkeypatch.setattr(tried, "ALONE", 100.0)
    assert [(each.kind, each.tried, each.others) for each in taken(model, EIGHT, "2")] == [(AUTOMATIC, 0.0, 0.0)]
