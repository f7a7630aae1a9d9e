"""Charts: what they draw, read back from the figures, for every mode and for broken runs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bwcache_pack.devtools.pack import ROOT
from bwcache_pack.nodes import charts
from bwcache_pack.tests.nodes.reports import BLOCKS, call, forecast, report, step

PAPER = report(
    step(0),
    step(1, conditions={"cond": 0.05, "uncond": 0.04}, change=0.05),
    step(2, "reuse"),
    step(3, conditions={"cond": 0.2, "uncond": 0.3}, change=0.3),
)
FORECAST = forecast("ccrc", "crrc", threshold=0.5)
FORECAST.steps[1].error, FORECAST.steps[3].error = 0.04, 0.2


def lines(figure) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in figure.axes[0].lines}


def colours(axes) -> list[tuple]:
    return [bar.get_facecolor()[:3] for bar in axes.patches]


def test_paper_draws_one_line_per_condition_and_the_threshold():
    drawn = lines(charts.error_curve(PAPER))
    assert drawn["cond"] == [(1, 0.05), (3, 0.2)]
    assert [y for _, y in drawn["threshold 0.1"]] == [0.1, 0.1]


def test_forecast_draws_the_errors_measured_and_what_became_of_each_step():
    figure = charts.error_curve(FORECAST)
    assert lines(figure)["error where it was computed"] == [(1, 0.04), (3, 0.2)]
    assert "threshold 0.5" in lines(figure)
    expected = [charts.COMPUTED, charts.ASIDE, charts.REUSED, charts.COMPUTED]
    assert colours(figure.axes[1]) == [to_rgb(colour) for colour in expected]


def test_picture_and_sound_have_a_line_each():
    run = forecast("ccrc")
    for place, picture, sound in ((1, 0.04, 0.2), (3, 0.3, 0.1)):
        run.steps[place].parts, run.steps[place].error = {"picture": picture, "sound": sound}, max(picture, sound)
    drawn = lines(charts.error_curve(run))
    assert (drawn["picture"], drawn["sound"]) == ([(1, 0.04), (3, 0.3)], [(1, 0.2), (3, 0.1)])
    assert "error where it was computed" not in drawn


def test_measure_draws_the_errors_that_forecasts_would_have_had():
    run = forecast("cccc", mode="measure", plan="", threshold=0.0)
    run.steps[1].error, run.steps[2].error = 0.3, 0.1
    figure = charts.error_curve(run)
    assert lines(figure) == {"error where it was computed": [(1, 0.3), (2, 0.1)]}
    assert colours(figure.axes[1]) == [to_rgb(charts.COMPUTED)] * 4


def test_the_plan_is_drawn_over_what_ran():
    above, below = charts.reuse_map(FORECAST).axes
    assert colours(above) == [to_rgb(c) for c in (charts.COMPUTED, charts.REUSED, charts.REUSED, charts.COMPUTED)]
    assert colours(below)[1] == to_rgb(charts.ASIDE)


def test_a_value_beyond_all_measure_is_drawn_at_the_upper_end():
    run = forecast("ccc")
    run.steps[1].error, run.steps[2].error = 40.0, 0.1
    figure = charts.error_curve(run)
    assert lines(figure)["error where it was computed"] == [(1, 1.5), (2, 0.1)]
    assert figure.axes[0].get_ylim()[1] < 2


def test_small_errors_fill_the_chart():
    run = forecast("ccc")
    run.steps[1].error, run.steps[2].error = 0.05, 0.02
    figure = charts.error_curve(run)
    assert figure.axes[0].get_ylim()[1] < 0.1
    assert "threshold 0.5, far above" in lines(figure)


def test_threshold_zero_draws_no_limit():
    assert not any("threshold" in label for label in lines(charts.error_curve(report(step(0), threshold=0.0))))


def test_reused_steps_are_shaded():
    run = report(step(0), step(1, "partial"), step(2, "reuse"), step(3))  # partly reused ones are not
    spans = charts.error_curve(run).axes[0].patches
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
    assert colours(figure.axes[0]) == [to_rgb(charts.ACTIONS[action][0]) for action in ("compute", "partial", "reuse")]
    assert "computed 1 s, reused 0.1 s" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize(
    "draw", [charts.error_curve, charts.reuse_map, charts.step_times], ids=lambda draw: draw.__name__
)
@pytest.mark.parametrize(
    "run",
    [PAPER, FORECAST, report(), forecast("", steps_total=9), report(step(0)), forecast("c"),
     report(step(0, fault="broken"), finished=False), report(step(0, block_changes={0: 0.1}), mode="per block"),
     forecast("crcrcrcrc", steps_total=5), report(call(0), mode="", block_count=0)],
    ids=["paper", "forecast", "empty", "no evaluation", "one step", "one step of a forecast", "broken", "per block",
         "two evaluations a step", "plain"],
)  # fmt: skip
def test_every_run_can_be_drawn_at_one_size(draw, run):
    pixels = charts.pixels(draw(run))
    assert (pixels.shape, pixels.dtype) == ((570, 1200, 3), np.uint8)
    assert pixels.std() > 1.0, "an empty picture"


def test_no_figure_stays_in_matplotlibs_global_state():
    import matplotlib.pyplot

    charts.pixels(charts.error_curve(PAPER))
    assert matplotlib.pyplot.get_fignums() == []


@pytest.mark.parametrize("kind", ["computed", "partial", "reused", "aside"])
def test_colours_mean_the_same_in_the_live_view(kind):
    model, view = ((ROOT / "web" / name).read_text(encoding="utf-8") for name in ("model.js", "view.js"))
    ramp = re.search(rf"{kind}: \[\[(.+?)\], \[(.+?)\]\]", model.split("export const DARK")[1]).groups()
    low, high = (np.array([float(value) for value in end.split(",")]) for end in ramp)
    shade = float(re.search(r"const SHADE = ([\d.]+)", view).group(1))
    shown = (low + (high - low) * shade).round() / 255
    assert to_rgb(getattr(charts, kind.upper())) == pytest.approx(tuple(shown))
