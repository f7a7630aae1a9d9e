"""What a run of a block mode holds, what was said about it before, and what ComfyUI was told."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.config import CPU, GPU
from bwcache_pack.bwcache_core.paper.block_mode import ConditionShape
from bwcache_pack.bwcache_core.paper.memory import GIB, MIB
from bwcache_pack.bwcache_core.paper.placement import Room
from bwcache_pack.nodes import memory
from bwcache_pack.tests.hosts.instances import INSTANCES, SmallLab, supported_class
from bwcache_pack.tests.hosts.lab import FORCED, difference
from bwcache_pack.tests.hosts.test_blocks_other_models import HOOKED

HELD = {"paper": {"mode": "paper"}, "few blocks": {"mode": "paper", "monitor_every": 3}, "per block": {"mode": "per block"}}


def check_estimate(report) -> None:
    """The estimate is what is held. The device was asked for that, and in "per block" for one block's inputs too."""
    assert report.cache_bytes == report.estimate_bytes > 0
    passing = report.reserved_bytes - report.cache_bytes
    assert (0 < passing < report.cache_bytes) if report.mode == "per block" else passing == 0


@pytest.mark.parametrize("settings", HELD.values(), ids=HELD)
def test_the_estimate_before_the_run_is_what_is_held(lab, settings):
    """From shapes alone, before anything was loaded."""
    cached = lab.cached(**settings)
    lab.sample(cached.model)
    check_estimate(cached.report)


@pytest.mark.comfyui
@pytest.mark.parametrize("name", HOOKED)
def test_other_models_are_estimated_by_the_first_evaluation(comfyui, name):
    """Of some, nobody knows before the run how many tokens their features have."""
    if supported_class(INSTANCES[name]) is None:
        pytest.skip(f"this ComfyUI has no {INSTANCES[name].supported}")
    small = SmallLab(comfyui, name)
    for settings in HELD.values():
        cached = small.cached(**settings)
        small.sample(cached.model)
        assert cached.report.cache_bytes == cached.report.estimate_bytes > 0


REQUESTS = [{"batch": 2}, {"cfg": 1.0}, {"size": 6, "frames": 3}]


@pytest.mark.family("wan21_t2v", "hunyuan")
@pytest.mark.parametrize("settings", HELD.values(), ids=HELD)
@pytest.mark.parametrize("asked", REQUESTS, ids=str)
def test_the_estimate_follows_batch_guidance_and_size(lab, settings, asked):
    noise = lab.noise(batch=asked.get("batch", 1), size=asked.get("size", 4), frames=asked.get("frames", 5))
    cached = lab.cached(**settings)
    lab.sample(cached.model, noise=noise, cfg=asked.get("cfg", 4.0))
    check_estimate(cached.report)


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("settings", HELD.values(), ids=HELD)
def test_a_second_evaluation_of_a_step_holds_no_more(lab, settings):
    cached = lab.cached(**settings)
    lab.sample(cached.model, sampler="heun")
    check_estimate(cached.report)


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("settings", HELD.values(), ids=HELD)
def test_every_context_window_is_counted(lab, settings):
    """9 frames in windows of 4 that overlap by 1: three windows of two prompts."""
    windows = {"context_length": 13, "context_overlap": 4, "context_schedule": "standard_static", "context_stride": 1,
               "closed_loop": False, "fuse_method": "pyramid", "freenoise": False}
    model = lab.host.node("nodes_context_windows", "WanContextWindowsManualNode", model=lab.plain, **windows)
    cached = lab.cached(model, **settings)
    lab.sample(cached.model, noise=lab.noise(frames=9), prompts=lab.prompts())
    check_estimate(cached.report)


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_an_area_is_known_from_the_first_evaluation_on(lab):
    """It is smaller than the latent, and the negative prompt gets a copy of it: nobody knows before."""
    text = torch.randn(1, 7, lab.recipe.text, generator=torch.Generator().manual_seed(1))
    positive, negative = lab.prompts()
    area = lab.host.prompt(lab.family, text, 5, 4, area=(2, 2, 0, 0))
    cached = lab.cached(**HELD["paper"])
    lab.sample(cached.model, prompts=(positive + area, negative))
    report = cached.report
    assert report.cache_bytes == report.estimate_bytes != report.reserved_bytes


class Asked:
    """Notes what ComfyUI asks of its memory management when a run is prepared."""

    def __init__(self, monkeypatch) -> None:
        self.calls: list[tuple[float, float]] = []
        management = sys.modules["comfy.model_management"]
        load = management.load_models_gpu

        def note(models, memory_required=0, *args, minimum_memory_required=None, **kwargs):
            self.calls.append((memory_required, minimum_memory_required))
            return load(models, memory_required, *args, minimum_memory_required=minimum_memory_required, **kwargs)

        monkeypatch.setattr(management, "load_models_gpu", note)


@pytest.mark.comfyui
@pytest.mark.parametrize("settings", HELD.values(), ids=HELD)
def test_comfyui_makes_room_for_the_cache(lab, settings, monkeypatch):
    """Its minimum, which decides how many weights stay on the device, grows by the bytes reserved, or a column of the latent
    more; nothing else changes."""
    monkeypatch.setattr(memory, "SMALL", 0)
    asked = Asked(monkeypatch)
    plain = lab.sample(lab.plain)
    off = lab.cached(**{**settings, "threshold": 0.0})
    assert difference(lab.sample(off.model), plain) == 0.0
    (required, minimum), (with_cache, minimum_with_cache) = asked.calls
    reserved, column = off.report.reserved_bytes, minimum / lab.noise().shape[-1]
    assert 0.999999 * reserved <= minimum_with_cache - minimum <= reserved + column
    assert with_cache - required >= 0.999999 * reserved > 0


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("settings", [*HELD.values(), {"mode": "forecast"}], ids=[*HELD, "forecast"])
def test_comfyui_is_told_nothing_of_what_its_estimates_are_off_by(lab, settings, monkeypatch):
    """As small as here. Forecast mode keeps latents only, and never tells."""
    asked = Asked(monkeypatch)
    lab.sample(lab.plain)
    lab.sample(lab.cached(**settings).model)
    assert asked.calls[0] == asked.calls[1]


@pytest.mark.parametrize("extra", [1, 10**6, 70 * MIB, 5 * GIB])
def test_a_larger_noise_shape_is_of_whole_numbers(extra):
    """Other packs take them for a shape. A column of this latent stands for 8 MiB."""
    def required(shape) -> float:
        return shape[0] * torch.Size(shape[2:]).numel() * 1024.0

    patcher = SimpleNamespace(model=SimpleNamespace(memory_required=required))
    shape = memory.enlarged([1, 16, 21, 60, 104], extra, patcher)
    assert all(isinstance(size, int) for size in shape) and shape[:-1] == [1, 16, 21, 60]
    assert extra <= required(shape) - required([1, 16, 21, 60, 104]) <= extra + 21 * 60 * 1024.0


GPU_WITHOUT_ROOM = Room(spare=0, host=64 * GIB)
CASES = [
    # settings, device, the first words of why
    (HELD["paper"], CPU, "features would take"),
    (HELD["per block"], CPU, "residuals of all blocks would take"),
    ({**HELD["paper"], "cache_device": "gpu"}, GPU, ""),
    ({**HELD["paper"], "cache_device": "cpu"}, CPU, ""),
]


@pytest.mark.family("wan21_t2v", "hunyuan")
@pytest.mark.parametrize(("settings", "device", "why"), CASES)
def test_a_run_caches_where_there_is_room(lab, settings, device, why, monkeypatch):
    """As on a GPU without a byte to spare. Here both are the processor's memory, and nothing is pinned."""
    monkeypatch.setattr(memory, "room_beside", lambda *args: GPU_WITHOUT_ROOM)
    monkeypatch.setattr("bwcache_pack.bwcache_core.paper.placement.SMALL", 0)
    cached = lab.cached(**settings)
    lab.sample(cached.model)
    report = cached.report
    assert report.cache_device == device
    assert report.placement.startswith(why)
    assert bool(report.placement) == bool(why)
    assert report.cache_bytes <= report.estimate_bytes
    assert (report.reserved_bytes < report.cache_bytes) == (device == CPU)  # samples stay on the device


@pytest.mark.parametrize("mode", ["paper", "per block"])
@pytest.mark.family("wan21_t2v", "hunyuan")
def test_host_memory_gives_the_same_bits(lab, mode, monkeypatch):
    """Also where the model's device has memory of its own; here both are the processor's."""
    monkeypatch.setattr(memory, "room_beside", lambda *args: Room())
    settings = {**FORCED, "mode": mode}
    on_device = lab.cached(**settings, cache_device="gpu")
    on_host = lab.cached(**settings, cache_device="cpu")
    assert difference(lab.sample(on_device.model), lab.sample(on_host.model)) == 0.0
    assert on_device.actions == on_host.actions
    assert "compute" in on_host.actions[:3]
    assert on_host.report.blocks_reused > 0
    assert (on_device.report.cache_device, on_host.report.cache_device) == (GPU, CPU)


@pytest.mark.family("wan21_t2v", "hunyuan")
@pytest.mark.parametrize("known", [True, False], ids=["before the run", "after the first evaluation"])
def test_over_budget_a_run_is_not_cached(lab, known, monkeypatch):
    """Residuals of 4 blocks of 720 tokens: 1.4 MiB a prompt. The result is the plain one, with one warning."""
    if not known:
        monkeypatch.setattr(memory, "block_shape", lambda row, *args: ConditionShape(row))
    request = {"noise": lab.noise(frames=5, size=24)}
    cached = lab.cached(mode="per block", threshold=1.0, max_cache_mb=1)
    assert difference(lab.sample(cached.model, **request), lab.sample(lab.plain, **request)) == 0.0
    report = cached.report
    assert report.blocks_reused == 0
    assert [warning for warning in report.warnings if "over max_cache_mb 1" in warning] == report.warnings
    assert (max(step.cache_bytes for step in report.steps[known:]) > MIB) == (not known)
    assert [step.cache_bytes for step in report.steps[1:]] == [0] * (len(report.steps) - 1)


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_a_comfyui_that_cannot_be_asked_is_no_obstacle(lab, monkeypatch, caplog):
    """Another version, another guider: the run is cached as set, with one word of warning."""
    def changed(*args):
        raise AttributeError("module 'comfy.model_management' has no attribute 'get_free_memory'")

    monkeypatch.setattr(memory, "room_beside", changed)
    cached = lab.cached(**HELD["paper"])
    assert torch.isfinite(lab.sample(cached.model)).all()
    assert cached.report.cache_device == GPU
    assert len([r for r in caplog.records if "cannot tell how much memory is free" in r.message]) == 1


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_without_the_hook_that_prepares_sampling_runs_are_cached_all_the_same(lab):
    cached = lab.cached(**FORCED)
    cached.model.remove_wrappers_with_key("prepare_sampling", "bwcache")
    lab.sample(cached.model)
    assert cached.report.evaluations_reused == 2


class Weights:
    """A ModelPatcher for a device, whose weights lie there, elsewhere, or are still to be loaded."""

    def __init__(self, count: int, load_device: str = "cuda:0", lies: str = "cpu", patches=()) -> None:
        module = torch.nn.Module()
        module.parameters = lambda: [SimpleNamespace(nbytes=count, device=torch.device(lies))]
        self.model, self.count, self.patches = module, count, list(patches)
        self.load_device = torch.device(load_device)

    def model_size(self) -> int:
        return self.count

    def model_patches_models(self) -> list:
        return self.patches


def management_of(*loaded) -> SimpleNamespace:
    return SimpleNamespace(
        get_free_memory=lambda device: 100 * GIB, current_loaded_models=loaded, extra_reserved_memory=lambda: GIB,
        minimum_inference_memory=lambda: 2 * GIB,
    )  # fmt: skip


def test_room_on_a_device_is_what_weights_and_inference_leave():
    spare = memory.spare_on(torch.device("cuda:0"), management_of(), [Weights(28 * GIB)], 5 * GIB)
    assert spare == (100 - 28 - 5 - 1) * GIB
    assert memory.spare_on(torch.device("cuda:0"), management_of(), [Weights(0)], 0) == 98 * GIB, "the least that it keeps free"


def test_weights_that_are_loaded_already_have_their_room():
    loaded = SimpleNamespace(device=torch.device("cuda:0"), model=Weights(20 * GIB), model_loaded_memory=lambda: 20 * GIB)
    dynamic = SimpleNamespace(**{**vars(loaded), "model": SimpleNamespace(is_dynamic=lambda: True)})
    management = management_of(loaded, dynamic, SimpleNamespace(**{**vars(loaded), "device": torch.device("cpu")}))
    spare = memory.spare_on(torch.device("cuda:0"), management, [loaded.model], 5 * GIB)
    assert spare == (100 + 20 - 20 - 5 - 1) * GIB, "what is streamed counts as free already"


def test_models_beside_the_runs_own_need_room_too_where_they_are_for_its_device():
    models = [Weights(28 * GIB), Weights(3 * GIB), Weights(9 * GIB, load_device="cpu")]
    assert memory.spare_on(torch.device("cuda:0"), management_of(), models, 5 * GIB) == (100 - 28 - 3 - 5 - 1) * GIB


@pytest.mark.parametrize(("lies", "needed"), [("cpu", 28), ("cuda:0", 28), ("meta", 28), ("cuda:1", 0), ("xpu:0", 0)])
def test_weights_that_a_pack_spread_over_accelerators_need_no_room_here(lies, needed):
    """Those on the host may only be waiting for their turn."""
    weights = Weights(28 * GIB, lies=lies)
    assert memory.weights_on(torch.device("cuda:0"), weights) == needed * GIB


class Net:
    """A control net."""

    def __init__(self, models: list) -> None:
        self.models = models

    def get_models(self) -> list:
        return self.models

    def inference_memory_requirements(self, dtype) -> float:
        return 7.0


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_every_model_that_a_run_loads_is_counted(lab):
    """Its own, a model patch, a control net, and what a control net needs while it runs."""
    plain = lab.plain
    patch, control = plain.clone(), plain.clone()
    patched = plain.clone()
    patched.set_model_patch(SimpleNamespace(models=lambda: [patch]), "attn2_patch")
    guider = lab.guider(patched)
    net = Net([control])
    guider.conds = {name: [{"control": net}] for name in ("positive", "negative")}
    models, inference = memory.models_of(guider)
    assert [id(model) for model in models] == [id(patched), id(control), id(patch)]
    assert inference == 7.0


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_a_processor_has_one_place(lab):
    room = memory.room_beside(lab.guider(lab.plain), [1, 16, 5, 4, 4])
    assert room.devices == (CPU,) and room.host > 0


@pytest.mark.comfyui
def test_comfyui_grants_pinned_memory_within_its_budget(comfyui, monkeypatch):
    """Through its own function: on a CPU its budget is none. What it grants, it is given back."""
    account, tensor = memory.pins(), torch.zeros(8)
    assert account.pin(tensor) is False
    management = sys.modules["comfy.model_management"]
    calls = []
    monkeypatch.setattr(management, "pin_memory", lambda tensor: calls.append("pin") or True)
    monkeypatch.setattr(management, "unpin_memory", lambda tensor: calls.append("unpin") or True)
    assert account.pin(tensor) is True
    account.unpin(tensor)
    assert calls == ["pin", "unpin"]


@pytest.mark.comfyui
@pytest.mark.family("wan21_t2v")
def test_a_run_asks_comfyuis_account(lab):
    cached = lab.cached(**HELD["paper"])
    seen = []
    cached.model.add_wrapper_with_key("predict_noise", "seen", lambda executor, *args, **kwargs: (
        seen.append(executor.class_obj.model_options["transformer_options"]["bwcache"].pins), executor(*args, **kwargs))[1])
    lab.sample(cached.model)
    assert {type(each) for each in seen} == {memory.ComfyPins}
