"""The bench's arithmetic on numbers small enough to check by hand."""

import pytest
import torch

from bwcache_pack.benchmarks.front import Point, Setting, read_points
from bwcache_pack.benchmarks.rivals import FirstBlock, MagCache, ResidualState, TeaCache, magnitude_ratios
from bwcache_pack.benchmarks.summary import front_at, front_table, leads, marks


def point(method, setting, speedup, psnr, prompt="red circle moving left"):
    return Point("euler", 30, 5.0, method, setting, prompt, 0, speedup, psnr, 0.9, psnr + 3.0, 1.0)


def test_a_mark_is_the_mean_over_runs_and_the_speedup_of_all_runs_together():
    points = [point("adaptive", "a", 2.0, 40.0), point("adaptive", "a", 4.0, 30.0, "blue square moving up")]
    (mark,) = marks(points)[Setting("euler", 30, 5.0)]
    assert mark.speedup == pytest.approx(2 / (1 / 2 + 1 / 4))  # 2 runs cost 1/2 + 1/4 of a plain one
    assert (mark.psnr, mark.worst, mark.motion_psnr, mark.runs) == (35.0, 30.0, 38.0, 2)


def test_the_front_is_read_between_settings_and_nowhere_else():
    candidates = marks([point("paper", "a", 1.5, 40.0), point("paper", "b", 2.5, 30.0)])
    (candidates,) = candidates.values()
    assert front_at(candidates, 2.0) == pytest.approx(35.0)
    assert front_at(candidates, 1.4) is None and front_at(candidates, 2.6) is None


def test_a_setting_that_reused_nothing_draws_no_line():
    (candidates,) = marks([point("paper", "a", 1.0, 100.0), point("paper", "b", 2.0, 30.0)]).values()
    assert front_at(candidates, 1.5) is None


def test_the_best_of_a_column_is_bold():
    points = [point(m, s, v, p) for m, s, v, p in [
        ("adaptive", "a", 1.4, 50.0), ("adaptive", "b", 3.1, 40.0),
        ("fewer steps", "a", 1.4, 30.0), ("fewer steps", "b", 3.1, 20.0),
    ]]
    (setting_marks,) = marks(points).values()
    rows = front_table(setting_marks).splitlines()
    assert rows[2].count("**") == 14 and rows[3].count("**") == 0


def test_places_where_adaptive_is_behind_are_named():
    points = [point(m, s, v, p) for m, s, v, p in [
        ("adaptive", "a", 1.4, 50.0), ("adaptive", "b", 2.4, 40.0),
        ("fewer steps", "a", 1.6, 34.0), ("fewer steps", "b", 2.4, 50.0), ("fewer steps", "c", 3.1, 20.0),
    ]]
    # adaptive falls from 50 to 40, fewer steps rises from 34 to 50: behind at 2.25x, and without a setting from 2.5x on.
    # At 1.5x it is alone.
    first, _, *behind = leads(marks(points))
    assert first.startswith("In 2 of 6 places")
    assert behind[0] == "- euler, 30 steps, cfg 5, 2.25x: fewer steps 47.0 dB, adaptive 41.5"
    assert len(behind) == 4 and all(line.endswith("adaptive has no setting there") for line in behind[1:])


def test_a_line_cut_off_by_an_interruption_is_left_out(tmp_path):
    part = tmp_path / "runs.jsonl"
    part.write_text('{"sampler": "euler", "ste', encoding="utf-8")
    assert read_points(part) == []


def test_signals_of_rivals_by_hand():
    state, args = ResidualState(residual=torch.zeros(1)), {"vec": torch.tensor([1.0])}
    tea = TeaCache(0.25)
    assert tea.skips(state, args, args)  # nothing to compare with yet: 0 so far
    assert tea.skips(state, {"vec": torch.tensor([1.2])}, {})  # 0.2
    assert not tea.skips(state, {"vec": torch.tensor([1.32])}, {})  # 0.3

    mag, state = MagCache(0.25, [1.0, 0.9, 0.8, 1.0, 1.0]), ResidualState(evaluation=1, residual=torch.zeros(1))
    assert mag.skips(state, {}, {})  # 0.1
    state.evaluation = 2
    assert not mag.skips(state, {}, {})  # 0.3

    first = FirstBlock(0.15)
    state = ResidualState(residual=torch.zeros(1), previous=torch.tensor([1.0]))
    assert first.skips(state, {"img": torch.tensor([2.0])}, {"img": torch.tensor([3.1])})
    assert not first.skips(state, {"img": torch.tensor([2.0])}, {"img": torch.tensor([3.2])})
    assert magnitude_ratios(ResidualState(magnitudes=[2.0, 1.0, 3.0])) == [1.0, 0.5, 3.0]
