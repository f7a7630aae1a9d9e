"""What a reused step returns: the features of earlier computed steps, carried forward.

Order 0 repeats the last ones (frozen, as in the paper). Order p lays a polynomial of degree p through the last p + 1,
and goes part of the way to it: outputs of a guided model are noisy slopes, and a full step overshoots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from .storage import Buffer, stored


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


def forecast_weights(nodes: Sequence[float], target: float, damping: float) -> list[float]:
    """Weights of a forecast from `nodes`, oldest first: the newest, and `damping` of the way to the polynomial."""
    weights = [damping * weight for weight in lagrange_weights(nodes, target)]
    weights[-1] += 1.0 - damping
    return weights


class FeatureHistory:
    """The last `order` + 1 features of one condition, newest last, each with its coordinate.

    Holds copies: blocks and controls of several models write into their tensors in place. The oldest copy is written
    over by the newest. Samples of the same features are kept beside them, to judge forecasts without the features.
    on_host: keep the features, not the samples, in host memory.
    """

    def __init__(self, order: int, damping: float = 1.0, on_host: bool = False) -> None:
        self.damping = damping
        self.on_host = on_host
        self.entries: deque[tuple[float, Buffer]] = deque(maxlen=order + 1)
        self.samples: deque[tuple[float, torch.Tensor]] = deque(maxlen=order + 1)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def missing(self) -> int:
        """How many more features will be held, of the shape of these, once enough have been computed."""
        return self.entries.maxlen - len(self.entries)

    def clear(self) -> None:
        self.entries.clear()
        self.samples.clear()

    def store(self, coordinate: float, features: torch.Tensor, sample: torch.Tensor) -> None:
        """Keep a copy of `features`, and `sample`. A second evaluation at the same coordinate replaces the first."""
        buffer = stored(self._vacate(coordinate), features, self.on_host)
        self.entries.append((coordinate, buffer))
        self.samples = deque((node for node in self.samples if node[0] != coordinate), self.samples.maxlen)
        self.samples.append((coordinate, sample))

    def _vacate(self, coordinate: float) -> Buffer | None:
        """Take out the place of what the features at `coordinate` replace: those at the same one, or the oldest.

        Samplers come back to a sigma, and a polynomial has one value at a place.
        """
        same = [i for i, (node, _) in enumerate(self.entries) if node == coordinate]
        if self.missing and not same:
            return None
        leaving = same[0] if same else 0
        _, buffer = self.entries[leaving]
        del self.entries[leaving]
        return buffer

    def judge(self, coordinate: float, sample: torch.Tensor) -> list[torch.Tensor]:
        """Differences between `sample` and what forecasts of order 0, 1, ... expected here. Call before `store`."""
        earlier = [(node, old) for node, old in self.samples if node != coordinate]
        differences = []
        for count in range(1, len(earlier) + 1):
            differences.append(extrapolate(earlier[-count:], coordinate, self.damping).sub_(sample))
        return differences

    def nodes(self, count: int) -> list[tuple[float, torch.Tensor]]:
        """The newest `count` features with their coordinates, oldest first, on their device. Only to be read."""
        return [(coordinate, buffer.get()) for coordinate, buffer in list(self.entries)[-count:]]

    def forecast(self, coordinate: float, order: int) -> torch.Tensor:
        """Features expected at `coordinate`: a fresh tensor, safe to write into. Order 0 is bit-exact."""
        return extrapolate(self.nodes(order + 1), coordinate, self.damping)


def extrapolate(nodes: Sequence[tuple[float, torch.Tensor]], coordinate: float, damping: float) -> torch.Tensor:
    """Forecast at `coordinate` from all nodes: a fresh tensor. One node is repeated bit-exactly."""
    if len(nodes) == 1:
        return nodes[0][1].clone()
    weights = forecast_weights([node for node, _ in nodes], coordinate, damping)
    if len(nodes) == 2:  # one kernel, rounded once in half precision
        return torch.lerp(nodes[0][1], nodes[1][1], weights[1])
    total = nodes[0][1] * weights[0]
    for weight, (_, features) in zip(weights[1:], nodes[1:], strict=True):
        total.add_(features, alpha=weight)
    return total
