"""Graphs of every kind on a server that keeps no results: loops, nodes left out, prompts in a row."""

from __future__ import annotations

import json
import time

import pytest

from bwcache_pack.tests.e2e.server import install, make_base, running
from bwcache_pack.tests.e2e.test_sampling import (
    APPLY,
    JSON,
    LOADER,
    REPORT,
    SAMPLER,
    SETTINGS,
    WORDS,
    decisions,
    prompt,
)
from bwcache_pack.tests.hosts import recipes

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
FAMILY, LOOP = "wan21_t2v", "7"
LOOPING = """
from comfy_execution.graph_utils import GraphBuilder

class Loop:
    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT", "BWCACHE_STATS"), "run", "test"

    @classmethod
    def INPUT_TYPES(cls):
        kinds = {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent": "LATENT"}
        return {"required": {**{name: (kind,) for name, kind in kinds.items()}, "count": ("INT",)}}

    def run(self, model, positive, negative, latent, count):
        graph = GraphBuilder()
        apply = graph.node("BWCacheApply", **{"model": model, "mode": "forecast", "mode.speedup": 2.0})
        for seed in range(count):
            latent = graph.node("KSampler", model=apply.out(0), positive=positive, negative=negative, latent_image=latent,
                                seed=seed, steps=12, cfg=4.0, sampler_name="euler", scheduler="simple", denoise=1.0).out(0)
        return {"result": (latent, apply.out(1)), "expand": graph.finalize()}

class Speedups:
    RETURN_TYPES, OUTPUT_IS_LIST, FUNCTION, CATEGORY = ("FLOAT",), (True,), "run", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def run(self):
        return ([2.0, 3.0],)

NODE_CLASS_MAPPINGS = {"TestLoop": Loop, "TestSpeedups": Speedups}
"""


@pytest.fixture(scope="module")
def kept(checkout, tmp_path_factory):
    """With a node that loops. The usual way of keeping results: test_sampling.py."""
    base = tmp_path_factory.mktemp("comfyui")
    make_base(base)
    install(base)
    (base / "custom_nodes" / "looping.py").write_text(LOOPING, encoding="utf-8")
    models = base / "models" / "diffusion_models"
    models.mkdir(parents=True)
    recipes.write(FAMILY, models)
    with running(checkout, base, "--cache-none") as started:
        yield started


def runs(outputs: dict) -> list[dict]:
    return json.loads("".join(outputs[JSON]["text"]))


def graph(seed: int = 1) -> dict:
    return prompt(FAMILY, SETTINGS["forecast"], seed)


def test_a_workflow_runs_again_and_again(kept):
    """Another seed, and the first one once more."""
    for seed in (1, 2, 1):
        report = runs(kept.run(graph(seed)))[-1]
        assert decisions(report).count("c") == 6 and report["finished"]


def test_prompts_that_wait_while_one_runs_each_tell_of_their_own_run(kept):
    queued = [kept.queue(graph(seed)) for seed in (11, 12, 13)]
    until = time.monotonic() + 120
    while time.monotonic() < until and not kept.get("/history").get(queued[-1], {}).get("status", {}).get("completed"):
        time.sleep(0.2)
    for prompt_id in queued:
        entry = kept.get(f"/history/{prompt_id}")[prompt_id]
        assert entry["status"]["status_str"] == "success"
        assert "6 of 12 steps were computed" in "".join(entry["outputs"][REPORT]["text"])
        [shown] = entry["outputs"][REPORT]["bwcache_run"]
        assert (shown["node_id"], shown["done"], shown["finished"]) == (APPLY, True, True)


def test_a_loop_is_told_of_at_the_node_that_the_browser_shows(kept):
    links = {"model": [LOADER, 0], "positive": [WORDS, 1], "negative": [WORDS, 2], "latent": [WORDS, 3], "count": 3}
    looped = {name: node for name, node in graph().items() if name not in (APPLY, SAMPLER)}
    looped[LOOP] = {"class_type": "TestLoop", "inputs": links}
    looped[REPORT]["inputs"] = {"passthrough": [LOOP, 0], "stats": [LOOP, 1]}
    outputs = kept.run(looped)
    assert [decisions(run).count("c") for run in runs(outputs)] == [6, 6, 6]
    [shown] = outputs[REPORT]["bwcache_run"]
    assert shown["node_id"] == LOOP
    assert "The newest of 3 runs, all in json: 18 of 36 model evaluations" in "".join(outputs[REPORT]["text"])


def test_a_list_of_latents_is_one_report_of_all_its_runs(kept):
    """The sampler runs once for each, all with one BWCache Apply. So does the report, which then says the same each time."""
    listed = graph(31)
    listed["8"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": [WORDS, 3], "amount": 3}}
    listed["9"] = {"class_type": "RebatchLatents", "inputs": {"latents": ["8", 0], "batch_size": 1}}
    listed[SAMPLER]["inputs"]["latent_image"] = ["9", 0]
    outputs = kept.run(listed)
    for text in outputs[JSON]["text"]:
        assert [decisions(run).count("c") for run in json.loads(text)] == [6, 6, 6]
    assert len(outputs[JSON]["text"]) == len(outputs[REPORT]["text"]) == 3
    [told] = set(outputs[REPORT]["text"])
    assert "The newest of 3 runs, all in json: 18 of 36 model evaluations" in told
    assert {(run["node_id"], run["finished"]) for run in outputs[REPORT]["bwcache_run"]} == {(APPLY, True)}


def test_a_list_of_speedups_is_a_cache_and_a_report_for_each(kept):
    listed = graph(32)
    listed["8"] = {"class_type": "TestSpeedups", "inputs": {}}
    listed[APPLY]["inputs"]["mode.speedup"] = ["8", 0]
    outputs = kept.run(listed)
    reports = [json.loads(text) for text in outputs[JSON]["text"]]
    assert [[decisions(run).count("c") for run in runs] for runs in reports] == [[6], [4]]
    assert ["6 of 12 steps" in outputs[REPORT]["text"][0], "4 of 12 steps" in outputs[REPORT]["text"][1]] == [True, True]
    assert [run["evaluations_reused"] for run in outputs[REPORT]["bwcache_run"]] == [6, 8]


def test_a_bypassed_node_and_inputs_that_are_left_out(kept):
    bypassed = {name: node for name, node in graph().items() if name != APPLY}
    bypassed[SAMPLER]["inputs"]["model"] = [LOADER, 0]
    del bypassed[REPORT]["inputs"]["stats"]
    assert "No cache on this run" in "".join(kept.run(bypassed)[REPORT]["text"])
    bare = graph(21)
    bare[APPLY]["inputs"] = {"model": [LOADER, 0], "mode": "forecast"}
    assert decisions(runs(kept.run(bare))[-1]).count("c") == 6


def test_muted_sampling_leaves_nothing_to_report(kept):
    """Apply and Report alone, as where a branch is muted."""
    muted = {name: node for name, node in graph().items() if name != SAMPLER}
    muted[REPORT]["inputs"]["passthrough"] = [WORDS, 3]
    assert "No run yet" in "".join(kept.run(muted)[REPORT]["text"])
