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


def program_environment() -> tuple[Path, dict[str, str]]:
    """Python for the demo, training and benchmarks, and its variables: on the first ComfyUI of COMFYUI_PATH if set."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        return own_python(), dict(os.environ)
    found = checkouts()
    if not found:
        raise SetupError(f"COMFYUI_PATH is {named}, which is no ComfyUI. Correct it, or unset it to run without one.")
    return overlay(found[0].python), {**os.environ, "COMFYUI_PATH": str(found[0].path)}
