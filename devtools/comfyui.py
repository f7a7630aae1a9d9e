"""The ComfyUI checkouts of this machine, found by the same rules as in the tests (tests/hosts/checkouts.py)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from .environment import SetupError, overlay, own_python
from .pack import ROOT


def checkouts() -> list:
    """Every checkout to test against: path, version and python of each."""
    path = ROOT / "tests" / "hosts" / "checkouts.py"
    spec = importlib.util.spec_from_file_location("bwcache_checkouts", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.find_checkouts()


def program_environments(everywhere: bool) -> list[tuple[Path, dict[str, str]]]:
    """Python and variables to run a program with: the embedded host, or the ComfyUI that COMFYUI_PATH names.

    everywhere: the embedded host and the first ComfyUI found, COMFYUI_PATH or not.
    """
    plain = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    named = os.environ.get("COMFYUI_PATH")
    found = checkouts() if named or everywhere else []
    if named and not found:
        raise SetupError(f"COMFYUI_PATH is {named}, which is no ComfyUI. Correct it, or unset it to run without one.")
    hosts = [(overlay(first.python), {**plain, "COMFYUI_PATH": str(first.path)}) for first in found[:1]]
    return [(own_python(), plain), *hosts] if everywhere or not hosts else hosts
