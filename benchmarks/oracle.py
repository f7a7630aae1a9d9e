"""The plan that would have been right: dynamic programming over the outputs that a model gave on other prompts.

The error of a forecast is a quadratic form of the inner products of the outputs v_0 ... v_{n-1} that an uncached run gave,
so that one small matrix for each prompt scores every plan without a tensor and without the model. A span from one
computed step to the next costs the square of the sum, over its reused steps, of step width times error of the forecast
that would be used: forecasts of a span err the same way. On euler this cost tells the error of the final latent to
about 1 dB (benchmarks/NOTES.md).

Shapes: P = prompts, n = steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch

from ..bwcache_core.forecast import SHARE, forecast_weights

LONGEST_GAP = 8  # steps
Nodes = tuple[int, ...]  # the newest computed steps, oldest first: one at the start, then two


def inner_products(outputs: Sequence[torch.Tensor]) -> np.ndarray:
    """(P, n, n), a mean over numbers, of the outputs (P, ...) of n evaluations."""
    stacked = torch.stack(list(outputs), 1).flatten(2).double()
    return (stacked @ stacked.transpose(1, 2) / stacked.shape[-1]).cpu().numpy()


class Oracle:
    """Costs of spans on recorded prompts. inner: as from inner_products. widths: of the steps, in sigma. share: how far
    forecasts go to the line."""

    def __init__(
        self, inner: np.ndarray, widths: Sequence[float], share: float = SHARE, longest: int = LONGEST_GAP
    ) -> None:
        self.inner, self.widths, self.share, self.longest = inner, widths, share, longest
        self._spans: dict[Nodes, list[np.ndarray]] = {}

    @property
    def steps(self) -> int:
        return len(self.widths)

    def error(self, nodes: Nodes, step: int) -> np.ndarray:
        """(P,): root mean square error of the forecast at `step` from the outputs at `nodes`."""
        places = [*nodes, step]
        weights = np.array([*forecast_weights(nodes, step, self.share), -1.0])
        squares = np.einsum("i,pij,j->p", weights, self.inner[:, places][:, :, places], weights)
        return np.sqrt(np.maximum(squares, 0.0))

    def spans(self, nodes: Nodes) -> list[np.ndarray]:
        """[g - 1]: cost (P,) of the g - 1 steps reused after the newest of `nodes`."""
        if nodes not in self._spans:
            total, row = np.zeros(len(self.inner)), []
            for step in range(nodes[-1] + 1, min(nodes[-1] + self.longest, self.steps) + 1):
                row.append(total**2)
                if step < self.steps:
                    total = total + self.widths[step] * self.error(nodes, step)
            self._spans[nodes] = row
        return self._spans[nodes]

    def cost(self, computes: Sequence[int]) -> np.ndarray:
        """(P,): expected mean square error of the final latent under a plan; infinite where a gap is too long."""
        total, nodes = np.zeros(len(self.inner)), ()
        for here, following in pairwise([*computes, self.steps]):
            nodes = (*nodes, here)[-2:]
            if following - here > self.longest:
                return np.full(len(self.inner), np.inf)
            total = total + self.spans(nodes)[following - here - 1]
        return total

    def plan(self, count: int) -> tuple[int, ...]:
        """The `count` steps, the first among them, that cost least in the mean over prompts."""
        layers: list[dict[Nodes, tuple[float, Nodes]]] = [{(0,): (0.0, ())}]
        for _ in range(count - 1):
            layers.append(self._next(layers[-1]))
        ends = ((cost + self._mean(nodes, self.steps), nodes) for nodes, (cost, _) in layers[-1].items())
        _, nodes = min(ends)
        path = []
        for layer in reversed(layers):
            path.append(nodes[-1])
            nodes = layer[nodes][1]
        return tuple(reversed(path))

    def _next(self, layer: dict[Nodes, tuple[float, Nodes]]) -> dict[Nodes, tuple[float, Nodes]]:
        """One computed step more: the cheapest way to each pair of newest computed steps."""
        following: dict[Nodes, tuple[float, Nodes]] = {}
        for nodes, (cost, _) in layer.items():
            for step, span in self._reachable(nodes):
                after = (nodes[-1], step)
                if after not in following or cost + span < following[after][0]:
                    following[after] = (cost + span, nodes)
        return following

    def _reachable(self, nodes: Nodes) -> Iterator[tuple[int, float]]:
        for gap in range(1, min(self.longest, self.steps - 1 - nodes[-1]) + 1):
            yield nodes[-1] + gap, self._mean(nodes, nodes[-1] + gap)

    def _mean(self, nodes: Nodes, following: int) -> float:
        gap = following - nodes[-1]
        return float(self.spans(nodes)[gap - 1].mean()) if gap <= self.longest else math.inf
