"""The corrector: the first computed output after reused steps also makes up for what their forecasts missed.

A step moves the latent by width * output, width in sigma. Reused steps moved it by their forecasts. Once the next
output is computed, a line from the last computed output to it tells better what the reused steps should have returned,
and what the latent lacks, sum_j width_j * (line_j - forecast_j), is added to this output over its own width. One Euler
step then lands where the better outputs would have led: predictor and corrector of one solver, without an evaluation
more. Multistep samplers use an output twice, so for them it is only roughly right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .forecast import forecast_weights, lagrange_weights
from .policy import Position

MAX_STRETCH = 8.0  # sum of the reused widths over the correcting one; more would be one step's leap


@dataclass(frozen=True)
class Served:
    """A reused evaluation: where it was, and the order of the forecast that it got."""

    position: Position
    order: int


def correction_weights(
    nodes: Sequence[float], served: Sequence[Served], position: Position, damping: float
) -> list[float]:
    """Weights of the earlier outputs at `nodes` (oldest first) and of the new one (last) in the correction.

    They add up to 0: outputs that lie on a line need no correction. Empty where the step is too narrow to correct in.
    """
    stretch = sum(abs(s.position.width) for s in served)
    if stretch > MAX_STRETCH * abs(position.width):
        return []
    weights = [0.0] * (len(nodes) + 1)
    for s in served:
        share = s.position.width / position.width
        line = lagrange_weights([nodes[-1], position.coordinate], s.position.coordinate)
        weights[-2] += share * line[0]
        weights[-1] += share * line[1]
        used = nodes[-(s.order + 1) :]
        for i, weight in enumerate(forecast_weights(used, s.position.coordinate, damping)):
            weights[len(nodes) - len(used) + i] -= share * weight
    return weights


def corrected(output: torch.Tensor, earlier: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """`output` plus the weighted sum of `earlier` and itself: a fresh tensor."""
    total = output * (1.0 + weights[-1])
    for weight, tensor in zip(weights[:-1], earlier, strict=True):
        total.add_(tensor, alpha=weight)
    return total
