"""A calibration on every host: its uncached runs are uncached, its trials are what BWCache Apply does, and nothing stays."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core import planning
from bwcache_pack.bwcache_core.calibration import CalibrationError, request_of, summary
from bwcache_pack.bwcache_core.config import ForecastConfig, MeasureConfig
from bwcache_pack.bwcache_core.report import RunStats
from bwcache_pack.bwcache_core.tried import AUTOMATIC, MEASURED
from bwcache_pack.nodes import plans
from bwcache_pack.nodes.attach import attach
from bwcache_pack.nodes.quality import latent_psnr, parts
from bwcache_pack.nodes.trials import Bench, calibrate
from bwcache_pack.tests.hosts import lab as labs


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "plans_folder", lambda: tmp_path / "plans")
    return tmp_path / "plans"


@pytest.fixture(autouse=True)
def learning(monkeypatch):
    """From untrained models, too: they swing from step to step."""
    from bwcache_pack.bwcache_core import measure

    monkeypatch.setattr(measure, "SWINGING", 1.0)
    monkeypatch.setattr(planning, "PRIOR_RUNS", 0.0)  # so that measured plans are others


def difference(a, b) -> float:
    """Of latents, of picture and sound too."""
    return max(labs.difference(*pair) for pair in zip(parts(a), parts(b), strict=True))


class Room:
    """A lab's guider with what samples it. sampled: seeds, with the steps that were going to compute."""

    def __init__(self, lab, model=None, sampler: str = "euler", steps: int = 8, frames: int | None = None) -> None:
        self.lab, self.sampler, self.sampled = lab, sampler, []
        self.model = model or lab.plain
        self.noises = {"frames": frames} if frames else {}
        first = lab.noise(**self.noises)
        self.guider = lab.guider(self.model, lab.prompts(frames=first.shape[2], size=first.shape[3]))
        self.sigmas = lab.sigmas(self.model, steps, sampler)
        self.bench = Bench(self.guider, self.sample)

    def sample(self, seed, computes, what="", callback=None) -> dict:
        self.sampled.append((seed, computes))
        noise = self.lab.noise(seed, **self.noises)
        mask = self.lab.mask(noise)
        return {"samples": self.lab.host.run(self.guider, noise, self.sigmas, self.sampler, callback, mask=mask)}

    def calibrate(self, speedups: str = "2", choose: str = "2x", seeds: int = 1, trials: int = 2):
        return calibrate(self.bench, request_of(speedups, choose, 1, seeds, trials))

    def alone(self, seed: int) -> torch.Tensor:
        """As without any calibration."""
        return self.sample(seed, None)["samples"]


def test_the_latent_is_the_uncached_one_and_nothing_stays(any_lab):
    room = Room(any_lab)
    wrappers, expected = room.guider.model_patcher.wrappers, room.alone(1)
    before = {key: dict(value) for key, value in wrappers.items()}
    outcome = room.calibrate(trials=1)
    assert difference(outcome.latent["samples"], expected) == 0.0
    assert room.guider.model_patcher.wrappers is wrappers and wrappers == before
    assert all(math.isfinite(trial.psnr) and trial.computed <= trial.total for trial in outcome.verdict.trials)


@pytest.mark.family("wan21_t2v")
def test_a_trial_is_what_the_plans_text_brings_in_apply(lab):
    outcome = Room(lab).calibrate("1.5 2")
    assert {AUTOMATIC, MEASURED} < {trial.kind for trial in outcome.verdict.trials}
    for trial in outcome.verdict.trials:
        room, stats = Room(lab), RunStats()
        expected = room.alone(trial.seed)
        cached = Room(lab, attach(lab.plain, ForecastConfig(plan=trial.plan.text), stats)).alone(trial.seed)
        assert trial.psnr == latent_psnr(cached, expected)
        assert (trial.computed, trial.total) == (sum(s.action == "compute" for s in stats.runs[-1].steps), 8)


@pytest.mark.family("wan21_t2v")
def test_reports_of_the_given_plans_come_with_the_chosen_one_last(lab):
    outcome = Room(lab).calibrate("1.5 2 3", choose="2x")
    assert [report.plan for report in outcome.reports][-1] == outcome.verdict.chosen.plan.text
    assert all("BWCache Calibrate" in report.plan_note for report in outcome.reports)
    assert {report.plan for report in outcome.reports} == {each.plan.text for each in outcome.verdict.best}


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("sampler", ["heun", "uni_pc", "euler_ancestral", "dpmpp_2m_sde"])
def test_whatever_the_sampler(lab, sampler):
    if lab.host.name == "embedded" and sampler != "heun":
        pytest.skip("no such sampler there")
    room = Room(lab, sampler=sampler)
    torch.manual_seed(1)
    expected = room.alone(1)
    torch.manual_seed(1)
    outcome = room.calibrate(trials=1)
    assert difference(outcome.latent["samples"], expected) == 0.0
    assert outcome.verdict.chosen.speedup == 2.0


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform"])
def test_context_windows(lab, schedule):
    windows = {"context_length": 13, "context_overlap": 4, "context_schedule": schedule, "context_stride": 1,
               "closed_loop": False, "fuse_method": "pyramid", "freenoise": False}  # fmt: skip
    model = lab.host.node("nodes_context_windows", "WanContextWindowsManualNode", model=lab.plain, **windows)
    room = Room(lab, model, frames=12 if schedule == "standard_uniform" else 9)
    expected, outcome = room.alone(1), room.calibrate(trials=1)
    assert difference(outcome.latent["samples"], expected) == 0.0
    assert difference(room.alone(1), expected) == 0.0
    report = outcome.reports[-1]
    ran = report.evaluations / outcome.verdict.chosen.landed  # a whole number
    assert ran == pytest.approx(report.evaluations / report.work_ratio, abs=0.51), "windows that move compute"


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("config", [ForecastConfig(plan="0-1 3 5 7/8"), MeasureConfig()], ids=["forecast", "measure"])
def test_a_cache_that_is_on_the_model_is_left_aside_and_stays(lab, config, folder):
    stats = RunStats()
    room = Room(lab, attach(lab.plain, config, stats))
    alone, plain = room.alone(1), Room(lab).alone(1)
    stats.runs.clear()
    for path in folder.glob("*"):
        path.unlink()
    outcome = room.calibrate()
    assert difference(outcome.latent["samples"], plain) == 0.0
    assert not stats.runs
    assert outcome.verdict.trials == Room(lab).calibrate().verdict.trials
    assert difference(room.alone(1), alone) == 0.0 and len(stats.runs) == 1


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("stopped_in", [1, 2, 3])
def test_a_cancel_keeps_what_was_measured(lab, folder, stopped_in):
    """Runs 0 and 1 are measured, run 2 is compared with, run 3 is a trial."""
    room = Room(lab)
    wrappers, sample = room.guider.model_patcher.wrappers, room.sample

    def cancel(step, *told):
        if step == 4:
            raise lab.host.Interrupt

    def cancelled(seed, computes, what):
        return sample(seed, computes, what, cancel if len(room.sampled) == stopped_in else None)

    room.bench.sample = cancelled
    with pytest.raises(lab.host.Interrupt):
        room.calibrate(seeds=2)
    assert len(room.sampled) == stopped_in + 1
    [file], warnings = plans.read_all()
    assert file.runs == min(stopped_in, 2) and not warnings
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert room.guider.model_patcher.wrappers is wrappers
    assert not any(room.bench.guider.model_patcher.wrappers.get(name, {}).get("bwcache") for name in wrappers)


@pytest.mark.family("wan21_t2v")
def test_what_was_measured_is_what_apply_finds(lab, folder):
    outcome, stats = Room(lab).calibrate(seeds=2), RunStats()
    [file] = plans.read_all()[0]
    assert file.runs == 2, "the seed that was only compared with is not in it"
    room = Room(lab, attach(lab.plain, ForecastConfig(), stats))
    room.alone(1)
    note, chosen = stats.runs[-1].plan_note, outcome.verdict.chosen
    assert stats.runs[-1].plan == chosen.plan.text
    assert f"tried by BWCache Calibrate on 2 latents, last on {file.tried_on[:10]}, {file.name}: {chosen.psnr:.1f} dB" in note
    Room(lab, attach(lab.plain, ForecastConfig(speedup=3.0), stats)).alone(1)
    assert "measured on 2 runs" in stats.runs[-1].plan_note and "no trial is kept of a plan of 3 computed steps" in stats.runs[-1].plan_note
    [expected] = {trial.expected for trial in outcome.verdict.trials if trial.kind == AUTOMATIC}
    schedule = file.setup.schedule
    by_file = planning.expected_error(file.knowledge, schedule, planning.automatic(schedule, 2.0).computes)
    assert expected == pytest.approx(by_file, rel=1e-6)


@pytest.mark.family("wan21_t2v")
def test_again_it_learns_nothing_new_and_says_the_same(lab):
    first, again = Room(lab).calibrate(), Room(lab).calibrate()
    assert first.verdict == again.verdict
    assert [file.runs for file in plans.read_all()[0]] == [1]


@pytest.mark.family("wan21_t2v")
def test_where_no_file_can_be_written_it_plans_all_the_same(lab, folder, monkeypatch):
    expected = Room(lab).calibrate(seeds=2).verdict.trials
    monkeypatch.setattr(plans, "plans_folder", lambda: None)
    verdict = Room(lab).calibrate(seeds=2).verdict
    assert "Plan auto will not know of it: there is no folder for plans." in summary(verdict)
    trials = verdict.trials
    assert [trial.plan.computes for trial in trials] == [trial.plan.computes for trial in expected]
    assert [trial.expected for trial in trials] == pytest.approx([trial.expected for trial in expected], rel=1e-6)


@pytest.mark.family("wan21_t2v")
def test_a_seed_that_was_measured_at_another_time_is_told(lab):
    stats = RunStats()
    Room(lab, attach(lab.plain, MeasureConfig(), stats)).alone(2)
    trials = Room(lab).calibrate(trials=1).verdict.trials
    assert {(trial.seed, trial.unseen) for trial in trials} == {(2, False)}


@pytest.mark.family("wan21_t2v")
def test_each_plan_runs_once_on_each_seed(lab):
    """1.5 and 1.6 leave the same five of eight steps."""
    room = Room(lab)
    room.calibrate("1.5 1.6", "1.5x")
    ran = [each for each in room.sampled if each[1] is not None]
    assert len(ran) == len(set(ran)) and all(len(computes) == 5 for _, computes in ran)
    assert len(room.sampled) - len(ran) == 2


@pytest.mark.family("wan21_t2v")
def test_where_nothing_is_learned_automatic_plans_are_tried(lab):
    """A model made for a few steps."""
    outcome, stats = Room(lab, steps=6).calibrate(), RunStats()
    assert MEASURED not in {trial.kind for trial in outcome.verdict.trials}
    reason = "a run of fewer than 8 steps teaches too little"
    assert f"No plan was made by what was measured: {reason}." in summary(outcome.verdict)
    Room(lab, attach(lab.plain, ForecastConfig(), stats), steps=6).alone(1)
    assert "tried by BWCache Calibrate" in stats.runs[-1].plan_note, "the trials are kept all the same"
    assert stats.runs[-1].plan == outcome.verdict.chosen.plan.text


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_where_every_plan_is_set_aside_nothing_is_kept(lab, folder):
    """Noise that comes between steps, in a run that is too short to teach anything."""
    outcome = Room(lab, sampler="euler_ancestral", steps=6).calibrate()
    assert "landed at 1x: more steps had to be computed than planned" in summary(outcome.verdict)
    assert plans.read_all() == ([], []) and not folder.exists()


@pytest.mark.family("wan21_t2v")
def test_every_plan_is_tried_on_one_seed_and_the_better_two_on_the_others(lab):
    outcome = Room(lab).calibrate("1.5 2", trials=3)
    seeds: dict[tuple, list[int]] = {}
    for trial in outcome.verdict.trials:
        seeds.setdefault((trial.speedup, trial.kind), []).append(trial.seed)
    for speedup in (1.5, 2.0):
        others = [tried for (its, kind), tried in seeds.items() if its == speedup and kind != AUTOMATIC]
        assert seeds[speedup, AUTOMATIC] == [2, 1, 3]
        assert sorted(map(len, others))[-1] in (1, 3) and sum(len(tried) == 3 for tried in others) <= 1
        assert all(tried[0] == 2 for tried in others)


@pytest.mark.family("wan21_t2v")
def test_a_cancel_keeps_what_was_tried(lab):
    """At the second speed-up: those of the first are there. A run changes nothing."""
    room, stats = Room(lab), RunStats()
    attempt = room.bench.attempt

    def cancelled(speedup, *more):
        if speedup == 2.0:
            raise lab.host.Interrupt
        return attempt(speedup, *more)

    room.bench.attempt = cancelled
    with pytest.raises(lab.host.Interrupt):
        room.calibrate("1.5 2", trials=1)
    [file] = plans.read_all()[0]
    assert {each.count for each in file.tried} == {5} and len(file.tried) > 1
    text = (plans.plans_folder() / file.name).read_text()
    for speedup in (1.5, 2.0):
        Room(lab, attach(lab.plain, ForecastConfig(speedup=speedup), stats)).alone(1)
    assert ["tried by" in run.plan_note for run in stats.runs] == [True, False]
    assert (plans.plans_folder() / file.name).read_text() == text


@pytest.mark.family("wan21_t2v")
def test_trials_of_several_calibrations_add_up(lab):
    Room(lab).calibrate(trials=1)
    [first] = plans.read_all()[0]
    room = Room(lab)
    calibrate(room.bench, request_of("2", "2x", 11, 1, 1))
    [both] = plans.read_all()[0]
    plain = [{each.kind: each for each in file.tried}[AUTOMATIC] for file in (first, both)]
    assert [len(each.psnr) for each in plain] == [1, 2]
    assert plain[0].psnr.items() <= plain[1].psnr.items()


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_another_cache_on_the_model_is_an_error(lab, folder):
    rival = lab.host.node(
        "nodes_easycache", "EasyCacheNode", model=lab.plain, reuse_threshold=0.2, start_percent=0.15, end_percent=0.95,
        verbose=False,
    )  # fmt: skip
    room = Room(lab, rival)
    with pytest.raises(CalibrationError, match=r"EasyCache is on the same model.*Remove it"):
        room.calibrate()
    assert not room.sampled and not folder.exists()


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_another_cache_in_the_sampler_is_an_error_before_anything_runs(lab):
    def teacache_sample():
        raise AssertionError

    room = Room(lab)
    room.bench.sampler = SimpleNamespace(sampler_function=teacache_sample)
    with pytest.raises(CalibrationError, match=r"TeaCache is on the same model"):
        room.calibrate()
    assert not room.sampled


@pytest.mark.family("wan21_t2v")
def test_another_cache_that_comes_with_the_run_is_an_error(lab, folder):
    room = Room(lab)
    sample, options = room.sample, room.guider.model_options

    def with_cache(*args):
        room.guider.model_options = {**options, "transformer_options": {"teacache_options": {}}}
        return sample(*args)

    room.bench.sample = with_cache
    with pytest.raises(CalibrationError, match=r"TeaCache is on the same model"):
        room.calibrate()
    assert len(room.sampled) == 1 and not folder.exists()


@pytest.mark.family("wan21_t2v")
def test_a_guider_that_goes_past_the_model_is_an_error(lab):
    room = Room(lab)
    room.bench.sample = lambda seed, computes, what: {"samples": room.lab.noise(seed)}
    with pytest.raises(CalibrationError, match="past BWCache"):
        room.calibrate()


@pytest.mark.family("wan21_t2v")
def test_broken_numbers_are_an_error(lab):
    room = Room(lab)
    sample = room.sample
    room.bench.sample = lambda seed, *more: {"samples": sample(seed, *more)["samples"] * float("nan")}
    with pytest.raises(CalibrationError, match="NaN"):
        room.calibrate()
