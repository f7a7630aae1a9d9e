"""When a plan is set aside, by hand."""

from __future__ import annotations

import math

import pytest

from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.bwcache_core.plan import FIRST_GAP
from bwcache_pack.bwcache_core.trust import NOISE_SHARE, Trust

CASES = [
    # what was measured as (error, distance), how far the next forecast goes, whether that is trusted at a threshold of 0.5
    ([], 100.0, True),  # nothing is known against it
    ([(0.4, 1.0), (0.3, 3.0)], 5.0, True),  # 0.1 a step, at last
    ([(0.4, 1.0), (0.3, 3.0)], 5.1, False),
    ([(0.6, 1.0)], 1.0, False),  # 0.6 over one step: not one more
    ([(0.6, 2.0)], 1.0, True),  # 0.6 over two steps: 0.3 over one
    ([(0.6, 2.0)], 2.0, False),
    ([(0.6, 1.0), (0.1, 1.0)], 5.0, True),  # it fell: 0.1 a step lets five steps pass
    ([(0.6, 1.0), (0.1, 1.0)], 5.1, False),
    ([(0.6, 1.0), (0.0, 1.0)], 100.0, True),
    ([(0.6, 0.0)], 100.0, True),  # the same place again says nothing of how errors grow
    ([(0.6, 1.0), (0.1, 0.0)], 1.0, False),
]


@pytest.mark.parametrize(("measured", "distance", "trusted"), CASES)
def test_reach_by_hand(measured, distance, trusted):
    trust = Trust(0.5)
    for error, over in measured:
        trust.measured(error, over)
    assert (trust.objection(distance) is None) is trusted


WIDER = [
    # what was measured as (error, distance, width), the next forecast's distance and width, whether that is trusted at 0.5
    ([(0.6, 3.0, 0.1)], (1.0, 0.05), True),  # 0.3 over so much of the noise
    ([(0.6, 3.0, 0.1)], (1.0, 0.1), False),  # 0.2 over one step, but 0.6 over so much of the noise
    ([(0.4, 3.0, 0.1)], (1.0, 0.5), True),  # it was right: steps count alone
    ([(0.6, 3.0, 0.1), (0.4, 3.0, 0.1)], (1.0, 0.5), True),
    ([(0.6, 0.5, 0.05)], (0.8, 0.08), True),  # as if a step of twice the width had erred so
    ([(0.6, 0.5, 0.05)], (0.8, 0.1), False),
]


@pytest.mark.parametrize(("measured", "following", "trusted"), WIDER)
def test_after_a_forecast_that_was_wrong_a_wide_step_is_one_of_many(measured, following, trusted):
    trust = Trust(0.5)
    for each in measured:
        trust.measured(*each)
    assert (trust.objection(*following) is None) is trusted


def test_before_anything_was_measured_a_step_is_taken_to_cost_one_half():
    """Twice as far at the beginning of a run, where outputs change least."""
    assert [Trust(0.5).first_reach(planned) for planned in (False, True)] == [1.0, 2.0]
    assert Trust(0.1).first_reach(False) == pytest.approx(0.2)


def test_an_objection_names_the_error_it_expects():
    trust = Trust(0.5)
    trust.measured(0.6, 1.0)
    words, number, limit = trust.objection(2.0)
    assert "threshold" in words
    assert number == pytest.approx(1.2) and limit == 0.5


def test_small_noises_add_up_in_squares_until_outputs_are_new():
    trust = Trust(1.0)
    for _ in range(2):
        trust.moved(0.15)
    assert trust.objection(1.0) is None  # 0.21
    trust.moved(0.15)
    words, number, limit = trust.objection(1.0)
    assert "noise" in words
    assert (number, limit) == (pytest.approx(math.hypot(0.15, 0.15, 0.15)), NOISE_SHARE)
    trust.computed()
    assert trust.objection(1.0) is None


@pytest.mark.parametrize("jump", [math.inf, math.nan])
def test_a_latent_that_cannot_be_compared_is_not_trusted(jump):
    trust = Trust(0.5)
    trust.moved(jump)
    assert trust.objection(1.0) is not None


def test_automatic_plans_begin_with_no_longer_gap_than_is_trusted():
    assert Trust(ForecastConfig().threshold).first_reach(planned=True) == FIRST_GAP - 1
