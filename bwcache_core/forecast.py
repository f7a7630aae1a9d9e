"""What a reused evaluation gets: the model's output, carried forward from computed evaluations along a line.

A polynomial goes through the last outputs, and a forecast goes a share of the way to it from the newest one: outputs are
slopes of a path, smooth without guidance, noisy with it. What share would have been best at the last computed output is
measured in the run (benchmarks/NOTES.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

NODES = 2  # outputs that a forecast is made from: a line
SHARE = 0.5  # of the way to the line, before any was measured


def best_share(along: float, length: float, before: float = SHARE) -> float:
    """The share of the line, 0 to 1, that comes nearest to an output: (v - newest) . line / line . line, line = how far the
    whole line goes from the newest output. `before` where the line goes nowhere, or a number is broken."""
    share = along / length if length > 0.0 else math.nan
    return min(max(share, 0.0), 1.0) if math.isfinite(share) else before


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
