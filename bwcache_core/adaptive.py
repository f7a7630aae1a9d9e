"""Error-controlled reuse: a cached run is an ODE solved with extrapolated slopes, so the interval is a step size.

At a computed evaluation the forecast that would have been used is compared with what came out. A polynomial through
the nodes c_0..c_p errs by f^(p+1)/(p+1)! * prod |c - c_i|, so error / product, measured once, predicts the error of
the next forecast at any distance. Reuse goes on while the prediction stays under the tolerance. A step that moves
sigma further carries its error further, so predictions are weighted by the square root of the step's width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .policy import Decision, Measured, Position, Rules

WARMUP = 3  # evaluations that always compute: three nodes measure a linear forecast for the first time
TAIL = 2  # last steps that always compute in a run that ends at sigma 0: fine detail is decided there


@dataclass(frozen=True)
class AdaptivePolicy:
    """Reuse the whole stack while the predicted forecast error is within the tolerance.

    tolerance: relative L1 error of a forecast. max_reuse: evaluations served in a row. max_order: of the polynomial.
    """

    rules: Rules
    tolerance: float
    max_reuse: int
    max_order: int

    def decide(self, position: Position, measured: Sequence[Measured]) -> Decision:
        """Reuse with the order whose predicted error is smallest, if that is within the tolerance."""
        barred = self.rules.barred(position, measured) or self._ends(position, measured)
        if barred:
            return Decision(reason=barred)
        last = measured[-1]
        if not last.forecast_errors:
            return Decision(reason="no forecast was measured yet")
        if position.evaluation - last.position.evaluation > self.max_reuse:
            return Decision(reason=f"{self.max_reuse} evaluations were reused in a row")
        order, error = self._best_forecast(position, measured)
        if error >= self.tolerance:
            reason = f"forecast error {error:.4f} is not under tolerance {self.tolerance:g}"
            return Decision(reason=reason, judged=error, limit=self.tolerance)
        reason = f"forecast error {error:.4f} is under tolerance {self.tolerance:g}"
        return Decision(frozenset(range(self.rules.run.blocks)), True, reason, order, error, self.tolerance)

    def _ends(self, position: Position, measured: Sequence[Measured]) -> str:
        if len(measured) < WARMUP:
            return f"warm-up: the first {WARMUP} evaluations compute"
        if self.rules.run.ends_at_zero and position.step >= self.rules.run.steps - TAIL:
            return f"tail: the last {TAIL} steps compute"
        return ""

    def _best_forecast(self, position: Position, measured: Sequence[Measured]) -> tuple[int, float]:
        nodes = list(dict.fromkeys(m.position.coordinate for m in reversed(measured)))  # as in FeatureHistory
        errors = measured[-1].forecast_errors[: self.max_order + 1]
        weight = math.sqrt(abs(position.width / self.rules.run.mean_width))
        predicted = [
            weight * error * reach(position.coordinate, nodes[: p + 1]) / max(reach(nodes[0], nodes[1 : p + 2]), 1e-12)
            for p, error in enumerate(errors)
        ]
        order = min(range(len(predicted)), key=predicted.__getitem__)
        return order, predicted[order]


def reach(target: float, nodes: Sequence[float]) -> float:
    """prod |target - node|: how an interpolation error grows away from its nodes."""
    product = 1.0
    for node in nodes:
        product *= abs(target - node)
    return product
