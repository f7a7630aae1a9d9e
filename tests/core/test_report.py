"""Reports: figures, words for the user, JSON."""

from __future__ import annotations

import json
import math

import pytest

from bwcache_pack.bwcache_core.report import RunReport, RunStats, StepReport, suggested_threshold

MIB = 1024 * 1024


def step(i: int, action: str = "compute", **fields) -> StepReport:
    run = {"compute": 4, "partial": 1, "reuse": 0}[action]
    fields = {"blocks_run": run, "blocks_total": 4, "seconds": 1.0, "reason": "because", **fields}
    return StepReport(evaluation=i, step=i, sigma=10.0 - i, action=action, **fields)


def report(*steps: StepReport, **fields) -> RunReport:
    fields = {"mode": "paper", "threshold": 0.15, "reuse_interval": 2, "steps_total": 10, "block_count": 4,
              "sigmas": [10.0, 0.0], "finished": True, **fields}
    return RunReport(steps=list(steps), **fields)


def test_figures_by_hand():
    done = report(step(0), step(1), step(2, "reuse"), step(3, "partial"), step(4, "reuse"))
    assert (done.evaluations, done.evaluations_reused) == (5, 2)
    assert (done.blocks_total, done.blocks_reused) == (20, 11)
    assert done.block_ratio == 20 / 9
    assert done.seconds == 5.0


def test_an_empty_run_has_figures_too():
    empty = report()
    assert (empty.evaluations, empty.blocks_total, empty.blocks_reused, empty.block_ratio) == (0, 0, 0, 1.0)
    assert (empty.speedup, empty.seconds, empty.cache_bytes) == (None, 0.0, 0)
    assert "0 of 0" in empty.summary()
    json.loads(json.dumps(empty.to_dict()))


def test_the_largest_cache_of_the_run_is_reported():
    assert report(step(0, cache_bytes=3), step(1, cache_bytes=7), step(2, cache_bytes=5)).cache_bytes == 7


@pytest.mark.parametrize(
    ("seconds", "actions", "expected"),
    [
        # the first evaluation pays for warm-up; the median of the other computed ones is what each would take
        ([9.0, 2.0, 0.5, 0.5], "CCRR", 3 * 2.0 / 3.0),
        ([9.0, 2.0, 4.0, 0.0, 2.0], "CCCRC", 4 * 2.0 / 8.0),
        ([9.0, 2.0], "CC", 1.0),
        ([9.0], "C", None),
        ([9.0, 1.0, 1.0], "CPP", None),
        ([], "", None),
    ],
)
def test_speedup_by_hand(seconds, actions, expected):
    names = {"C": "compute", "R": "reuse", "P": "partial"}
    done = report(*[step(i, names[a], seconds=s) for i, (s, a) in enumerate(zip(seconds, actions, strict=True))])
    assert done.speedup == expected


def test_the_summary_is_one_line_when_all_is_well():
    done = report(step(0), step(1), step(2, "reuse", cache_bytes=5 * MIB), step(3, "reuse"))
    text = done.summary()
    assert "\n" not in text
    for part in ("paper", "2 of 4", "2.00x fewer block executions", "1.00x measured", "5 MiB"):
        assert part in text


def test_the_summary_says_that_a_run_did_not_finish():
    assert "did not finish" in report(step(0), finished=False).summary()
    assert "did not finish" not in report(step(0)).summary()


def test_warnings_and_errors_follow():
    done = report(step(0), step(1, error="features hold NaN"), warnings=["Few steps."])
    assert done.errors == ["step 1: features hold NaN"]
    assert done.summary().splitlines()[-2:] == ["Few steps.", "step 1: features hold NaN"]


def why(*steps: StepReport, **fields) -> str:
    return report(*steps, **fields).summary().splitlines()[1]


def test_why_nothing_was_reused_threshold_0():
    assert "threshold is 0" in why(step(0), step(1, change=0.01), threshold=0.0)


def test_why_nothing_was_reused_threshold_too_low():
    text = why(step(0), step(1, change=0.30), step(2, change=0.21), step(3, change=0.26), threshold=0.15)
    assert "threshold 0.15 is under the smallest change seen, 0.2100" in text
    assert "Try a threshold of 0.27" in text


def test_why_nothing_was_reused_per_block_looks_at_blocks():
    """The mean over blocks is 0.5, but one block changed by 0.2 only."""
    changes = {0: 0.2, 1: 0.8}
    assert "smallest change seen, 0.2000" in why(step(0), step(1, change=0.5, block_changes=changes), mode="per block")


def test_why_nothing_was_reused_adaptive_speaks_of_its_own_numbers():
    """Changes of the blocks are measured as well where features are cached, but forecasts decide."""
    steps = [step(0), step(1, change=0.01, judged=0.2), step(2, change=0.01, judged=0.3)]
    text = why(*steps, mode="adaptive", threshold=0.05)
    assert "tolerance 0.05 is under the smallest forecast error seen, 0.2000. Try a tolerance of 0.26." in text
    assert "tolerance is 0" in why(*steps, mode="adaptive", threshold=0.0)


def test_why_nothing_was_reused_steps_too_far_apart():
    text = why(step(0), step(1, change=1.5), step(2, change=2.0))
    assert "smallest change seen, 1.5000" in text
    assert "Try" not in text  # no threshold over 1 can be set


def test_why_nothing_was_reused_else_names_reasons():
    text = why(step(0, reason="first evaluation"), step(1, reason="before start_step 9", change=0.01),
               step(2, reason="before start_step 9", change=0.01))
    assert text == "Nothing was reused: before start_step 9, first evaluation."


def test_a_run_whose_model_calls_came_by_no_block_says_so():
    assert "past the cache" in why(step(0, blocks_run=0, blocks_total=0), step(1, blocks_run=0, blocks_total=0))
    assert "past the cache" not in why(step(0), step(1))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [([0.3], 0.31), ([0.2, 0.3, 0.9], 0.31), ([0.1512], 0.16), ([0.1559], 0.16), ([0.0501], 0.051), ([0.099], 0.1)],
)
def test_the_suggested_threshold_would_have_helped(changes, expected):
    assert suggested_threshold(changes) == expected
    assert min(changes) < suggested_threshold(changes)


def test_json_has_no_nan_and_no_infinity():
    stats = RunStats()
    stats.runs.append(report(
        step(0, change=math.nan, block_changes={3: math.inf}, conditions={"cond": -math.inf}, seconds=math.nan),
        step(1), sigmas=[math.inf, 0.0],
    ))

    def refuse(constant: str):
        raise AssertionError(constant)

    [run] = json.loads(stats.to_json(), parse_constant=refuse)
    assert run["steps"][0]["change"] is None
    assert run["steps"][0]["block_changes"] == {"3": None}
    assert run["steps"][0]["conditions"] == {"cond": None}
    assert run["sigmas"] == [None, 0.0]
    assert run["steps"][1]["seconds"] == 1.0


def test_json_holds_fields_and_figures():
    stats = RunStats()
    stats.runs.append(report(step(0), step(1), step(2, "reuse", reused_blocks=[0, 1, 2, 3])))
    [run] = json.loads(stats.to_json())
    assert (run["mode"], run["threshold"], run["model"], run["finished"]) == ("paper", 0.15, "", True)
    assert (run["evaluations"], run["evaluations_reused"], run["blocks_total"], run["blocks_reused"]) == (3, 1, 12, 4)
    assert (run["block_ratio"], run["speedup"], run["seconds"]) == (1.5, 1.0, 3.0)
    assert run["steps"][2]["action"] == "reuse"
    assert run["steps"][2]["reused_blocks"] == [0, 1, 2, 3]


def test_stats_keep_the_last_8_runs():
    stats = RunStats()
    for i in range(10):
        stats.runs.append(report(model=f"run {i}"))
    assert [run["model"] for run in json.loads(stats.to_json())] == [f"run {i}" for i in range(2, 10)]


def test_no_runs_are_an_empty_list():
    assert json.loads(RunStats().to_json()) == []


HELD = [
    ({}, "5 MiB held"),
    ({"cache_point": "output", "cache_device": "gpu", "estimate_bytes": 5 * MIB}, "5 MiB held (output on the GPU)"),
    (
        {"cache_point": "features", "cache_device": "cpu", "estimate_bytes": 9 * MIB},
        "5 MiB held (features in host memory), 9 MiB estimated",
    ),
]


@pytest.mark.parametrize(("fields", "expected"), HELD)
def test_what_is_held_names_what_and_where_and_an_estimate_that_was_wrong(fields, expected):
    assert report(step(0, cache_bytes=5 * MIB), **fields).held == expected


def test_the_summary_says_why_the_cache_made_way_and_what_stopped_it():
    assert "\nMemory: no room." in report(step(0), placement="no room").summary()
    stopped = report(step(0), stopped="no room", warnings=["This run is not cached: no room."])
    assert stopped.summary().count("no room") == 1
    assert "Nothing was reused" not in stopped.summary()


def test_memory_figures_are_in_the_json():
    plain = report(step(0), cache_point="output", reserved_bytes=7, estimate_bytes=8).to_dict()
    assert (plain["cache_point"], plain["reserved_bytes"], plain["estimate_bytes"]) == ("output", 7, 8)
