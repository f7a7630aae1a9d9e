"""Reports: figures by hand, and JSON."""

from __future__ import annotations

import json
import math

import pytest

from bwcache_pack.bwcache_core.report import KEPT_RUNS, RunReport, RunStats, StepReport

ACTIONS = {"C": "compute", "R": "reuse", "P": "partial"}


def step(i: int, action: str = "compute", **fields) -> StepReport:
    return StepReport(evaluation=i, step=i, sigma=10.0 - i, action=action, **{"seconds": 1.0, **fields})


def report(*steps: StepReport, **fields) -> RunReport:
    return RunReport(**{"mode": "forecast", "threshold": 0.5, "sigmas": [10.0, 5.0, 0.0], "finished": True, **fields},
                     steps=list(steps))  # fmt: skip


def test_figures_by_hand():
    calls = [step(0, calls_run=2, calls_total=2), step(1, "reuse", calls_total=2), step(2, "partial", calls_run=1, calls_total=2)]
    done = report(*calls)
    assert (done.steps_total, done.evaluations, done.evaluations_reused) == (2, 3, 1)
    assert done.work_ratio == 6 / 3
    assert done.seconds == 3.0


def test_work_is_counted_in_blocks_where_blocks_are_reused():
    done = report(step(0, blocks_run=4, blocks_total=4), step(1, "partial", blocks_run=1, blocks_total=4))
    assert (done.blocks_total, done.blocks_reused, done.work_ratio) == (8, 3, 8 / 5)


def test_an_empty_run_has_figures_too():
    empty = report()
    assert (empty.evaluations, empty.blocks_total, empty.blocks_reused, empty.work_ratio) == (0, 0, 0, 1.0)
    assert (empty.speedup, empty.seconds, empty.cache_bytes) == (None, 0.0, 0)
    json.loads(json.dumps(empty.to_dict()))


def test_the_largest_cache_of_the_run_is_reported():
    assert report(step(0, cache_bytes=3), step(1, cache_bytes=7), step(2, cache_bytes=5)).cache_bytes == 7


@pytest.mark.parametrize(
    ("seconds", "actions", "expected"),
    [
        # the first evaluation pays for warm-up, with the cache and without; the others would take the median
        ([9.0, 2.0, 0.5, 0.5], "CCRR", (9.0 + 3 * 2.0) / 12.0),
        ([9.0, 2.0, 4.0, 0.0, 2.0], "CCCRC", (9.0 + 4 * 2.0) / 17.0),
        ([9.0, 2.0], "CC", None),  # nothing was reused
        ([9.0, 1.0, 1.0], "CRR", None),  # nothing is known of a computed one but the first
        ([], "", None),
    ],
)
def test_speedup_by_hand(seconds, actions, expected):
    run = {"C": 2, "R": 0}
    steps = [step(i, ACTIONS[a], seconds=s, calls_run=run[a], calls_total=2) for i, (s, a) in enumerate(zip(seconds, actions, strict=True))]
    assert report(*steps).speedup == expected


def test_faults_are_named_by_step():
    assert report(step(0), step(1, fault="it holds NaN")).faults == ["step 1: it holds NaN"]


def test_json_has_no_nan_and_no_infinity():
    stats = RunStats()
    stats.runs.append(report(
        step(0, change=math.nan, block_changes={3: math.inf}, conditions={"cond": -math.inf}, seconds=math.nan),
        step(1), sigmas=[math.inf, 0.0],
    ))  # fmt: skip

    def refuse(constant: str):
        raise AssertionError(constant)

    [run] = json.loads(stats.to_json(), parse_constant=refuse)
    assert run["steps"][0]["change"] is None and run["steps"][0]["block_changes"] == {"3": None}
    assert run["sigmas"] == [None, 0.0]


def test_json_holds_the_plan_and_the_figures():
    plain = report(step(0), plan="0 2/3", planned=[0, 2], speedup_asked=1.5).to_dict()
    assert (plain["plan"], plain["planned"], plain["speedup_asked"]) == ("0 2/3", [0, 2], 1.5)
    assert plain["evaluations"] == 1 and plain["work_ratio"] == 1.0


def test_stats_keep_the_newest_runs():
    stats = RunStats()
    for i in range(KEPT_RUNS + 2):
        stats.runs.append(report(threshold=float(i)))
    assert [run.threshold for run in stats.runs] == [float(i) for i in range(2, KEPT_RUNS + 2)]
