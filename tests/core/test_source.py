"""What bwcache_core may not do, read from its source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import bwcache_pack

CORE = Path(bwcache_pack.__path__[0]) / "bwcache_core"
SOURCES = sorted(CORE.rglob("*.py"))
ALLOWED = {"torch", *sys.stdlib_module_names}


@pytest.fixture(params=SOURCES, ids=lambda path: path.relative_to(CORE).as_posix())
def source(request) -> ast.Module:
    return ast.parse(request.param.read_text(encoding="utf-8"))


def test_there_are_sources():
    assert {"config.py", "paper/run.py"} <= {path.relative_to(CORE).as_posix() for path in SOURCES}


def test_only_torch_and_the_standard_library_are_imported(request, source):
    """Relative imports stay inside the folder: `from ..nodes` in config.py would leave it."""
    depth = 1 + request.node.callspec.id.count("/")
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED
        if isinstance(node, ast.ImportFrom):
            assert 1 <= node.level <= depth or (node.level == 0 and node.module.split(".")[0] in ALLOWED)


def test_nothing_is_printed(source):
    calls = [node.func for node in ast.walk(source) if isinstance(node, ast.Call)]
    assert "print" not in {func.id for func in calls if isinstance(func, ast.Name)}


def test_no_function_is_long(source):
    functions = [node for node in ast.walk(source) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert all(node.end_lineno - node.lineno < 40 for node in functions)


def test_no_module_keeps_state(source):
    """Module-level names are constants: in capitals unless they name a type, and only tables that nobody writes to."""
    constants = set()
    for node in source.body:
        if isinstance(node, ast.Assign):
            constants |= {part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    assert all(name.isupper() or name[0].isupper() for name in constants)
    for node in ast.walk(source):
        assert not isinstance(node, ast.Global)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            assert getattr(node.value, "id", None) not in constants
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            changes = node.func.attr in {"append", "add", "update", "clear", "pop", "setdefault", "extend"}
            assert not (changes and getattr(node.func.value, "id", None) in constants)
