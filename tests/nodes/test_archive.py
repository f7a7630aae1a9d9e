"""The archive that users install from the registry: small, complete, and without what only developers need."""

from __future__ import annotations

import ast
import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from bwcache_pack.devtools.archive import archive_files
from bwcache_pack.devtools.pack import ROOT

LARGEST = 2_000_000  # bytes, zipped
DEVELOPERS_ONLY = {
    ".ci",
    ".github",
    "benchmarks",
    "devtools",
    "dev.py",
    "requirements-dev.txt",
    "tests",
    "zoo",
    "hosts",
    "CONTRIBUTING.md",
}


@pytest.fixture(scope="module")
def files() -> list[Path]:
    try:
        return archive_files()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout: what is in the archive is only known there")


def test_nothing_that_only_developers_need_is_in_it(files):
    assert {path.parts[0] for path in files} & DEVELOPERS_ONLY == set()


def test_everything_that_users_need_is_in_it(files):
    names = {path.as_posix() for path in files}
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "nodes/apply.py"} <= names
    assert {"web/docs/BWCacheApply.md", "web/docs/BWCacheReport/ja.md", "web/docs/images/forecast_error.png"} <= names
    assert {path.parts[0] for path in files} >= {"bwcache_core", "example_workflows", "locales", "nodes", "web"}


def test_it_is_small(files):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.write(ROOT / path, path)
    assert archive.tell() < LARGEST


def test_its_modules_import_only_each_other_at_module_scope(files):
    """What is left out, such as tinywan, may be imported only where its presence was checked."""
    modules = {path.as_posix() for path in files if path.suffix == ".py"}
    for name in modules:
        for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = (ROOT / name).parents[node.level - 1].relative_to(ROOT)
                target = folder / (node.module or "").replace(".", "/")
                found = {f"{target.as_posix()}.py", f"{target.as_posix()}/__init__.py"}
                assert found & modules, f"{name} imports {target}"


def test_its_python_and_its_node_words_are_ascii(files):
    """comfy-test refuses characters outside cp1252, on whose consoles they cannot be printed."""
    for path in files:
        if path.suffix == ".py":
            assert (ROOT / path).read_bytes().isascii(), path


def test_scripts_are_served_under_one_name():
    """WEB_DIRECTORY and [tool.comfy] web together make the browser load every script twice."""
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = pyproject.split("[tool.comfy]")[1].split("\n[")[0]
    assert not any(line.split("=")[0].strip() == "web" for line in section.splitlines())


def test_the_registry_and_pip_are_told_of_the_same_packages():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = {line.split("#")[0].strip() for line in lines} - {""}
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = next(line for line in pyproject.splitlines() if line.startswith("dependencies"))
    assert set(ast.literal_eval(listed.split("=", 1)[1].split("#")[0].strip())) == required
