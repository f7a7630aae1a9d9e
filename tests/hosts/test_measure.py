"""Mode measure on every host: nothing is different in its output, and forecast finds what it learned."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from bwcache_pack.bwcache_core.advice import verdict
from bwcache_pack.bwcache_core.config import ForecastConfig, MeasureConfig
from bwcache_pack.bwcache_core.report import RunStats
from bwcache_pack.nodes import plans
from bwcache_pack.nodes.attach import attach
from bwcache_pack.tests.hosts.lab import STEPS, Cached, difference

IN_COMFYUI = plans.plans_folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "plans_folder", lambda: tmp_path / "plans")
    return tmp_path / "plans"


def measuring(lab, model=None) -> Cached:
    stats = RunStats()
    return Cached(attach(model or lab.plain, MeasureConfig(), stats), stats)


def forecasting(lab, **settings) -> Cached:
    stats = RunStats()
    return Cached(attach(lab.plain, ForecastConfig(**settings), stats), stats)


@pytest.fixture
def swinging(monkeypatch):
    """Untrained models may swing from step to step: that is told elsewhere."""
    from bwcache_pack.bwcache_core import measure

    monkeypatch.setattr(measure, "SWINGING", 1.0)


def test_measuring_changes_nothing(any_lab, folder, swinging):
    measured = measuring(any_lab)
    assert difference(any_lab.sample(measured.model), any_lab.uncached()) == 0.0
    report = measured.report
    assert report.finished and report.measured_runs == 1 and not report.unlearned and not report.warnings
    assert measured.actions == ["compute"] * STEPS and report.work_ratio == 1.0
    assert len(list(folder.iterdir())) == 1
    assert "Measured on 1 run: two more prompts make the plan better." in verdict(report)


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("sampler", ["heun", "uni_pc", "euler_ancestral", "dpmpp_2m_sde"])
def test_whatever_the_sampler(lab, sampler, swinging):
    if lab.host.name == "embedded" and sampler != "heun":
        pytest.skip("no such sampler there")
    measured = measuring(lab)
    assert difference(lab.sample(measured.model, sampler=sampler), lab.uncached(sampler)) == 0.0
    assert measured.report.finished and not measured.report.warnings


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_forecast_uses_what_was_measured_and_names_it(lab, folder, swinging):
    measured = measuring(lab)
    lab.sample(measured.model)
    lab.sample(measured.model, noise=lab.noise(seed=2))
    assert measured.report.measured_runs == 2
    [path] = folder.iterdir()
    before = path.read_bytes()
    cached = forecasting(lab, threshold=10.0)
    lab.sample(cached.model)
    report = cached.report
    assert "measured on 2 runs, last on 20" in report.plan_note and path.name in report.plan_note
    assert measured.report.planner.knowledge.runs == report.planner.knowledge.runs == 2
    computed = [step.step for step in report.steps if step.action == "compute"]
    assert computed == report.planned and len(computed) == STEPS / 2
    assert path.read_bytes() == before, "a run never changes a plan"
    lab.sample(cached.model)
    assert cached.stats.runs[0].plan == cached.stats.runs[1].plan


@pytest.mark.family("wan21_t2v")
def test_a_measured_plan_is_taken_and_its_text_alone_computes_the_same_steps(lab, folder, swinging, monkeypatch):
    """Whatever an untrained model's outputs are: any other plan is taken for better here."""
    from bwcache_pack.bwcache_core import planning

    lab.sample(measuring(lab).model)
    monkeypatch.setattr(planning, "CLEARLY", 1e9)
    monkeypatch.setattr(planning, "PRIOR_RUNS", 0.0)
    cached = forecasting(lab, threshold=10.0)
    latents = lab.sample(cached.model)
    assert cached.report.plan_note.startswith("measured on 1 run")
    [path] = folder.iterdir()
    path.unlink()
    given = forecasting(lab, threshold=10.0, plan=cached.report.plan)
    assert difference(lab.sample(given.model), latents) == 0.0
    assert given.report.planned == cached.report.planned


@pytest.mark.family("wan21_t2v")
def test_what_does_not_fit_is_not_used_and_said(lab, swinging):
    lab.sample(measuring(lab).model)
    for change, words in (({"cfg": 2.0}, "measured only for cfg 4"), ({"sampler": "heun"}, "measured only for euler")):
        cached = forecasting(lab)
        lab.sample(cached.model, **change)
        assert cached.report.plan_note == f"automatic: {words}"


@pytest.mark.family("wan21_t2v")
def test_a_broken_file_is_a_warning_and_the_automatic_plan(lab, folder, swinging):
    lab.sample(measuring(lab).model)
    [path] = folder.iterdir()
    path.write_text("{")
    cached = forecasting(lab)
    lab.sample(cached.model)
    assert cached.report.plan_note == "automatic"
    assert cached.report.warnings == [f"The plan {path.name} is not used: it cannot be read."]


@pytest.mark.family("wan21_t2v")
def test_a_cancel_keeps_nothing(lab, folder, swinging):
    measured, calls = measuring(lab), count()

    def cancel(*told):
        if next(calls) == STEPS - 2:
            raise lab.host.Interrupt

    with pytest.raises(lab.host.Interrupt):
        lab.sample(measured.model, callback=cancel)
    assert not folder.exists() and not measured.report.finished
    assert "Nothing was learned from it." in verdict(measured.report)


@pytest.mark.family("wan21_t2v")
def test_runs_of_one_condition_and_of_windows_of_a_schedule_are_told_apart(lab, folder, swinging):
    """cfg 1 asks for one condition; two experts share the steps of one schedule."""
    measured = measuring(lab)
    lab.sample(measured.model, cfg=1.0)
    lab.sample(measured.model, steps=16, last=8)
    lab.sample(measured.model, steps=16, first=8)
    assert [run.measured_runs for run in measured.stats.runs] == [1, 1, 1]
    assert len(list(folder.iterdir())) == 3


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_two_experts_are_measured_in_the_run_that_is_done_anyway_and_told_as_one(lab, swinging, monkeypatch, tmp_path):
    """As Wan 2.2 is sampled: each expert its part of the steps, with a BWCache Apply of its own."""
    import folder_paths

    from bwcache_pack.nodes.report import BWCacheReport

    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path / "temp"))
    high, low = measuring(lab), measuring(lab)
    lab.sample(high.model, steps=16, last=8)
    lab.sample(low.model, steps=16, first=8)
    assert "Measured on 1 run" in verdict(high.report) and "Measured on 1 run" in verdict(low.report)
    high, low = forecasting(lab, threshold=10.0), forecasting(lab, threshold=10.0)
    lab.sample(high.model, steps=16, last=8)
    lab.sample(low.model, steps=16, first=8)
    for cached in (high, low):
        assert "measured on 1 run of sigma " in cached.report.plan_note and len(cached.report.planned) == 4
    told = BWCacheReport.execute(1, low.stats, high.stats)
    assert "Both experts: 8 of 16 steps were computed" in told.args[1] and told.args[4:6] == (8, 16)
    assert BWCacheReport.execute(1, low.stats, low.stats).args[4:6] == (4, 8), "one run is not counted twice"


@pytest.mark.family("wan21_t2v")
def test_other_weights_and_loras_are_other_setups(lab, folder, swinging):
    if lab.host.name == "embedded":
        pytest.skip("no LoRAs there")
    lab.sample(measuring(lab).model)
    patched = lab.plain
    key = next(key for key in patched.model.state_dict() if key.startswith("diffusion_model.") and key.endswith("weight"))
    patched.add_patches({key: ("diff", (torch.ones_like(patched.model.state_dict()[key]) * 1e-3,))}, 1.0)
    lab.sample(measuring(lab, patched).model)
    assert len(list(folder.iterdir())) == 2
    lab.sample(measuring(lab).model, noise=lab.noise(seed=2))  # the weights as they were
    assert sorted(file.runs for file in plans.read_all()[0]) == [1, 2]
    loras = {file.setup.loras for file in plans.read_all()[0]}
    assert "" in loras and len(loras) == 2
    assert len({file.setup.weights for file in plans.read_all()[0]}) == 1


@pytest.fixture
def lessons(monkeypatch) -> list:
    """What the runs taught, instead of files."""
    taught: list = []
    monkeypatch.setattr("bwcache_pack.nodes.attach.remember", lambda setup, lesson: taught.append(lesson) or len(taught))
    return taught


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform"])
def test_each_context_window_has_its_own_matrix(lab, schedule, swinging, lessons):
    """Windows that move are not there in every evaluation; the guided output of the whole latent is."""
    windows = {"context_length": 13, "context_overlap": 4, "context_schedule": schedule, "context_stride": 1,
               "closed_loop": False, "fuse_method": "pyramid", "freenoise": False}  # fmt: skip
    model = lab.host.node("nodes_context_windows", "WanContextWindowsManualNode", model=lab.plain, **windows)
    noise = lab.noise(frames=12 if schedule == "standard_uniform" else 9)
    measured = measuring(lab, model)
    assert difference(lab.sample(measured.model, noise=noise), lab.sample(model, noise=noise)) == 0.0
    [lesson] = lessons
    assert all("frames" in name for name in lesson.conditions)
    assert len(lesson.knowledge.guided) == STEPS and lesson.knowledge.guided[0][0] > 0
    if schedule == "standard_static":
        assert len(lesson.conditions) >= 4 and {name.split()[0] for name in lesson.conditions} == {"cond", "uncond"}


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_extra_guidance_passes_change_nothing_and_are_told_apart(lab, swinging, lessons):
    model = lab.host.node(
        "nodes_slg", "SkipLayerGuidanceDiT", model=lab.plain, scale=2.0, start_percent=0.0, end_percent=1.0,
        double_layers="0", single_layers="0", rescaling_scale=0.0,
    )  # fmt: skip
    measured = measuring(lab, model)
    assert difference(lab.sample(measured.model), lab.sample(model)) == 0.0
    assert set(lessons[0].conditions) >= {"cond", "uncond"}
    assert measured.report.steps[3].calls_total == 3


@pytest.mark.family("wan21_t2v")
def test_several_evaluations_a_step_each_have_their_place(lab, swinging, lessons):
    lab.sample(measuring(lab).model, sampler="heun")
    course = lessons[0].knowledge.course
    assert course.steps == tuple(sorted([*range(STEPS), *range(STEPS - 1)]))
    assert len(lessons[0].knowledge.guided) == 2 * STEPS - 1


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_what_adds_or_subtracts_from_the_guided_output_is_another_setup(lab, folder, swinging):
    lab.sample(measuring(lab).model)
    changed = lab.plain.clone()
    changed.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    lab.sample(measuring(lab, changed).model)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_from_the_node_to_the_file_and_from_there_to_the_report(lab, swinging, monkeypatch, tmp_path):
    import folder_paths

    from bwcache_pack.nodes.apply import BWCacheApply
    from bwcache_pack.nodes.report import BWCacheReport
    from bwcache_pack.tests.hosts.test_nodes import execute

    monkeypatch.setattr(plans, "plans_folder", IN_COMFYUI)
    for kind in ("user", "temp"):
        monkeypatch.setattr(folder_paths, f"get_{kind}_directory", lambda kind=kind: str(tmp_path / kind))
    model, stats = execute(BWCacheApply, model=lab.plain, mode={"mode": "measure"}).args
    lab.sample(model)
    told = BWCacheReport.execute(1, stats)
    assert "Measured on 1 run: two more prompts make the plan better." in told.args[1]
    [path] = (tmp_path / "user" / "bwcache" / "plans").iterdir()
    model, stats = execute(BWCacheApply, model=lab.plain, mode={"mode": "forecast", "speedup": 2.0, "threshold": 10.0}).args
    lab.sample(model)
    assert f"{path.name}" in "".join(BWCacheReport.execute(1, stats).ui["text"])
    assert stats.runs[-1].evaluations_reused == STEPS / 2


@pytest.mark.family("wan21_t2v")
def test_the_same_run_again_is_said_to_teach_nothing(lab, folder, swinging):
    measured = measuring(lab)
    lab.sample(measured.model)
    lab.sample(measured.model)
    assert "this very run was measured before" in verdict(measured.report)
    assert [file.runs for file in plans.read_all()[0]] == [1]


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_nothing_is_learned_beside_another_cache(lab, folder, swinging):
    """What it reuses would be taken for the model's own outputs."""
    rival = lab.host.node(
        "nodes_easycache",
        "EasyCacheNode",
        model=lab.plain,
        reuse_threshold=0.2,
        start_percent=0.15,
        end_percent=0.95,
        verbose=False,
    )
    measured = measuring(lab, rival)
    lab.sample(measured.model)
    assert "EasyCache is on the same model" in measured.report.unlearned
    assert not folder.exists()
