"""What is said of a run in mode measure."""

from __future__ import annotations

import pytest

from bwcache_pack.bwcache_core.advice import notice, verdict
from bwcache_pack.tests.nodes.reports import forecast


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"measured_runs": 1},
         "All 20 steps were computed.\nMeasured on 1 run: two more prompts make the plan better. Mode forecast uses what was measured."),
        ({"measured_runs": 2},
         "All 20 steps were computed.\nMeasured on 2 runs: one more prompt makes the plan better. Mode forecast uses what was measured."),
        ({"measured_runs": 3},
         "All 20 steps were computed.\nMeasured on 3 runs. Set mode to forecast: it uses what was measured."),
        ({"unlearned": "the latent changed its size in the run"},
         "All 20 steps were computed.\nNothing was learned: the latent changed its size in the run."),
        ({"finished": False}, "The run stopped before its end. Until then 20 of 20 steps were computed.\nNothing was learned from it."),
    ],
)  # fmt: skip
def test_what_was_learned_and_what_one_more_run_would_bring(fields, said):
    run = forecast("c" * 20, **{"mode": "measure", "plan": "", "threshold": 0.0, **fields})
    assert verdict(run) == said


def test_the_view_says_it_too():
    run = forecast("c" * 20, mode="measure", plan="", measured_runs=1)
    assert notice(run).startswith("Measured on 1 run")
