"""Schedules: steps of sigmas, noise levels, windows, and the flow shift that fits."""

from __future__ import annotations

import math

import pytest

from bwcache_pack.bwcache_core.schedule import Schedule, schedule_of, whole_run


def flow(steps: int, shift: float = 8.0) -> list[float]:
    """Flow sigmas from 1 to 0. Source of the shift: Esser et al., arXiv:2403.03206."""
    shares = [1.0 - step / steps for step in range(steps + 1)]
    return [shift * u / (1.0 + (shift - 1.0) * u) for u in shares]


def eps(steps: int) -> list[float]:
    """Sigmas from 14.6 to 0.03, then 0: Karras et al., arXiv:2206.00364, equation 5."""
    ends = 14.6 ** (1 / 7), 0.03 ** (1 / 7)
    return [(ends[0] + step / max(steps - 1, 1) * (ends[1] - ends[0])) ** 7 for step in range(steps)] + [0.0]


@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
@pytest.mark.parametrize("steps", [4, 8, 20, 50])
def test_a_part_tells_how_many_steps_the_whole_run_has(steps, shift):
    sigmas = flow(steps, shift)
    for part in (sigmas[:4], sigmas[: steps // 2 + 1], sigmas[-4:], sigmas[steps // 2 :], sigmas):
        assert whole_run(part) == pytest.approx(steps, rel=1e-6)


@pytest.mark.parametrize("sigmas", [flow(20)[3:9], flow(20)[:2], eps(20), [1.0, 1.0, 1.0], [1.0, 0.9, 0.85], [0.0, 0.5, 1.0]])
def test_some_parts_tell_nothing_of_the_whole_run(sigmas):
    assert whole_run(sigmas) == math.inf


@pytest.mark.parametrize("sigmas", [(), (1.0,), (1.0, math.nan), (math.inf, 0.0)])
def test_what_is_no_schedule_is_refused(sigmas):
    with pytest.raises(ValueError, match="the schedule has"):
        Schedule(sigmas)


@pytest.mark.parametrize(
    ("sigma", "step", "coordinate"),
    [(1.0, 0, 0.0), (0.9, 0, 0.5), (0.8, 1, 1.0), (0.79999, 1, 1.00003), (0.2, 2, 2.0), (0.0, 2, 3.0), (2.0, 0, -5.0)],
)
def test_steps_and_coordinates_of_a_falling_schedule(sigma, step, coordinate):
    schedule = Schedule((1.0, 0.8, 0.2, 0.0))
    assert schedule.step_of(sigma) == step
    assert schedule.coordinate(sigma) == pytest.approx(coordinate, abs=1e-4)


@pytest.mark.parametrize(("sigma", "step"), [(0.0, 0), (0.1, 0), (0.2, 1), (0.5, 1), (1.0, 1)])
def test_steps_of_a_rising_schedule(sigma, step):
    schedule = Schedule((0.0, 0.2, 1.0))
    assert schedule.rises
    assert schedule.step_of(sigma) == step


def test_sigmas_slightly_off_a_step_belong_to_it():
    schedule = schedule_of(flow(20))
    for step, sigma in enumerate(schedule.sigmas[:-1]):
        assert schedule.step_of(sigma * (1 - 5e-5)) == step


def test_levels_fall_with_sigma_and_are_finite():
    for schedule in (schedule_of(flow(30)), schedule_of(eps(30), flow=False)):
        assert all(math.isfinite(level) for level in schedule.levels)
        assert list(schedule.levels) == sorted(schedule.levels, reverse=True)


@pytest.mark.parametrize("steps", [5, 30])
def test_noise_that_is_added_is_measured_as_that_of_a_flow(steps):
    added = schedule_of(eps(steps), flow=False)
    mixed = schedule_of([sigma / (1.0 + sigma) for sigma in added.sigmas])
    assert added.shares == mixed.sigmas
    assert (added.levels, added.widths) == (mixed.levels, mixed.widths)


@pytest.mark.parametrize("sigmas", [flow(8), flow(8)[::-1], eps(8)])
def test_a_width_lies_between_any_two_places(sigmas):
    schedule = schedule_of(sigmas, flow=max(sigmas) <= 1.0)
    assert schedule.width(2.0, 5.0) == pytest.approx(sum(schedule.widths[2:5])) == schedule.width(5.0, 2.0)
    assert schedule.width(0.0, 8.0) == pytest.approx(sum(schedule.widths))
    between = sigmas[3] + 0.25 * (sigmas[4] - sigmas[3])
    there = schedule.coordinate(between)
    assert there == pytest.approx(3.25) and schedule.width(3.0, there) == pytest.approx(abs(schedule.share(between) - schedule.shares[3]))


def test_widths_and_end():
    schedule = Schedule((1.0, 0.75, 0.25, 0.001))
    assert schedule.widths == (0.25, 0.5, 0.249)
    assert Schedule((3.0, 1.0, 0.0), flow=False).widths == (0.25, 0.5)
    assert schedule.ends_at_zero
    assert not Schedule((1.0, 0.875)).ends_at_zero


@pytest.mark.parametrize(
    ("start", "end", "window"), [(0, -1, (0, 19)), (5, -3, (5, 17)), (-4, 30, (16, 30)), (-30, -25, (-10, -5))]
)
def test_windows(start, end, window):
    assert schedule_of(flow(20)).window(start, end) == window


def picked_from_a_table(steps: int, shift: float) -> list[float]:
    """ComfyUI's "simple" scheduler: every (1000 / steps)-th of 1000 shifted sigmas, then 0."""
    table = [flow(1000, shift)[999 - i] for i in range(1000)]
    return [table[-(1 + int(step * 1000 / steps))] for step in range(steps)] + [0.0]


@pytest.mark.parametrize("steps", [4, 7, 20, 30, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0, 12.0])
def test_the_shift_of_a_schedule_is_found(steps, shift):
    assert schedule_of(flow(steps, shift)).shift == shift
    assert schedule_of(picked_from_a_table(steps, shift)).shift == shift


@pytest.mark.parametrize(
    "schedule",
    [
        schedule_of(eps(20), flow=False),
        schedule_of(eps(20)),
        schedule_of(flow(20)[:11]),
        schedule_of(flow(20)[10:]),
        schedule_of(flow(20)[::-1]),
        schedule_of([1.0, 0.0]),
        schedule_of([0.5] * 21),
        schedule_of([1.0, 0.97, 0.9, 0.5, 0.4, 0.3, 0.0]),
    ],
)
def test_other_schedules_have_no_shift(schedule):
    assert schedule.shift is None
