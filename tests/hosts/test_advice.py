"""What is said of real runs: the cause that a user can act on, whatever the words of single steps are."""

from __future__ import annotations

import pytest

from bwcache_pack.bwcache_core.advice import log_lines, verdict
from bwcache_pack.tests.hosts.lab import Lab

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def wan(comfyui) -> Lab:
    return Lab(comfyui, "wan21_t2v")


CASES = {  # settings, sampling, what the verdict begins with, what it has
    "half": ({"threshold": 10.0}, {}, "10 of 20 steps were computed", ""),
    "off": ({"speedup": 1.0}, {}, "All 20 steps were computed.", "Set speedup to 2."),
    "threshold 0": ({"threshold": 0.0}, {}, "All 20 steps were computed.", "Set threshold to 0.5."),
    "low threshold": ({"threshold": 1e-4}, {}, "", "Set threshold to"),
    "noise in every step": ({}, {"sampler": "euler_ancestral"}, "All 20 steps were computed.", "adds noise as it goes"),
    "lcm": ({}, {"sampler": "lcm"}, "All 20 steps were computed.", "Use a sampler that adds none"),
    "few steps": ({"threshold": 10.0}, {"steps": 4}, "2 of 4 steps", "leave BWCache Apply out here"),
    "window": ({"start_step": 19}, {}, "All 20 steps were computed.", "Lower start_step or raise end_step"),
    "your plan": ({"plan": "0-19/20"}, {}, "All 20 steps were computed.", "or set plan to auto"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_names_the_cause(wan, name):
    settings, sampling, begins, has = CASES[name]
    cached = wan.cached(**settings)
    wan.sample(cached.model, **{"steps": 20, **sampling})
    text = verdict(cached.report)
    assert text.startswith(begins) and has in text
    assert text.split("\n")[0] in log_lines(cached.report)[0]


def test_no_speed_is_claimed_with_another_cache_on_the_model(wan, comfyui):
    rival = comfyui.node("nodes_easycache", "EasyCacheNode", model=wan.plain, reuse_threshold=0.2, start_percent=0.15,
                         end_percent=0.95, verbose=False)  # fmt: skip
    cached = wan.cached(rival, threshold=10.0)
    wan.sample(cached.model, steps=20)
    text = verdict(cached.report)
    assert "about" not in text
    assert text.count("EasyCache") == 1
