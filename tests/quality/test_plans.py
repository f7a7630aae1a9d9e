"""What constants of the plan are for where quality on the trained models does not show it: broken ones turn these red."""

from __future__ import annotations

from itertools import pairwise

from bwcache_pack.bwcache_core.plan import automatic
from bwcache_pack.bwcache_core.schedule import schedule_of
from bwcache_pack.zoo.sampling import schedule

STEPS = 20


def longest_gap(sigmas, speedup: float) -> int:
    return max(following - step for step, following in pairwise(automatic(schedule_of(sigmas), speedup).computes))


def test_where_the_noise_level_stands_still_steps_are_shared_out_evenly():
    """LEAST_MOVE, LEAST_WIDTH: with 0, `0-7 11 19/20`."""
    assert longest_gap([1.0] + [0.5] * (STEPS - 1) + [0.0], 2.0) <= 4


def test_gaps_are_bounded_however_few_steps_compute():
    """LONGEST_GAP: with 40 there is a gap of 14 steps."""
    assert longest_gap(schedule(STEPS, 1.0).tolist(), 5.0) <= 10
