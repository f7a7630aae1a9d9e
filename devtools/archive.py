"""What the registry's archive of this pack holds: every file in git less those that .comfyignore names."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .pack import ROOT


def archive_files() -> list[Path]:
    """Paths relative to the root. Raises CalledProcessError or FileNotFoundError outside of a git checkout."""
    tracked = _git("ls-files")
    left_out = set(_git("ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore"))
    return [Path(name) for name in tracked if name not in left_out]


def _git(*arguments: str) -> list[str]:
    command = ["git", "-c", "core.quotePath=false", *arguments, "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name]
