"""Charts of plans: what speed-ups cost, and which steps each plan computes. Pure functions to a Figure, as in charts.py."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..bwcache_core.calibration import Verdict, landing
from ..bwcache_core.prospects import Prospects
from ..bwcache_core.tried import AUTOMATIC, EARLY, EVEN, MEASURED
from .charts import COMPUTED, DPI, FAINT, GROUND, INK, LINES, REUSED, add_key, bare, dress, pixels

__all__ = ["expected", "frontier", "pixels"]
WIDTH, HEIGHT = 8.0, 3.6  # inches, of the curve
STRIP = 0.3  # of each plan
ASIDE = 0.008  # of the width, from one kind of plan to the next: their points lie beside each other
COLOURS = {MEASURED: LINES[0], AUTOMATIC: LINES[1], EVEN: LINES[2], EARLY: LINES[3]}


def frontier(verdict: Verdict) -> Figure:
    """PSNR over speed-up with every trial as a point, and the steps of the better plans below."""
    figure, curve, strips = plans_figure(len(verdict.best))
    chosen = verdict.chosen
    title = f"{chosen.speedup:g}x: {chosen.psnr:.1f} dB{landing(chosen)}"
    curve.set_title(title, fontsize=14, loc="left", color=INK)
    curve.set_ylabel("PSNR of the latents, dB", color=INK, fontsize=12)
    curve.set_xlabel("all steps over computed steps", color=INK, fontsize=12)
    draw_trials(curve, verdict)
    draw_strips(strips, [(f"{each.speedup:g}x", each.plan.computes, each.plan.steps) for each in verdict.best])
    add_key(figure, keys(verdict))
    return figure


def expected(plans: Prospects) -> Figure:
    """What each speed-up is expected to cost, and the plans beside what ran."""
    figure, curve, strips = plans_figure(len(plans.strips))
    curve.set_title("expected of this model, by what was measured", fontsize=14, loc="left", color=INK)
    against = "PSNR of the latents, dB\n(level by trials)" if plans.trials else "PSNR against\nautomatic at 2x, dB"
    curve.set_ylabel(against, color=INK, fontsize=12)
    curve.set_xlabel("all steps over computed steps", color=INK, fontsize=12)
    for kind, points in plans.curves.items():
        curve.plot(*zip(*points, strict=True), color=COLOURS[kind], marker="o", markersize=6, linewidth=2.0)
    if not plans.curves:
        curve.text(0.5, 0.5, "no error is expected", transform=curve.transAxes, ha="center", color=INK, fontsize=13)
    if not plans.trials:
        curve.axhline(0.0, color=FAINT, linewidth=1.0, zorder=0)
    for kind, speedup, psnr in plans.trials:
        curve.plot(speedup, psnr, marker="D", markersize=6, linestyle="", markeredgecolor=COLOURS.get(kind, INK), markerfacecolor="none")
    curve.margins(0.06, 0.12)
    draw_strips(strips, [(strip.name, strip.computes, len(plans.sigmas)) for strip in plans.strips])
    handles = [dot(COLOURS[kind], COLOURS[kind], f"{kind} plan") for kind in plans.curves]
    tried = {kind for kind, *_ in plans.trials}
    handles += [dot(COLOURS[kind], "none", f"{kind} plan, tried", marker="D") for kind in COLOURS if kind in tried]
    add_key(figure, [*handles, Patch(color=COMPUTED, label="computed"), Patch(color=REUSED, label="reused")])
    return figure


def plans_figure(count: int) -> tuple[Figure, object, list]:
    """A curve above, `count` strips below each other under it."""
    rest = STRIP * (count + 1)
    figure = Figure(figsize=(WIDTH, HEIGHT + rest), dpi=DPI, layout="constrained", facecolor=GROUND)
    above, below = figure.subfigures(2, 1, height_ratios=(HEIGHT, rest), hspace=0.0)
    curve = above.subplots()
    strips = below.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axes in (curve, *strips):
        dress(axes)
    for part in (above, below):
        part.set_facecolor(GROUND)
    return figure, curve, list(strips)


def draw_trials(axes, verdict: Verdict) -> None:
    line = [(each.landed, each.psnr) for each in verdict.best]
    axes.plot(*zip(*line, strict=True), color=FAINT, linewidth=2.0, zorder=1)
    places = [trial.landed for trial in verdict.trials]
    aside, kinds = ASIDE * (max(places) - min(places)), list(COLOURS)
    for trial in verdict.trials:
        colour = COLOURS[trial.kind]
        shift = aside * (kinds.index(trial.kind) - (len(kinds) - 1) / 2)
        axes.plot(
            trial.landed + shift, trial.psnr, marker="o", markersize=8, linestyle="", markeredgewidth=1.8, markeredgecolor=colour,
            markerfacecolor=colour if trial.unseen else GROUND, zorder=2,
        )  # fmt: skip
    chosen = verdict.chosen
    axes.plot(chosen.landed, chosen.psnr, marker="o", markersize=17, markerfacecolor="none", markeredgecolor=INK, zorder=3)
    axes.margins(0.08, 0.14)


def keys(verdict: Verdict) -> list:
    kinds = {each.kind for each in verdict.tried}
    handles = [dot(COLOURS[kind], COLOURS[kind], f"{kind} plan") for kind in COLOURS if kind in kinds]
    if not all(trial.unseen for trial in verdict.trials):
        handles.append(dot(INK, GROUND, "on a measured seed"))
    handles.append(dot(INK, "none", "chosen", size=14))
    return [*handles, Patch(color=COMPUTED, label="computed"), Patch(color=REUSED, label="reused")]


def dot(edge: str, fill: str, label: str, size: float = 8, marker: str = "o") -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, markersize=size, markeredgecolor=edge, markerfacecolor=fill, label=label)


def draw_strips(rows: Sequence, plans: Sequence[tuple[str, Sequence[int], int]]) -> None:
    """A strip for each plan: its name, the steps that compute, and of how many."""
    for axes, (name, computes, steps) in zip(rows, plans, strict=True):
        axes.bar(range(steps), 1.0, width=0.9, color=[COMPUTED if step in computes else REUSED for step in range(steps)])
        bare(axes)
        axes.tick_params(axis="x", length=0, labelbottom=axes is rows[-1])
        axes.set_ylabel(name, color=INK, fontsize=12, rotation=0, ha="right", va="center")
        axes.set_xlim(-0.5, steps - 0.5)
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    rows[-1].set_xlabel("step", color=INK, fontsize=12)
