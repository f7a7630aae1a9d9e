"""Python environments for dev.py: made once, reused while nothing changed, never the user's own.

Where no torch is at hand, `.venv` gets all of requirements-dev.txt. Over an environment that has torch (a ComfyUI user's)
an overlay in `.venvs/` is laid: a virtual environment that sees that one's packages and adds only the missing ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .pack import ROOT

LOGGER = logging.getLogger(__name__)
FULL = ROOT / ".venv"
OVERLAYS = ROOT / ".venvs"
HOST_TOOLS = ("pytest", "hypothesis")  # what the tests need on top of a ComfyUI environment
FACTS = (
    "import json, sys; print(json.dumps({'prefix': sys.prefix, 'version': sys.version, "
    "'sites': [p for p in sys.path if p.endswith(('site-packages', 'dist-packages'))]}))"
)


class SetupError(RuntimeError):
    """An environment could not be made. The message says what to do."""


def own_python() -> Path:
    """Python with all of requirements-dev.txt and a torch: the one dev.py was started in, where that has one."""
    if Path(sys.prefix).parent == OVERLAYS:
        return Path(sys.executable)
    if Path(sys.prefix) == FULL or importlib.util.find_spec("torch") is None:
        return _full()
    return overlay(Path(sys.executable))


def overlay(base: Path, only: Iterable[str] = ()) -> Path:
    """Python that sees the packages of `base`, and what it lacks of requirements-dev.txt (of `only`, if given).

    `base` itself is not changed: pip installs into the overlay, and leaves packages outside of it alone.
    """
    facts = subprocess.run([base, "-c", FACTS], capture_output=True, text=True, check=True).stdout
    prefix, sites = Path(json.loads(facts)["prefix"]), json.loads(facts)["sites"]
    wanted = [line for line in _requirements() if _name(line) != "torch" and (not only or _name(line) in only)]
    label = prefix.parent.name if prefix.name.lstrip(".") == "venv" else prefix.name
    folder = OVERLAYS / f"{label}-{_digest(facts, *sorted(only))}"
    stamp = _digest(facts, *wanted)
    if _stamp(folder) != stamp:
        LOGGER.info("Setting up %s over %s, which stays as it is ...", folder.relative_to(ROOT), prefix)
        _create(base, folder)
        _see_packages_of(folder, sites)
        _install(folder, wanted, stamp, "--quiet")
    return _python(folder)


def _full() -> Path:
    """Python of `.venv` with all of requirements-dev.txt. Downloads torch the first time."""
    stamp = _digest(*_requirements())
    if _stamp(FULL) != stamp:
        LOGGER.info("Setting up %s, torch included: this takes minutes the first time ...", FULL.name)
        if not _runs(FULL):
            _create(Path(sys.executable), FULL)
        _install(FULL, _requirements(), stamp)
    return _python(FULL)


def _requirements() -> list[str]:
    lines = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _runs(folder: Path) -> bool:
    python = _python(folder)
    return python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0


def _stamp(folder: Path) -> str:
    """Digest of what was installed, written last: empty if the folder is missing or was left half done."""
    path = folder / "bwcache-dev.stamp"
    return path.read_text(encoding="utf-8") if path.exists() and _python(folder).exists() else ""


def _create(base: Path, folder: Path) -> None:
    made = subprocess.run([base, "-m", "venv", "--clear", folder], stdout=sys.stderr)
    if made.returncode != 0:
        raise SetupError(
            f"{base} could not make a virtual environment (see above). Install its venv module "
            "(Debian and Ubuntu: apt install python3-venv), or start dev.py with another Python 3.10 or later."
        )


def _see_packages_of(folder: Path, sites: Iterable[str]) -> None:
    """Add folders of packages behind the overlay's own, with their .pth files (editable installs) honoured."""
    script = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = subprocess.run([_python(folder), "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    lines = "".join(f"import site; site.addsitedir({site!r})\n" for site in sites)
    (Path(own) / "bwcache_overlay.pth").write_text(lines, encoding="utf-8")


def _install(folder: Path, requirements: Iterable[str], stamp: str, *options: str) -> None:
    """Install with pip, which reads the registry's address from its own configuration (PIP_INDEX_URL and so on)."""
    command = [_python(folder), "-m", "pip", "install", "--disable-pip-version-check", *options, *requirements]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise SetupError("pip could not install what dev.py needs (see above). Is a package registry reachable?")
    (folder / "bwcache-dev.stamp").write_text(stamp, encoding="utf-8")
