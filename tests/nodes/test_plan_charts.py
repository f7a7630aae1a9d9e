"""Charts of plans: every trial is a point where it belongs, and the strips are the plans."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.colors import to_hex

from bwcache_pack.bwcache_core.calibration import Choice, Trial, verdict_on
from bwcache_pack.bwcache_core.plan import Plan
from bwcache_pack.bwcache_core.prospects import Prospects, Strip
from bwcache_pack.bwcache_core.tried import AUTOMATIC, EARLY, EVEN, MEASURED
from bwcache_pack.nodes.charts import COMPUTED, GROUND, REUSED
from bwcache_pack.nodes.plan_charts import COLOURS, expected, frontier, pixels

PLANS = {2.0: Plan((0, 1, 3, 6, 9), 10), 3.0: Plan((0, 4, 9), 10)}


def trial(speedup, kind, psnr, unseen=True) -> Trial:
    plan = PLANS[speedup]
    return Trial(speedup, kind, plan, 2 if unseen else 0, unseen, len(plan.computes), 10, psnr, 0.1, str(unseen))


@pytest.fixture(scope="module")
def figure():
    measured = [trial(2.0, MEASURED, 48.0), trial(2.0, MEASURED, 50.0, unseen=False)]
    trials = [*measured, trial(2.0, AUTOMATIC, 41.0), trial(3.0, AUTOMATIC, 30.0)]
    return frontier(verdict_on(trials, Choice(speedup=2.0)))


def axes_of(figure) -> list:
    return [axes for part in figure.subfigs for axes in part.axes]


def test_every_trial_is_a_point_and_the_chosen_plan_has_a_ring(figure):
    line, *points, ring = axes_of(figure)[0].lines
    assert [float(point.get_ydata()[0]) for point in points] == [48.0, 50.0, 41.0, 30.0]
    assert [float(point.get_xdata()[0]) for point in points] == pytest.approx([2.0, 2.0, 2.0, 10 / 3], abs=0.02)
    kinds = [MEASURED, MEASURED, AUTOMATIC, AUTOMATIC]
    assert [point.get_markeredgecolor() for point in points] == [COLOURS[kind] for kind in kinds]
    assert [point.get_markerfacecolor() == GROUND for point in points] == [False, True, False, False]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([2.0, pytest.approx(10 / 3)], [49.0, 30.0])
    assert (float(ring.get_xdata()[0]), float(ring.get_ydata()[0])) == (2.0, 49.0)


def test_points_of_four_kinds_lie_beside_each_other():
    kinds = (AUTOMATIC, MEASURED, EVEN, EARLY)
    drawn = frontier(verdict_on([trial(2.0, kind, 40.0) for kind in kinds] + [trial(3.0, AUTOMATIC, 30.0)], Choice(speedup=2.0)))
    points = axes_of(drawn)[0].lines[1:5]
    assert len({float(point.get_xdata()[0]) for point in points}) == len({point.get_markeredgecolor() for point in points}) == 4
    assert {f"{kind} plan" for kind in kinds} < {text.get_text() for text in drawn.legends[0].get_texts()}


def test_a_strip_for_each_speedup_shows_which_steps_compute(figure):
    strips = axes_of(figure)[1:]
    assert [axes.get_ylabel() for axes in strips] == ["2x", "3x"]
    for axes, plan in zip(strips, PLANS.values(), strict=True):
        colours = [to_hex(bar.get_facecolor()) for bar in axes.patches]
        assert colours == [COMPUTED if step in plan.computes else REUSED for step in range(10)]


def test_the_key_names_what_is_there(figure):
    [key] = figure.legends
    names = [text.get_text() for text in key.get_texts()]
    assert names == ["measured plan", "automatic plan", "on a measured seed", "chosen", "computed", "reused"]
    alone = frontier(verdict_on([trial(2.0, AUTOMATIC, 41.0)], Choice(speedup=2.0)))
    assert "measured plan" not in [text.get_text() for text in alone.legends[0].get_texts()]


def test_the_title_says_where_a_plan_landed_that_was_set_aside(figure):
    assert axes_of(figure)[0].get_title(loc="left") == "2x: 49.0 dB"
    aside = replace(trial(2.0, AUTOMATIC, 100.0), computed=10)
    assert "landed at 1x" in axes_of(frontier(verdict_on([aside], Choice(speedup=2.0))))[0].get_title(loc="left")


def test_it_draws_in_the_size_of_the_other_charts(figure):
    picture = pixels(figure)
    assert picture.shape[1] == 1200 and picture.shape[0] > 570 and len(set(picture[::7, ::7].reshape(-1).tolist())) > 5


def test_what_is_expected_is_a_curve_for_each_kind_of_plan_over_strips_with_what_ran():
    plans = {"automatic": (0, 2), "measured": (0, 3), "ran": (0, 1, 2)}
    strips = tuple(Strip(name, computes, (None,) * 4) for name, computes in plans.items())
    curves = {AUTOMATIC: [(1.5, 3.0), (2.0, 0.0)], MEASURED: [(1.5, 4.0), (2.0, 1.0)]}
    curve, *rows = axes_of(expected(Prospects((1.0, 0.8, 0.6, 0.3), strips, curves)))
    drawn = {line.get_color(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in curve.lines[:2]}
    assert drawn == {COLOURS[kind]: points for kind, points in curves.items()}
    assert [row.get_ylabel() for row in rows] == ["automatic", "measured", "ran"]
    assert [to_hex(bar.get_facecolor()) for bar in rows[2].patches] == [COMPUTED, COMPUTED, COMPUTED, REUSED]
    assert curve.get_ylabel() == "PSNR against\nautomatic at 2x, dB"
    figure = expected(Prospects((1.0, 0.8, 0.6, 0.3), strips, curves, ((EARLY, 2.0, 0.5),)))
    [point] = [line for line in axes_of(figure)[0].lines if line.get_marker() == "D"]
    assert (float(point.get_xdata()[0]), float(point.get_ydata()[0]), point.get_markeredgecolor()) == (2.0, 0.5, COLOURS[EARLY])
    assert "PSNR of the latents" in axes_of(figure)[0].get_ylabel()
    assert "early plan, tried" in [text.get_text() for text in figure.legends[0].get_texts()]
    nothing = axes_of(expected(Prospects((1.0, 0.8, 0.6, 0.3), strips, {})))[0]
    assert "no error is expected" in [text.get_text() for text in nothing.texts]
