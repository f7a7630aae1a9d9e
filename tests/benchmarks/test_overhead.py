"""The overhead bench: what it counts, its turns, and a quick run of all of it."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from bwcache_pack.benchmarks import overhead, whole_run
from bwcache_pack.benchmarks.lockstep import cpu_seconds
from bwcache_pack.benchmarks.whole_run import TimedRun
from bwcache_pack.hosts.embedded import TinyPatcher

SMALL = overhead.Shape("small", (4, 2, 8, 8), 2)


def test_a_computed_and_a_reused_evaluation_are_told_apart():
    computed, reused = overhead.costs_of(SMALL, "cpu")
    assert (computed.action, reused.action) == ("compute", "reuse")
    assert min(computed.milliseconds, reused.milliseconds) > 0
    assert computed.operators > reused.operators > 0
    assert computed.held == reused.held > 0


def test_every_evaluation_is_read_by_the_host_once():
    """Each read waits for the device."""
    assert [cost.host_reads for cost in overhead.costs_of(SMALL, "cpu")] == [1, 1]


def test_the_run_is_at_twice_the_speed():
    actions = [action for action, *_ in overhead.evaluations(SMALL, "cpu")]
    assert actions.count("compute") == overhead.STEPS // 2


def steps_of(log: list, name: str, count: int):
    """A model whose sampling makes `count` evaluations, each noted in `log`."""
    model = TinyPatcher(torch.nn.Identity())
    model.name, model.count = name, count
    model.clone = lambda: model
    return model


def sample_into(log: list):
    def sample(model) -> None:
        (wrapper,) = model.wrappers["predict_noise"]["turns"]
        for step in range(model.count):
            wrapper(lambda step=step: log.append((model.name, step)))

    return sample


def test_runs_take_turns_at_every_evaluation():
    log: list = []
    seconds = cpu_seconds([steps_of(log, "a", 3), steps_of(log, "b", 2), steps_of(log, "c", 1)], sample_into(log))
    assert log == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("a", 2)]
    assert len(seconds) == 3


def test_a_run_that_fails_is_told_of_and_keeps_nobody_waiting():
    def sample(model) -> None:
        if model.name == "b":
            raise KeyboardInterrupt
        sample_into(log)(model)

    log: list = []
    with pytest.raises(KeyboardInterrupt):
        cpu_seconds([steps_of(log, "a", 3), steps_of(log, "b", 3)], sample)
    assert log == [("a", 0), ("a", 1), ("a", 2)]


def test_what_was_achieved_is_the_median_over_seeds():
    def run(seed, seconds):
        return TimedRun("paper", seed, 64, 20, "host", 20, 10, seconds, 40.0)

    other = TimedRun("paper", 0, 64, 20, "other host", 20, 10, 40.0, 40.0)
    line, apart = whole_run.summary([run(0, 20.0), run(1, 25.0), run(2, 40.0), other])
    assert (apart.host, apart.achieved) == ("other host", 1.0)
    assert (line.method, line.seeds, line.ideal) == ("paper", 3, 2.0)
    assert (line.achieved, line.share) == (1.6, 0.8)


@pytest.mark.slow
def test_a_quick_run_measures_everything(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["bench", "--overhead", "--quick", "--device", "cpu", "--out", str(tmp_path)])
    try:
        overhead.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "overhead.json").read_text(encoding="utf-8"))
    assert [line["method"] for line in found["whole_runs"]] == list(whole_run.METHODS)
    assert "QUICK" in (tmp_path / "README.md").read_text(encoding="utf-8")
