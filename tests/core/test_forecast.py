"""Forecasting features from those of earlier evaluations."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.bwcache_core.forecast import lagrange_weights


@pytest.mark.parametrize(
    ("nodes", "target", "expected"),
    [
        ([2.0], 7.0, [1.0]),
        ([0.0, 1.0], 2.0, [-1.0, 2.0]),  # a line one step on: 2 f(1) - f(0)
        ([3.0, 1.0], 0.0, [-0.5, 1.5]),  # sigma falls
        ([0.0, 1.0, 2.0], 3.0, [1.0, -3.0, 3.0]),  # a parabola: 3 f(2) - 3 f(1) + f(0)
        ([0.0, 1.0], 1.0, [0.0, 1.0]),  # on a node: that node alone
    ],
)
def test_lagrange_weights_by_hand(nodes, target, expected):
    assert lagrange_weights(nodes, target) == expected


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_weights_reproduce_a_polynomial_of_their_degree(degree):
    nodes, target = [0.5, 2.0, 3.25][: degree + 1], 5.0
    weights = lagrange_weights(nodes, target)
    assert sum(w * (1.0 + n**degree) for w, n in zip(weights, nodes, strict=True)) == pytest.approx(1 + target**degree)
    assert sum(weights) == pytest.approx(1.0)


def test_weights_are_plain_numbers():
    assert not isinstance(lagrange_weights([0.0, 1.0], 2.0)[0], torch.Tensor)
