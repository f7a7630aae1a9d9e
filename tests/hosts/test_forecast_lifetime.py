"""Nothing outlives a run of the forecast mode, however it ended; an error of ours costs the run its cache, no more."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref

import pytest
import torch

from bwcache_pack.bwcache_core import run as forecast_run
from bwcache_pack.bwcache_core import track
from bwcache_pack.bwcache_core.run import ForecastRun
from bwcache_pack.bwcache_core.track import Scale, Track
from bwcache_pack.nodes import attach as attaching
from bwcache_pack.tests.hosts.lab import STEPS, difference
from bwcache_pack.tests.hosts.spy import held_tensors

pytestmark = pytest.mark.family("wan21_t2v")
SETTINGS = {"plan": "0-1 3 5/8", "threshold": 10.0}  # reuses steps 2, 4, 6 and 7


class Watched:
    """A guider over a cached model, with a watcher on each side of the cache. at: called with it inside each evaluation."""

    def __init__(self, lab, at=lambda watched: None) -> None:
        self.lab, self.at = lab, at
        self.options: list[dict] = []
        self.evaluation, self.latent = -1, None
        self.run_state = lambda: None  # a weak reference, once there is one
        outside = lab.plain
        outside.add_wrapper_with_key("outer_sample", "outermost", self._outer_sample)
        outside.add_wrapper_with_key("predict_noise", "outermost", self._count)
        self.cached = lab.cached(outside, **SETTINGS)
        inside = self.cached.model.clone()
        inside.add_wrapper_with_key("predict_noise", "inside", self._inside)
        self.guider = lab.guider(inside)

    def _outer_sample(self, executor, *args, **kwargs):
        self.evaluation = -1
        self.options.append(executor.class_obj.model_options)
        try:
            return executor(*args, **kwargs)
        finally:
            self.options.append(executor.class_obj.model_options)

    def _count(self, executor, *args, **kwargs):
        self.evaluation += 1
        return executor(*args, **kwargs)

    def _inside(self, executor, *args, **kwargs):
        run = executor.class_obj.model_options["transformer_options"]["bwcache"]
        self.run_state, self.latent = weakref.ref(run), args[0]
        result = executor(*args, **kwargs)
        self.at(self)
        return result

    def held(self) -> list[weakref.ref]:
        """What the run holds beside the latent that the sampler handed it."""
        return [tensor for tensor in held_tensors(self.run_state()) if tensor() is not self.latent]

    def run(self, callback=None) -> torch.Tensor:
        return self.lab.host.run(self.guider, self.lab.noise(), self.lab.sigmas(), "euler", callback)


def fresh(lab) -> torch.Tensor:
    """Latents of a run on a model that was never cached before."""
    return lab.once("fresh forecast", make=lambda: lab.sample(lab.cached(**SETTINGS).model))


@pytest.mark.parametrize("kind", ["cancel", "out of memory"])
def test_a_run_that_breaks_off_at_any_evaluation_leaves_nothing(lab, kind):
    """Tensors are gone while the exception is still held: ComfyUI makes room for models at that point."""
    error = torch.OutOfMemoryError if kind == "out of memory" else lab.host.Interrupt
    for broken in range(STEPS):
        held = []

        def break_off(watched, broken=broken, held=held) -> None:
            if watched.evaluation == broken:
                held.extend(watched.held())
                raise error("stop")

        watched = Watched(lab, break_off)
        before = watched.guider.model_options
        with pytest.raises(error) as caught:
            watched.run()
        assert len(held) > 0
        assert [tensor() for tensor in held if tensor() is not None] == [], broken
        assert watched.options[0] is watched.options[1]
        assert watched.guider.model_options is before
        assert not watched.cached.report.finished and watched.cached.report.evaluations == broken
        del caught
        gc.collect()
        assert watched.run_state() is None
        watched.at = lambda watched: None
        assert difference(watched.run(), fresh(lab)) == 0.0
        assert watched.cached.report.finished


def test_a_run_that_ends_leaves_nothing_and_a_guider_used_twice_starts_anew(lab):
    """A cached Guider node keeps the names of its prompts from run to run, so names alone must not find a cache."""
    held = []
    watched = Watched(lab, lambda watched: held.extend(watched.held()))
    first = watched.run()
    gc.collect()
    assert len(held) > 0
    assert [tensor() for tensor in held if tensor() is not None] == []
    assert watched.run_state() is None
    assert watched.options[0] is watched.options[1]
    assert difference(watched.run(), first) == 0.0
    assert [report.steps[0].action for report in watched.cached.stats.runs] == ["compute"] * 2
    assert held_tensors(watched.cached.stats) == []


PLACES = {  # code of the cache that moves tensors, so that allocators may fail in it, and code that reads ComfyUI
    "line": (track, "weighted"),
    "learning": (Track, "learn"),
    "recalling": (Track, "recall"),
    "sums": (Scale, "sums"),
    "reading": (forecast_run, "read"),
    "end": (ForecastRun, "end"),
    "naming": (attaching, "call_of"),
}


class Fault:
    """Raises in the cache's own code from evaluation `first` on, the first time `place` is reached."""

    def __init__(self, monkeypatch, place: str, error: type, first: int = 0) -> None:
        owner, name = PLACES[place]
        self.first, self.evaluation, self.raised_at = first, -1, None
        original = getattr(owner, name)

        def failing(*args, **kwargs):
            if self.raised_at is None and self.evaluation >= self.first:
                self.raised_at = self.evaluation
                raise error("no memory. Tried to allocate\nmuch")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, failing)

    def counting(self, model):
        model = model.clone()
        model.add_wrapper_with_key("predict_noise", "counting", self._predict_noise)
        return model

    def _predict_noise(self, executor, *args, **kwargs):
        self.evaluation += 1
        return executor(*args, **kwargs)


@pytest.mark.parametrize("first", [0, 2, 5])
@pytest.mark.parametrize("place", PLACES)
def test_an_error_of_the_cache_costs_the_run_its_cache_and_nothing_else(lab, monkeypatch, caplog, place, first):
    """What was reused before it stays; from there on every step computes."""
    fault = Fault(monkeypatch, place, torch.OutOfMemoryError, first)
    cached = lab.cached(fault.counting(lab.plain), **{**SETTINGS, "corrector": False})
    with caplog.at_level(logging.WARNING):
        out = lab.sample(cached.model)
    at, report = fault.raised_at, cached.report
    assert at is not None, "the place was never reached"
    [warning] = [record.getMessage() for record in caplog.records if record.name.startswith("bwcache_pack")]
    assert "gave up in evaluation" in warning
    assert "OutOfMemoryError: no memory. Tried to allocate." in warning and "much" not in warning
    assert report.finished and report.evaluations >= STEPS - 1
    after = at + (place == "end")
    assert cached.actions[after:] == ["compute"] * (len(cached.actions) - after)
    monkeypatch.undo()
    reused = [n for n in (2, 4, 6, 7) if n < after]
    if not reused:
        assert difference(out, lab.uncached()) == 0.0
    else:
        steps = " ".join(str(n) for n in range(STEPS) if n not in reused)
        assert difference(out, lab.sample(lab.cached(plan=f"{steps}/8", threshold=10.0, corrector=False).model)) == 0.0
    assert difference(lab.sample(cached.model), lab.sample(lab.cached(**{**SETTINGS, "corrector": False}).model)) == 0.0


def test_after_an_error_of_the_cache_nothing_is_held_while_the_run_goes_on(lab, monkeypatch):
    fault = Fault(monkeypatch, "recalling", torch.OutOfMemoryError)
    held, left = [], []

    def look(watched) -> None:
        if fault.raised_at is None:
            held.extend(watched.held())
        else:
            left.extend(tensor for tensor in held if tensor() is not None)
            left.extend(watched.held())

    watched = Watched(lab, look)
    watched.guider = lab.guider(fault.counting(watched.guider.model_patcher))
    watched.run()
    assert fault.raised_at == 2 and len(held) > 0
    assert left == []


def test_a_cancel_anywhere_in_our_own_code_passes_and_leaves_nothing(lab, monkeypatch):
    """ComfyUI may cancel at any time: a BaseException, which no handler of ours may swallow."""
    for place, first in itertools.product(PLACES, (0, 3)):
        with monkeypatch.context() as patch:
            fault = Fault(patch, place, KeyboardInterrupt, first)
            watched = Watched(lab)
            watched.guider = lab.guider(fault.counting(watched.guider.model_patcher))
            with pytest.raises(KeyboardInterrupt):
                watched.run()
            gc.collect()
            assert watched.run_state() is None, place
            assert not watched.cached.report.finished


def test_an_error_of_the_model_and_of_other_packs_passes_untouched(lab):
    """And is not taken for ours: nothing is said of a cache that gave up."""

    def explode(executor, *args, **kwargs):
        raise ZeroDivisionError("another pack")

    for point in ("outer_sample", "predict_noise", "calc_cond_batch", "diffusion_model"):
        cached = lab.cached(**SETTINGS)
        model = cached.model.clone()
        model.add_wrapper_with_key(point, "another pack", explode)
        with pytest.raises(ZeroDivisionError, match="another pack"):
            lab.sample(model)
        assert cached.report.warnings == [] and not cached.report.finished


def test_a_run_that_cannot_be_made_is_sampled_plainly_and_says_why(lab, monkeypatch, caplog):
    monkeypatch.setattr(attaching, "trimmed", lambda *args: 1 / 0)
    cached = lab.cached(**SETTINGS)
    assert difference(lab.sample(cached.model), lab.uncached()) == 0.0
    [warning] = cached.report.warnings
    assert "This run was not cached: ZeroDivisionError" in warning and "not cached" in cached.report.stopped
    assert cached.report.finished
