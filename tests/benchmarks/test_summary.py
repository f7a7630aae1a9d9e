"""The bench's arithmetic on numbers small enough to check by hand."""

from dataclasses import replace

import pytest

from bwcache_pack.benchmarks.design import Setting
from bwcache_pack.benchmarks.measure import Point, append, read_points
from bwcache_pack.benchmarks.summary import Results, beside_others, between, by_model, cell, gains_by, missed

SETTING = Setting("tinywan", "euler", 30, 3.5, 8.0)


def point(method, name, speedup, *psnr, setting=SETTING):
    return Point(setting, method, name, speedup, psnr, (0.9,) * len(psnr), "0-29/30", 1.0)


POINTS = [
    point("forecast", "2x", 2.0, 40.0, 50.0),
    point("oracle's plan", "2x", 2.0, 46.0, 50.0),
    point("fewer steps", "15", 2.0, 20.0, 24.0),
    point("paper", "threshold 0.15, R 1", 1.5, 36.0, 36.0),
    point("paper", "threshold 0.15, R 10 %", 3.0, 18.0, 18.0),
]


def test_a_model_s_row_by_hand():
    [row] = by_model(Results(POINTS))[2:]
    # regret 48 - 45, gain 45 - 22
    assert row == "| tinywan | 2x | 45.0 / 40.0 | 48.0 | 3.0 / 3.0 | 22.0 | +23.0 / +23.0 | 2.00x |"


def test_regret_is_of_settings_and_the_worst_one_is_told():
    other = replace(SETTING, sampler="heun")
    points = [replace(p, setting=other, psnr=(p.psnr[0], p.psnr[0])) for p in POINTS]
    assert Results(POINTS + points).regrets("tinywan", 2.0) == [3.0, 6.0]  # means over clips: 48 - 45, 46 - 40
    assert "4.5 / 6.0" in by_model(Results(POINTS + points))[2]


def test_what_has_a_threshold_is_read_between_its_points_and_nowhere_else():
    assert between([(1.5, 36.0), (3.0, 18.0)], 2.0) == pytest.approx(30.0)
    assert between([(1.5, 36.0), (3.0, 18.0)], 1.2) is None
    assert between([(1.5, 36.0), (3.0, 18.0)], 3.1) == 18.0  # within 5 %
    assert between([(1.0, 100.0), (3.0, 18.0)], 2.0) is None  # nothing was reused: no line leads there


def test_methods_are_held_beside_each_other():
    lines = beside_others(Results(POINTS), [SETTING], "tinywan")
    assert "| forecast | - | 45.0 | - | - |" in lines
    assert "| paper | 36.0 | 30.0 | 24.0 | 18.0 |" in lines


def test_a_mean_over_some_settings_says_so():
    assert cell([40.0, None]) == "40.0 (1 of 2)"
    assert cell([None]) == "-"


def test_gains_are_told_by_value_of_an_axis():
    assert gains_by(Results(POINTS), "guidance")[2] == "| tinywan | - | +23.0 / +23.0 | - |"


def test_what_missed_is_named():
    assert missed(Results(POINTS)) == ["None."]
    weak = [replace(POINTS[0], psnr=(30.0, 30.0)), *POINTS[1:], point("forecast", "2.5x", 2.5, 31.0, 31.0)]
    assert missed(Results(weak)) == ["- tinywan/euler/30/3.5/8: 2x +8.0; 2.5x is better than 2x by 1.0"]


def test_points_are_read_back_and_a_line_cut_off_by_an_interruption_is_left_out(tmp_path):
    part = tmp_path / "runs.jsonl"
    for each in POINTS:
        append(part, each)
    with open(part, "a", encoding="utf-8") as file:
        file.write('{"setting": {"mod')
    assert read_points([part, tmp_path / "none.jsonl"]) == POINTS


def test_the_newest_of_equal_points_counts(tmp_path):
    part = tmp_path / "runs.jsonl"
    newer = replace(POINTS[0], psnr=(1.0, 2.0))
    for each in (POINTS[0], newer):
        append(part, each)
    assert read_points([part]) == [newer]
