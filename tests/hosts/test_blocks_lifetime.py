"""Nothing outlives a run of a block mode: not a tensor, not the state of the run, not an option, however the run ended."""

from __future__ import annotations

import gc

import pytest
import torch

from bwcache_pack.tests.hosts.lab import FORCED, difference
from bwcache_pack.tests.hosts.spy import held_tensors

pytestmark = pytest.mark.family("wan21_t2v", "hunyuan")
SETTINGS = {
    "paper": FORCED,
    "per block": {**FORCED, "mode": "per block"},
}


class Watched:
    """A guider over a cached model, with a witness outside the cache and a spy inside."""

    def __init__(self, lab, **settings) -> None:
        self.lab = lab
        model = lab.plain
        model.add_wrapper_with_key("outer_sample", "outermost", self._outer_sample)
        self.cached = lab.cached(model, **settings)
        self.spy = lab.spy(self.cached.model)
        self.guider = lab.guider(self.spy.model)
        self.options: list[dict] = []

    def _outer_sample(self, executor, *args, **kwargs):
        self.options.append(executor.class_obj.model_options)
        try:
            return executor(*args, **kwargs)
        finally:
            self.options.append(executor.class_obj.model_options)

    def run(self, callback=None) -> torch.Tensor:
        with self.spy.watching():
            return self.lab.host.run(self.guider, self.lab.noise(), self.lab.sigmas(), "euler", callback)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    ("where", "evaluation"), [("between steps", 2), ("inside a block", 1), ("inside a block", 6), ("out of memory", 5)]
)
def test_a_run_that_breaks_off_leaves_nothing(lab, settings, where, evaluation):
    """Tensors are gone while the exception is still held: ComfyUI makes room for models at that point."""
    watched, held = Watched(lab, **settings), []
    error = torch.OutOfMemoryError if where == "out of memory" else lab.host.Interrupt

    def break_off(*_) -> None:
        if len(watched.spy.evaluations) > evaluation and not held:  # once: a cache that tried again would succeed
            held.extend(held_tensors(watched.spy.run()))
            raise error("stop")

    handle = None if where == "between steps" else watched.spy.blocks[1].register_forward_hook(break_off)
    before = watched.guider.model_options
    try:
        with pytest.raises(error) as caught:
            watched.run(break_off if where == "between steps" else None)
    finally:
        if handle:
            handle.remove()
    assert len(held) > 0
    assert [tensor() for tensor in held if tensor() is not None] == []
    assert watched.options[0] is watched.options[1]
    assert watched.guider.model_options is before
    assert not watched.cached.report.finished
    del caught
    gc.collect()
    assert watched.spy.run() is None
    fresh = lab.once("fresh", *settings.items(), make=lambda: lab.sample(lab.cached(**settings).model))
    assert difference(watched.run(), fresh) == 0.0
    assert watched.cached.report.finished


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_run_that_ends_leaves_nothing(lab, settings):
    watched, held = Watched(lab, **settings), []
    watched.run(lambda *_: held.extend(held_tensors(watched.spy.run())))
    gc.collect()
    assert len(held) > 0
    assert [tensor() for tensor in held if tensor() is not None] == []
    assert watched.spy.run() is None
    assert watched.options[0] is watched.options[1]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_guider_used_twice_starts_anew(lab, settings):
    """A cached Guider node keeps the names of its prompts from run to run, so names alone must not find a cache."""
    watched = Watched(lab, **settings)
    first, second = watched.run(), watched.run()
    assert difference(first, second) == 0.0
    assert [report.steps[0].action for report in watched.cached.stats.runs] == ["compute"] * 2
    assert watched.cached.report.evaluations_reused > 0


def test_the_report_holds_no_tensor(lab):
    cached = lab.cached(**FORCED)
    lab.sample(cached.model)
    assert held_tensors(cached.stats) == []
