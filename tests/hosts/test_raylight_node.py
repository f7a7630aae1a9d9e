"""BWCache Apply (Raylight): there where Raylight is, with the inputs of BWCache Apply, and nothing of Ray before it runs."""

from __future__ import annotations

import asyncio
import importlib
import sys
from types import SimpleNamespace

import pytest

from bwcache_pack.bwcache_core.config import BlockConfig
from bwcache_pack.tests.hosts.test_nodes import execute

pytestmark = pytest.mark.comfyui
ID = "BWCacheApplyRaylight"


@pytest.fixture
def registered(comfyui, tmp_path, monkeypatch):
    """Ids of the nodes that register, with these folders among the custom nodes."""
    extension = importlib.import_module("bwcache_pack.nodes.extension")

    def nodes(*folders: str) -> list[str]:
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr(extension.folder_paths, "get_folder_paths", lambda kind: [str(tmp_path)])
        listed = asyncio.run(extension.BWCacheExtension().get_node_list())
        return [node.define_schema().node_id for node in listed]

    return nodes


@pytest.mark.parametrize(
    ("folder", "there"),
    [
        ("raylight/src/raylight/distributed_worker", True),
        ("Raylight-main/src/raylight/distributed_worker", True),
        ("raylight.disabled/src/raylight/distributed_worker", False),
        ("another/src/something", False),
    ],
)
def test_it_registers_only_where_raylight_is(registered, folder, there):
    assert (ID in registered(folder)) is there
    assert "ray" not in sys.modules


@pytest.fixture
def node(comfyui):
    return importlib.import_module("bwcache_pack.nodes.raylight").BWCacheApplyRaylight


def test_its_settings_are_those_of_apply_but_for_measuring(node):
    """Ranks may hold parts of the weights, by which measured plans are found."""
    apply = importlib.import_module("bwcache_pack.nodes.apply").BWCacheApply
    ours, theirs = (cls.define_schema().inputs for cls in (node, apply))
    assert [entry.id for entry in ours[1:]] == [entry.id for entry in theirs[1:]] == ["mode"]
    modes, of_apply = ({o.key: [i.id for i in o.inputs] for o in inputs[1].options} for inputs in (ours, theirs))
    assert of_apply.pop("measure") == [] and modes == of_apply
    assert [entry.get_io_type() for entry in (ours[0], *node.define_schema().outputs)] == [
        "RAY_ACTORS", "RAY_ACTORS", "BWCACHE_STATS",
    ]  # fmt: skip


def test_it_hands_the_actors_on_with_the_stats_of_all(node, monkeypatch):
    """Sampling through Ray is in tests/raylight."""
    seen = []
    fake = SimpleNamespace(attach_everywhere=lambda actors, config: (seen.append((actors, config)), "stats")[1])
    monkeypatch.setitem(sys.modules, "bwcache_pack.nodes.ray_actors", fake)
    actors = {"workers": ["a", "b"]}
    result = execute(node, ray_actors=actors, mode={"mode": "paper", "threshold": 0.2})
    assert result.args == (actors, "stats") and result.args[0] is actors
    assert seen == [(actors, BlockConfig(threshold=0.2))]
