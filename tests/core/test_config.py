"""Settings: bounds, and which blocks are measured."""

from __future__ import annotations

import dataclasses

import pytest

from bwcache_pack.bwcache_core.config import MODES, BWCacheConfig, ConfigError

OUT_OF_BOUNDS = [
    # setting, value, what the message must name: the setting, what was found, what is allowed, what to do
    ("mode", "teacache", ["mode", "teacache", "paper", "per block"]),
    ("threshold", -0.01, ["threshold", "-0.01", "0.0 to 1.0", "0 turns reuse off"]),
    ("threshold", 1.5, ["threshold", "1.5", "0.0 to 1.0"]),
    ("threshold", float("nan"), ["threshold", "nan", "0.0 to 1.0"]),
    ("reuse_interval", -1, ["reuse_interval", "-1", "0 to 100", "0 means"]),
    ("reuse_interval", 101, ["reuse_interval", "101", "0 to 100"]),
    ("start_step", 10_001, ["start_step", "10001", "0 is the first step"]),
    ("end_step", -10_001, ["end_step", "-10001", "-1 is the last step"]),
    ("monitor_every", 0, ["monitor_every", "0", "1 to 1000", "1 reads every block"]),
    ("tokens", 0, ["tokens", "0", "1 to 4096", "256"]),
    ("tokens", float("inf"), ["tokens", "inf", "1 to 4096"]),
]


@pytest.mark.parametrize(("name", "value", "parts"), OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_is_refused_and_named(name, value, parts):
    with pytest.raises(ConfigError) as caught:
        BWCacheConfig(**{name: value})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(("start", "end"), [(5, 4), (-1, -2)])
def test_a_window_without_steps_is_refused(start, end):
    with pytest.raises(ConfigError, match="Lower start_step or raise end_step"):
        BWCacheConfig(start_step=start, end_step=end)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (-2, -1), (5, -1), (-3, 5)])
def test_a_window_that_may_hold_steps_is_accepted(start, end):
    BWCacheConfig(start_step=start, end_step=end)


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", 0.0), ("threshold", 1.0), ("reuse_interval", 0), ("reuse_interval", 100), ("tokens", 1),
     ("tokens", 4096), ("monitor_every", 1000), *[("mode", mode) for mode in MODES]],
)
def test_bounds_are_inclusive(name, value):
    assert getattr(BWCacheConfig(**{name: value}), name) == value


def test_settings_cannot_change_after_they_were_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BWCacheConfig().threshold = 2.0


@pytest.mark.parametrize(
    ("blocks", "every", "expected"),
    [
        (5, 1, (0, 1, 2, 3, 4)),
        (5, 2, (0, 2, 4)),
        (6, 2, (0, 2, 4, 5)),  # the last block is always read: its features are the ones reused
        (6, 4, (0, 4, 5)),
        (6, 100, (0, 5)),
        (1, 3, (0,)),
    ],
)
def test_every_nth_block_and_the_last_are_monitored(blocks, every, expected):
    assert BWCacheConfig(mode="paper", monitor_every=every).monitored_blocks(blocks) == expected


def test_per_block_measures_every_block():
    assert BWCacheConfig(mode="per block", monitor_every=3).monitored_blocks(4) == (0, 1, 2, 3)
