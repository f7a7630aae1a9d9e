"""What the browser tests need beyond Python: node, a Chromium, one npm package, the small model. All but npm's stay as found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .pack import ROOT

FOLDER = ROOT / "tests" / "web" / "browser"
MODEL = ROOT / "zoo" / "tinywan" / "tinywan.safetensors"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing() -> str:
    """Why the browser tests cannot run, and what to do. Empty when they can; installs the npm package then."""
    if not chromium():
        return "no Chromium FOUND: install one, or name it in CHROMIUM"
    if not Path(os.environ.get("BWCACHE_TINYWAN", MODEL)).is_file():
        return f"{MODEL.name} is NOT THERE"
    npm = shutil.which("npm")
    if npm is None:
        return "npm NOT FOUND: it comes with node"
    return "" if _installed() or _install(npm) else "npm could not install playwright-core (see above)"


def chromium() -> str:
    """Path of a Chromium, empty without one."""
    named = os.environ.get("CHROMIUM")
    found = [named] if named else [shutil.which(name) for name in CHROMIUMS]
    return next((path for path in found if path and Path(path).is_file()), "")


def _installed() -> bool:
    """Whether what npm installed is as new as the list of what to install."""
    done, wanted = FOLDER / "node_modules" / ".package-lock.json", FOLDER / "package-lock.json"
    return done.exists() and done.stat().st_mtime >= wanted.stat().st_mtime


def _install(npm: str) -> bool:
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    if subprocess.run(command, cwd=FOLDER, stdout=sys.stderr).returncode != 0:
        return False
    (FOLDER / "node_modules" / ".package-lock.json").touch()
    return True
