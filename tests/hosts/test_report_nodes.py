"""BWCache Report and BWCache Compare inside ComfyUI: outputs, errors, and a ComfyUI without matplotlib."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from bwcache_pack.bwcache_core.report import RunStats
from bwcache_pack.tests.nodes.reports import forecast, report, step

pytestmark = pytest.mark.comfyui
RUN = report(step(0), step(1, change=0.2, conditions={"cond": 0.2}), step(2, "reuse"))


@pytest.fixture
def nodes(comfyui, monkeypatch, tmp_path):
    """The node classes. What they show on themselves goes to a folder of its own."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    from bwcache_pack.nodes.compare import BWCacheCompare
    from bwcache_pack.nodes.report import BWCacheReport

    return {"report": BWCacheReport, "compare": BWCacheCompare}


def stats_of(run) -> RunStats:
    stats = RunStats()
    stats.runs.append(run)
    return stats


def outputs_by_name(node, result) -> dict:
    names = [output.display_name for output in node.define_schema().outputs]
    return dict(zip(names, result.args, strict=True))


def test_report_hands_its_input_on_and_gives_figures_a_verdict_and_three_images(nodes):
    thing = object()
    outputs = outputs_by_name(nodes["report"], nodes["report"].execute(thing, stats_of(RUN)))
    assert outputs["passthrough"] is thing
    assert (outputs["computed_steps"], outputs["total_steps"], outputs["plan"]) == (2, 3, "")
    assert "2 of 3 steps were computed" in outputs["verdict"]
    for name in ("error_chart", "reuse_chart", "time_chart"):
        image = outputs[name]
        assert (image.shape, image.dtype) == ((1, 570, 1200, 3), torch.float32)
        assert 0.0 <= float(image.min()) < float(image.max()) <= 1.0


def test_report_gives_the_plan_as_text(nodes):
    result = nodes["report"].execute(1, stats_of(forecast("cr" * 10)))
    assert outputs_by_name(nodes["report"], result)["plan"] == "0 2/4"
    assert "Plan: 0 2/4 (automatic)" in "".join(result.ui["text"])


def test_report_tells_of_picture_and_sound(nodes):
    run = forecast("ccrc")
    run.steps[1].parts = {"picture": 0.04, "sound": 0.2}
    result = nodes["report"].execute("latent", stats_of(run))
    assert "Largest error of a forecast: picture 0.04, sound 0.2." in "".join(result.ui["text"])
    [told] = json.loads(outputs_by_name(nodes["report"], result)["json"])
    assert told["steps"][1]["parts"] == {"picture": 0.04, "sound": 0.2}


def test_what_was_measured_is_drawn_with_the_plans_beside_what_ran(nodes):
    from bwcache_pack.bwcache_core.planning import Planner
    from bwcache_pack.tests.core.test_prospects import TWENTY, knowledge

    run = forecast("c" + "r" * 19, planned="cr" * 10, steps_total=20, planner=Planner(knowledge(), TWENTY))
    result = nodes["report"].execute(1, stats_of(run))
    [plans] = result.ui["bwcache_plans"]
    assert [strip["name"] for strip in plans["strips"]] == ["automatic", "measured", "ran"]
    assert plans["strips"][2]["computed"] == [[0, 0]] and len(plans["sigmas"]) == 20
    json.dumps(plans, allow_nan=False)
    assert outputs_by_name(nodes["report"], result)["plan_chart"].shape[::3] == (1, 3)
    plain = nodes["report"].execute(1, stats_of(forecast("cr" * 10)))
    assert plain.ui["bwcache_plans"] == []


def test_no_speed_is_told_where_nothing_was_reused_or_another_cache_is_on_the_model(nodes):
    for run in (forecast("c" * 9), forecast("cr" * 9, rivals=["EasyCache"])):
        assert outputs_by_name(nodes["report"], nodes["report"].execute(1, stats_of(run)))["speedup"] == 1.0


def test_report_without_a_run_hands_on_and_says_why(nodes):
    replaced = RunStats()
    replaced.replaced = True
    for stats, words in ((None, "No cache on this run"), (RunStats(), "No run yet"), (replaced, "took the place")):
        outputs = outputs_by_name(nodes["report"], nodes["report"].execute("latent", stats))
        assert outputs["passthrough"] == "latent"
        assert words in outputs["verdict"]
        assert (outputs["json"], outputs["speedup"]) == ("[]", 1.0)


def test_every_report_shows_the_same_keys(nodes, monkeypatch):
    """ComfyUI joins what the items of a list show by the keys of the first, and fails where another lacks one."""
    from bwcache_pack.bwcache_core.planning import Planner
    from bwcache_pack.nodes.events import RunEvents
    from bwcache_pack.tests.core.test_prospects import TWENTY, knowledge

    planned = forecast("c" + "r" * 19, planned="cr" * 10, steps_total=20, planner=Planner(knowledge(), TWENTY))
    watched = stats_of(planned)
    watched.newest = RunEvents("7", planned)
    shown = []
    for pictures in ([torch.zeros(1, 8, 8, 3)] * 4, []):
        monkeypatch.setattr("bwcache_pack.nodes.report.charts", lambda run, plans, pictures=pictures: pictures)
        shown += [nodes["report"].execute(1, stats).ui for stats in (watched, stats_of(RUN), RunStats(), None)]
    assert [len(ui["images"]) for ui in shown] == [1, 1, 0, 0, 0, 0, 0, 0]
    assert [set(ui) for ui in shown] == [set(shown[0])] * len(shown)
    assert [(len(ui["bwcache_run"]), len(ui["bwcache_plans"])) for ui in shown] == [(1, 1), *[(0, 0)] * 3] * 2


def test_report_without_matplotlib_gives_everything_but_the_charts(nodes, monkeypatch, caplog):
    for name in list(sys.modules):
        if name.split(".")[0] == "matplotlib" or name == "bwcache_pack.nodes.charts":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level("WARNING"):
        result = nodes["report"].execute(1, stats_of(RUN))
    outputs = outputs_by_name(nodes["report"], result)
    assert "pip install matplotlib" in caplog.text
    assert "".join(result.ui["text"]).count("pip install matplotlib") == 1
    assert result.ui["images"] == []
    assert "2 of 3" in outputs["verdict"]
    assert outputs["error_chart"].shape == (1, 570, 1200, 3)
    assert 0 < float((outputs["error_chart"] > 0.5).float().mean()) < 0.2, "a dark picture with words on it"


def images(seed: int, frames: int = 3) -> torch.Tensor:
    return torch.rand(frames, 16, 24, 3, generator=torch.Generator().manual_seed(seed))


def latent(seed: int, frames: int = 3) -> dict:
    return {"samples": 4 * torch.randn(1, 16, frames, 8, 8, generator=torch.Generator().manual_seed(seed))}


def test_compare_measures_images(nodes):
    outputs = outputs_by_name(nodes["compare"], nodes["compare"].execute(images(0), (images(0) + 0.1)))
    assert outputs["psnr"] == pytest.approx(20.0, abs=1e-3)
    assert outputs["heat_map"].shape == (3, 16, 24, 3)
    assert "PSNR 20.0 dB" in outputs["summary"]


def test_compare_measures_latents_against_their_own_range(nodes):
    reference = latent(1)
    samples = reference["samples"]
    other = {"samples": samples + 0.1 * (samples.max() - samples.min())}
    outputs = outputs_by_name(nodes["compare"], nodes["compare"].execute(reference, other))
    assert outputs["psnr"] == pytest.approx(20.0, abs=1e-3)
    assert outputs["heat_map"].shape == (3, 64, 64, 3)
    assert "range of the latent" in outputs["summary"]


def test_compare_takes_picture_latents_and_equal_clips(nodes):
    flat = {"samples": torch.randn(2, 4, 8, 8)}
    outputs = outputs_by_name(nodes["compare"], nodes["compare"].execute(flat, flat, 0.0))
    assert (outputs["psnr"], outputs["ssim"]) == (100.0, pytest.approx(1.0))
    assert "No difference" in outputs["summary"]


@pytest.mark.parametrize(
    ("reference", "other", "message"),
    [
        (images(0), images(1, frames=2), "3 frames of 24 x 16 with 3 channels, other has 2 frames"),
        (images(0), latent(1), "reference is images, other is a latent"),
        (latent(0), latent(1, frames=2), "Sample both at the same size and length"),
        (latent(0), {"samples": torch.zeros(1, 8, 100)}, "other is a latent that is no picture"),
    ],
    ids=["frames", "kinds", "lengths", "sound"],
)
def test_compare_says_what_does_not_fit(nodes, reference, other, message):
    with pytest.raises(ValueError, match=message):
        nodes["compare"].execute(reference, other)


def test_the_preview_of_a_long_clip_is_limited(nodes):
    result = nodes["compare"].execute(images(0, 40), images(1, 40))
    assert len(result.args[0]) == 40
    assert 5 <= len(result.ui["images"]) <= 9
