"""Takes the pictures of docs/screens.md in a real browser: python devtools/pack.py devtools.screens

Started with a Python that has matplotlib and all that ComfyUI needs, with COMFYUI_PATH: the server runs with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from . import browser
from .pack import ROOT

SCRIPTS = (ROOT / "tests" / "web" / "browser" / "pictures.mjs", ROOT / "devtools" / "first_minutes.mjs")
FOLDER = ROOT / "docs" / "images"


def main() -> None:
    """Every picture anew. Raises SystemExit with what is missing."""
    why_not = browser.missing()
    if why_not:
        raise SystemExit(why_not)
    variables = {**os.environ, "COMFYUI_PYTHON": sys.executable, "CHROMIUM": browser.chromium()}
    with tempfile.TemporaryDirectory() as scratch:
        for script in SCRIPTS:
            subprocess.run(["node", script, scratch], env=variables, check=True)
        for path in Path(scratch).glob("*.png"):
            keep(path)


def keep(path: Path) -> None:
    """In 256 colours: a third of the bytes, and no difference to the eye."""
    Image.open(path).convert("RGB").quantize(256).save(FOLDER / path.name, optimize=True)


if __name__ == "__main__":
    main()
