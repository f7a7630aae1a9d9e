"""What is tried, what it costs, and what is made of the trials."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bwcache_pack.bwcache_core.calibration import (
    CalibrationError,
    Choice,
    Trial,
    choice_of,
    cost_line,
    finalist,
    kept,
    plan_lines,
    rank_correlation,
    request_of,
    speedups_of,
    summary,
    table,
    verdict_on,
)
from bwcache_pack.bwcache_core.plan import Plan
from bwcache_pack.bwcache_core.schedule import Schedule
from bwcache_pack.bwcache_core.tried import AUTOMATIC, EVEN, MEASURED

PLANS = {MEASURED: Plan((0, 1, 3, 6, 9), 10), AUTOMATIC: Plan((0, 2, 4, 6, 9), 10), EVEN: Plan((0, 3, 5, 7, 9), 10)}


def trial(speedup=2.0, kind=MEASURED, psnr=40.0, seed=2, unseen=True, computed=5, expected=0.1) -> Trial:
    return Trial(speedup, kind, PLANS[kind], seed, unseen, computed, 10, psnr, expected, f"clip {seed}")


def test_speedups_are_read_as_people_write_them():
    assert speedups_of("1.5 2 2.5 3") == (1.5, 2.0, 2.5, 3.0)
    assert speedups_of(" 3x, 2x;2\n1.5 ") == (1.5, 2.0, 3.0)


@pytest.mark.parametrize(
    ("text", "speedups"),
    [
        ("1,5 2 2,5 3", (1.5, 2.0, 2.5, 3.0)), ("1,5; 2; 2,5", (1.5, 2.0, 2.5)), ("1,5x, 2x, 2,5x", (1.5, 2.0, 2.5)),
        ("1.5,2,3", (1.5, 2.0, 3.0)), ("2,3,4", (2.0, 3.0, 4.0)), ("2, 3", (2.0, 3.0)), ("2 ,3", (2.0, 3.0)),
    ],
)  # fmt: skip
def test_a_comma_is_a_decimal_one_where_spaces_part_the_numbers(text, speedups):
    assert speedups_of(text) == speedups


@pytest.mark.parametrize("text", ["2,5", "2,5x", "1.5 2,5", "2,5 2,3,4", "2,3,4; 2,5"])
def test_a_comma_that_may_be_either_is_refused(text):
    with pytest.raises(CalibrationError, match=r"'2,5', which may be one number or two: write 2\.5, or 2 5\."):
        speedups_of(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"), ("fast", "'fast'"), ("1 2", "'1', expected numbers above 1"), ("11", "up to 10"), ("-2", "'-2'"),
        ("nan", "'nan'"), ("1e9", "'1e9'"), (" ".join(f"{1.1 + n / 10:.1f}" for n in range(13)), "13 numbers"),
    ],
)  # fmt: skip
def test_what_are_no_speedups_is_said(text, words):
    with pytest.raises(CalibrationError, match=words):
        speedups_of(text)


@pytest.mark.parametrize("text", ["2x", "2", " 2.0 X ", "2 x", "2,0"])
def test_a_speedup_is_chosen(text):
    assert choice_of(text, (1.5, 2.0)) == Choice(speedup=2.0)


@pytest.mark.parametrize("text", ["at least 35 dB", "At least 35db", "35 dB", "at least 35,0 dB"])
def test_a_quality_is_chosen(text):
    assert choice_of(text, (2.0,)) == Choice(decibels=35.0)


@pytest.mark.parametrize(
    ("text", "words"), [("2.2x", "not tried.*1.5x, 2x"), ("", "at least 35 dB"), ("best", "'best'")]
)
def test_what_is_no_choice_is_said(text, words):
    with pytest.raises(CalibrationError, match=words):
        choice_of(text, (1.5, 2.0))


@pytest.mark.parametrize(
    ("seeds", "trials", "tried", "unseen"),
    [(2, 1, (9,), (9,)), (2, 2, (9, 7), (9,)), (2, 3, (9, 7, 8), (9,)), (1, 4, (8, 7, 9, 10), (8, 9, 10))],
)
def test_a_seed_that_was_not_measured_is_tried_first(seeds, trials, tried, unseen):
    request = request_of("2", "2x", 7, seeds, trials)
    assert request.measured == tuple(range(7, 7 + seeds))
    assert (request.tried, request.unseen) == (tried, unseen)


def steps(count: int) -> Schedule:
    return Schedule(tuple(1.0 - step / count for step in range(count + 1)))


def test_the_cost_is_told_in_uncached_runs():
    """Two to measure, one to compare with, then four plans on one seed and two on another: at 2x six halves, at 4x six quarters."""
    request = request_of("2 4", "2x", 0, 2, 2)
    assert request.cost(steps(40)) == 40 * (2 + 1 + 3 + 1.5)
    line = cost_line(request, steps(40))
    assert "At most 7.5 times an uncached run of 40 steps, more if planned steps cannot be reused: 2 seeds to measure" in line
    assert "four plans for each of 2x, 4x, the better two on 2 seeds." in line
    assert "for each of 2x." in cost_line(request_of("2", "2x", 0, 1, 1), steps(30))


def test_steps_that_any_plan_computes_are_in_the_cost():
    """Two of four steps are the fewest, whatever the speed-up; and at 1.5x three of four."""
    assert request_of("10", "10x", 0, 1, 1).cost(steps(4)) == 2 * 4 + 4 * 2
    assert request_of("1.5", "1.5x", 0, 1, 1).cost(steps(4)) == 2 * 4 + 4 * 3
    assert "At most 3.4 times" in cost_line(request_of("3", "3x", 0, 1, 1), steps(30)), "3.33, rounded up to stay true"


def test_the_defaults_cost_what_the_node_says():
    assert request_of("1.5 2 3", "2x", 0, 2, 2).cost(steps(30)) == 12 * 30


def test_the_better_plan_of_a_speedup_is_given():
    trials = [trial(psnr=40), trial(kind=AUTOMATIC, psnr=42), at_3x(psnr=38), at_3x(AUTOMATIC, psnr=29)]
    verdict = verdict_on(trials, Choice(speedup=2.0))
    assert [(each.speedup, each.kind) for each in verdict.best] == [(2.0, AUTOMATIC), (3.0, MEASURED)]
    assert verdict.chosen.plan == PLANS[AUTOMATIC] and not verdict.missed
    assert plan_lines(verdict) == "2x: 0 2 4 6 9/10\n3x: 0 3-4/10"


def at_3x(kind=MEASURED, **more) -> Trial:
    return replace(trial(3.0, kind, computed=3, **more), plan=replace(PLANS[kind], computes=(0, 3, 4 if kind == MEASURED else 9)))


def test_a_plan_that_is_hardly_closer_is_not_better():
    trials = [trial(psnr=42.9), trial(kind=AUTOMATIC, psnr=40)]
    assert verdict_on(trials, Choice(speedup=2.0)).chosen.kind == AUTOMATIC
    assert verdict_on([trial(psnr=43.0), trials[1]], Choice(speedup=2.0)).chosen.kind == MEASURED


def test_the_closest_so_far_is_tried_again():
    trials = [trial(psnr=41), trial(kind=EVEN, psnr=43), trial(kind=AUTOMATIC, psnr=40)]
    assert finalist(trials, 2.0) == EVEN
    assert finalist([*trials[:1], trials[2]], 2.0) == MEASURED
    assert finalist([trial(psnr=39), trials[2]], 2.0) is None
    others = [at_3x(psnr=35), at_3x(EVEN, psnr=25), at_3x(AUTOMATIC, psnr=29)]
    assert finalist([*trials, *others], 2.0) == MEASURED, "the other speed-ups count"


def test_what_is_kept_are_trials_that_came_out_as_fast_as_planned():
    trials = [trial(psnr=40.004), trial(psnr=44, seed=0), trial(kind=AUTOMATIC, psnr=41), trial(seed=1, computed=10)]
    assert [(each.kind, each.psnr) for each in kept(trials)] == [
        (MEASURED, {"clip 2": 40.0, "clip 0": 44.0}), (AUTOMATIC, {"clip 2": 41.0}),
    ]  # fmt: skip


def test_a_plan_that_was_set_aside_is_not_the_better_one():
    """It computed more, and so came closer."""
    trials = [trial(psnr=36), trial(kind=AUTOMATIC, psnr=100, computed=10)]
    assert verdict_on(trials, Choice(speedup=2.0)).chosen.kind == MEASURED
    both = [trial(psnr=60, computed=8), trial(kind=AUTOMATIC, psnr=100, computed=10)]
    assert verdict_on(both, Choice(speedup=2.0)).chosen.kind == AUTOMATIC


def test_the_closest_on_one_seed_is_not_better_than_what_was_tried_on_more():
    trials = [trial(psnr=50), trial(kind=EVEN, psnr=46), trial(kind=EVEN, psnr=43, seed=0), trial(kind=AUTOMATIC, psnr=40)]
    assert verdict_on(trials[:2] + trials[3:], Choice(speedup=2.0)).chosen.kind == MEASURED
    trials.append(trial(kind=AUTOMATIC, psnr=40, seed=0))
    chosen = verdict_on(trials, Choice(speedup=2.0)).chosen
    assert (chosen.kind, chosen.psnr) == (EVEN, 44.5)


def test_the_fastest_plan_of_a_quality_is_chosen():
    trials = [trial(1.5, psnr=50, computed=7), trial(2.0, psnr=40), trial(3.0, psnr=34.9, computed=3)]
    assert verdict_on(trials, Choice(decibels=35)).chosen.speedup == 2.0
    assert verdict_on(trials, Choice(decibels=34)).chosen.speedup == 3.0
    best = verdict_on(trials, Choice(decibels=60))
    assert best.chosen.speedup == 1.5 and "No plan keeps 60 dB" in best.missed
    assert "No plan keeps 60 dB" in summary(best)


def test_what_is_faster_and_closer_is_said():
    trials = [trial(2.0, psnr=40), trial(3.0, psnr=41, computed=3)]
    assert "3x came out faster and closer." in summary(verdict_on(trials, Choice(speedup=2.0)))
    assert "closer" not in summary(verdict_on(trials, Choice(speedup=3.0)))


def test_ranks():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 400]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert rank_correlation([1, 1, 2, 2], [1, 1, 2, 2]) == pytest.approx(1.0)
    assert rank_correlation([1, 1], [1, 2]) is None


def test_the_order_of_expected_errors_is_held_against_that_of_measured_ones():
    """Each plan once, with the mean of its seeds: 50, 40, 45 and 30 dB."""
    trials = []
    for n, (psnr, other, expected) in enumerate(((60, 40, 0.1), (30, 50, 0.2), (50, 40, 0.3), (40, 20, 0.4))):
        plan = replace(PLANS[MEASURED], computes=(0, n + 1))
        of_plan = trial(2.0 + n, psnr=psnr, expected=expected)
        trials += [replace(of_plan, plan=plan), replace(of_plan, plan=plan, seed=3, psnr=other)]
    verdict = verdict_on(trials, Choice(speedup=2.0))
    assert verdict.correlation == pytest.approx(0.8)
    assert "Over 4 plans" in summary(verdict) and "0.80" in summary(verdict)
    assert verdict_on(trials[:6], Choice(speedup=2.0)).correlation is None
    unknown = verdict_on([trial(expected=None)] * 5, Choice(speedup=2.0), "the sampler swings")
    assert unknown.correlation is None and "No plan was made by what was measured: the sampler swings." in summary(unknown)


def test_the_table_has_every_plan_with_each_of_its_seeds():
    trials = [trial(psnr=40.04), trial(psnr=44, seed=0, unseen=False), trial(kind=AUTOMATIC, psnr=37, expected=0.2)]
    lines = table(verdict_on(trials, Choice(speedup=2.0))).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert "measured, chosen" in lines[2] and "2: 40.0, 0*: 44.0" in lines[2] and "0-1 3 6 9/10" in lines[2]
    assert "automatic" in lines[3] and "chosen" not in lines[3] and "| 37.0" in lines[3]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert [row[cells[0].index("expected dB")] for row in cells[2:]] == ["43.0", "36.0"], "6 dB for a factor of 2, by the other"


def test_where_a_plan_was_set_aside_its_landing_is_said():
    lines = summary(verdict_on([trial(computed=8)], Choice(speedup=2.0)))
    assert lines.startswith("Chosen: 2x with the measured plan, PSNR 40.0 dB, landed at 1.2x.\n")
    assert "landed at 1.2x: more steps had to be computed than planned" in lines, "for whatever reason: noise, too"
    assert "landed" not in summary(verdict_on([trial()], Choice(speedup=2.0)))
    assert "of the latents" in lines and "of seed 2, which was not measured" in lines


def test_a_plan_that_cannot_be_as_fast_as_was_asked_for_is_not_said_to_be():
    """Ten steps leave no plan of one: 10x computes five here, which is 2x."""
    lines = summary(verdict_on([trial(speedup=10.0)], Choice(speedup=10.0)))
    assert lines.startswith("Chosen: 10x with the measured plan, PSNR 40.0 dB, landed at 2x.\n10x: 40.0 dB, measured plan, landed at 2x\n")


def test_trials_that_are_not_kept_are_said():
    verdict = verdict_on([trial()], Choice(speedup=2.0), unkept="no space left")
    assert "Plan auto will not know of it: no space left." in summary(verdict)
    assert "will not know" not in summary(verdict_on([trial()], Choice(speedup=2.0)))


def test_whose_the_numbers_are_is_said():
    trials = [trial(), trial(seed=0, unseen=False)]
    assert "the mean over seeds 2, 0 (1 of them measured)" in summary(verdict_on(trials, Choice(speedup=2.0)))
    assert "seeds 2, 3 (none of them measured)" in summary(verdict_on([trial(), trial(seed=3)], Choice(speedup=2.0)))


def test_beside_the_better_plan_stands_the_automatic_one_on_the_same_seeds():
    both = [trial(kind=kind, psnr=psnr, seed=seed) for kind, psnr in ((EVEN, 45), (AUTOMATIC, 40)) for seed in (2, 0)]
    trials = [trial(psnr=44), *both]
    assert "2x: 45.0 dB, even plan (automatic 40.0)" in summary(verdict_on(trials, Choice(speedup=2.0)))
    stays = [replace(each, psnr=39.0) if each.kind == EVEN else each for each in trials]
    assert "2x: 40.0 dB, automatic plan (even 39.0)" in summary(verdict_on(stays, Choice(speedup=2.0)))
    hardly = [replace(each, psnr=42.0) if each.kind == EVEN else each for each in trials]
    assert "automatic plan (even 42.0, not clearly closer)" in summary(verdict_on(hardly, Choice(speedup=2.0)))


def test_nothing_is_expected_of_the_only_plan():
    verdict = verdict_on([trial()], Choice(speedup=2.0))
    assert verdict.expected(verdict.chosen) is None
