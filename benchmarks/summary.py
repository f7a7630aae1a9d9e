"""From runs to a front: mean and worst fidelity of each setting of a method, the table, and one chart per sampler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from .front import Point, Setting, setting_of

GRID = (1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)
OVERVIEW = (2.0, 3.0)
STYLES = {  # colour and marker; ours are solid, others dashed
    "adaptive": ("#c8553d", "o"),
    "adaptive target": ("#7a1f0f", "D"),
    "paper": ("#3b6ea8", "s"),
    "per block": ("#4f9d69", "^"),
    "fewer steps": ("#222222", "x"),
    "EasyCache": ("#8e6bbf", "v"),
    "LazyCache": ("#b58ad6", "<"),
    "TeaCache signal": ("#d1a23c", "P"),
    "MagCache signal": ("#7f8c8d", "*"),
    "first block signal": ("#2a9d8f", "h"),
}
ADAPTIVE = ("adaptive", "adaptive target")
OURS = ("adaptive", "adaptive target", "paper", "per block")


@dataclass(frozen=True)
class Mark:
    """A method at one setting: means over prompts and seeds, the worst PSNR, and how many runs."""

    method: str
    setting: str
    speedup: float
    psnr: float
    worst: float
    ssim: float
    motion_psnr: float
    runs: int


def marks(points: Sequence[Point]) -> dict[Setting, list[Mark]]:
    """Marks of every setting, in the order they were measured."""
    groups: dict[Setting, dict[tuple[str, str], list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        groups[setting_of(point)][point.method, point.setting].append(point)
    return {setting: [mark_of(*key, group) for key, group in by.items()] for setting, by in groups.items()}


def mark_of(method: str, setting: str, group: Sequence[Point]) -> Mark:
    """speedup: of all runs together, which is what a user with many jobs sees."""
    figures = {name: mean(getattr(point, name) for point in group) for name in ("psnr", "ssim", "motion_psnr")}
    speedup = 1.0 / mean(1.0 / point.speedup for point in group)
    return Mark(
        method,
        setting,
        speedup,
        figures["psnr"],
        min(p.psnr for p in group),
        figures["ssim"],
        figures["motion_psnr"],
        len(group),
    )


def front_at(candidates: Sequence[Mark], speedup: float) -> float | None:
    """PSNR at a speed-up, between the two settings around it, the better where settings overlap. None outside.

    Settings that reused nothing are left out: their 100 dB stand for equality, and no line leads there.
    """
    ordered = sorted((mark for mark in candidates if mark.speedup > 1.02), key=lambda mark: mark.speedup)
    found = []
    for left, right in pairwise(ordered):
        if left.speedup <= speedup <= right.speedup and right.speedup > left.speedup:
            share = (speedup - left.speedup) / (right.speedup - left.speedup)
            found.append(left.psnr + share * (right.psnr - left.psnr))
    return max(found, default=None)


def table(setting_marks: Sequence[Mark]) -> str:
    """Markdown: every setting of every method."""
    lines = [
        "| method | setting | speed-up | PSNR, dB | worst | SSIM | motion PSNR | runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {m.method} | {m.setting} | {m.speedup:.2f}x | {m.psnr:.1f} | {m.worst:.1f} | {m.ssim:.4f} | "
        f"{m.motion_psnr:.1f} | {m.runs} |"
        for m in setting_marks
    ]
    return "\n".join(lines)


def front_table(setting_marks: Sequence[Mark]) -> str:
    """Markdown: PSNR of every method at the same speed-ups."""
    return method_table({f"{speedup:g}x": fronts_at(setting_marks, speedup) for speedup in GRID})


def overview(all_marks: dict[Setting, list[Mark]], steps: int, cfg: float) -> str:
    """Markdown: PSNR of every method under each sampler."""
    chosen = [(setting, found) for setting, found in all_marks.items() if (setting.steps, setting.cfg) == (steps, cfg)]
    return method_table(
        {f"{setting.sampler} {s:g}x": fronts_at(found, s) for setting, found in chosen for s in OVERVIEW}
    )


def leads(all_marks: dict[Setting, list[Mark]]) -> list[str]:
    """Markdown: in how many places adaptive is ahead of all other methods, and where it is not."""
    lines, places = [], 0
    for setting, found in all_marks.items():
        name = f"{setting.sampler}, {setting.steps} steps, cfg {setting.cfg:g}"
        for speedup in GRID:
            fronts = {method: psnr for method, psnr in fronts_at(found, speedup).items() if psnr is not None}
            if not fronts.keys() - set(ADAPTIVE):
                continue
            places += 1
            best = max(fronts, key=fronts.get)
            if best not in ADAPTIVE:
                ours = max((fronts[method] for method in ADAPTIVE if method in fronts), default=None)
                behind = "adaptive has no setting there" if ours is None else f"adaptive {ours:.1f}"
                lines.append(f"- {name}, {speedup:g}x: {best} {fronts[best]:.1f} dB, {behind}")
    return [f"In {places - len(lines)} of {places} places (settings by speed-ups) where another method is too, adaptive is ahead. Not in:", "", *lines]


def fronts_at(setting_marks: Sequence[Mark], speedup: float) -> dict[str, float | None]:
    """PSNR of every method at one speed-up."""
    names = {mark.method for mark in setting_marks}
    return {name: front_at([m for m in setting_marks if m.method == name], speedup) for name in names}


def method_table(columns: dict[str, dict[str, float | None]]) -> str:
    """Markdown: a row for each method, the best of a column bold."""
    best = [max((v for v in column.values() if v is not None), default=None) for column in columns.values()]
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in STYLES:
        row = [column.get(name) for column in columns.values()]
        if any(name in column for column in columns.values()):
            cells = ["-" if v is None else f"**{v:.1f}**" if v == b else f"{v:.1f}" for v, b in zip(row, best, strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def chart(setting: Setting, setting_marks: Sequence[Mark], note: str) -> Figure:
    """PSNR over speed-up, one line per method."""
    figure = Figure(figsize=(7.6, 4.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, (colour, marker) in STYLES.items():
        line = sorted((m.speedup, m.psnr) for m in setting_marks if m.method == name and m.speedup > 1.02)
        if not line:
            continue
        ours = name in OURS
        axes.plot(
            *zip(*line, strict=True),
            color=colour,
            marker=marker,
            markersize=5,
            label=name,
            linestyle="-" if ours else "--",
            linewidth=1.8 if ours else 1.2,
        )
    axes.set_xlim(1.0, 3.5)
    axes.set_xlabel("fewer block executions, x")
    axes.set_ylabel("PSNR against the uncached clip, dB")
    axes.set_title(f"{setting.sampler}, {setting.steps} steps, cfg {setting.cfg:g}", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    figure.supxlabel(note, fontsize=7, color="#666666")
    return figure


def save_charts(all_marks: dict[Setting, list[Mark]], folder: Path, note: str) -> list[Path]:
    paths = []
    for setting, setting_marks in all_marks.items():
        path = folder / f"front-{setting.sampler}-{setting.steps}-cfg{setting.cfg:g}.png"
        chart(setting, setting_marks, note).savefig(path)
        paths.append(path)
    return paths
