"""Charts: what they draw, read back from the figures, for every mode and for broken runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bwcache_pack.nodes import charts
from bwcache_pack.tests.nodes.reports import BLOCKS, report, step

PAPER = report(
    step(0),
    step(1, conditions={"cond": 0.05, "uncond": 0.04}, change=0.05),
    step(2, "reuse"),
    step(3, conditions={"cond": 0.2, "uncond": 0.3}, change=0.3),
)
ADAPTIVE = report(
    step(0),
    step(1, forecast_errors=[0.04]),
    step(2, forecast_errors=[0.03, 0.02]),
    step(3, "reuse", judged=0.01, limit=0.05),
    step(4, forecast_errors=[0.09, 0.06], judged=0.06, limit=0.05),
    step(5, forecast_errors=[0.2, 0.1]),
    mode="adaptive", threshold=0.05,
)  # fmt: skip


def lines(figure) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in figure.axes[0].lines}


def test_paper_draws_one_line_per_condition_and_the_threshold():
    drawn = lines(charts.change_curve(PAPER))
    assert drawn["cond"] == [(1, 0.05), (3, 0.2)]
    assert drawn["uncond"] == [(1, 0.04), (3, 0.3)]
    assert [y for _, y in drawn["threshold 0.1"]] == [0.1, 0.1]


def test_adaptive_draws_predictions_over_all_steps_and_errors_where_computed():
    drawn = lines(charts.change_curve(ADAPTIVE))
    predicted = drawn[charts.PREDICTED]
    assert [(x, y) for x, y in predicted if not math.isnan(y)] == [(3, 0.01), (4, 0.06)]
    assert math.isnan(predicted[5][1]), "a rule decided there: the line must break"
    assert drawn[charts.MEASURED] == [(1, 0.04), (2, 0.02), (4, 0.06), (5, 0.1)]
    assert "tolerance 0.05" in drawn


def test_a_limit_that_moves_is_drawn_step_by_step():
    moving = report(step(0, judged=0.1, limit=0.02), step(1, judged=0.1, limit=0.04), mode="adaptive")
    assert lines(charts.change_curve(moving))["tolerance of each step"] == [(0.0, 0.02), (1.0, 0.04)]


def test_threshold_zero_draws_no_limit():
    assert not any("threshold" in label for label in lines(charts.change_curve(report(step(0), threshold=0.0))))


def test_reused_steps_are_shaded():
    run = report(step(0), step(1, "partial"), step(2, "reuse"), step(3))  # partly reused ones are not
    spans = charts.change_curve(run).axes[0].patches
    assert [(span.get_x(), span.get_width()) for span in spans] == [(1.5, 1.0)]


def test_the_map_marks_the_blocks_that_were_reused():
    run = report(step(0), step(1, "partial"), step(2, "reuse"))
    grid = charts.reuse_map(run).axes[0].images[0].get_array()
    assert grid.shape == (BLOCKS, 3)
    np.testing.assert_array_equal(grid, [[0, 0, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1]])


def test_times_are_coloured_by_action():
    figure = charts.step_times(report(step(0), step(1, "partial"), step(2, "reuse")))
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [1.0, 0.4, 0.1]
    colours = [to_rgb(charts.ACTIONS[action][0]) for action in ("compute", "partial", "reuse")]
    assert [bar.get_facecolor()[:3] for bar in bars] == colours
    assert "computed 1 s, reused 0.1 s" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("draw", [charts.change_curve, charts.reuse_map, charts.step_times], ids=lambda draw: draw.__name__)
@pytest.mark.parametrize(
    "run",
    [PAPER, ADAPTIVE, report(), report(step(0)), report(step(0, error="broken"), finished=False),
     report(step(0, block_changes={0: 0.1}), mode="per block"), report(*[step(i) for i in range(9)], steps_total=5)],
    ids=["paper", "adaptive", "empty", "one step", "broken", "per block", "two evaluations a step"],
)  # fmt: skip
def test_every_run_can_be_drawn_at_one_size(draw, run):
    pixels = charts.pixels(draw(run))
    assert (pixels.shape, pixels.dtype) == ((480, 1080, 3), np.uint8)
    assert pixels.std() > 1.0, "an empty picture"


def test_no_figure_stays_in_matplotlibs_global_state():
    import matplotlib.pyplot

    charts.pixels(charts.change_curve(PAPER))
    assert matplotlib.pyplot.get_fignums() == []
