"""Draws the pack's icon and banner for the registry: python devtools/pack.py devtools.brand

The steps of a run as on the node, blue ones computed and amber ones reused, under the error that stays small.
"""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from .pack import ROOT

FOLDER = ROOT / "docs" / "images"
GROUND, COMPUTED, REUSED, INK, SOFT = "#17181b", "#467fc3", "#faa63f", "#f2f3f5", "#a3a7ae"
ICON, BANNER = 400, (1344, 576)  # 21:9, as the registry asks for
FINER = 4  # drawn so much larger, then made small: smooth edges
PLAN = "CCCRCRRCRRRCRRCRCC"  # of the banner


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    icon().save(FOLDER / "icon.png", optimize=True)
    banner().save(FOLDER / "banner.png", optimize=True)


def icon() -> Image.Image:
    """Two computed bars with two reused ones between them, still told apart at 32 pixels."""
    side = ICON * FINER
    picture = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    pen.rounded_rectangle((0, 0, side - 1, side - 1), side * 0.2, fill=GROUND)
    margin, gap = side * 0.17, side * 0.055
    width = (side - 2 * margin - 3 * gap) / 4
    for i, (kind, share) in enumerate(zip("CRRC", (1.0, 0.62, 0.62, 1.0), strict=True)):
        left = margin + i * (width + gap)
        draw_bar(pen, left, side - margin - share * (side - 2 * margin), width, side - margin, kind)
    return picture.resize((ICON, ICON), Image.Resampling.LANCZOS)


def banner() -> Image.Image:
    """Name and promise over the steps of a run."""
    size = (BANNER[0] * FINER // 2, BANNER[1] * FINER // 2)
    picture = Image.new("RGB", size, GROUND)
    pen, (width, height) = ImageDraw.Draw(picture), size
    left = width * 0.07
    pen.text((left, height * 0.17), "BWCache", fill=INK, font=ImageFont.load_default(height * 0.2))
    promise = "Compute half of the steps, foretell the others"
    pen.text((left, height * 0.44), promise, fill=SOFT, font=ImageFont.load_default(height * 0.075))
    gap = width * 0.006
    bar = (width - 2 * left - (len(PLAN) - 1) * gap) / len(PLAN)
    for i, kind in enumerate(PLAN):
        draw_bar(pen, left + i * (bar + gap), height * 0.66, bar, height * 0.84, kind)
    return picture.resize(BANNER, Image.Resampling.LANCZOS)


def draw_bar(pen: ImageDraw.ImageDraw, left: float, top: float, width: float, bottom: float, kind: str) -> None:
    colour = COMPUTED if kind == "C" else REUSED
    pen.rounded_rectangle((left, top, left + width, bottom), width * 0.18, fill=colour)


if __name__ == "__main__":
    main()
