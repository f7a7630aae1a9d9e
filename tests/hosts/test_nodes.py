"""The nodes as ComfyUI sees them: schemas, inputs, errors, and a run from Apply to Report."""

from __future__ import annotations

import asyncio
import inspect
import json
from dataclasses import fields

import pytest
import torch

from bwcache_pack.bwcache_core.config import BWCacheConfig, ConfigError
from bwcache_pack.tests.hosts.lab import STEPS, Lab, difference

pytestmark = pytest.mark.comfyui
NODE_IDS = {"BWCacheApply", "BWCacheReport"}  # saved workflows refer to them: these may grow, never change
PAPER = {"mode": "paper", "threshold": 1.0, "reuse_interval": 2, "start_step": 3, "end_step": 4}


@pytest.fixture(scope="module")
def nodes(comfyui) -> dict:
    """Node classes by id, as ComfyUI gets them from the pack's entry point."""
    import bwcache_pack

    async def load():
        extension = await bwcache_pack.comfy_entrypoint()
        return await extension.get_node_list()

    return {node.define_schema().node_id: node for node in asyncio.run(load())}


def execute(node, **inputs):
    """Run a node as ComfyUI's executor does: on a copy of its class that knows the node's place in the workflow."""
    from comfy_api.latest import io

    return node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "12:7"}}).execute(**inputs)


def test_node_ids_never_change(nodes):
    assert nodes.keys() >= NODE_IDS
    assert all(name.startswith("BWCache") for name in nodes)


def test_comfyui_accepts_every_schema(nodes):
    for node in nodes.values():
        node.VALIDATE_CLASS()
        info = node.GET_NODE_INFO_V1()
        assert info["name"] == node.define_schema().node_id
        json.dumps(info)  # what /object_info sends to the browser


def test_everything_a_user_meets_is_explained(nodes):
    for name, node in nodes.items():
        schema = node.define_schema()
        assert schema.display_name and schema.description and schema.category, name
        for socket in [*schema.inputs, *schema.outputs]:
            label = socket.display_name or socket.id
            assert len(socket.tooltip or "") > 10, f"{name}: {label} has no tooltip"
        assert all(output.display_name for output in schema.outputs), name


MEASURED_CONSTANTS = {"damping"}  # settled by the bench: benchmarks/NOTES.md


def test_inputs_are_what_execute_takes(nodes):
    """Apply hands its settings on by name, so these must be the fields of the config that users choose."""
    for name, node in nodes.items():
        ids = [socket.id for socket in node.define_schema().inputs]
        parameters = inspect.signature(node.execute).parameters.values()
        named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        offered = [field.name for field in fields(BWCacheConfig) if field.name not in MEASURED_CONSTANTS]
        settings = offered if len(named) < len(parameters) else []
        assert sorted(ids) == sorted([*named, *settings]), name


def test_widgets_offer_the_bounds_and_defaults_of_the_config(nodes):
    defaults = BWCacheConfig()
    for socket in nodes["BWCacheApply"].define_schema().inputs[1:]:
        assert socket.default == getattr(defaults, socket.id), socket.id
        for value in getattr(socket, "options", None) or ():
            BWCacheConfig(**{socket.id: value})
        for bound, beyond in (("min", -1), ("max", 1)):
            value = getattr(socket, bound, None)
            if value is None:
                continue
            other_end = {"start_step": {"end_step": 10_000}, "end_step": {"start_step": -10_000}}.get(socket.id, {})
            BWCacheConfig(**{**other_end, socket.id: value})
            with pytest.raises(ConfigError):
                BWCacheConfig(**{**other_end, socket.id: value + beyond})


def test_optional_inputs_may_be_left_out(nodes, comfyui):
    for name, node in nodes.items():
        for socket in node.define_schema().inputs:
            parameter = inspect.signature(node.execute).parameters.get(socket.id)
            if socket.optional and parameter:
                assert parameter.default is not parameter.empty, f"{name}: {socket.id}"
    required = [socket for socket in nodes["BWCacheApply"].define_schema().inputs[1:] if not socket.optional]
    out = execute(nodes["BWCacheApply"], model=comfyui.model("wan21_t2v"), **{s.id: s.default for s in required})
    assert len(out.args) == 2


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("threshold", 2.0, "threshold is 2.0, expected 0.0 to 1.0"),
        ("threshold", float("nan"), "threshold is nan"),
        ("mode", "teacache", "mode is 'teacache', expected one of"),
        ("tokens", 0, "tokens is 0, expected 1"),
        ("start_step", 9, "start_step 9 is after end_step 4"),
    ],
)
def test_a_bad_setting_says_what_to_change(nodes, comfyui, setting, value, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        execute(nodes["BWCacheApply"], model=comfyui.model("wan21_t2v"), **{**PAPER, setting: value})


def test_an_unsupported_model_is_named(nodes, comfyui):
    class LTXAVModel(torch.nn.Module):
        pass

    model = comfyui.model("wan21_t2v")
    model.add_object_patch("diffusion_model", LTXAVModel())
    with pytest.raises(TypeError, match="does not support LTXAVModel") as caught:
        execute(nodes["BWCacheApply"], model=model, **PAPER)
    assert type(caught.value).__name__ == "UnsupportedModelError"
    assert "HunyuanVideo" in str(caught.value)


def test_apply_to_report(nodes, comfyui):
    lab = Lab(comfyui, "wan21_t2v")
    source = lab.plain
    model, stats = execute(nodes["BWCacheApply"], model=source, **PAPER).args
    assert model is not source
    assert source.wrappers.get("outer_sample", {}) == {}
    before = execute(nodes["BWCacheReport"], stats=stats, passthrough=None)
    assert "No run yet" in before.args[1]
    assert json.loads(before.args[2]) == []
    latents = lab.sample(model)
    after = execute(nodes["BWCacheReport"], stats=stats, passthrough=latents)
    assert after.args[0] is latents
    _, summary, text, reused_steps, steps, reused_blocks, blocks, speedup = after.args[:8]
    assert "2 of 8 evaluations reused" in summary
    assert (reused_steps, steps) == (2, STEPS)
    assert (reused_blocks, blocks) == (2 * 4, STEPS * 4)
    assert speedup > 0
    runs = json.loads(text)
    assert [step["action"] for step in runs[0]["steps"]] == ["compute"] * 3 + ["reuse"] * 2 + ["compute"] * 3
    assert "2 of 8" in "".join(after.ui["text"] if isinstance(after.ui, dict) else after.ui.as_dict()["text"])
    assert len(after.args) == len(before.args) == len(nodes["BWCacheReport"].define_schema().outputs)


def test_the_apply_node_caches_as_attach_does(nodes, comfyui):
    lab = Lab(comfyui, "wan21_t2v")
    model, _ = execute(nodes["BWCacheApply"], model=lab.plain, **PAPER).args
    assert difference(lab.sample(model), lab.sample(lab.cached(**PAPER).model)) == 0.0


def test_stats_keep_the_last_eight_runs(nodes, comfyui):
    lab = Lab(comfyui, "wan21_t2v")
    model, stats = execute(nodes["BWCacheApply"], model=lab.plain, **PAPER).args
    for steps in range(1, 11):
        lab.sample(model, steps=steps)
    assert [run.steps_total for run in stats.runs] == list(range(3, 11))
