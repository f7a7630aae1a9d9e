"""The trial of measured plans in plain torch, on the smallest run that teaches anything."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.benchmarks import measured_plans
from bwcache_pack.benchmarks.measured_plans import AUTOMATIC, Trial, agreement, learn, row, trials
from bwcache_pack.benchmarks.simulate import Batch, Setting, sample, sampler_steps
from bwcache_pack.bwcache_core.measure import sampled
from bwcache_pack.bwcache_core.planning import together
from bwcache_pack.zoo.models import open_model

EIGHT = Setting("euler", 8, 8.0, 5.0)


def test_each_prompt_teaches_what_its_own_run_would():
    batch, outputs = Batch(open_model("tinywan"), 2), []
    first, second = learn(batch, EIGHT)
    sample(Batch(open_model("tinywan"), 2), EIGHT, sampler_steps(EIGHT), on_output=lambda v: outputs.append(sampled(v[:1])))
    v = torch.stack(outputs).double()
    torch.testing.assert_close(torch.tensor(first.guided).double(), v @ v.T / v.shape[1], rtol=1e-4, atol=1e-4)
    assert first.guided != second.guided and first.course == second.course
    both = together([first, second])
    assert both.runs == 2 and both.single[3][2] == pytest.approx((first.single[3][2] + second.single[3][2]) / 2)


def test_trials_hold_measured_plans_beside_the_automatic_one(monkeypatch):
    monkeypatch.setattr(measured_plans, "SCORED", 1)
    rows = list(trials(open_model("tinywan"), EIGHT, speedups=(2.0,), runs=(1,)))
    assert [row.runs for row in rows] == [AUTOMATIC, 1]
    assert all(len(row.psnr) == 1 and len(row.computes) == 4 and row.expected > 0 for row in rows)


def trial(speedup: float, runs: int, db: float, expected: float, computes: tuple) -> Trial:
    return Trial("tinywan", EIGHT, speedup, runs, (db, db), expected, computes)


def test_each_plan_counts_once_in_the_rank_correlation():
    """Errors 0.1, 0.2, 0.3, 0.4 were expected; the two in the middle came out the other way round."""
    plans = [trial(2.0, 0, 50.0, 0.1, (0, 1)), trial(2.0, 1, 40.0, 0.2, (0, 2)), trial(3.0, 0, 45.0, 0.3, (0, 3)),
             trial(3.0, 1, 30.0, 0.4, (0,))]  # fmt: skip
    assert agreement(plans) == pytest.approx(0.8)
    again = [trial(2.0 + n, 2, 50.0, 0.1, (0, 1)) for n in range(5)]
    assert agreement([*plans, *again]) == pytest.approx(0.8)
    assert agreement([trial(2.0, 0, 50.0, float("nan"), (0, 1))]) is None
    assert row(plans) == "tinywan, euler, 8, 8, 5: 2x 50.0 -10.0 3x 45.0 -15.0; rank correlation 0.80"
