"""Error-controlled reuse: a cached run is an ODE solved with extrapolated slopes, so the interval is a step size.

At a computed evaluation the forecast that would have been used is compared with what came out. A polynomial through
the nodes c_0..c_p errs by f^(p+1)/(p+1)! * prod |c - c_i|, so error / product, measured once, predicts the error of
the next forecast at any distance. Reuse goes on while the prediction stays under the tolerance. A step that moves
sigma further carries its error further, so predictions are weighted by a power of the step's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .budget import computed_allowed, computed_needed, tolerance_for
from .policy import Decision, Measured, Position, Rules

WARMUP = 3  # evaluations that always compute: three nodes measure a linear forecast for the first time
WIDTH_POWER = 0.75  # 0.5 and 1 did worse at one speed or another: benchmarks/NOTES.md
TAIL = 2  # last steps that always compute in a run that ends at sigma 0: fine detail is decided there


@dataclass(frozen=True)
class AdaptivePolicy:
    """Reuse the whole stack while the predicted forecast error is under the tolerance.

    tolerance: relative L1 error of a forecast. max_reuse: evaluations served in a row. max_order: of the polynomial.
    target_speedup: 0, or the ratio of all to computed evaluations to land on, whatever tolerance that takes.
    """

    rules: Rules
    tolerance: float
    max_reuse: int
    max_order: int
    target_speedup: float = 0.0

    def decide(self, position: Position, measured: Sequence[Measured]) -> Decision:
        """Reuse with the order whose predicted error is smallest, if that is under the tolerance."""
        barred = self.rules.barred(position, measured) or self._ends(position.step, measured)
        if barred:
            return Decision(reason=barred)
        if not measured[-1].forecast_errors:
            return Decision(reason="no forecast was measured yet")
        if position.evaluation - measured[-1].position.evaluation > self.max_reuse:
            return Decision(reason=f"{self.max_reuse} evaluations were reused in a row")
        slopes, nodes = self._slopes(measured), places(measured)
        weight = self._weight(position.width)
        errors = [weight * error for error in forecast_errors(slopes, position.coordinate, nodes)]
        tolerance = self._tolerance(position, measured, slopes, nodes)
        if min(errors) >= tolerance:
            reason = f"forecast error {min(errors):.4f} is not under tolerance {tolerance:.3g}"
            return Decision(reason=reason, judged=min(errors), limit=tolerance)
        reason = f"forecast error {min(errors):.4f} is under tolerance {tolerance:.3g}"
        order = errors.index(min(errors))
        return Decision(frozenset(range(self.rules.run.blocks)), True, reason, order, errors[order], tolerance)

    def _ends(self, step: int, measured: Sequence[Measured]) -> str:
        if len(measured) < WARMUP:
            return f"warm-up: the first {WARMUP} evaluations compute"
        if self.rules.run.ends_at_zero and step >= self.rules.run.steps - TAIL:
            return f"tail: the last {TAIL} steps compute"
        return ""

    def _weight(self, width: float) -> float:
        return abs(width / self.rules.run.mean_width) ** WIDTH_POWER

    def _slopes(self, measured: Sequence[Measured]) -> list[float]:
        """Error over reach of each order, as the last computed evaluation measured them."""
        nodes = places(measured)
        errors = measured[-1].forecast_errors[: self.max_order + 1]
        return [error / max(reach(nodes[0], nodes[1 : p + 2]), 1e-12) for p, error in enumerate(errors)]

    def _tolerance(
        self, position: Position, measured: Sequence[Measured], slopes: Sequence[float], nodes: Sequence[float]
    ) -> float:
        """The tolerance set, or the one that spends what is left of the budget by the end of the run."""
        if not self.target_speedup:
            return self.tolerance
        run = self.rules.run
        per_step = max(1.0, position.evaluation / max(position.step, 1))
        budget = computed_allowed(round(run.steps * per_step), self.target_speedup) - len(measured)

        def predict(step: int, earlier: Sequence[float]) -> float:
            return self._weight(run.widths[step]) * min(forecast_errors(slopes, step, earlier))

        def must_compute(step: int, newest: float) -> bool:
            return bool(self._ends(step, measured)) or step - newest > self.max_reuse or step > self.rules.end_step

        def needed(tolerance: float) -> int:
            steps = range(position.step, run.steps)
            return round(per_step * computed_needed(steps, nodes, predict, tolerance, must_compute))

        return tolerance_for(budget, needed)


def places(measured: Sequence[Measured]) -> list[float]:
    """Coordinates of the computed evaluations, newest first. Two at one place are one node, as in FeatureHistory."""
    return list(dict.fromkeys(m.position.coordinate for m in reversed(measured)))


def forecast_errors(slopes: Sequence[float], coordinate: float, nodes: Sequence[float]) -> list[float]:
    """Predicted error of a forecast of order 0, 1, ... at `coordinate`; nodes newest first."""
    return [slope * reach(coordinate, nodes[: p + 1]) for p, slope in enumerate(slopes)]


def reach(target: float, nodes: Sequence[float]) -> float:
    """prod |target - node|: how an interpolation error grows away from its nodes."""
    product = 1.0
    for node in nodes:
        product *= abs(target - node)
    return product
