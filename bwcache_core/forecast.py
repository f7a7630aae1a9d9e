"""What a reused evaluation gets: the model's output, carried forward from computed evaluations along a line.

A polynomial goes through the last outputs, and a forecast goes a share of the way to it from the newest one. Without
guidance it goes the whole way; guidance amplifies what two forecasts miss, and a full step overshoots
(benchmarks/NOTES.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

NODES = 2  # outputs that a forecast is made from: a line
SHARE = 0.5  # of the way to the line, under guidance
WHOLE = 1.0  # where one condition is asked for


def share_for(conditions: int) -> float:
    """How far a forecast goes to the line, by how many conditions a call asks for."""
    return SHARE if conditions > 1 else WHOLE


def lagrange_weights(nodes: Sequence[float], target: float) -> list[float]:
    """Weights w with sum_i w_i f(nodes_i) = p(target), p the polynomial through all nodes. They add up to 1."""
    weights = []
    for i, node in enumerate(nodes):
        weight = 1.0
        for j, other in enumerate(nodes):
            if j != i:
                weight *= (target - other) / (node - other)
        weights.append(weight)
    return weights


def forecast_weights(nodes: Sequence[float], target: float, share: float = SHARE) -> list[float]:
    """Weights of a forecast at `target` from outputs at `nodes`, oldest first: the newest, and `share` of the way to
    the polynomial."""
    weights = [share * weight for weight in lagrange_weights(nodes, target)]
    weights[-1] += 1.0 - share
    return weights


def weighted(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Sum of weight * tensor, in at least float32, in the type of the tensors: a fresh tensor."""
    dtype = tensors[0].dtype
    result = torch.zeros_like(tensors[0], dtype=torch.promote_types(dtype, torch.float32))
    for weight, tensor in zip(weights, tensors, strict=True):
        if weight:
            result.add_(tensor, alpha=weight)
    return result.to(dtype)
