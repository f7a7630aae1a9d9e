"""What trials of plans say, and how they add up."""

from __future__ import annotations

import pytest

from bwcache_pack.bwcache_core import tried as module
from bwcache_pack.bwcache_core.plan import Plan, automatic, parse
from bwcache_pack.bwcache_core.planning import Found, best_plan
from bwcache_pack.bwcache_core.schedule import Schedule
from bwcache_pack.bwcache_core.tried import (
    AUTOMATIC,
    EARLY,
    EVEN,
    Trials,
    TriedPlan,
    best,
    level,
    merged,
    score,
    tried_plan,
    variants,
)

TEN = Schedule(tuple(1.0 - 0.1 * i for i in range(11)))


def tried(text: str = "0 2 5 9/10", kind: str = "automatic", **psnr: float) -> TriedPlan:
    return TriedPlan(parse(text), kind, psnr)


def test_plans_are_compared_on_the_clips_of_both():
    """60 dB are of an easy clip."""
    one, other = tried(a=40.0, b=30.0, easy=60.0), tried("0 3 5 9/10", a=42.0, b=31.0)
    assert other.over(one) == pytest.approx(1.5)
    assert tried(c=40.0).over(one) is None


def test_trials_add_up_by_plan_and_clip():
    plans = merged([tried(a=40.0), tried("0 3 5 9/10", a=41.0)], [tried(a=39.0, b=38.0)])
    assert [(each.plan.text, each.psnr) for each in plans] == [("0 3 5 9/10", {"a": 41.0}), ("0 2 5 9/10", {"a": 39.0, "b": 38.0})]


def test_the_newest_plans_and_clips_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MOST_PLANS", 2)
    monkeypatch.setattr(module, "MOST_CLIPS", 2)
    old = [tried(a=1.0, b=2.0), tried("0 3/10", a=1.0)]
    plans = merged(old, [tried("0 4/10", a=1.0), tried(c=3.0)])
    assert [(each.plan.text, each.psnr) for each in plans] == [("0 4/10", {"a": 1.0}), ("0 2 5 9/10", {"b": 2.0, "c": 3.0})]


# --- which is better ---


def of(count: int, kind: str = AUTOMATIC, **psnr: float) -> TriedPlan:
    """A plan of so many steps: which ones differs by kind."""
    return TriedPlan(Plan((0, *range(1 + len(kind), count + len(kind))), 20), kind, psnr)


def test_a_score_counts_what_the_kind_did_at_other_speedups_by_half():
    plans = [of(5, a=40.0), of(5, EVEN, a=44.0), of(7, a=45.0), of(7, EVEN, a=44.0), of(4, a=30.0), of(4, EVEN, a=33.0)]
    assert score(plans, plans[1]) == pytest.approx((4.0 + (-1.0 + 3.0) / 2) / 2)
    assert score(plans[:2], plans[1]) == pytest.approx(4.0), "it alone"
    assert score([*plans[:2], plans[2]], plans[1]) == pytest.approx(2.0), "not tried there: the same plan as the automatic one"
    assert score([*plans[:2], plans[3]], plans[1]) == pytest.approx(4.0), "nothing to compare with there"
    assert score(plans[1:], plans[1]) is None
    far = [plans[0], of(5, EVEN, a=46.0), *plans[2:]]
    assert score(far, far[1]) == pytest.approx(6.0), "so much closer that nothing else counts"


def test_a_plan_that_came_no_closer_itself_has_no_high_score():
    plans = [of(5, a=40.0), of(5, EVEN, a=39.0), of(7, a=45.0), of(7, EVEN, a=60.0)]
    assert score(plans, plans[1]) == pytest.approx(-1.0)


def test_the_best_is_the_clearly_closest_else_the_automatic_plan():
    plain, even, early = of(5, a=40.0, b=50.0), of(5, EVEN, a=44.0, b=53.0), of(5, EARLY, a=42.0, b=52.5)
    assert best([plain, even, early], [plain, even, early]) is even
    nearly = of(5, EVEN, a=42.9, b=52.9)
    assert best([plain, nearly], [plain, nearly]) is plain
    assert best([even, early], [even, early]) is None
    lucky = of(5, EARLY, a=60.0)
    assert best([plain, even, lucky], [plain, even, lucky]) is even, "on one clip of two"


def test_the_level_of_expected_errors_by_hand():
    assert level([(0.1, 40.0), (0.01, 62.0)]) == pytest.approx(21.0)
    assert level([(0.0, 100.0)]) is None


def test_variants_differ_in_the_beginning_and_compute_as_many():
    plain, plans = automatic(TEN, 2.0), variants(TEN, 2.0)
    early = {kind: sum(step < 5 for step in plan.computes) for kind, plan in plans.items()}
    assert early[EVEN] <= sum(step < 5 for step in plain.computes) <= early[EARLY] and early[EVEN] < early[EARLY]
    assert {len(plan.computes) for plan in plans.values()} == {len(plain.computes)}


# --- for a run ---


def known(**psnr: float) -> Trials:
    """PSNR of the automatic plan of 2x and of another, on two clips."""
    plain, other = automatic(TEN, 2.0), Plan((0, 1, 2, 3, 9), 10)
    return Trials(
        (TriedPlan(plain, AUTOMATIC, {"a": psnr["plain"], "b": psnr["plain"]}),
         TriedPlan(other, EARLY, {"a": psnr["other"], "b": psnr["other"]})), "last on 2026-11-26, x.json",
    )  # fmt: skip


def test_a_run_takes_the_best_tried_plan_and_says_so():
    plan = best_plan(Found(trials=known(plain=41.0, other=45.1)), TEN, 2.0)
    assert plan.computes == (0, 1, 2, 3, 9) and plan.steps == 10
    tried = "tried by BWCache Calibrate on 2 latents, last on 2026-11-26, x.json: 45.1 dB, the automatic plan 41.0"
    assert plan.note == f"early, {tried}"


def test_a_run_takes_the_automatic_plan_where_none_was_closer():
    plan = best_plan(Found(trials=known(plain=41.0, other=42.0)), TEN, 2.0)
    assert plan.computes == automatic(TEN, 2.0).computes
    assert plan.note.startswith("automatic: tried by BWCache Calibrate on 2 latents") and "41.0 dB, no other" in plan.note


def test_at_a_speedup_that_was_not_tried_nothing_is_taken_from_trials():
    plan = best_plan(Found(trials=known(plain=41.0, other=45.1)), TEN, 3.0)
    assert plan.computes == automatic(TEN, 3.0).computes
    assert plan.note == "automatic, no trial is kept of a plan of 3 computed steps"
    assert best_plan(Found(trials=known(plain=41.0, other=45.1)), TEN, 1.9).note.startswith("early"), "five steps of ten, too"


def test_what_a_window_computes_is_computed():
    trials = known(plain=41.0, other=45.1)
    assert tried_plan(trials, automatic(TEN, 2.0), {9}).computes == (0, 1, 2, 3, 9)
    assert tried_plan(trials, automatic(TEN, 2.0), {8, 9}) is None, "the automatic plan of such a run is another"


def test_where_the_automatic_plan_is_another_that_is_said():
    """By a window, which it has at a speed-up that was tried."""
    plan = best_plan(Found(trials=known(plain=41.0, other=45.1)), TEN, 2.0, end_step=7)
    assert {8, 9} < set(plan.computes) and len(plan.computes) == 5
    assert plan.note == "automatic, no trial is kept of this run's automatic plan"


def test_an_automatic_plan_of_another_version_is_not_taken_for_todays():
    trials = known(plain=41.0, other=45.1)
    old = TriedPlan(Plan((0, 1, 4, 5, 9), 10), AUTOMATIC, {"a": 50.0, "b": 50.0})
    before = Trials((old, *trials.plans))
    assert tried_plan(before, automatic(TEN, 2.0)).computes == (0, 1, 2, 3, 9)
    hardly = Trials((old, *known(plain=41.0, other=42.0).plans))
    assert tried_plan(hardly, automatic(TEN, 2.0)).computes == automatic(TEN, 2.0).computes
    assert tried_plan(Trials(before.plans[:1]), automatic(TEN, 2.0)) is None
