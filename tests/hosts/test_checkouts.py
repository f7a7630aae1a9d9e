"""Finding ComfyUI: which folders count, in which order, and with whose python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bwcache_pack.tests.hosts import checkouts
from bwcache_pack.tests.hosts.checkouts import explain_missing, find_checkouts, strangers


def make_checkout(folder: Path, version: str = "9.8.7", environment: str = "") -> Path:
    """What the search looks for in a ComfyUI."""
    (folder / "comfy").mkdir(parents=True)
    (folder / "comfy" / "model_patcher.py").touch()
    (folder / "comfyui_version.py").write_text(f'# made\n__version__ = "{version}"\n', encoding="ascii")
    if environment:
        (folder / environment).parent.mkdir(parents=True)
        (folder / environment).touch()
    return folder


def test_both_usual_places_are_found(tmp_path):
    make_checkout(tmp_path / "ComfyUI", "0.33.0")
    make_checkout(tmp_path / "comfy" / "ComfyUI", "0.8.0")
    found = find_checkouts({}, home=tmp_path)
    assert [(c.path.parent.name, c.version) for c in found] == [(tmp_path.name, "0.33.0"), ("comfy", "0.8.0")]


def test_comfyui_path_wins_and_may_list_several(tmp_path):
    make_checkout(tmp_path / "ComfyUI")
    listed = [make_checkout(tmp_path / name, name) for name in ("1.0", "2.0")]
    found = find_checkouts({"COMFYUI_PATH": os.pathsep.join(map(str, [*listed, listed[0]]))}, home=tmp_path)
    assert [c.version for c in found] == ["1.0", "2.0"]


def test_a_link_to_the_same_checkout_counts_once(tmp_path):
    make_checkout(tmp_path / "comfy" / "ComfyUI")
    try:
        (tmp_path / "ComfyUI").symlink_to(tmp_path / "comfy" / "ComfyUI", target_is_directory=True)
    except OSError:
        pytest.skip("no right to make links here")
    assert len(find_checkouts({}, home=tmp_path)) == 1


def test_a_pack_that_is_installed_finds_its_own_comfyui(tmp_path, monkeypatch):
    make_checkout(tmp_path / "portable" / "ComfyUI", "0.9.0")
    monkeypatch.setattr(checkouts, "PACK", tmp_path / "portable" / "ComfyUI" / "custom_nodes" / "bwcache")
    assert [c.version for c in find_checkouts({}, home=tmp_path / "nobody")] == ["0.9.0"]


def test_nothing_found_is_said_loudly(tmp_path, monkeypatch):
    monkeypatch.setattr(checkouts, "PACK", tmp_path / "somewhere" / "bwcache")
    missing = {"COMFYUI_PATH": str(tmp_path)}
    assert find_checkouts({}, home=tmp_path) == find_checkouts(missing) == []
    assert strangers(missing) == [str(tmp_path)]
    assert strangers({}) == []
    assert "NO COMFYUI FOUND" in explain_missing({})
    assert str(tmp_path) in explain_missing(missing)


def test_the_python_of_a_checkout(tmp_path):
    """Its own environment before the one that runs the tests; COMFYUI_PYTHON before both."""
    plain = make_checkout(tmp_path / "plain")
    equipped = make_checkout(tmp_path / "equipped", environment=".venv/bin/python")
    paths = {"COMFYUI_PATH": os.pathsep.join([str(plain), str(equipped)])}
    assert [str(c.python) for c in find_checkouts(paths)] == [sys.executable, str(equipped / ".venv/bin/python")]
    assert {str(c.python) for c in find_checkouts({**paths, "COMFYUI_PYTHON": "/any/python"})} == {"/any/python"}
