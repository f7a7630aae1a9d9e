"""The overhead bench: its arithmetic by hand, its clocks, its turns, and a quick run of all of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.benchmarks import indicator, overhead, whole_run
from bwcache_pack.benchmarks.account import Account
from bwcache_pack.benchmarks.clocks import CudaClock, HostClock
from bwcache_pack.benchmarks.counts import counts_of
from bwcache_pack.benchmarks.lockstep import cpu_seconds
from bwcache_pack.benchmarks.overhead_report import readme_lines, targets_table
from bwcache_pack.benchmarks.shapes import SHAPES, WAN_14B, build
from bwcache_pack.benchmarks.whole_run import TimedRun
from bwcache_pack.devtools.pack import ROOT
from bwcache_pack.hosts.embedded import TinyPatcher

TINY = replace(WAN_14B.scaled(), width=128, heads=1, ffn=128)


@pytest.fixture(scope="module")
def module():
    return build(TINY, 3, torch.float32, torch.device("cpu"), comfyui=False)


def test_the_shapes_have_the_token_counts_of_the_real_models():
    tokens = {shape.name: shape.tokens for shape in SHAPES}
    assert tokens["Wan 14B, 480p"] == 32_760
    assert tokens["Wan 14B, 720p"] == 75_600
    assert tokens["Wan 5B, 720p"] == 31 * 22 * 40
    assert tokens["HunyuanVideo, 720p"] == 118_800
    assert tokens["HunyuanVideo 1.5, 720p"] == 31 * 45 * 80


def test_more_tokens_are_left_than_are_sampled():
    assert min(shape.scaled().tokens for shape in SHAPES) > indicator.TOKENS


@pytest.mark.parametrize("mode", overhead.MODES)
def test_the_time_of_an_evaluation_is_told_apart(module, mode):
    plain = Account(module, TINY, HostClock(), None).evaluate()
    assert (plain.action, plain.own) == ("plain", 0.0)
    assert plain.blocks > 0
    account = Account(module, TINY, HostClock(), overhead.MODES[mode])
    evaluations = [account.evaluate() for _ in range(overhead.COMPUTED + 1)]
    assert [e.action for e in evaluations] == ["compute"] * overhead.COMPUTED + ["reuse"]
    for evaluation in evaluations:
        assert evaluation.total == pytest.approx(evaluation.blocks + evaluation.rest + evaluation.own)
        assert evaluation.own > 0
    assert (evaluations[-1].blocks, evaluations[0].blocks > 0) == (0.0, True)
    assert account.bytes_held > 0


def test_every_evaluation_is_read_by_the_host_once(module):
    """Whatever the mode: each read waits for the device."""
    counts = counts_of(module, TINY, overhead.MODES, overhead.COMPUTED)
    assert [(c.mode, c.action) for c in counts] == [(m, a) for m in overhead.MODES for a in ("compute", "reuse")]
    assert [c.host_reads for c in counts] == [1] * len(counts)


def test_the_number_of_operators_grows_by_one_for_each_block_that_is_measured(module):
    deep = build(TINY, 8, torch.float32, torch.device("cpu"), comfyui=False)
    modes = {"features": overhead.MODES["features"], "output": overhead.MODES["output"]}
    shallow, deep = (counts_of(m, TINY, modes, overhead.COMPUTED) for m in (module, deep))
    added = [b.operators - a.operators for a, b in zip(shallow, deep, strict=True)]
    assert added == [5, 0, 0, 0]  # five blocks more: one gather each where features are measured


def test_shares_of_a_case_by_hand():
    """2 blocks of 40 were measured, 3 s each, beside 4 s of the rest: a full step takes 4 + 40 * 3 = 124 s."""
    case = overhead.Case("a", "features", 300, 3000, 2, 40, 3.0, 4.0, 0.031, 4.2, 0.124, 7)
    assert case.full_step == 124.0
    assert case.own_share == pytest.approx(0.031 * 20 / 124)
    assert case.reused_model_share == pytest.approx((4.2 - 0.124) / 124)
    assert case.reused_own_share == pytest.approx(0.124 * 20 / 124)
    assert case.reused_share == pytest.approx((4.2 - 0.124 + 0.124 * 20) / 124)


def test_a_case_without_a_reused_evaluation_is_an_error():
    computed = SimpleNamespace(action="compute", blocks=1.0, rest=1.0, own=1.0, total=3.0)
    with pytest.raises(RuntimeError, match="expected computed and reused"):
        overhead.case_of("output", WAN_14B, TINY, 2, [computed] * 8, 0)


def test_the_cuda_clock_reads_events_after_they_are_reached(monkeypatch):
    """Events of a made-up device whose time line is 2 ms from one to the next. Not run on a real one."""
    reached = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.place = 2.0 * len(reached)
            reached.append(self)

        def elapsed_time(self, other):
            return other.place - self.place

    settled = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: settled.append(1))
    clock = CudaClock()
    start, end = clock.mark(), clock.mark()
    clock.settle()
    assert clock.seconds(start, end) == pytest.approx(0.002)
    assert settled == [1]


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


def test_a_sample_of_all_tokens_is_exact_and_one_of_few_is_not():
    generator = torch.Generator().manual_seed(0)
    now, before = (torch.randn(2, indicator.TOKENS, 8, generator=generator) for _ in range(2))
    assert indicator.deviations(now, before).max() < 1e-6
    now, before = (torch.randn(2, 1000, 8, generator=generator) for _ in range(2))
    assert 1e-6 < indicator.deviations(now, before).max() < 0.1


def found_by(own=0.01, reads=1, p95=0.01, share=0.99) -> dict:
    """What a run measured, of one case in one mode."""
    case = {"shape": "a", "mode": "output", "own_share": own, "reused_share": 0.001}
    return {
        "cases": [case, {**case, "shape": "b", "own_share": 0.0}],
        "counts": [{"mode": "output", "action": "compute", "host_reads": reads}],
        "indicator": [{"source": "walk", "sampled": 256, "p95": p95}, {"source": "walk", "sampled": 512, "p95": 1.0}],
        "whole_runs": [{"host": "a host", "method": "adaptive", "share": share}],
    }


@pytest.mark.parametrize(
    ("measured", "missed"),
    [({}, ""), ({"own": 0.02}, "2.00% | a, output"), ({"reads": 2}, "2 | output, compute"),
     ({"p95": 0.04}, "4.0% | walk"), ({"share": 0.9}, "0.900 | adaptive, a host")],
)  # fmt: skip
def test_a_missed_target_is_told_with_its_place(measured, missed):
    rows = [row for row in targets_table(found_by(**measured)) if "**missed**" in row]
    assert len(rows) == bool(missed)
    assert all(f"| {missed} |" in row for row in rows)


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
    assert {case["mode"] for case in found["cases"]} == set(overhead.TIMED)
    assert [line["method"] for line in found["whole_runs"]] == list(whole_run.METHODS)
    assert len(readme_lines(found)) == 4 + len(overhead.TIMED)
    report = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "QUICK" in report
    assert "Wan 14B, 480p" in report


def result_file():
    return json.loads(max((ROOT / "benchmarks" / "results").glob("*-overhead-*/overhead.json")).read_text("utf-8"))


def test_the_readme_shows_the_figures_of_the_newest_result_file():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = result_file()
    assert not found["conditions"]["quick"]
    assert "\n".join(readme_lines(found)) in text


def test_the_shares_in_the_result_file_follow_from_its_times():
    names = list(overhead.Case.__dataclass_fields__)
    for stored in result_file()["cases"]:
        case = overhead.Case(**{name: stored[name] for name in names})
        for name in overhead.SHARES:
            assert getattr(case, name) == pytest.approx(stored[name])
