"""Error-controlled reuse: a cached run is an ODE solved with extrapolated slopes, so the interval is a step size.

At a computed evaluation the forecast that would have been used is compared with what came out. The part of a forecast
that is frozen errs in proportion to its distance from the newest node, the part that follows a polynomial through
c_0..c_p like prod |c - c_i|: so the error measured once predicts that of the next forecast at any distance. Reuse goes
on while the prediction stays under the tolerance. A step that moves sigma further carries its error further, so
predictions are weighted by a power of the step's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .budget import computed_allowed, computed_needed, tolerance_for
from .policy import Decision, Measured, Position, Rules

WARMUP = 3  # evaluations that always compute: three nodes measure a linear forecast for the first time
WIDTH_POWER = 0.75  # 0.5 and 1 did worse at one speed or another: benchmarks/NOTES.md
NEAREST = 0.5  # steps: a sampler that comes back to a sigma (heun) brings another latent, so its output differs
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
        if not measured[-1].forecast_errors:
            return Decision(reason="no forecast was measured yet")
        if position.evaluation - measured[-1].position.evaluation > self.max_reuse:
            return Decision(reason=f"{self.max_reuse} evaluations were reused in a row")
        judged = judge(measured, self.max_order, self.damping)
        error = self._weight(position.width) * judged.error_at(position.coordinate, judged.nodes)
        tolerance = self._tolerance(position, measured, judged)
        if error >= tolerance:
            reason = f"forecast error {error:.4f} is not under tolerance {tolerance:.3g}"
            return Decision(reason=reason, judged=error, limit=tolerance)
        reason = f"forecast error {error:.4f} is under tolerance {tolerance:.3g}"
        return Decision(frozenset(range(self.rules.run.blocks)), True, reason, judged.order, error, tolerance)

    def _ends(self, step: int, measured: Sequence[Measured]) -> str:
        if len(measured) < WARMUP:
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
        per_step = max(1.0, position.evaluation / max(position.step, 1))
        budget = computed_allowed(round(run.steps * per_step), self.target_speedup) - len(measured)

        def predict(step: int, earlier: Sequence[float]) -> float:
            return self._weight(run.widths[step]) * judged.error_at(step, earlier)

        def must_compute(step: int, newest: float) -> bool:
            return bool(self._ends(step, measured)) or step - newest > self.max_reuse or step > self.rules.end_step

        def needed(tolerance: float) -> int:
            steps = range(position.step, run.steps)
            return round(per_step * computed_needed(steps, judged.nodes, predict, tolerance, must_compute))

        return tolerance_for(budget, needed)


def places(measured: Sequence[Measured]) -> list[float]:
    """Coordinates of the computed evaluations, newest first. Two at one place are one node, as in FeatureHistory."""
    return list(dict.fromkeys(m.position.coordinate for m in reversed(measured)))


@dataclass(frozen=True)
class Judged:
    """A forecast of `order` that was measured: its error, at the newest of `nodes` (newest first), from the others."""

    order: int
    damping: float
    error: float
    nodes: Sequence[float]

    def error_at(self, target: float, nodes: Sequence[float]) -> float:
        """Predicted error at `target` of a forecast from `nodes`, newest first."""
        frozen = self._growth(target, nodes, 0)
        return self.error * (frozen + self.damping * (self._growth(target, nodes, self.order) - frozen))

    def _growth(self, target: float, nodes: Sequence[float], order: int) -> float:
        return reach(target, nodes[: order + 1]) / reach(self.nodes[0], self.nodes[1 : order + 2])


def judge(measured: Sequence[Measured], max_order: int, damping: float) -> Judged:
    """The forecast of the highest order that the newest of `measured` holds an error of."""
    errors = measured[-1].forecast_errors[: max_order + 1]
    return Judged(len(errors) - 1, damping, errors[-1], places(measured))


def reach(target: float, nodes: Sequence[float]) -> float:
    """prod |target - node|: how an interpolation error grows away from its nodes. No distance counts as too small."""
    product = 1.0
    for node in nodes:
        product *= max(abs(target - node), NEAREST)
    return product
