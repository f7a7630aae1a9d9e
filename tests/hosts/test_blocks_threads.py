"""Conditions in threads, each on a clone of the model, as ComfyUI runs them on several devices: at any pace, the same."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.paper.stream import Stream
from bwcache_pack.hosts import embedded as tiny
from bwcache_pack.tests.hosts.lab import Lab, difference
from bwcache_pack.tests.hosts.test_blocks_faults import SETTINGS
from bwcache_pack.zoo.sampling import schedule

STEPS, RUNS = 8, 5


@pytest.fixture
def own(embedded):
    """The embedded host alone: ComfyUI's own threads are in test_multigpu.py."""
    return Lab(embedded, "wan21_t2v")


class ClonesGuider(tiny.TinyGuider):
    """Each condition on a module of its own, in a thread of its own. threads: False runs one after the other."""

    def __init__(self, model, modules: list, threads: bool) -> None:
        super().__init__(model)
        self.modules, self.threads = modules, threads

    def predict_noise(self, x, timestep, model_options, seed=None) -> torch.Tensor:
        denoised, errors = {}, []

        def run(condition) -> None:
            on_its_own = copy.copy(self)
            on_its_own.model_patcher = SimpleNamespace(diffusion_model=self.modules[condition.index])
            try:
                with torch.no_grad():  # a thread is not in the inference mode of the one that started it
                    velocity = on_its_own.apply_model([condition], x, timestep, model_options)
                denoised[condition.index] = x - velocity * timestep.view(-1, 1, 1, 1, 1)
            except Exception as error:
                errors.append(error)

        workers = [threading.Thread(target=run, args=(condition,)) for condition in self.conditions]
        for worker in workers:
            worker.start()
            if not self.threads:
                worker.join()
        for worker in workers:
            worker.join()
        assert errors == []
        return denoised[tiny.UNCOND] + (denoised[tiny.COND] - denoised[tiny.UNCOND]) * self.cfg


@pytest.fixture
def modules(own):
    """Two copies of the model whose blocks take a moment, never the same one."""
    copies, pace = [copy.deepcopy(own.module()) for _ in range(2)], itertools.cycle((0.0, 0.0013, 0.0004, 0.002, 0.0007))
    for module in copies:
        for block in module.blocks:
            block.register_forward_hook(lambda *_: time.sleep(next(pace)))
    return copies


def sample(own, model, modules: list, threads: bool) -> torch.Tensor:
    guider = ClonesGuider(model, modules, threads)
    guider.set_conds(*own.prompts())
    guider.set_cfg(4.0)
    noise = own.noise()
    return guider.sample(noise, torch.zeros_like(noise), tiny.SAMPLERS["euler"], schedule(STEPS))


def figures(report) -> list[tuple]:
    return [(s.action, s.reason, s.change, s.blocks_run, s.blocks_total, s.reused_blocks, s.cache_bytes)
            for s in report.steps]


@pytest.mark.parametrize("mode", SETTINGS)
def test_threads_at_any_pace_sample_and_report_what_one_does(own, modules, mode):
    alone = own.cached(**SETTINGS[mode])
    expected = sample(own, alone.model, modules, threads=False)
    assert alone.report.evaluations_reused > 0
    threaded = own.cached(**SETTINGS[mode])
    for _ in range(RUNS):
        assert difference(sample(own, threaded.model, modules, threads=True), expected) == 0.0
        assert figures(threaded.report) == figures(alone.report)
        assert threaded.report.warnings == alone.report.warnings


@pytest.mark.parametrize("call", [0, 1, 3, 5])
def test_an_error_of_ours_in_one_thread_is_none_in_the_other(own, modules, monkeypatch, call):
    """The store of one condition fails in an evaluation that computes: from the next one on the run is the plain one."""
    original, calls, lock = Stream.keep_features, [], threading.Lock()

    def failing(*args):
        with lock:
            calls.append(1)
            now = len(calls) == call + 1
        if now:
            raise torch.OutOfMemoryError
        original(*args)

    settings = SETTINGS["paper"]
    plain = sample(own, own.plain, modules, threads=False)
    monkeypatch.setattr(Stream, "keep_features", failing)
    cached = own.cached(**settings)
    out = sample(own, cached.model, modules, threads=True)
    monkeypatch.undo()
    [warning] = cached.report.warnings
    assert "gave up" in warning
    at = next(step.evaluation for step in cached.report.steps if "gave up" in step.reason)
    assert {step.action for step in cached.report.steps[at:]} == {"compute"}
    assert cached.report.blocks_total == 2 * STEPS * cached.report.block_count
    if not cached.report.evaluations_reused:
        assert difference(out, plain) == 0.0
    else:
        until = own.cached(**{**settings, "end_step": at - 1})
        assert difference(out, sample(own, until.model, modules, threads=False)) == 0.0
