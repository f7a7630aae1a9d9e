"""Settings: bounds, and what follows from them."""

from __future__ import annotations

import dataclasses

import pytest

from bwcache_pack.bwcache_core.config import PAPER, PER_BLOCK, BlockConfig, ConfigError, ForecastConfig

OUT_OF_BOUNDS = [
    # settings, name, value, what the message must name: the setting, what was found, what is allowed, what to do
    (ForecastConfig, "speedup", 0.0, ["speedup", "0.0", "1.0 to 10.0", "1 computes all"]),
    (ForecastConfig, "speedup", 0.99, ["speedup", "0.99"]),
    (ForecastConfig, "speedup", 1000.0, ["speedup", "1000"]),
    (ForecastConfig, "speedup", float("nan"), ["speedup", "nan", "1.0 to 10.0"]),
    (ForecastConfig, "threshold", -0.1, ["threshold", "-0.1", "0 turns reuse off"]),
    (ForecastConfig, "plan", "0 2 2/20", ["'2'"]),
    (ForecastConfig, "plan", "fast", ["'fast'", "auto"]),
    (BlockConfig, "mode", "teacache", ["mode", "teacache", "paper", "per block"]),
    (BlockConfig, "threshold", 1.5, ["threshold", "1.5", "0.0 to 1.0"]),
    (BlockConfig, "threshold", float("nan"), ["threshold", "nan", "0.0 to 1.0"]),
    (BlockConfig, "reuse_interval", -1, ["reuse_interval", "-1", "0 to 100", "0 means"]),
    (BlockConfig, "monitor_every", 0, ["monitor_every", "0", "1 to 1000", "1 reads every block"]),
    (BlockConfig, "cache_device", "disk", ["cache_device", "disk", "auto, gpu, cpu"]),
    (BlockConfig, "max_cache_mb", -1, ["max_cache_mb", "-1", "0 sets no limit"]),
    (ForecastConfig, "start_step", 10_001, ["start_step", "10001", "0 is the first step"]),
    (BlockConfig, "end_step", -10_001, ["end_step", "-10001", "-1 is the last step"]),
]


@pytest.mark.parametrize(("settings", "name", "value", "parts"), OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_is_refused_and_named(settings, name, value, parts):
    with pytest.raises(ConfigError) as caught:
        settings(**{name: value})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("settings", [ForecastConfig, BlockConfig])
@pytest.mark.parametrize(("start", "end"), [(5, 4), (-1, -2)])
def test_a_window_without_steps_is_refused(settings, start, end):
    with pytest.raises(ConfigError, match="Lower start_step or raise end_step"):
        settings(start_step=start, end_step=end)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (-2, -1), (5, -1), (-3, 5)])
def test_a_window_that_may_hold_steps_is_accepted(start, end):
    ForecastConfig(start_step=start, end_step=end)


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [(ForecastConfig, "speedup", 1.0), (ForecastConfig, "speedup", 10.0), (ForecastConfig, "threshold", 0.0),
     (BlockConfig, "threshold", 0.0), (BlockConfig, "threshold", 1.0), (BlockConfig, "reuse_interval", 100),
     (BlockConfig, "mode", PER_BLOCK), (BlockConfig, "monitor_every", 1000)],
)
def test_bounds_are_inclusive(settings, name, value):
    assert getattr(settings(**{name: value}), name) == value


def test_settings_cannot_change_after_they_were_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ForecastConfig().speedup = 3.0


@pytest.mark.parametrize(
    ("config", "reuses"),
    [
        (ForecastConfig(), True),
        (ForecastConfig(speedup=1.0), False),
        (ForecastConfig(threshold=0.0), False),
        (ForecastConfig(speedup=1.0, plan="0 2/4"), True),  # a plan decides instead of the speed-up
    ],
)
def test_what_can_reuse(config, reuses):
    assert config.reuses is reuses


@pytest.mark.parametrize(
    ("mode", "every", "expected"),
    [(PAPER, 1, (0, 1, 2, 3, 4)), (PAPER, 2, (0, 2, 4)), (PAPER, 3, (0, 3, 4)), (PER_BLOCK, 3, (0, 1, 2, 3, 4))],
)
def test_monitored_blocks(mode, every, expected):
    assert BlockConfig(mode=mode, monitor_every=every).monitored_blocks(5) == expected


def test_the_budget_is_in_bytes():
    assert BlockConfig(max_cache_mb=2).budget == 2 * 1024 * 1024


def test_settings_are_named():
    """Else a speed-up that is given alone would be the first step that may be reused."""
    with pytest.raises(TypeError, match="positional"):
        ForecastConfig(2.0)
