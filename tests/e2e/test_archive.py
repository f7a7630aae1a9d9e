"""The archive of the registry, installed on a server: its nodes, scripts and workflows, each once."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bwcache_pack.devtools.archive import archive_files
from bwcache_pack.tests.e2e.server import PACK, make_base, running

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
NAME = "bwcache"  # the folder that the Manager makes: the name in pyproject.toml


@pytest.fixture(scope="module")
def server(checkout, tmp_path_factory):
    base = tmp_path_factory.mktemp("archive")
    make_base(base)
    try:
        files = archive_files()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout: what is in the archive is only known there")
    for path in files:
        target = base / "custom_nodes" / NAME / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACK / path, target)
    with running(checkout, base) as started:
        yield started


def test_its_nodes_register_and_those_of_the_small_model_do_not(server):
    found = [name for name in server.get("/object_info") if name.startswith("BWCache")]
    assert sorted(found) == ["BWCacheApply", "BWCacheCalibrate", "BWCacheCompare", "BWCacheReport"]
    assert "IMPORT FAILED" not in server.log


def test_no_script_is_served_twice(server):
    ours = [path.rsplit("/", 1)[1] for path in server.get("/extensions") if "bwcache" in path]
    assert len(ours) == len(set(ours))


def test_workflows_that_need_the_small_model_are_not_offered(server):
    [templates] = server.get("/workflow_templates").values()
    assert len(templates) >= 7
    for name in templates:
        workflow = (server.base / "custom_nodes" / NAME / "example_workflows" / f"{name}.json").read_text(encoding="utf-8")
        assert "BWCacheTinyWan" not in workflow, name
