"""Charts of a run: what was measured, what was reused, where the time went. Pure functions from a RunReport to a Figure.

matplotlib without pyplot: figures belong to their caller and nothing is kept in its global state.
"""

from __future__ import annotations

import statistics

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..bwcache_core.config import ADAPTIVE
from ..bwcache_core.report import RunReport

COMPUTED, REUSED = "#3b6ea8", "#f2a541"
LINES = ("#3b6ea8", "#c8553d", "#4f9d69", "#8e6bbf", "#7a7a7a")
LIMIT = "#222222"
SIZE = (7.2, 3.2)  # inches
DPI = 150
PARTIAL = "#9aa86b"
PREDICTED, MEASURED = "predicted before the step", "measured when computed"
ACTIONS = {"compute": (COMPUTED, "computed"), "partial": (PARTIAL, "reused in part"), "reuse": (REUSED, "reused")}


def pixels(figure: Figure) -> np.ndarray:
    """The figure drawn: (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def new_figure(title: str, run: RunReport, y_label: str):
    """Empty figure with one pair of axes, model evaluations along x."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("step" if run.evaluations <= run.steps_total else "model evaluation")
    axes.set_ylabel(y_label)
    axes.set_xlim(-0.5, max(run.evaluations, 1) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def change_curve(run: RunReport) -> Figure:
    """What was held against the limit, with reused evaluations shaded.

    adaptive: error that the next forecast was predicted to have, and what it was when computed again. Else the relative
    L1 change of the blocks, one line for each condition: the paper's U-curve.
    """
    adaptive = run.mode == ADAPTIVE
    title = "forecast error against the tolerance" if adaptive else "change of the blocks from step to step"
    figure, axes = new_figure(f"{title} ({run.mode})", run, "relative L1 error" if adaptive else "relative L1 change")
    for (label, points), colour in zip(curves(run).items(), LINES, strict=False):
        places, values = zip(*points, strict=True)
        style = {"linestyle": "none", "marker": "x", "markersize": 5} if label == MEASURED else {"marker": "o"}
        axes.plot(places, values, **{"markersize": 3.5, "linewidth": 1.4, "color": colour, "label": label, **style})
    limits = limit_line(run)
    if limits:
        name = "tolerance" if adaptive else "threshold"
        value = f" {limits[0][1]:g}" if len({limit for _, limit in limits}) == 1 else " of each step"
        axes.plot(*zip(*limits, strict=True), color=LIMIT, linewidth=1, linestyle="--", label=f"{name}{value}")
    for step in run.steps:
        if step.action == "reuse":
            axes.axvspan(step.evaluation - 0.5, step.evaluation + 0.5, color=REUSED, alpha=0.25, linewidth=0)
    axes.set_ylim(bottom=0)
    handles, _ = axes.get_legend_handles_labels()
    shade = [Patch(color=REUSED, alpha=0.25, label="reused")] if run.evaluations_reused else []
    if handles:
        figure.legend(handles=handles + shade, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", color="#777777")
    return figure


def curves(run: RunReport) -> dict[str, list[tuple[int, float]]]:
    """Points (evaluation, value) by line label. A line of predictions is broken by NaN where a rule decided."""
    lines: dict[str, list[tuple[int, float]]] = {}
    if run.mode == ADAPTIVE:
        predicted = [(s.evaluation, float("nan") if s.judged is None else s.judged) for s in run.steps]
        measured = [(s.evaluation, s.forecast_errors[-1]) for s in run.steps if s.forecast_errors]
        lines = {PREDICTED: predicted if any(v == v for _, v in predicted) else [], MEASURED: measured}
        return {label: points for label, points in lines.items() if points}
    for step in run.steps:
        for label, value in step.conditions.items():
            lines.setdefault(label, []).append((step.evaluation, value))
    return lines


def limit_line(run: RunReport) -> list[tuple[float, float]]:
    """The limit over the whole chart, step by step where it moved."""
    moved = [(float(step.evaluation), step.limit) for step in run.steps if step.limit is not None]
    if len({limit for _, limit in moved}) > 1:
        return moved
    limit = moved[0][1] if moved else run.threshold
    return [(-0.5, limit), (max(run.evaluations, 1) - 0.5, limit)] if limit > 0 else []


def reuse_map(run: RunReport) -> Figure:
    """Steps x blocks: which blocks ran and which were reused."""
    grid = np.zeros((run.block_count, max(run.evaluations, 1)))
    for step in run.steps:
        grid[step.reused_blocks, step.evaluation] = 1
    title = f"{run.blocks_reused} of {run.blocks_total} block executions reused, {run.block_ratio:.2f}x fewer"
    figure, axes = new_figure(title, run, "block")
    extent = (-0.5, grid.shape[1] - 0.5, -0.5, grid.shape[0] - 0.5)
    colours = ListedColormap([COMPUTED, REUSED])
    axes.imshow(grid, aspect="auto", origin="lower", cmap=colours, vmin=0, vmax=1, extent=extent, interpolation="none")
    axes.set_xticks(np.arange(grid.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(grid.shape[0] + 1) - 0.5, minor=True)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(which="minor", color="white", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    add_key(figure, ["compute", "reuse"])
    return figure


def step_times(run: RunReport) -> Figure:
    """Seconds per evaluation, computed against reused."""
    figure, axes = new_figure(times_title(run), run, "seconds")
    colours = [ACTIONS[step.action][0] for step in run.steps]
    axes.bar([step.evaluation for step in run.steps], [step.seconds for step in run.steps], color=colours)
    add_key(figure, [action for action in ACTIONS if any(step.action == action for step in run.steps)])
    return figure


def add_key(figure: Figure, actions: list[str]) -> None:
    """Colours of actions, below the axes."""
    handles = [Patch(color=ACTIONS[action][0], label=ACTIONS[action][1]) for action in actions]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=9)


def times_title(run: RunReport) -> str:
    """Medians: "0.13 s for a computed step, 0.0003 s for a reused one"."""
    parts = []
    for action, name in (("compute", "computed"), ("reuse", "reused")):
        seconds = [step.seconds for step in run.steps if step.action == action]
        if seconds:
            parts.append(f"{name} {statistics.median(seconds):.2g} s")
    return "time per step: " + (", ".join(parts) + " (medians)" if parts else "none ran")
