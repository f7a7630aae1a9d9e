"""Charts of a run: what was measured, what was reused, where the time went. Pure functions from a RunReport to a Figure.

matplotlib without pyplot: figures belong to their caller and nothing is kept in its global state. With large letters: they are
looked at on a node first. Dark in both themes: ink that reads on either's ground has a contrast of 3.5 at most, here it has 12.
"""

from __future__ import annotations

import statistics

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..bwcache_core.config import FORECAST, MEASURE
from ..bwcache_core.report import RunReport, StepReport

GROUND, INK, FAINT = "#17181b", "#d7d9dd", "#44474d"
COMPUTED, PARTIAL, REUSED, ASIDE = "#467fc3", "#aebb66", "#faa63f", "#dc6058"  # as the live view has them
LINES = ("#6fb0ff", "#ff9d8a", "#7fd09b", "#c6a4f5", "#b0b3b8")
SIZE = (8.0, 3.8)  # inches
DPI = 150
ACTIONS = {"compute": (COMPUTED, "computed"), "partial": (PARTIAL, "reused in part"), "reuse": (REUSED, "reused")}
SET_ASIDE = "computed, against the plan"
NOTHING = "nothing was measured"
FORETOLD = (FORECAST, MEASURE)  # modes that measure errors of forecasts, not changes of blocks
FAR_BELOW = 4.0  # parts of the limit: then the scale follows the values
FAR_ABOVE = 3.0  # times the limit: values above are drawn at the upper end


def pixels(figure: Figure) -> np.ndarray:
    """The figure drawn: (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def new_figure(title: str, run: RunReport, heights: tuple[float, ...] = (1.0,)) -> tuple[Figure, list]:
    """Empty figure with axes below each other, evaluations of the model along x, counted from 0."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained", facecolor=GROUND)
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes in rows:
        dress(axes)
    rows[0].set_title(title, fontsize=14, loc="left", color=INK)
    rows[-1].set_xlabel("step" if run.evaluations <= run.steps_total else "model evaluation", color=INK, fontsize=12)
    rows[-1].set_xlim(-0.5, columns(run) - 0.5)
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, list(rows)


def dress(axes) -> None:
    """Colours and letters for a dark ground."""
    axes.set_facecolor(GROUND)
    axes.tick_params(colors=INK, labelsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def columns(run: RunReport) -> int:
    return max(run.evaluations, 1)


def error_curve(run: RunReport) -> Figure:
    """What was measured over the steps, with the threshold; in forecast mode with a strip of the steps below.

    forecast: relative L1 error that the forecast had, or would have had, at computed evaluations. Else the relative L1
    change of the blocks, one line for each condition: the paper's U-curve.
    """
    foretold = run.mode in FORETOLD
    title = "error of the forecasts" if foretold else "change of the blocks from step to step"
    figure, axes = new_figure(title, run, (5, 1) if foretold else (1,))
    axes[0].set_ylabel("relative error" if foretold else "relative change", color=INK, fontsize=12)
    lines = curves(run)
    top = upper_end(run, lines)
    for (label, points), colour in zip(lines.items(), LINES, strict=False):
        places, values = zip(*points, strict=True)
        axes[0].plot(places, np.minimum(values, top), marker="o", markersize=5, linewidth=1.8, color=colour, label=label)
    if run.threshold > 0:
        above = ", far above" if run.threshold > top else ""
        label = f"threshold {run.threshold:g}{above}"
        axes[0].axhline(run.threshold, color=INK, linewidth=1.2, linestyle="--", label=label)
    shade_reused(axes[0], run)
    axes[0].set_ylim(0, top * 1.04)
    if not lines:
        axes[0].text(0.5, 0.5, NOTHING, transform=axes[0].transAxes, ha="center", color=INK, fontsize=13)
    if foretold:
        draw_strip(axes[1], run)
    add_key(figure, axes[0].get_legend_handles_labels()[0] + patches(run))
    return figure


def upper_end(run: RunReport, lines: dict) -> float:
    """Of the y axis: the threshold is on it unless all lies far below, and what is off beyond all measure is not."""
    most = max((value for points in lines.values() for _, value in points if np.isfinite(value)), default=0.0)
    if run.threshold <= 0 or 0 < most < run.threshold / FAR_BELOW:
        return 1.2 * most or 1.0
    return min(max(most, 1.1 * run.threshold), FAR_ABOVE * run.threshold)


def curves(run: RunReport) -> dict[str, list[tuple[int, float]]]:
    """Points (evaluation, value) by line label: of picture and sound each, where both were measured."""
    if run.mode in FORETOLD:
        errors = [(step.evaluation, step.error) for step in run.steps if step.error is not None]
        return lines_of(run, "parts") or ({"error where it was computed": errors} if errors else {})
    return lines_of(run, "conditions")


def lines_of(run: RunReport, measured: str) -> dict[str, list[tuple[int, float]]]:
    """Points of each label in a field of the steps that holds values by label."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for step in run.steps:
        for label, value in getattr(step, measured).items():
            lines.setdefault(label, []).append((step.evaluation, value))
    return lines


def shade_reused(axes, run: RunReport) -> None:
    for step in run.steps:
        if step.action == "reuse":
            axes.axvspan(step.evaluation - 0.5, step.evaluation + 0.5, color=REUSED, alpha=0.16, linewidth=0)


def kind(run: RunReport, step: StepReport) -> tuple[str, str]:
    """Colour and name of what became of a step."""
    if step.action == "compute" and run.planned and step.step not in run.planned:
        return ASIDE, SET_ASIDE
    return ACTIONS[step.action]


def draw_strip(axes, run: RunReport) -> None:
    """One box for each evaluation, coloured by what became of it."""
    places = [step.evaluation for step in run.steps]
    axes.bar(places, [1.0] * len(places), width=0.9, color=[kind(run, step)[0] for step in run.steps])
    bare(axes)


def bare(axes) -> None:
    """No scale beside a strip."""
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def reuse_map(run: RunReport) -> Figure:
    """Which steps were computed and reused; in block modes steps x blocks."""
    if not run.block_count:
        return plan_and_run(run)
    grid = np.zeros((run.block_count, columns(run)))
    for step in run.steps:
        grid[step.reused_blocks, step.evaluation] = 1
    figure, [axes] = new_figure(worked(run), run)
    axes.set_ylabel("block", color=INK, fontsize=12)
    extent = (-0.5, grid.shape[1] - 0.5, -0.5, grid.shape[0] - 0.5)
    colours = ListedColormap([COMPUTED, REUSED])
    axes.imshow(grid, aspect="auto", origin="lower", cmap=colours, vmin=0, vmax=1, extent=extent, interpolation="none")
    axes.set_xticks(np.arange(grid.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(grid.shape[0] + 1) - 0.5, minor=True)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(which="minor", color=GROUND, linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    add_key(figure, [Patch(color=colour, label=name) for colour, name in (ACTIONS["compute"], ACTIONS["reuse"])])
    return figure


def plan_and_run(run: RunReport) -> Figure:
    """The plan over what ran."""
    figure, [above, below] = new_figure(worked(run), run, (1, 1))
    places = range(run.steps_total)
    above.bar(places, 1.0, width=0.9, color=[COMPUTED if place in run.planned else REUSED for place in places])
    draw_strip(below, run)
    for axes, name in ((above, "plan"), (below, "ran")):
        bare(axes)
        axes.set_ylabel(name, color=INK, fontsize=12)
    add_key(figure, patches(run))
    return figure


def worked(run: RunReport) -> str:
    """Title: how much was computed."""
    what = "block executions" if run.blocks_total else "model calls"
    total = run.blocks_total or sum(step.calls_total for step in run.steps)
    ran = total - run.blocks_reused if run.blocks_total else sum(step.calls_run for step in run.steps)
    return f"{ran} of {total} {what}, {run.work_ratio:.2g}x fewer"


def step_times(run: RunReport) -> Figure:
    """Seconds per evaluation, computed against reused."""
    figure, [axes] = new_figure(times_title(run), run)
    axes.set_ylabel("seconds", color=INK, fontsize=12)
    colours = [kind(run, step)[0] for step in run.steps]
    axes.bar([step.evaluation for step in run.steps], [step.seconds for step in run.steps], color=colours)
    add_key(figure, patches(run))
    return figure


def patches(run: RunReport) -> list[Patch]:
    """A key for the colours that occur."""
    names = {name: colour for colour, name in (kind(run, step) for step in run.steps)}
    return [Patch(color=colour, label=name) for name, colour in names.items()]


def add_key(figure: Figure, handles: list) -> None:
    """What the colours mean, below the axes."""
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=11, labelcolor=INK
        )


def times_title(run: RunReport) -> str:
    """Medians: "0.13 s for a computed step, 0.0003 s for a reused one"."""
    parts = []
    for action, name in (("compute", "computed"), ("reuse", "reused")):
        seconds = [step.seconds for step in run.steps if step.action == action]
        if seconds:
            parts.append(f"{name} {statistics.median(seconds):.2g} s")
    return "time per step: " + (", ".join(parts) + " (medians)" if parts else "none ran")
