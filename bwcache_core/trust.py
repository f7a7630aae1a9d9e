"""When a plan is set aside: errors of forecasts, measured where the truth was computed, and fresh noise in the latent.

Pure numbers. Forecasts may reach as far as the threshold allows, taking the error measured last to grow in proportion to
the distance: in steps, and once one was over the threshold, also in the noise that they take away, since later steps of most
schedules are wider. Before one was measured, a step is taken to cost UNPROVEN. The other way that a forecast goes wrong is seen
before it is made: the latent is not where the last evaluation led, since the sampler added noise, restarted, or works on
another tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

UNPROVEN = 0.5  # error that a step is taken to cost before one was measured
BEGINNING = 2.0  # times as far at full noise, where outputs change least
NOISE_SHARE = 0.25  # of the threshold that fresh noise may take up: second-order samplers move the latent a little


@dataclass
class Trust:
    """threshold: relative L1 error of a forecast. reach: how many steps a forecast may go from its newest output; room:
    over how much of the noise. noise: of the latent since that output, as a share of the model's output."""

    threshold: float
    reach: float = math.inf
    room: float = math.inf
    noise: float = 0.0

    @property
    def most_noise(self) -> float:
        return NOISE_SHARE * self.threshold

    def measured(self, error: float, distance: float, width: float = 0.0) -> None:
        """A forecast over `distance` steps, in which the share of noise moved by `width`, had this error. The same place
        again says nothing of how errors grow."""
        if distance > 0.0:
            self.reach = max(distance, 1.0) * self.threshold / max(error, 1e-9)  # less than a step is taken for one
            wrong = width > 0.0 and error > self.threshold
            self.room = width * self.reach / distance if wrong else math.inf

    def first_reach(self, planned: bool) -> float:
        """How many steps a forecast may go on a path on which none was measured yet. planned: from the run's beginning."""
        return (BEGINNING if planned else 1.0) * self.threshold / UNPROVEN

    def moved(self, jump: float) -> None:
        """The latent lies `jump` off where the last evaluation led. Independent noises add up in squares."""
        self.noise = math.hypot(self.noise, jump)

    def computed(self) -> None:
        """Outputs are new, and belong to the latent as it is now."""
        self.noise = 0.0

    def objection(self, distance: float, width: float = 0.0) -> tuple[str, float, float] | None:
        """Why a forecast over `distance` steps and `width` of the noise is not to be trusted: words, the number, its limit.
        None where it is."""
        if not self.noise <= self.most_noise:  # NaN included
            return "fresh noise in the latent", self.noise, self.most_noise
        share = max(distance / self.reach, width / self.room)
        if share > 1.0:
            return "its forecast would err by more than the threshold", self.threshold * share, self.threshold
        return None
