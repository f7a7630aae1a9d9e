"""BWCache Calibrate inside ComfyUI: the latent of SamplerCustomAdvanced, one progress bar, errors before anything runs."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.bwcache_core.calibration import CalibrationError
from bwcache_pack.bwcache_core.plan import automatic
from bwcache_pack.bwcache_core.schedule import schedule_of
from bwcache_pack.tests.hosts.lab import Lab, difference
from bwcache_pack.tests.hosts.test_nodes import execute

pytestmark = pytest.mark.comfyui
SETTINGS = {"first_seed": 3, "seeds": 1, "speedups": "2", "trials": 1, "choose": "2x"}


@pytest.fixture(autouse=True)
def folders(comfyui, tmp_path, monkeypatch):
    import folder_paths

    from bwcache_pack.bwcache_core import measure

    for kind in ("user", "temp"):
        monkeypatch.setattr(folder_paths, f"get_{kind}_directory", lambda kind=kind: str(tmp_path / kind))
    monkeypatch.setattr(measure, "SWINGING", 1.0)  # an untrained model swings from step to step
    return tmp_path / "user" / "bwcache" / "plans"


@pytest.fixture
def wan(comfyui) -> Lab:
    return Lab(comfyui, "wan21_t2v")


@pytest.fixture
def node(comfyui):
    from bwcache_pack.nodes.calibrate import BWCacheCalibrate

    return BWCacheCalibrate


def inputs_of(lab: Lab, sampler: str = "euler", steps: int = 8, latent: dict | None = None) -> dict:
    empty = {"samples": torch.zeros(1, lab.recipe.channels, 5, 4, 4)}
    return {"guider": lab.guider(lab.plain), "sampler": lab.host.samplers.sampler_object(sampler),
            "sigmas": lab.sigmas(steps=steps, sampler=sampler), "latent_image": latent or empty}  # fmt: skip


def calibrated(node, inputs: dict, **settings) -> dict:
    with torch.inference_mode():
        result = execute(node, **inputs, **SETTINGS | settings)
    names = [output.display_name for output in node.define_schema().outputs]
    return {**dict(zip(names, result.args, strict=True)), "ui": result.ui}


def sampled(inputs: dict, seed: int) -> torch.Tensor:
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

    with torch.inference_mode():
        return SamplerCustomAdvanced.execute(Noise_RandomNoise(seed), **inputs).args[0]["samples"]


def masked(lab: Lab) -> dict:
    """An image to change, in part."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(1, 1, 5, 4, 4)
    mask[:, :, :2] = 0.0
    samples = torch.randn(2, lab.recipe.channels, 5, 4, 4, generator=generator)
    return {"samples": samples, "noise_mask": mask, "batch_index": [4, 7]}


@pytest.mark.parametrize("kind", ["empty", "masked"])
def test_the_latent_is_that_of_sampler_custom_advanced(wan, node, kind):
    inputs = inputs_of(wan, latent=masked(wan) if kind == "masked" else None)
    outputs = calibrated(node, inputs)
    assert difference(outputs["latent"]["samples"], sampled(inputs, seed=3)) == 0.0
    assert outputs["latent"].keys() == inputs["latent_image"].keys()
    assert difference(sampled(inputs, seed=3), outputs["latent"]["samples"]) == 0.0, "nothing stays on the guider"


def test_what_comes_out_is_what_other_nodes_take(wan, node, folders):
    from bwcache_pack.nodes.apply import BWCacheApply
    from bwcache_pack.nodes.report import BWCacheReport

    outputs = calibrated(node, inputs_of(wan), speedups="1.5 2", seeds=2, choose="1.5x")
    plan = outputs["plan"]
    assert plan.endswith("/8@8") and f"1.5x: {plan}" in outputs["plans"].splitlines()
    assert outputs["chart"].shape[::3] == (1, 3) and 0 <= float(outputs["chart"].min()) < float(outputs["chart"].max()) <= 1
    assert "Chosen: 1.5x" in outputs["table"] and plan in outputs["table"] and len(list(folders.iterdir())) == 1
    assert "Chosen: 1.5x" in "".join(outputs["ui"]["text"])
    told = BWCacheReport.execute(1, outputs["stats"])
    assert told.args[2] == plan and "tried by BWCache Calibrate" in "".join(told.ui["text"])
    custom = {"mode": "forecast", "plan": {"plan": "custom", "steps": plan}}
    model, stats = execute(BWCacheApply, model=wan.plain, mode=custom).args
    wan.sample(model)
    assert stats.runs[-1].plan == plan


def test_one_progress_bar_over_all_runs(wan, node, monkeypatch):
    """In computed steps: 8 and 8 uncached, then at most 4 of each of four plans."""
    import comfy.utils

    shown = []
    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", lambda bar, *told: shown.append(told[:2]))
    inputs = inputs_of(wan)
    calibrated(node, inputs)
    first = automatic(schedule_of(inputs["sigmas"].tolist()), 2.0).computes
    values = [value for value, _ in shown]
    assert {total for _, total in shown} == {8 + 8 + 4 * 4}
    assert values[:16] == list(range(1, 17))
    assert values[16:24] == [16 + sum(place <= step for place in first) for step in range(8)]


@pytest.mark.parametrize(("steps", "sampler"), [(3, "euler"), (4, "heun"), (16, "uni_pc"), (9, "euler_ancestral")])
def test_the_progress_bar_never_goes_back_nor_over_its_end(wan, node, monkeypatch, steps, sampler):
    """Few steps at a high speed-up compute more of them than it says."""
    import comfy.utils

    shown = []
    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", lambda bar, *told: shown.append(told[:2]))
    calibrated(node, inputs_of(wan, sampler, steps), speedups="10", choose="10x")
    values, [total] = [value for value, _ in shown], {total for _, total in shown}
    assert values == sorted(values) and values[-1] <= total


def test_the_cost_is_told_before_anything_runs(wan, node, monkeypatch, caplog):
    from bwcache_pack.nodes import calibrate

    class Server:
        client_id = "me"

        def __init__(self):
            self.told = []

        def send_progress_text(self, text, node_id, sid):
            self.told.append((text, node_id, sid))

    server = Server()
    monkeypatch.setattr(calibrate, "running_server", lambda: server)
    with caplog.at_level("INFO"):
        calibrated(node, inputs_of(wan))
    cost = "At most 4.0 times an uncached run of 8 steps"
    first = next(record.message for record in caplog.records if "BWCache" in record.message)
    assert cost in first
    assert cost in server.told[0][0] and "uncached, measured: seed 3" in server.told[0][0]
    assert server.told[0][1:] == ("12:7", "me")
    assert server.told[-1][0].endswith("Done.")
    assert "2x, automatic plan: seed 4" in "".join(text for text, *_ in server.told)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"speedups": "fast"}, "'fast'"), ({"choose": "3x"}, "not tried"), ({"choose": "best"}, "at least 35 dB")],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(node, given, words):
    with pytest.raises(CalibrationError, match=words):
        node.validate_inputs(**{"speedups": "2", "choose": "2x"} | given)
    assert node.validate_inputs("2", None) is True
    with pytest.raises(CalibrationError, match=words):
        execute(node, guider=None, sampler=None, sigmas=None, latent_image=None, **SETTINGS | given)


@pytest.mark.parametrize("sigmas", [[], [1.0]])
def test_without_a_step_it_says_so(wan, node, sigmas):
    """BasicScheduler at denoise 0 gives no sigma at all."""
    with pytest.raises(CalibrationError, match=f"sigmas has {len(sigmas)} noise levels"):
        calibrated(node, {**inputs_of(wan), "sigmas": torch.tensor(sigmas)})


def test_without_matplotlib_all_but_the_chart_is_there(wan, node, monkeypatch):
    from bwcache_pack.nodes import calibrate

    monkeypatch.setattr(calibrate, "chart", lambda outcome: None)
    outputs = calibrated(node, inputs_of(wan))
    assert "pip install matplotlib" in "".join(outputs["ui"]["text"]) and outputs["ui"]["images"] == []
    assert outputs["chart"].shape[-1] == 3
