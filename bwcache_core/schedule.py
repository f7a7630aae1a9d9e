"""A run's noise schedule: sigmas to steps, noise levels and widths. Pure numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

LEAST = 1e-2  # of signal and noise: the ends of a schedule stay at a finite level
CLOSE = 1e-4  # relative: samplers evaluate slightly off a sigma of the schedule
ALIKE = 1.1e-3  # share of a run: ComfyUI's schedulers pick sigmas from a table of 1000
FULL_NOISE = 0.99  # sigma of a flow from which on it begins with noise alone; other schedules begin higher
ZERO = 2e-3  # a last sigma up to this is an end at zero: uni_pc puts 0.001 there


@dataclass(frozen=True)
class Schedule:
    """The sigmas of a run, steps + 1 finite numbers that fall, or rise where a video is turned into noise.

    flow: noise and signal are mixed, (1 - sigma) signal + sigma noise; otherwise noise is added, signal + sigma noise.
    Raises ValueError for fewer than two sigmas or one that is not finite.
    """

    sigmas: tuple[float, ...]
    flow: bool = True

    def __post_init__(self) -> None:
        if len(self.sigmas) < 2:
            raise ValueError(f"the schedule has {len(self.sigmas)} sigmas, expected two or more")
        if not all(math.isfinite(sigma) for sigma in self.sigmas):
            raise ValueError(f"the schedule has a sigma that is no finite number: {self.sigmas}")

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def rises(self) -> bool:
        return self.sigmas[-1] > self.sigmas[0]

    @property
    def ends_at_zero(self) -> bool:
        return abs(self.sigmas[-1]) <= ZERO

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Share of noise in the latent, 0 to 1, at the beginning of each step, and at the end of the last."""
        return tuple(self.share(sigma) for sigma in self.sigmas)

    @cached_property
    def widths(self) -> tuple[float, ...]:
        """How far the share of noise moves over each step."""
        return tuple(abs(here - following) for here, following in pairwise(self.shares))

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Noise level at the beginning of each step, and at the end of the last."""
        return tuple(self.level(sigma) for sigma in self.sigmas)

    @cached_property
    def shift(self) -> float | None:
        """The roundest flow shift s with sigma = s u / (1 + (s - 1) u), u = 1 - step / steps; None where there is none."""
        middle, noise = 1.0 - (self.steps // 2) / self.steps, self.sigmas[self.steps // 2]
        if not self.flow or self.steps < 2 or not 0.0 < noise < 1.0:
            return None
        exact = noise * (1.0 - middle) / (middle * (1.0 - noise))
        return next((shift for shift in (float(f"{exact:.{n}g}") for n in (1, 2, 3)) if self.fits(shift)), None)

    def fits(self, shift: float) -> bool:
        """Every sigma lies where a run from 1 to 0 with this flow shift has it."""
        shares = [sigma / (shift - (shift - 1.0) * sigma) if 0.0 <= sigma <= 1.0 else -1.0 for sigma in self.sigmas]
        return all(abs(share - (1.0 - i / self.steps)) < ALIKE for i, share in enumerate(shares))

    def share(self, sigma: float) -> float:
        """Share of noise: of noise and signal together, where noise is added. One scale for all models: in sigma itself the
        first steps of such a schedule are wide beyond what they matter."""
        sigma = max(sigma, 0.0)
        return sigma if self.flow else sigma / (1.0 + sigma)

    def level(self, sigma: float) -> float:
        """Log of noise over signal, each with LEAST added."""
        noise = self.share(sigma)
        return math.log((noise + LEAST) / (max(1.0 - noise, 0.0) + LEAST))

    def step_of(self, sigma: float) -> int:
        """0-based step whose interval holds `sigma`. Never assumes that it is one of the schedule."""
        slack = CLOSE * abs(sigma)
        if self.rises:
            reached = sum(s <= sigma + slack for s in self.sigmas)
        else:
            reached = sum(s >= sigma - slack for s in self.sigmas)
        return min(max(reached, 1), self.steps) - 1

    def coordinate(self, sigma: float) -> float:
        """Real-valued step: 3.5 lies halfway, in sigma, from step 3 to step 4."""
        step = self.step_of(sigma)
        width = self.sigmas[step] - self.sigmas[step + 1]
        return step + (self.sigmas[step] - sigma) / width if width else float(step)

    def width(self, start: float, end: float) -> float:
        """How far the share of noise moves between two real-valued steps."""
        return abs(self._share_at(end) - self._share_at(start))

    def _share_at(self, coordinate: float) -> float:
        step = min(max(int(coordinate), 0), self.steps - 1)
        here, following = self.sigmas[step : step + 2]
        return self.share(here + (coordinate - step) * (following - here))

    def window(self, start_step: int, end_step: int) -> tuple[int, int]:
        """First and last step of a window, 0-based; negative numbers count from the end of the run."""
        return absolute(start_step, self.steps), absolute(end_step, self.steps)


def whole_run(sigmas: Sequence[float]) -> float:
    """How many steps a run from pure noise to none would have that these falling flow sigmas are the first or last steps of.

    Taken from the three at its end, whose shares u of the run lie 1 / steps apart: 1 / u = 1 + s (1 - sigma) / sigma at
    flow shift s. Infinite where that cannot be told.
    """
    if len(sigmas) < 3 or sigmas[0] > 1.0 + ZERO:
        return math.inf
    if abs(sigmas[-1]) <= ZERO:  # u is 2 / steps, 1 / steps, 0
        two, one = (1.0 / max(sigma, ZERO) - 1.0 for sigma in sigmas[-3:-1])
        return 1.0 + one / (one - 2.0 * two) if one > 2.0 * two else math.inf
    one, two = (1.0 / max(sigma, ZERO) - 1.0 for sigma in sigmas[1:3])  # u is 1, 1 - 1 / steps, 1 - 2 / steps
    if sigmas[0] < FULL_NOISE or not 0.0 < 2.0 * one < two:
        return math.inf
    shift = 1.0 / one - 2.0 / two
    return 1.0 + 1.0 / (shift * one)


def absolute(step: int, steps: int) -> int:
    return step + steps if step < 0 else step


def schedule_of(sigmas: Sequence[float], flow: bool = True) -> Schedule:
    """A Schedule from any sequence of numbers."""
    return Schedule(tuple(float(sigma) for sigma in sigmas), flow)
