"""The nodes as ComfyUI sees them: schemas, inputs, errors, and a run from Apply to Report."""

from __future__ import annotations

import asyncio
import inspect
import json
from dataclasses import fields

import pytest
import torch

from bwcache_pack.bwcache_core.config import BlockConfig, ConfigError, ForecastConfig, MeasureConfig
from bwcache_pack.tests.hosts.lab import STEPS, Lab, difference

pytestmark = pytest.mark.comfyui
NODE_IDS = {"BWCacheApply", "BWCacheReport"}  # saved workflows refer to them: these may grow, never change
PAPER = {"mode": "paper", "threshold": 1.0, "reuse_interval": 2, "start_step": 3, "end_step": 4}
CHOSEN_BY_THE_MODE = {"mode"}  # of the fields of a config: no input of its own


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


def test_inputs_are_what_execute_takes(nodes):
    for name, node in nodes.items():
        ids = [socket.id for socket in node.define_schema().inputs]
        assert sorted(ids) == sorted(inspect.signature(node.execute).parameters), name


def of_mode(nodes, name: str, plan: str = "custom") -> dict:
    """Inputs of a mode by id, those of its plan among them."""
    [mode] = [socket for socket in nodes["BWCacheApply"].define_schema().inputs if socket.id == "mode"]
    [inputs] = [option.inputs for option in mode.options if option.key == name]
    found = {socket.id: socket for socket in inputs}
    for option in getattr(found.get("plan"), "options", ()):
        found.update({socket.id: socket for socket in option.inputs if option.key == plan})
    return found


def test_a_fresh_node_shows_the_model_and_four_inputs(nodes):
    [first, second] = nodes["BWCacheApply"].define_schema().inputs
    assert (first.id, second.id, second.options[0].key) == ("model", "mode", "forecast")
    assert list(of_mode(nodes, "forecast", plan="auto")) == ["speedup", "threshold", "plan"]


def test_every_published_list_that_is_offered_is_taken(nodes):
    for name in of_mode(nodes, "forecast", plan="published")["list"].options:
        assert ForecastConfig(plan=name).plan_given


@pytest.mark.parametrize(("mode", "config"), [("forecast", ForecastConfig), ("paper", BlockConfig), ("per block", BlockConfig)])
def test_each_mode_has_an_input_for_all_that_it_reads_and_none_that_is_dead(nodes, mode, config):
    settings = {field.name for field in fields(config)} - CHOSEN_BY_THE_MODE
    settings |= {"steps"} if mode == "forecast" else set()  # the plan as text
    settings -= {"monitor_every"} if mode == "per block" else set()  # it reads them all
    assert set(of_mode(nodes, mode)) == settings


@pytest.mark.parametrize(("mode", "config"), [("forecast", ForecastConfig), ("paper", BlockConfig), ("per block", BlockConfig)])
def test_widgets_offer_the_bounds_and_defaults_of_the_config(nodes, mode, config):
    defaults = config()
    for name, socket in of_mode(nodes, mode).items():
        if name in ("plan", "steps"):
            continue
        assert socket.default == getattr(defaults, name), name
        for value in getattr(socket, "options", None) or ():
            config(**{name: value})
        for bound, beyond in (("min", -1), ("max", 1)):
            value = getattr(socket, bound, None)
            if value is None:
                continue
            other_end = {"start_step": {"end_step": 10_000}, "end_step": {"start_step": -10_000}}.get(name, {})
            config(**{**other_end, name: value})
            with pytest.raises(ConfigError):
                config(**{**other_end, name: value + beyond})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ForecastConfig()),
        ({"mode": "forecast", "speedup": None, "threshold": None, "plan": None}, ForecastConfig()),
        ({"mode": "forecast", "speedup": 3.0, "plan": {"plan": "auto"}}, ForecastConfig(speedup=3.0)),
        ({"mode": "forecast", "plan": {"plan": "custom", "steps": "", "corrector": False, "start_step": None}},
         ForecastConfig(corrector=False)),
        ({"mode": "forecast", "plan": {"plan": "custom", "steps": " 0-3 5/9 ", "end_step": -2}},
         ForecastConfig(plan="0-3 5/9", end_step=-2)),
        ({"mode": "forecast", "plan": {"plan": "published", "list": "Wan 2.1 14B, LeMiCa, 20 of 50"}},
         ForecastConfig(plan="Wan 2.1 14B, LeMiCa, 20 of 50")),
        ({"mode": "forecast", "plan": {"plan": "published", "list": None}}, ForecastConfig()),
        ({"mode": "measure"}, MeasureConfig()),
        ({"mode": "paper", "monitor_every": 4, "cache_device": None}, BlockConfig(monitor_every=4)),
        ({"mode": "per block", "threshold": 0.3}, BlockConfig(mode="per block", threshold=0.3)),
    ],
)  # fmt: skip
def test_what_is_left_out_has_its_default(nodes, given, expected):
    from bwcache_pack.nodes.inputs import config_of

    kept = repr(given)
    assert config_of(given) == expected
    assert repr(given) == kept


BAD = [
    ({**PAPER, "threshold": 2.0}, "threshold is 2.0, expected 0.0 to 1.0"),
    ({**PAPER, "threshold": float("nan")}, "threshold is nan"),
    ({**PAPER, "monitor_every": 0}, "monitor_every is 0, expected 1"),
    ({**PAPER, "start_step": 9}, "start_step 9 is after end_step 4"),
    ({**PAPER, "cache_device": "disk"}, "cache_device is 'disk', expected one of"),
    ({"mode": "forecast", "speedup": 0.5}, "speedup is 0.5, expected 1.0 to 10.0"),
    ({"mode": "forecast", "plan": {"plan": "custom", "steps": "0 5 5/9"}}, "named before"),
]


@pytest.mark.parametrize(("mode", "words"), BAD)
def test_a_bad_setting_says_what_to_change_before_and_when_it_runs(nodes, comfyui, mode, words):
    with pytest.raises(ConfigError, match=words):
        nodes["BWCacheApply"].validate_inputs(model=None, mode=mode)
    with pytest.raises(ConfigError, match=words) as caught:
        execute(nodes["BWCacheApply"], model=comfyui.model("wan21_t2v"), mode=mode)
    assert type(caught.value).__module__ == "builtins", "ComfyUI shows the module in front of the name"


def test_inside_a_loop_the_node_that_is_shown_gets_the_events(nodes, comfyui, monkeypatch):
    from comfy_api.latest import io
    from comfy_execution.graph import DynamicPrompt

    prompt = DynamicPrompt({"7": {"class_type": "BWCacheApply", "inputs": {}}})
    prompt.add_ephemeral_node("12.0.0.7", {"class_type": "BWCacheApply", "inputs": {}}, "12", "7")
    node = nodes["BWCacheApply"].PREPARE_CLASS_CLONE(
        {"hidden_inputs": {io.Hidden.unique_id: "12.0.0.7", io.Hidden.dynprompt: prompt}}
    )
    lab = Lab(comfyui, "wan21_t2v")
    model, stats = node.execute(model=lab.plain).args
    lab.sample(model)
    assert stats.newest.node_id == "7"


def test_a_choice_that_is_not_offered_is_refused(nodes):
    from bwcache_pack.nodes.inputs import check_choices

    check_choices({"model": ["1", 0]})
    check_choices({"mode": "forecast", "mode.plan": ["4", 0]})  # by a link: what comes is not known yet
    for given in ({"mode": "adaptive"}, {"mode": "forecast", "mode.plan": "0-3/9"}):
        with pytest.raises(ConfigError, match="expected one of"):
            check_choices(given)


def test_an_unsupported_model_is_named(nodes, comfyui):
    class LTXAVModel(torch.nn.Module):
        pass

    model = comfyui.model("wan21_t2v")
    model.add_object_patch("diffusion_model", LTXAVModel())
    with pytest.raises(TypeError, match="do not support LTXAVModel") as caught:
        execute(nodes["BWCacheApply"], model=model, mode=PAPER)
    assert type(caught.value).__name__ == "UnsupportedModelError"
    assert "HunyuanVideo" in str(caught.value)


def test_apply_to_report(nodes, comfyui):
    lab = Lab(comfyui, "wan21_t2v")
    source = lab.plain
    model, stats = execute(nodes["BWCacheApply"], model=source, mode=PAPER).args
    assert model is not source
    assert source.wrappers.get("outer_sample", {}) == {}
    before = execute(nodes["BWCacheReport"], stats=stats, passthrough=None)
    assert "No run yet" in before.args[1]
    latents = lab.sample(model)
    after = execute(nodes["BWCacheReport"], stats=stats, passthrough=latents)
    assert after.args[0] is latents
    _, verdict, plan, text, computed, steps, speedup = after.args[:7]
    assert verdict.startswith("6 of 8 steps were computed")
    assert (plan, computed, steps) == ("", 6, STEPS)
    assert speedup > 0
    runs = json.loads(text)
    assert [step["action"] for step in runs[0]["steps"]] == ["compute"] * 3 + ["reuse"] * 2 + ["compute"] * 3
    assert "6 of 8" in "".join(after.ui["text"])
    assert len(after.args) == len(before.args) == len(nodes["BWCacheReport"].define_schema().outputs)


def test_the_apply_node_caches_as_attach_does(nodes, comfyui):
    lab = Lab(comfyui, "wan21_t2v")
    model, _ = execute(nodes["BWCacheApply"], model=lab.plain, mode=PAPER).args
    assert difference(lab.sample(model), lab.sample(lab.cached(**PAPER).model)) == 0.0


def test_stats_keep_the_last_eight_runs(nodes, comfyui):
    lab = Lab(comfyui, "wan21_t2v")
    model, stats = execute(nodes["BWCacheApply"], model=lab.plain, mode=PAPER).args
    for steps in range(1, 11):
        lab.sample(model, steps=steps)
    assert [run.steps_total for run in stats.runs] == list(range(3, 11))
