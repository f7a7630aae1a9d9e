"""Takes the preview pictures of the example workflows in a real browser: python devtools/pack.py devtools.previews

Needs playwright, which is not in requirements-dev.txt, and a Chromium (CHROMIUM names its file). Those of TinyWan are made
from runs instead: devtools/help_pictures.py.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from ..tests.e2e.server import Server, install, make_base, running
from ..tests.hosts.checkouts import find_checkouts
from .families import FAMILIES
from .wiring import FILES
from .workflows import FOLDER

WINDOW = {"width": 2000, "height": 1300}
CARD, TITLE = (960, 760), 160
READY = "window.app && window.app.graph && window.app.extensionManager"
QUIET = """async () => {
  for (const name of ["Comfy.Minimap.Visible", "Comfy.Graph.CanvasInfo"])
    await window.app.extensionManager.setting.set(name, false);
}"""
FIT = """() => {
  const canvas = window.app.canvas, nodes = window.app.graph.nodes, left = 90, top = 90;
  const x = Math.min(...nodes.map((n) => n.pos[0])) - 20, y = Math.min(...nodes.map((n) => n.pos[1])) - 60;
  const width = Math.max(...nodes.map((n) => n.pos[0] + n.size[0])) + 20 - x;
  const height = Math.max(...nodes.map((n) => n.pos[1] + n.size[1])) + 20 - y;
  const room = [canvas.canvas.clientWidth - left - 30, canvas.canvas.clientHeight - top - 70];
  canvas.ds.scale = Math.min(room[0] / width, room[1] / height);
  canvas.ds.offset = [-x + left / canvas.ds.scale, -y + top / canvas.ds.scale];
  canvas.setDirty(true, true);
  return { x: left, y: top, width: width * canvas.ds.scale, height: height * canvas.ds.scale };
}"""


def main() -> None:
    newest = max(find_checkouts(), key=lambda checkout: [int(part) for part in checkout.version.split(".")])
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_base(base)
        install(base)
        for name, (directory, _) in FILES.items():
            (base / "models" / directory).mkdir(parents=True, exist_ok=True)
            (base / "models" / directory / name).touch()  # a missing file would open a dialog over the picture
        shutil.copy(newest.path / "input" / "example.png", base / "input")
        with running(newest, base) as server:
            take_pictures(server)


def card(name: str, graph: Image.Image) -> Image.Image:
    """The name in large letters over the graph: template browsers show it small. No result: none was made here."""
    graph.thumbnail((CARD[0], CARD[1] - TITLE), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", CARD, "#1b1b1b")
    pen = ImageDraw.Draw(sheet)
    pen.multiline_text((36, 30), name.removeprefix("BWCache "), fill="#f2a541", font_size=54)
    pen.multiline_text((36, 102), "with BWCache", fill="#e0e0e0", font_size=36)
    sheet.paste(graph, ((CARD[0] - graph.width) // 2, TITLE + (CARD[1] - TITLE - graph.height) // 2))
    return sheet


def take_pictures(server: Server) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)
        page.goto(server.url)
        page.wait_for_function(READY, timeout=120_000)
        page.wait_for_timeout(4000)
        page.keyboard.press("Escape")  # the template browser of a first start
        page.evaluate(QUIET)
        for name in FAMILIES:
            workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            page.evaluate("(workflow) => window.app.loadGraphData(workflow)", workflow)
            page.wait_for_timeout(1500)
            box = page.evaluate(FIT)
            page.wait_for_timeout(1200)
            graph = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
            card(name, graph).save(FOLDER / f"{name}.jpg", quality=85)
            sys.stdout.write(f"{name}\n")
        browser.close()


if __name__ == "__main__":
    main()
