"""Example workflows: each is legal on a running server of the version it was made for, and TinyWan's runs."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from bwcache_pack.devtools.families import FAMILIES
from bwcache_pack.devtools.graph import LEGIBLE, NEVER, ONLY_IN_BROWSER, sockets_of, to_prompt, widgets_of
from bwcache_pack.devtools.graph import named_values as values_by_name
from bwcache_pack.devtools.workflows import FOLDER, WORKFLOWS
from bwcache_pack.tests.e2e.conftest import version_of
from bwcache_pack.tests.e2e.server import Refused

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
MADE_FOR = (0, 33)  # nodes of the video examples changed on the way there
TINYWAN, MEASURE, CALIBRATE = "BWCache TinyWan", "BWCache Measure then render", "BWCache Calibrate"
RUN_ANYWHERE = (TINYWAN, MEASURE, CALIBRATE)
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def workflow(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def nodes_of(name: str) -> list[dict]:
    return [node for node in workflow(name)["nodes"] if node["type"] not in ONLY_IN_BROWSER]


@pytest.fixture
def legal_here(request, checkout):
    """Skips the workflows that need newer core nodes than this server has."""
    name = request.getfixturevalue("name")
    if name not in RUN_ANYWHERE and version_of(checkout) < MADE_FOR:
        pytest.skip(f"made for ComfyUI {'.'.join(map(str, MADE_FOR))}")


def test_every_workflow_has_a_file_and_every_file_a_workflow():
    assert NAMES == sorted(WORKFLOWS)


@pytest.mark.parametrize("name", NAMES)
def test_nodes_sockets_and_links_are_those_of_the_server(name, object_info, legal_here):
    saved = workflow(name)
    nodes = {node["id"]: node for node in saved["nodes"]}
    for node in nodes_of(name):
        about = object_info[node["type"]]
        widgets = widgets_of(about, values_by_name(about, node["widgets_values"]))
        linked = [i for i in node["inputs"] if "widget" in i]
        assert [(i["name"], i["type"]) for i in node["inputs"] if "widget" not in i] == [
            (s.name, s.kind) for s in sockets_of(about)
        ]
        assert {(i["name"], i["type"]) for i in linked} <= {(w.name, w.kind) for w in widgets}
        offered = list(zip(about["output_name"], about["output"], strict=True))
        assert [(o["name"], o["type"]) for o in node["outputs"][: len(offered)]] == offered
        assert not any(o["links"] for o in node["outputs"][len(offered) :]), "an older ComfyUI has fewer outputs"
    for link, source, slot, target, into, kind in saved["links"]:
        assert link in nodes[source]["outputs"][slot]["links"]
        assert nodes[source]["outputs"][slot]["type"] == kind
        assert nodes[target]["inputs"][into]["link"] == link


@pytest.mark.parametrize("name", NAMES)
def test_widget_values_are_legal(name, object_info, legal_here):
    for node in nodes_of(name):
        about = object_info[node["type"]]
        widgets = widgets_of(about, values_by_name(about, node["widgets_values"]))
        assert len(widgets) == len(node["widgets_values"])
        for widget, value in zip(widgets, node["widgets_values"], strict=True):
            where = f"{node['type']}.{widget.name}"
            if widget.options:
                assert value in widget.options, where
            if widget.kind in ("INT", "FLOAT"):
                assert widget.about.get("min", value) <= value <= widget.about.get("max", value), where


@pytest.mark.parametrize("name", NAMES)
def test_the_server_accepts_the_workflow(name, server, object_info, legal_here):
    """As the browser would send it. Its model files are empty here, so the run itself ends in an error."""
    prompt = to_prompt(workflow(name), object_info)
    server.queue(prompt)
    server.post("/queue", {"clear": True})
    server.post("/interrupt", {})


BAD_VALUES = (
    ("mode.speedup", 0, "speedup is 0"),
    ("mode.speedup", 1000, "speedup is 1000"),
    ("mode.speedup", float("nan"), "speedup is nan"),
    ("mode.threshold", -1, "threshold is -1"),
    ("mode.plan.steps", "0-3 3/20", "named before"),
    ("mode.plan.steps", "the first five", "has no '/'"),
    ("mode.plan.end_step", -100_000, "end_step is -100000"),
    ("mode.plan.end_step", "late", "late"),
)


def test_the_server_refuses_a_workflow_with_an_illegal_value(server, object_info):
    prompt = to_prompt(workflow(TINYWAN), object_info)
    [apply] = [node for node in prompt.values() if node["class_type"] == "BWCacheApply"]
    for name, value, words in BAD_VALUES:
        apply["inputs"] = {"model": apply["inputs"]["model"], "mode": "forecast", "mode.plan": "custom", name: value}
        with pytest.raises(Refused, match=words) as refused:
            server.queue(prompt)
        [about] = json.loads(str(refused.value)).values()
        assert len(about["errors"]) == 1, "one text for one mistake"


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_its_cache_and_every_cache_its_report(name):
    saved = workflow(name)
    types = [node["type"] for node in saved["nodes"]]
    loaders = sum(types.count(loader) for loader in ("UNETLoader", "CheckpointLoaderSimple", "BWCacheTinyWan"))
    assert types.count("BWCacheApply") == types.count("BWCacheReport") == loaders
    assert "MarkdownNote" in types


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_an_uncached_run_of_the_same_seed_is_there_muted(name, server, object_info, legal_here):
    """In a box whose title says how to unmute it. Then the server accepts it all, and both samplers differ in the model alone."""
    saved = workflow(name)
    [box] = saved["groups"]
    assert "Ctrl+M" in box["title"]
    x, y, width, height = box["bounding"]
    muted = {node["id"]: node for node in saved["nodes"] if node["mode"] == NEVER}
    for node in muted.values():
        left, top = node["pos"]
        assert x < left and left + node["size"][0] < x + width and y < top and top + node["size"][1] < y + height, node["type"]
    assert "BWCacheCompare" in {node["type"] for node in muted.values()}
    assert not muted.keys() & {link[1] for link in saved["links"] if link[3] not in muted}, "nothing that runs waits for it"
    prompt = to_prompt({**saved, "nodes": [{**node, "mode": 0} for node in saved["nodes"]]}, object_info)
    samplers = {key: node for key, node in prompt.items() if "Sampler" in node["class_type"] and "latent_image" in node["inputs"]}
    plain = {key: node for key, node in samplers.items() if int(key) in muted}
    alike = [(settings_of(one), settings_of(other)) for one in plain.values() for key, other in samplers.items() if key not in plain]
    assert sum(one == other for one, other in alike) == len(plain), "each has its twin"
    server.queue(prompt)
    server.post("/queue", {"clear": True})
    server.post("/interrupt", {})


def settings_of(node: dict) -> dict:
    """What a sampler is set to, less what tells the cached one from the plain one."""
    return {name: value for name, value in node["inputs"].items() if name not in ("model", "guider", "latent_image")}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_workflow_opens_large_enough_to_read(name):
    view = workflow(name)["extra"]["ds"]
    assert LEGIBLE <= view["scale"] <= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_every_model_file_says_where_to_get_it(name):
    for node in nodes_of(name):
        files = [value for value in node["widgets_values"] if str(value).endswith(".safetensors")]
        assert [model["name"] for model in node["properties"].get("models", [])] == files


@pytest.mark.parametrize("name", NAMES)
def test_notes_have_no_code_which_nodes_2_draws_dark_on_dark(name):
    notes = [node["widgets_values"][0] for node in workflow(name)["nodes"] if node["type"] == "MarkdownNote"]
    assert notes and not any("`" in note for note in notes)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_nodes_overlap(name):
    boxes = [(*node["pos"], *node["size"]) for node in workflow(name)["nodes"]]
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


@pytest.mark.parametrize("name", NAMES)
def test_every_workflow_has_a_preview_picture(name):
    from PIL import Image

    with Image.open(FOLDER / f"{name}.jpg") as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 300
    assert (FOLDER / f"{name}.jpg").stat().st_size < 150_000


def test_the_template_browser_lists_the_workflows(server):
    [templates] = server.get("/workflow_templates").values()
    assert sorted(templates) == NAMES


def test_tinywan_runs_and_is_reported_and_compared(server, object_info):
    saved = workflow(TINYWAN)
    prompt = to_prompt(saved, object_info)
    for node in prompt.values():
        if node["class_type"] == "PrimitiveInt" and node["inputs"]["value"] == 0:
            node["inputs"]["value"] = 7  # the seed, of its own: what other tests left in the server's cache has no output here
    outputs = server.run(prompt)
    by_type = {node["type"]: outputs[str(node["id"])] for node in saved["nodes"] if str(node["id"]) in outputs}
    assert "15 of 30 steps were computed" in by_type["BWCacheReport"]["text"][0]
    assert len(by_type["BWCacheReport"].get("images", [])) == (find_spec("matplotlib") is not None)
    assert "PSNR" in by_type["BWCacheCompare"]["text"][0]
    assert len(by_type["BWCacheCompare"]["images"]) == 5
    clips = [outputs[str(node["id"])]["images"][0] for node in saved["nodes"] if node["type"] == "SaveAnimatedWEBP"]
    assert len(clips) == 2
    for clip in clips:
        assert (server.base / "output" / clip["filename"]).stat().st_size > 1000


@pytest.fixture
def plans(server):
    """The folder of plans, empty before and after."""
    folder = server.base / "user" / "bwcache" / "plans"

    def clear():
        for path in folder.glob("*"):
            path.unlink()

    clear()
    yield folder
    clear()


def with_values(prompt: dict, kind: str, **values) -> dict:
    """The prompt with other values in every node of a type."""
    changed = json.loads(json.dumps(prompt))
    for node in changed.values():
        if node["class_type"] == kind:
            node["inputs"] |= {name: value for name, value in values.items() if name in node["inputs"]}
    return changed


def outputs_by_type(saved: dict, outputs: dict) -> dict:
    return {node["type"]: outputs[str(node["id"])] for node in saved["nodes"] if str(node["id"]) in outputs}


def test_measure_then_render(server, object_info, plans):
    """Twice measured, then rendered by what was measured: the steps of the prompt are changed, so that this run is its own."""
    saved = workflow(MEASURE)
    prompt = with_values(to_prompt(saved, object_info), "KSampler", steps=12)
    for number, words in ((101, "Measured on 1 run: two more prompts"), (102, "Measured on 2 runs: one more prompt")):
        seeded = with_values(prompt, "PrimitiveInt", value=number)
        by_type = outputs_by_type(saved, server.run(seeded))
        assert words in by_type["BWCacheReport"]["text"][0]
        assert "PSNR 100 dB" in by_type["BWCacheCompare"]["text"][0], "measuring changes nothing"
    [path] = plans.iterdir()
    [apply] = [node for node in prompt.values() if node["class_type"] == "BWCacheApply"]
    model = {"model": apply["inputs"]["model"]}
    apply["inputs"] = {**model, "mode": "forecast", "mode.speedup": 2.0, "mode.threshold": 0.5, "mode.plan": "auto"}
    by_type = outputs_by_type(saved, server.run(with_values(prompt, "PrimitiveInt", value=103)))
    text = by_type["BWCacheReport"]["text"][0]
    assert "measured on 2 runs, last on 20" in text and path.name in text
    assert "PSNR" in by_type["BWCacheCompare"]["text"][0]


def test_calibrate_then_render_with_the_plan_that_came_out(server, object_info, plans):
    saved = workflow(CALIBRATE)
    prompt = with_values(to_prompt(saved, object_info), "BasicScheduler", steps=12)
    prompt = with_values(prompt, "BWCacheCalibrate", seeds=1, trials=1, speedups="1.5 2", choose="1.5x", first_seed=201)
    prompt = with_values(prompt, "RandomNoise", noise_seed=201)
    by_type = outputs_by_type(saved, server.run(prompt))
    text = by_type["BWCacheCalibrate"]["text"][0]
    assert text.startswith("Chosen: 1.5x") and "PSNR is of the latents" in text
    assert len(by_type["BWCacheCalibrate"].get("images", [])) == (find_spec("matplotlib") is not None)
    assert "| speed-up" in by_type["PreviewAny"]["text"][0]
    plan = next(line for line in by_type["BWCacheReport"]["text"][0].splitlines() if line.startswith("Plan: "))
    assert plan.removeprefix("Plan: ").split(" (")[0] in by_type["PreviewAny"]["text"][0] and "your plan" in plan
    assert len(list(plans.iterdir())) == 1
    assert "At most 6.7 times an uncached run of 12 steps" in server.log  # 1 + 1 + 4 / 1.5 + 4 / 2
    [apply] = [node for node in prompt.values() if node["class_type"] == "BWCacheApply"]
    apply["inputs"] = {"model": apply["inputs"]["model"], "mode": "forecast", "mode.speedup": 1.5, "mode.plan": "auto"}
    text = outputs_by_type(saved, server.run(prompt))["BWCacheReport"]["text"][0]
    assert "tried by BWCache Calibrate on 1 latent, last on 20" in text and plan.split(" (")[0] in text
