"""Measures TinyWan and draws the pictures of its page: python devtools/pack.py zoo.tinywan.card [--curve DIR/curve.jsonl]

Colour, shape and direction over 60 prompts at cfg 3 and 30 steps, a contact sheet, the training curve, and how much the
output changes from step to step.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from ..card import change_chart, measure_changes, measure_ratios
from ..models import load_plain
from .checkpoint import DEFAULT_PATH, load_checkpoint
from .data import SHAPES, prompt_of
from .judge import evaluation_labels, read_colours, read_directions, read_shapes, sample_labels

PROMPTS = 60
SHOWN_FRAMES = (0, 2, 4)
TILE = 96  # pixels of one frame on the sheet
COLUMNS = 2


def main() -> None:
    """Write the pictures and the measured fractions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--curve", type=Path, help="curve.jsonl of the training; without it that picture stays")
    parser.add_argument("--out", type=Path, default=DEFAULT_PATH.parent / "images")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    labels = evaluation_labels(PROMPTS)
    clips = sample_labels(load_checkpoint(args.checkpoint), labels, cfg=3.0, steps=30)
    for name, read, column in (
        ("colour", read_colours, 0),
        ("shape", read_shapes, 1),
        ("direction", read_directions, 2),
    ):
        right = int((read(clips) == labels[:, column]).sum())
        sys.stdout.write(f"{name}: {right} of {PROMPTS} prompts\n")
    contact_sheet(labels, clips).save(args.out / "sheet.png", optimize=True)
    if args.curve:
        training_curve(read_curve(args.curve)).savefig(args.out / "training.png")
    plain = load_plain("tinywan")
    measured = {"changes": measure_changes(plain), "ratios": measure_ratios(plain)}
    change_chart(plain.model, measured).savefig(args.out / "changes.png")
    (args.out.parent / "measured.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def contact_sheet(labels: torch.Tensor, clips: torch.Tensor) -> Image.Image:
    """First, middle and last frame of four clips of every shape, in the order of the judged prompts: none is picked."""
    chosen = [i for shape in range(len(SHAPES)) for i in torch.where(labels[:, 1] == shape)[0][:4].tolist()]
    width, height = TILE * len(SHOWN_FRAMES) + 8, TILE + 22
    rows = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (width * COLUMNS, height * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for place, i in enumerate(chosen):
        left, top = place % COLUMNS * width, place // COLUMNS * height
        draw.text((left + 2, top + 3), prompt_of(labels[i]), fill="black", font_size=13)
        frames = ((clips[i, list(SHOWN_FRAMES)].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        strip = rearrange(frames, "f c h w -> h (f w) c").numpy()
        picture = Image.fromarray(np.ascontiguousarray(strip))
        size = (TILE * len(SHOWN_FRAMES), TILE)
        sheet.paste(picture.resize(size, Image.Resampling.NEAREST), (left, top + 20))
    return sheet


def read_curve(path: Path) -> list[dict]:
    """Entries in order of time. A resumed run repeats what it had not saved: the later line of a step counts."""
    entries: list[dict] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        entries = [old for old in entries if old["seconds"] < entry["seconds"]] + [entry]
    return entries


def training_curve(entries: list[dict]) -> Figure:
    """Loss, and colour and shape accuracy as measured while training, over the clips seen."""
    figure = Figure(figsize=(7.2, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    loss = [(e["clips"] / 1000, e["loss"]) for e in entries if "loss" in e]
    axes.semilogy(*zip(*loss, strict=True), color="#3b6ea8", label="loss")
    axes.set_xlabel("thousand clips")
    axes.set_ylabel("mean squared error of the velocity")
    share = axes.twinx()
    for name, colour in (("colour_accuracy", "#c8553d"), ("shape_accuracy", "#4f9d69")):
        points = [(e["clips"] / 1000, e[name]) for e in entries if name in e]
        share.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=name.replace("_", " "))
    share.set_ylim(0, 1.05)
    share.set_ylabel("share of 60 prompts, 12 steps")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    main()
