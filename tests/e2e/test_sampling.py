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
    "forecast": {"mode": "forecast", "mode.speedup": 2.0},
    "paper": {"mode": "paper", "mode.threshold": 0.03, "mode.reuse_interval": 2},
    "per block": {"mode": "per block", "mode.threshold": 0.03, "mode.reuse_interval": 1},
}
DECISIONS = {"paper": "ccrrccrrcccc", "per block": "ccrcrcppcpcc"}  # c: computed, r: reused, p: some blocks reused
OFF = {"mode": "forecast", "mode.speedup": 1.0}


@pytest.fixture(scope="module")
def family(server) -> str:
    """A tiny Wan 2.1 checkpoint in the server's models folder."""
    recipes.write("wan21_t2v", server.base / "models" / "diffusion_models")
    return "wan21_t2v"


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
        JSON: {"class_type": "PreviewAny", "inputs": {"source": [REPORT, 3]}},
    }


def run(server, *arguments, **named) -> tuple[str, list[dict]]:
    """Text that the report shows on itself, and the runs in its JSON."""
    outputs = server.run(prompt(*arguments, **named))
    return "".join(outputs[REPORT]["text"]), json.loads("".join(outputs[JSON]["text"]))


def decisions(report: dict) -> str:
    return "".join(step["action"][0] for step in report["steps"])


def expected(mode: str, report: dict) -> str:
    """What a run decides: its plan, or the same on every ComfyUI."""
    plan = "".join("c" if step in report["planned"] else "r" for step in range(STEPS))
    assert mode != "forecast" or plan.count("c") == STEPS / 2
    return plan if mode == "forecast" else DECISIONS[mode]


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_workflow_decides_the_same_on_every_comfyui(server, family, mode):
    text, runs = run(server, family, SETTINGS[mode])
    assert decisions(runs[-1]) == expected(mode, runs[-1])
    assert runs[-1]["finished"]
    assert runs[-1]["steps_total"] == STEPS
    assert f"{decisions(runs[-1]).count('c')} of {STEPS} steps were computed" in text


def test_a_prompt_needs_nothing_but_the_model(server, family):
    _, runs = run(server, family, {}, seed=11)
    assert runs[-1]["mode"] == "forecast"
    assert decisions(runs[-1]) == expected("forecast", runs[-1])


@pytest.mark.parametrize("given", [{"mode": "adaptive"}, {"mode": "forecast", "mode.plan": "0-3 5/12"}])
def test_a_choice_that_is_not_offered_is_refused(server, family, given):
    with pytest.raises(RuntimeError, match="expected one of"):
        run(server, family, given)


def test_the_plan_of_a_report_can_be_pasted_back_in(server, family):
    _, [first, *_] = run(server, family, {"mode": "forecast", "mode.speedup": 3.0}, seed=12)
    pasted = {"mode": "forecast", "mode.plan": "custom", "mode.plan.steps": first["plan"]}
    _, [second] = run(server, family, pasted, seed=12)
    assert second["planned"] == first["planned"] and decisions(second) == decisions(first)


def test_a_report_passes_on_while_the_cache_is_bypassed(server, family):
    nodes = prompt(family, {}, seed=13)
    del nodes[APPLY], nodes[REPORT]["inputs"]["stats"]
    nodes[SAMPLER]["inputs"]["model"] = [LOADER, 0]
    outputs = server.run(nodes)
    assert "No cache on this run" in "".join(outputs[REPORT]["text"])
    assert outputs[REPORT]["images"] == []


def test_a_cache_that_another_one_replaced_says_so(server, family):
    nodes = prompt(family, {}, seed=14)
    nodes["9"] = {"class_type": "BWCacheApply", "inputs": {"model": [APPLY, 0], **OFF}}
    nodes[SAMPLER]["inputs"]["model"] = ["9", 0]
    assert "Another BWCache Apply" in "".join(server.run(nodes)[REPORT]["text"])


def test_a_second_seed_adds_a_run_to_the_report(server, family):
    """The server keeps the Apply node's outputs between prompts, and with them the stats."""
    settings = {**SETTINGS["paper"], "mode.monitor_every": 2}
    _, first = run(server, family, settings, seed=1)
    _, second = run(server, family, settings, seed=2)
    assert (len(first), len(second)) == (1, 2)
    assert second[0] == first[0]
    assert second[1]["steps"][0]["action"] == "compute"


def test_a_cancelled_prompt_leaves_the_next_one_alone(server, family):
    settings = {**SETTINGS["forecast"], "mode.threshold": 0.6}
    _, before = run(server, family, settings, seed=5)
    cancelled = server.queue(prompt(family, settings, seed=6, steps=300))
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
    assert 0 < len(after[1]["steps"]) < 300
    assert decisions(after[2]) == decisions(before[0]) == expected("forecast", before[0])
