"""Error-controlled reuse: a cached run is an ODE solved with extrapolated slopes, so the interval is a step size.

At a computed evaluation the forecast that would have been used is compared with what came out. The part of a forecast
that is frozen errs in proportion to its distance from the newest node, the part that follows a polynomial through
c_0..c_p like prod |c - c_i|: so the error measured once predicts that of the next forecast at any distance. Distances
are taken in noise level, log(noise / signal): over it outputs change evenly, over steps mostly at both ends of a run.
One measurement is noisy, so the errors of the whole run so far give the rate. Reuse goes on while the prediction stays
under the tolerance. A step that moves sigma further carries its error further, so predictions are weighted by a power
of the step's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from .budget import computed_allowed, computed_needed, tolerance_for
from .policy import Decision, Measured, Position, Rules

WARMUP = 2  # evaluations that a tolerance always computes: the second measures a forecast for the first time
WIDTH_POWER = 0.35  # benchmarks/NOTES.md
NEAREST = 0.5  # mean steps: a sampler that comes back to a sigma (heun) brings another latent, so its output differs
LEAST_ERROR = 1e-9  # a forecast that was exact
NOISE = 2.0  # a rate up to this many times the run's mean is noise of one measurement; above, features did change
TAIL = 2  # last steps that always compute in a run that ends at sigma 0: fine detail is decided there


@dataclass(frozen=True)
class AdaptivePolicy:
    """Reuse the whole stack while the predicted forecast error is under the tolerance.

    tolerance: relative L1 error of a forecast. max_reuse: evaluations served in a row. max_order: of the polynomial,
    damping: the share of the way that a forecast goes to it.
    target_speedup: 0, or the ratio of all to computed evaluations to land on, whatever tolerance that takes.
    """

    rules: Rules
    tolerance: float
    max_reuse: int
    max_order: int
    damping: float
    target_speedup: float = 0.0

    def decide(self, position: Position, measured: Sequence[Measured]) -> Decision:
        """Reuse where the predicted error of the forecast is under the tolerance."""
        barred = self.rules.barred(position, measured) or self._ends(position.step, measured)
        if barred:
            return Decision(reason=barred)
        unknown = not measured[-1].forecast_errors
        if unknown and not self.target_speedup:
            return Decision(reason="no forecast was measured yet")
        if position.evaluation - measured[-1].position.evaluation > self.max_reuse:
            return Decision(reason=f"{self.max_reuse} evaluations were reused in a row")
        judged = judge(measured, self.max_order, self.damping, NEAREST * self.rules.run.mean_level)
        error = self._weight(position.width) * judged.error_at(position.level, judged.nodes)
        tolerance = self._tolerance(position, measured, judged)
        reuse = frozenset(range(self.rules.run.blocks)) if error < tolerance else frozenset()
        if unknown:
            return Decision(reuse, bool(reuse), "no forecast was measured yet: evenly in noise level")
        reason = f"forecast error {error:.4f} is {'' if reuse else 'not '}under tolerance {tolerance:.3g}"
        return Decision(reuse, bool(reuse), reason, min(self.max_order, len(judged.nodes) - 1), error, tolerance)

    def _ends(self, step: int, measured: Sequence[Measured]) -> str:
        if len(measured) < WARMUP and not self.target_speedup:
            return f"warm-up: the first {WARMUP} evaluations compute"
        if self.rules.run.ends_at_zero and step >= self.rules.run.steps - TAIL:
            return f"tail: the last {TAIL} steps compute"
        return ""

    def _weight(self, width: float) -> float:
        return abs(width / self.rules.run.mean_width) ** WIDTH_POWER

    def _tolerance(self, position: Position, measured: Sequence[Measured], judged: Judged) -> float:
        """The tolerance set, or the one that spends what is left of the budget by the end of the run."""
        if not self.target_speedup:
            return self.tolerance
        run = self.rules.run
        per_step = max(1, round(position.evaluation / max(position.step, 1)))
        budget = computed_allowed(run.steps * per_step, self.target_speedup) - len(measured)
        coming = [step for step in range(position.step, run.steps) for _ in range(per_step)]
        in_a_row = position.evaluation - measured[-1].position.evaluation - 1

        def predict(step: int, earlier: Sequence[float]) -> float:
            return self._weight(run.widths[step]) * judged.error_at(run.levels[step], earlier)

        def must_compute(step: int, reused: int) -> bool:
            return bool(self._ends(step, measured)) or reused >= self.max_reuse or step > self.rules.end_step

        def needed(tolerance: float) -> int:
            return computed_needed(coming, in_a_row, judged.nodes, run.levels, predict, tolerance, must_compute)

        return tolerance_for(budget, needed)


@dataclass(frozen=True)
class Judged:
    """What was measured of forecasts of `order`: how fast their two parts err, from the newest of `nodes` on.

    frozen: error per distance. polynomial: error per product of distances. nearest: the least distance there is.
    """

    order: int
    frozen: float
    polynomial: float
    nodes: Sequence[float]
    nearest: float

    def error_at(self, target: float, nodes: Sequence[float]) -> float:
        """Predicted error at `target` of a forecast from `nodes`, newest first."""
        frozen = self.frozen * reach(target, nodes[:1], self.nearest)
        return frozen + self.polynomial * reach(target, nodes[: self.order + 1], self.nearest)


def judge(measured: Sequence[Measured], max_order: int, damping: float, nearest: float) -> Judged:
    """The forecast of the highest order that the newest of `measured` holds an error of.

    Rates are geometric means over the run so far, or the newest less its noise where that is more. Where nothing was
    measured, a frozen forecast that errs as much as the noise level moves: enough to share out a target.
    """
    order = len(measured[-1].forecast_errors[: max_order + 1]) - 1
    if order < 0:
        return Judged(0, 1.0, 0.0, levels(measured), nearest)
    frozen, polynomial = [], []
    for i, m in enumerate(measured):
        if len(m.forecast_errors) > order:
            newest, *earlier = levels(measured[: i + 1])
            error = max(m.forecast_errors[order], LEAST_ERROR)
            frozen.append(error / reach(newest, earlier[:1], nearest))
            polynomial.append(error / reach(newest, earlier[: order + 1], nearest))
    shares = ((1.0 - damping, frozen), (damping, polynomial))
    rates = [share * max(geometric_mean(errors), errors[-1] / NOISE) for share, errors in shares]
    return Judged(order, *rates, levels(measured), nearest)


def levels(measured: Sequence[Measured]) -> list[float]:
    """Noise levels of the computed evaluations, newest first. Two at one place are one node, as in FeatureHistory."""
    places = {m.position.coordinate: m.position.level for m in reversed(measured)}
    return list(places.values())


def reach(target: float, nodes: Sequence[float], nearest: float) -> float:
    """prod |target - node|: how an interpolation error grows away from its nodes."""
    product = 1.0
    for node in nodes:
        product *= max(abs(target - node), nearest)
    return product
