"""A workflow over the server's HTTP interface, from UNETLoader to the report: the same on every ComfyUI."""

from __future__ import annotations

import json
import time

import pytest

from bwcache_pack.tests.hosts import recipes

pytestmark = pytest.mark.comfyui
LOADER, WORDS, APPLY, SAMPLER, REPORT, JSON = "1", "2", "3", "4", "5", "6"
STEPS = 12
SETTINGS = {
    "paper": {"mode": "paper", "threshold": 0.03, "reuse_interval": 2},
    "per block": {"mode": "per block", "threshold": 0.03, "reuse_interval": 1},
    "adaptive": {"mode": "adaptive", "preset": "custom", "tolerance": 0.02, "corrector": True},
}
DECISIONS = {  # of every ComfyUI; c = computed, r = reused, p = some blocks reused
    "paper": "ccrrccrrcccc",
    "per block": "ccrcrcppcpcc",
    "adaptive": "ccrrrcrcrccc",
}


@pytest.fixture(scope="module")
def family(server) -> str:
    """A tiny Wan 2.1 checkpoint in the server's models folder."""
    recipes.write("wan21_t2v", server.base / "models" / "diffusion_models")
    return "wan21_t2v"


@pytest.fixture(scope="module")
def defaults(server) -> dict:
    """Values of the widgets of BWCacheApply, as a fresh node has them."""
    inputs = server.get("/object_info/BWCacheApply")["BWCacheApply"]["input"]
    return {name: about[1]["default"] for kind in inputs.values() for name, about in kind.items() if name != "model"
            and len(about) > 1 and "default" in about[1]}


def prompt(family: str, settings: dict, seed: int = 1, steps: int = STEPS) -> dict:
    """UNETLoader -> BWCache Apply -> KSampler -> BWCache Report -> PreviewAny, with words that need no text encoder."""
    words = {"colour": "red", "shape": "circle", "direction": "left", "size": 24}
    sampling = {"seed": seed, "steps": steps, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {"model": [APPLY, 0], "positive": [WORDS, 1], "negative": [WORDS, 2], "latent_image": [WORDS, 3]}
    loader = {"unet_name": recipes.file_name(family), "weight_dtype": "default"}
    return {
        LOADER: {"class_type": "UNETLoader", "inputs": loader},
        WORDS: {"class_type": "BWCacheTinyWan", "inputs": words},
        APPLY: {"class_type": "BWCacheApply", "inputs": {**settings, "model": [LOADER, 0]}},
        SAMPLER: {"class_type": "KSampler", "inputs": {**sampling, **links}},
        REPORT: {"class_type": "BWCacheReport", "inputs": {"stats": [APPLY, 1], "passthrough": [SAMPLER, 0]}},
        JSON: {"class_type": "PreviewAny", "inputs": {"source": [REPORT, 2]}},
    }


def run(server, *arguments, **named) -> tuple[str, list[dict]]:
    """Text that the report shows on itself, and the runs in its JSON."""
    outputs = server.run(prompt(*arguments, **named))
    return "".join(outputs[REPORT]["text"]), json.loads("".join(outputs[JSON]["text"]))


def decisions(report: dict) -> str:
    return "".join(step["action"][0] for step in report["steps"])


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_workflow_decides_the_same_on_every_comfyui(server, family, defaults, mode):
    text, runs = run(server, family, {**defaults, **SETTINGS[mode]})
    assert decisions(runs[-1]) == DECISIONS[mode]
    assert runs[-1]["finished"]
    assert runs[-1]["steps_total"] == STEPS
    assert f"{runs[-1]['evaluations_reused']} of {STEPS}" in text


def test_a_second_seed_adds_a_run_to_the_report(server, family, defaults):
    """The server keeps the Apply node's outputs between prompts, and with them the stats."""
    settings = {**defaults, **SETTINGS["paper"], "tokens": 32}
    _, first = run(server, family, settings, seed=1)
    _, second = run(server, family, settings, seed=2)
    assert (len(first), len(second)) == (1, 2)
    assert second[0] == first[0]
    assert second[1]["steps"][0]["action"] == "compute"


def test_a_cancelled_prompt_leaves_the_next_one_alone(server, family, defaults):
    settings = {**defaults, **SETTINGS["adaptive"], "tokens": 64}
    _, before = run(server, family, settings, seed=5)
    cancelled = server.queue(prompt(family, settings, seed=6, steps=1000))
    until = time.monotonic() + 60
    while cancelled not in str(server.get("/queue")["queue_running"]) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1.0)  # a few steps
    server.post("/interrupt", {})
    while not server.get(f"/history/{cancelled}") and time.monotonic() < until:
        time.sleep(0.05)
    messages = server.get(f"/history/{cancelled}")[cancelled]["status"]["messages"]
    assert "execution_interrupted" in [message[0] for message in messages]
    server.post("/free", {"unload_models": True})
    _, after = run(server, family, settings, seed=7)
    assert [report["finished"] for report in after] == [True, False, True]
    assert 0 < len(after[1]["steps"]) < 1000
    assert decisions(after[2]) == decisions(before[0]) == DECISIONS["adaptive"]
