"""Runs in turn, evaluation by evaluation (benchmarks/lockstep.py): each makes what it would make alone."""

from __future__ import annotations

import pytest

from bwcache_pack.benchmarks.lockstep import cpu_seconds
from bwcache_pack.tests.hosts.lab import FORCED, STEPS, difference

pytestmark = [pytest.mark.comfyui, pytest.mark.family("wan21_t2v", "hunyuan")]


def counting(model, name: str, log: list):
    """`model` that writes its name into `log` at every evaluation."""

    def predict_noise(executor, *args, **kwargs):
        log.append(name)
        return executor(*args, **kwargs)

    model.add_wrapper_with_key("predict_noise", "count", predict_noise)
    return model


def test_loaded_models_of_their_own_take_turns_and_sample_as_alone(lab):
    log, latents = [], {}
    plain = counting(lab.host.load(lab.family), "plain", log)
    cached = lab.cached(counting(lab.host.load(lab.family), "cached", log), **FORCED)

    def sample(model) -> None:
        latents[id(model.model)] = lab.sample(model)

    seconds = cpu_seconds([plain, cached.model], sample)
    alone = lab.cached(**FORCED)
    expected = {plain: lab.uncached(), cached.model: lab.sample(alone.model)}
    assert log == ["plain", "cached"] * STEPS
    assert cached.actions == alone.actions
    assert "reuse" in cached.actions
    for model, wanted in expected.items():
        assert difference(latents[id(model.model)], wanted) == 0.0
    assert min(seconds) > 0.0
