"""Measures a model and draws the pictures of its page: python devtools/pack.py zoo.card market [--out DIR]

Prompts followed (read by the model's judge), a contact sheet, the training curve, how much the output changes from step to
step at guidance 1, 3.5, 5 and 7, and the ratio of residuals beside the curve of a real model. The numbers go to
measured.json beside the folder of pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image, ImageDraw

from .checkpoints import read_provenance
from .curves import changes, residual_ratios
from .judge import FILE, agreement, load_judge
from .models import CFG, PlainModel, ZooModel, load_plain, open_model
from .published import HUNYUAN_720P, WAN_1_3B

PROMPTS, CHANGED = 60, 16  # clips that are judged, and of which the change is measured
STEPS = 30
SCALES = {1.0: "#4f9d69", 3.5: "#3b6ea8", 5.0: "#8a5aa8", 7.0: "#c8553d"}  # strengths of guidance and their colours
TICKS = {0.01: "0.01", 0.02: "0.02", 0.05: "0.05", 0.1: "0.1", 0.2: "0.2", 0.5: "0.5", 1.0: "1"}
REAL = {"wan": ("Wan 2.1 1.3B, cfg 5", WAN_1_3B), "hunyuan": ("HunyuanVideo 720p, guidance 6", HUNYUAN_720P)}
SHOWN_FRAMES = (0, 2, 4)
TILE, COLUMNS, CLIPS = 96, 3, 24  # pixels of one frame on the sheet; clips across and in all


def main() -> None:
    """Measure, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--out", type=Path, help="folder of the pictures; images/ beside the model if left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    model = open_model(args.model)
    plain, out = load_plain(model, args.device), args.out or model.checkpoint.parent / "images"
    out.mkdir(parents=True, exist_ok=True)
    prompts = model.prompts(PROMPTS)
    clips = sample(plain, prompts)
    contact_sheet(prompts, clips).save(out / "sheet.png", optimize=True)
    measured = {"changes": measure_changes(plain), "ratios": measure_ratios(plain), **followed(model, prompts, clips)}
    change_chart(model, measured).savefig(out / "changes.png")
    curve = json.loads(read_provenance(model.checkpoint).get("curve", "[]"))
    if curve:
        training_chart(curve).savefig(out / "training.png")
    (out.parent / "measured.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{json.dumps({key: measured[key] for key in measured if key != 'ratios'})}\n")


def sample(plain: PlainModel, prompts: list[str]) -> torch.Tensor:
    """Clips (B, F, 3, S, S) at the model's usual guidance, clip k from seed k."""
    noise = noise_for(plain, len(prompts))
    parts = zip(noise.split(15), range(0, len(prompts), 15), strict=True)
    latents = [plain.sample(part, prompts[first : first + 15], steps=STEPS) for part, first in parts]
    return plain.model.pixels(torch.cat(latents)).cpu()


def noise_for(plain: PlainModel, count: int) -> torch.Tensor:
    """Noise of seeds 0, 1, ... where the network is."""
    return plain.model.noise(list(range(count))).to(next(plain.module.parameters()).device)


def followed(model: ZooModel, prompts: list[str], clips: torch.Tensor) -> dict[str, list[float]]:
    """Shares of prompts whose subject, place, motion and all three the judge reads in the clip, and in drawn clips."""
    judge = load_judge(model.checkpoint.parent, model.language)
    asked = torch.tensor([model.language.label_of(prompt) for prompt in prompts])
    own = read_provenance(model.checkpoint.parent / FILE)["accuracy"]
    shares = agreement(judge.read(clips), asked)
    return {"followed": [round(float(share), 3) for share in shares], "judge": [float(share) for share in own.split()]}


def measure_changes(plain: PlainModel) -> dict[str, list[float]]:
    """Relative L1 change of the output at each strength of guidance."""
    prompts, noise = plain.model.prompts(CHANGED), noise_for(plain, CHANGED)
    curves = {str(scale): changes(plain, prompts, noise, scale, STEPS) for scale in SCALES}
    return {scale: [round(float(value), 4) for value in curve] for scale, curve in curves.items()}


def measure_ratios(plain: PlainModel) -> list[float]:
    """Ratio of residuals at the model's usual guidance."""
    prompts, noise = plain.model.prompts(CHANGED), noise_for(plain, CHANGED)
    return [round(float(value), 4) for value in residual_ratios(plain, prompts, noise, plain.model.scale, STEPS)]


def contact_sheet(prompts: list[str], clips: torch.Tensor) -> Image.Image:
    """First, middle and last frame of the first clips, in the order of the judged prompts: none is picked."""
    width, height = TILE * len(SHOWN_FRAMES) + 8, TILE + 22
    sheet = Image.new("RGB", (width * COLUMNS, height * -(-CLIPS // COLUMNS)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (prompt, clip) in enumerate(zip(prompts[:CLIPS], clips, strict=False)):
        left, top = place % COLUMNS * width, place // COLUMNS * height
        draw.text((left + 2, top + 3), prompt, fill="black", font_size=13)
        frames = (clip[list(SHOWN_FRAMES)] * 255).round().to(torch.uint8)
        picture = Image.fromarray(np.ascontiguousarray(rearrange(frames, "f c h w -> h (f w) c").numpy()))
        sheet.paste(picture.resize((TILE * len(SHOWN_FRAMES), TILE), Image.Resampling.NEAREST), (left, top + 20))
    return sheet


def change_chart(model: ZooModel, measured: dict) -> Figure:
    """Change of the output at four strengths, and the ratio of residuals beside a real model's."""
    figure = Figure(figsize=(9.6, 3.6), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_changes(left, measured["changes"], word_of(model))
    draw_ratios(right, model, measured["ratios"])
    for axes in (left, right):
        axes.set_xlabel("share of the steps")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_changes(axes: Axes, changes: dict[str, list[float]], word: str) -> None:
    """The same scale for every model, so that two pages can be laid side by side."""
    for scale, colour in SCALES.items():
        axes.semilogy(steps_done(STEPS), changes[str(scale)], color=colour, label=f"{word} {scale:g}")
    axes.set(title="change of the output, step to step", ylabel="relative L1 change", ylim=(0.006, 1.2))
    axes.yaxis.set_major_locator(FixedLocator(list(TICKS)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticklabels(TICKS.values())
    axes.legend(frameon=False, fontsize=9, loc="upper center", ncols=2)


def draw_ratios(axes: Axes, model: ZooModel, ratios: list[float]) -> None:
    """MagCache's measure, as published of a real model and as measured on this one."""
    name, real = REAL[model.family]
    axes.plot(steps_done(len(real) + 1), real, color="#999999", label=name)
    axes.plot(steps_done(STEPS), ratios, color="#222222", label=f"{model.name}, {word_of(model)} {model.scale:g}")
    axes.set(title="size of what the blocks add, step to step", ylabel="ratio of residuals", ylim=(0.7, 1.35))
    axes.legend(frameon=False, fontsize=9, loc="upper right")


def word_of(model: ZooModel) -> str:
    """What the strength of guidance is called."""
    return "cfg" if model.guidance == CFG else "guidance"


def steps_done(steps: int) -> np.ndarray:
    """Where each change from one step to the next lies, as a share of the run."""
    return np.arange(1, steps) / steps


def training_chart(curve: list[dict]) -> Figure:
    """Loss over the clips seen."""
    figure = Figure(figsize=(7.2, 3.0), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.semilogy([e["clips"] / 1000 for e in curve], [e["loss"] for e in curve], color="#3b6ea8")
    axes.set(xlabel="thousand clips", ylabel="loss")
    return figure


if __name__ == "__main__":
    main()
