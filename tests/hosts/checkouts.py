"""Where ComfyUI is on this machine. One line per checkout: python tests/hosts/checkouts.py

A process can hold only one ComfyUI, so whoever runs tests/hosts starts one process per checkout, with COMFYUI_PATH set
to that checkout alone and the checkout's own python.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PACK = Path(__file__).resolve().parents[2]
USUAL_PLACES = ("ComfyUI", "comfy/ComfyUI")  # below the home folder: a git clone, and what comfy-cli installs
INTERPRETERS = (".venv/bin/python", "venv/bin/python", ".venv/Scripts/python.exe", "venv/Scripts/python.exe")


class Checkout(NamedTuple):
    path: Path
    version: str
    python: Path


def find_checkouts(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> list[Checkout]:
    """Every ComfyUI to test against. COMFYUI_PATH (separated like PATH) wins, then the usual places below the home
    folder, then the ComfyUI that this pack is installed in. A folder that is no ComfyUI is left out."""
    named = environment.get("COMFYUI_PATH", "")
    if named:
        folders = [Path(name) for name in named.split(os.pathsep) if name]
    else:
        folders = [(home or Path.home()) / place for place in USUAL_PLACES]
        folders = [folder for folder in folders if is_comfyui(folder)] or [PACK.parent.parent]
    distinct = {folder.expanduser().resolve(): None for folder in folders}
    return [describe(folder, environment) for folder in distinct if is_comfyui(folder)]


def strangers(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Folders in COMFYUI_PATH that are no ComfyUI."""
    named = environment.get("COMFYUI_PATH", "").split(os.pathsep)
    return [name for name in named if name and not is_comfyui(Path(name).expanduser())]


def is_comfyui(folder: Path) -> bool:
    return (folder / "comfy" / "model_patcher.py").is_file()


def describe(folder: Path, environment: Mapping[str, str]) -> Checkout:
    """Version from the checkout's own file; COMFYUI_PYTHON, else the checkout's environment, else this python."""
    versions = folder / "comfyui_version.py"
    found = re.search(r'__version__ = "(.+?)"', versions.read_text(encoding="utf-8")) if versions.is_file() else None
    own = [folder / name for name in INTERPRETERS if (folder / name).is_file()]
    python = environment.get("COMFYUI_PYTHON") or (own[0] if own else sys.executable)
    return Checkout(folder, found.group(1) if found else "unknown", Path(python))


def explain_missing(environment: Mapping[str, str] = os.environ) -> str:
    """What to do when find_checkouts() found nothing."""
    named = environment.get("COMFYUI_PATH", "")
    where = f"COMFYUI_PATH is {named!r}, which is no ComfyUI." if named else "COMFYUI_PATH is not set."
    return f"NO COMFYUI FOUND, SO NOTHING WAS TESTED AGAINST IT. {where} Set COMFYUI_PATH to a checkout."


if __name__ == "__main__":
    found_checkouts = find_checkouts()
    for checkout in found_checkouts:
        sys.stdout.write(f"{checkout.path}\t{checkout.version}\t{checkout.python}\n")
    for stranger in strangers():
        sys.stderr.write(f"COMFYUI_PATH names {stranger}, which is no ComfyUI.\n")
    if not found_checkouts:
        sys.exit(explain_missing())
