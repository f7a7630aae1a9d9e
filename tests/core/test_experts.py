"""Two experts that sample one video, told as one."""

from __future__ import annotations

import pytest

from bwcache_pack.bwcache_core.advice import speed
from bwcache_pack.bwcache_core.experts import computed, evaluations, factor, together
from bwcache_pack.tests.nodes.reports import forecast

HIGH, LOW = forecast("ccrc" * 2), forecast("ccrr" * 2)  # a computed step takes 1 s, a reused one 0.1 s


def test_figures_by_hand():
    assert (computed([HIGH, LOW]), evaluations([HIGH, LOW])) == (10, 16)
    assert factor([HIGH, LOW]) == pytest.approx(min(16.0 / (6.2 + 4.4), 32 / 20))
    assert together([HIGH, LOW]) == "Both experts: 10 of 16 steps were computed, about 1.5x."


def test_one_run_is_told_as_before():
    assert together([HIGH]) == ""
    assert factor([HIGH]) == pytest.approx(speed(HIGH)[0])


def test_no_speed_is_told_that_is_not_known():
    for other in (forecast("cc", rivals=["EasyCache"]), forecast("cc", finished=False)):
        assert factor([HIGH, other]) == 1.0 and together([HIGH, other]).endswith("steps were computed.")
    assert factor([forecast("cccc")]) == 1.0
