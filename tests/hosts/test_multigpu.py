"""ComfyUI's own multi-GPU: every device has a clone of the model, and the conditions run on them in threads.

Two devices of a CPU, "cpu" and "cpu:1": all that ComfyUI is told is that there are two. Its node makes the clone, its
sampling starts the threads and hands out the conditions.
"""

from __future__ import annotations

import importlib
import threading

import pytest
import torch

from bwcache_pack.nodes.families import block_layout
from bwcache_pack.tests.hosts.lab import FORCED, difference

pytestmark = [pytest.mark.comfyui, pytest.mark.family("wan21_t2v", "hunyuan")]
MODES = {
    "uncached": {**FORCED, "threshold": 0.0},
    "paper": FORCED,
    "per block": {**FORCED, "mode": "per block"},
    "forecast": {"plan": "0-1 4/8", "threshold": 10.0},
}
DEVICES = [torch.device("cpu"), torch.device("cpu", 1)]


class TwoDevices:
    """A model on two devices, and where its conditions ran: (thread, module, conditions) by model call."""

    def __init__(self, lab, model, multigpu) -> None:
        self.lab = lab
        self.model = multigpu.create_multigpu_deepclones(model, 2)
        self.calls: list[tuple[int, int, tuple[int, ...]]] = []
        self.evaluations = 0
        self.swapped_from = 10_000
        self.model.add_wrapper_with_key("predict_noise", "two devices", self._count)
        self.model.add_wrapper_with_key("calc_cond_batch", "two devices", self._order_devices)
        self.model.add_wrapper_with_key("diffusion_model", "two devices", self._note)

    def _count(self, executor, *args, **kwargs):
        self.evaluations += 1
        return executor(*args, **kwargs)

    def _order_devices(self, executor, model, conds, x, timestep, model_options):
        """Conditions are handed out in the order of the devices: turned round, cond runs where uncond was before."""
        if self.evaluations > self.swapped_from:
            clones = model_options["multigpu_clones"]
            model_options = {**model_options, "multigpu_clones": dict(reversed(clones.items()))}
        return executor(model, conds, x, timestep, model_options)

    def _note(self, executor, *args, **kwargs):
        options = next(a for a in reversed(args) if isinstance(a, dict))
        self.calls.append((threading.get_ident(), id(executor.class_obj), tuple(options["cond_or_uncond"])))
        return executor(*args, **kwargs)

    def sample(self, **request) -> torch.Tensor:
        self.calls.clear()
        self.evaluations = 0
        return self.lab.sample(self.model, **request)


@pytest.fixture
def multigpu(lab, monkeypatch):
    try:
        module = importlib.import_module("comfy.multigpu")
    except ModuleNotFoundError:
        pytest.skip(f"ComfyUI {lab.host.version} has no comfy.multigpu: it came with 0.23")
    management = importlib.import_module("comfy.model_management")
    monkeypatch.setattr(management, "get_all_torch_devices", lambda exclude_current=False: DEVICES)
    return module


def one_thread(lab, settings: dict):
    """The same run on one device, cond and uncond one after the other: its cache and its latents."""
    cached = lab.cached(**settings)
    return cached, lab.sample(cached.model, one_by_one=lambda i: True)


def figures(cached) -> list[tuple]:
    steps = cached.report.steps
    return [
        (s.action, s.reason, s.change, s.error, s.jump, s.conditions, s.block_changes, s.blocks_run, s.calls_run) for s in steps
    ]


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
def test_two_devices_sample_what_one_does(lab, multigpu, settings):
    """To the bit, twice, with equal reports: one decision for both threads, and what a condition keeps is its own."""
    expected, latents = one_thread(lab, settings)
    cached = lab.cached(**settings)
    two = TwoDevices(lab, cached.model, multigpu)
    for _ in range(2):
        assert difference(two.sample(), latents) == 0.0
        assert figures(cached) == figures(expected)
        assert list(cached.report.steps[-1].conditions) == list(expected.report.steps[-1].conditions)
    assert ("reuse" in cached.actions) == (settings != MODES["uncached"])
    threads = {(thread, module) for thread, module, _ in two.calls}
    assert len(threads) == 2 and threading.get_ident() not in {thread for thread, _ in threads}
    assert {conditions for _, _, conditions in two.calls} == {(0,), (1,)}
    if settings == MODES["forecast"]:
        assert len(two.calls) == 2 * 3, "no device runs in a reused evaluation"


def test_a_condition_that_moves_to_the_other_device_is_computed(lab, multigpu):
    """Steps 3 and 4 would be reused. The devices change places at step 4, so it computes, as if the window had ended."""
    window = {**FORCED, "start_step": 3, "end_step": 4}
    _, latents = one_thread(lab, {**window, "end_step": 3})
    cached = lab.cached(**window)
    two = TwoDevices(lab, cached.model, multigpu)
    two.swapped_from = 4
    assert difference(two.sample(), latents) == 0.0
    assert [cached.actions[3], cached.actions[4]] == ["reuse", "compute"]
    assert cached.report.steps[4].reason == "a condition holds no features that fit"
    assert not cached.report.faults
    assert {(module, conditions) for _, module, conditions in two.calls[:2]} != {
        (module, conditions) for _, module, conditions in two.calls[-2:]
    }


@pytest.mark.parametrize("mode", ["paper", "forecast"])
def test_a_thread_that_raises_ends_the_run_and_leaves_nothing(lab, multigpu, mode):
    """The interrupt of ComfyUI is no Exception, and it is raised inside a block."""
    cached = lab.cached(**MODES[mode])
    two = TwoDevices(lab, cached.model, multigpu)
    latents, before = two.sample(), figures(cached)
    clone = two.model.get_additional_models_with_key("multigpu")[0].get_model_object("diffusion_model")
    last = [block for name in lab.recipe.attributes for block in getattr(clone, name)][-1]

    def interrupt(*_) -> None:
        if two.evaluations > 4:
            raise lab.host.Interrupt

    handle = last.register_forward_hook(interrupt)
    try:
        with pytest.raises(lab.host.Interrupt):
            two.sample()
    finally:
        handle.remove()
    assert not cached.report.finished
    assert difference(two.sample(), latents) == 0.0
    assert figures(cached) == before


@pytest.mark.parametrize("mode", ["paper", "forecast"])
def test_attaching_after_the_split_is_the_same(lab, multigpu, mode):
    """BWCache Apply may stand before or after ComfyUI's node."""
    expected, latents = one_thread(lab, MODES[mode])
    split = multigpu.create_multigpu_deepclones(lab.plain, 2)
    cached = lab.cached(split, **MODES[mode])
    assert difference(lab.sample(cached.model), latents) == 0.0
    assert figures(cached) == figures(expected)
    if mode == "paper":
        assert cached.report.block_count == block_layout(lab.module()).block_count
