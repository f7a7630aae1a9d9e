"""Processes that share the tokens of one run decide alike, and as one process would that has them all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from bwcache_pack.devtools.pack import ROOT
from bwcache_pack.tests.paper.ranks import MODES, STACK, STEPS, Share, scenarios
from bwcache_pack.tests.paper.toys import COND, UNCOND, Run, ToyModel, condition, falling

TOKENS = 11
SPLITS = {"2 processes": [7, 4], "4 processes": [5, 3, 3, 0]}  # the last one of four holds no token at all
PLAYED = ["paper", "per block", "broken", "shorter"]


@pytest.fixture(scope="module")
def whole() -> dict:
    """The scenarios in one process."""
    return scenarios(Share(0, [TOKENS]), None)


@pytest.fixture(scope="module", params=SPLITS.values(), ids=SPLITS)
def ranks(request, tmp_path_factory) -> list[dict]:
    """What each process of a group saw."""
    folder, sizes = tmp_path_factory.mktemp("group"), request.param
    program = [sys.executable, ROOT / "devtools" / "pack.py", "tests.paper.ranks"]
    subprocess.run([*program, folder, ",".join(map(str, sizes))], cwd=ROOT, check=True, timeout=120)
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(len(sizes))]


@pytest.mark.parametrize("scenario", PLAYED)
def test_all_decide_as_one_process_does(ranks, whole, scenario):
    alone = whole[scenario]
    assert set(alone["actions"]) - {"C"}, "a scenario that reuses nothing shows nothing"
    assert all(rank[scenario]["actions"] == alone["actions"] for rank in ranks)
    assert all(rank[scenario]["held"] == alone["held"] for rank in ranks)
    assert all(rank[scenario]["left"] == 0 for rank in ranks)


@pytest.mark.parametrize("scenario", PLAYED)
def test_all_report_the_same_numbers(ranks, whole, scenario):
    """Bit for bit among the processes; sums added up in another order differ in the last digits from one process's."""
    for name in ("reasons", "changes", "faults"):
        assert all(rank[scenario][name] == ranks[0][scenario][name] for rank in ranks)
    for here, there in zip(ranks[0][scenario]["changes"], whole[scenario]["changes"], strict=True):
        assert here == there is None or here == pytest.approx(there, rel=1e-5)
    assert ranks[0][scenario]["faults"] == whole[scenario]["faults"]


@pytest.mark.parametrize("scenario", ["paper", "per block", "shorter"])
def test_shares_put_together_are_the_output_of_one_process(ranks, whole, scenario):
    for i in range(STEPS):
        for c in (0, 1):
            shares = [torch.tensor(rank[scenario]["outputs"][i][c]).view(1, -1, 4) for rank in ranks]
            expected = torch.tensor(whole[scenario]["outputs"][i][c])
            torch.testing.assert_close(torch.cat(shares, dim=1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_without_the_group_they_go_apart(ranks, whole, mode):
    """The mutant: each reads its own sums. One computes where another reuses, and attention over both would hang."""
    apart = [rank["apart"][mode]["actions"] for rank in ranks]
    assert len(set(apart)) > 1
    assert any(actions != whole[mode]["actions"] for actions in apart)


def test_broken_features_of_one_are_an_error_of_all(ranks):
    """The token that is not a number lies in one share only."""
    for rank in ranks:
        [fault] = rank["broken"]["faults"]
        assert fault.startswith("step 5: ") and "NaN" in fault
        assert rank["broken"]["actions"][6] == "C"


def test_all_leave_when_one_raises(ranks):
    """It leaves at once, the others after the time that their group gives it. None of them holds anything then."""
    *others, raising = [rank["raised"] for rank in ranks]
    assert raising["failed"] == "ZeroDivisionError"
    assert all(other["failed"] in ("RuntimeError", "DistBackendError") for other in others)
    assert all(rank["raised"]["left"] == 0 for rank in ranks)
    assert {rank["raised"]["evaluations"] for rank in ranks} == {3}


def test_a_group_costs_one_reduction_and_no_transfer_more(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda numbers, group: calls.append("all_reduce"))
    for name in ("tolist", "item", "__float__", "__int__", "__bool__", "__index__", "numpy", "cpu"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda t, *a, o=original, n=name: (calls.append(n), o(t, *a))[1])
    run, seen = Run(ToyModel(STACK), falling(STEPS), group="a group", **MODES["paper"]), []
    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        run.evaluate(sigma, [condition(COND, 1.0 + i / 64)], [condition(UNCOND, 2.0 + i / 64)])
        seen.append(calls.copy())
        calls.clear()
    run.block_run.close(True)
    assert run.actions == "CCRRCRRCRRCR"
    after_a_computed_one = ["all_reduce", "tolist"]
    expected = [after_a_computed_one if i and run.actions[i - 1] == "C" else ["tolist"] for i in range(STEPS)]
    assert seen == expected


def test_a_group_that_broke_at_the_end_leaves_nothing(monkeypatch):
    """The last sums are read when the run closes, and whoever was to add theirs may be gone."""
    run = Run(ToyModel(STACK), falling(STEPS), group="a group", threshold=0.0)
    run.evaluate(12.0, [condition(COND, 1.0)])

    def gone(numbers, group):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_reduce", gone)
    with pytest.raises(RuntimeError, match="closed by peer"):
        run.block_run.close(True)
    assert not run.block_run.streams
