"""Charts of a run: what changed, what was reused, where the time went. Pure functions from a RunReport to a Figure.

matplotlib without pyplot: figures belong to their caller and nothing is kept in its global state.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..bwcache_core.report import RunReport

COMPUTED, REUSED = "#3b6ea8", "#f2a541"
LINES = ("#3b6ea8", "#c8553d", "#4f9d69", "#8e6bbf", "#7a7a7a")
LIMIT = "#222222"
SIZE = (7.2, 3.2)  # inches; 100 dots each


def new_figure(title: str, x_label: str, y_label: str):
    """Empty figure with one pair of axes."""
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def change_curve(run: RunReport) -> Figure:
    """What was held against the limit, over the evaluations: per condition, with reused evaluations shaded.

    Block changes where blocks were measured, else the error of the forecasts.
    """
    by_condition = curves(run)
    name = "relative L1 change" if run.mode != "adaptive" else "forecast error"
    figure, axes = new_figure(f"{name} per step ({run.mode})", "step", name)
    for (label, points), colour in zip(by_condition.items(), LINES, strict=False):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, marker="o", markersize=3.5, linewidth=1.4, color=colour, label=label)
    limit_name = "tolerance" if run.mode == "adaptive" else "threshold"
    if run.threshold > 0:
        axes.axhline(run.threshold, color=LIMIT, linewidth=1, linestyle="--", label=f"{limit_name} {run.threshold:g}")
    for step in run.steps:
        if step.action == "reuse":
            axes.axvspan(step.evaluation - 0.5, step.evaluation + 0.5, color=REUSED, alpha=0.25, linewidth=0)
    axes.set_xlim(-0.5, max(run.evaluations, 1) - 0.5)
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)
    return figure


def curves(run: RunReport) -> dict[str, list[tuple[int, float]]]:
    """Points (evaluation, value) by line label."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for step in run.steps:
        for label, value in step.conditions.items():
            lines.setdefault(label, []).append((step.evaluation, value))
        if run.mode == "adaptive" and step.forecast_errors:
            lines.setdefault("largest of all conditions", []).append((step.evaluation, step.forecast_errors[-1]))
    return lines


def reuse_map(run: RunReport) -> Figure:
    """Steps x blocks: which blocks ran and which were reused."""
    grid = np.zeros((run.block_count, max(run.evaluations, 1)))
    for step in run.steps:
        grid[step.reused_blocks, step.evaluation] = 1
    title = f"{run.blocks_reused} of {run.blocks_total} block executions reused, {run.block_ratio:.2f}x fewer"
    figure, axes = new_figure(title, "step", "block")
    extent = (-0.5, grid.shape[1] - 0.5, -0.5, grid.shape[0] - 0.5)
    colours = ListedColormap([COMPUTED, REUSED])
    axes.imshow(grid, aspect="auto", origin="lower", cmap=colours, vmin=0, vmax=1, extent=extent, interpolation="none")
    axes.set_xticks(np.arange(grid.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(grid.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    handles = [Patch(color=COMPUTED, label="computed"), Patch(color=REUSED, label="reused")]
    figure.legend(handles=handles, loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    return figure


def step_times(run: RunReport) -> Figure:
    """Seconds per evaluation, computed against reused."""
    figure, axes = new_figure("time per step", "step", "seconds")
    colours = [REUSED if step.action == "reuse" else COMPUTED for step in run.steps]
    axes.bar([step.evaluation for step in run.steps], [step.seconds for step in run.steps], color=colours)
    handles = [Patch(color=COMPUTED, label="computed"), Patch(color=REUSED, label="reused")]
    axes.legend(handles=handles, frameon=False, fontsize=9)
    return figure
