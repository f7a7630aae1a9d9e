"""The line that forecasts follow, by hand."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.bwcache_core.forecast import SHARE, best_share, forecast_weights, lagrange_weights, weighted


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


@pytest.mark.parametrize(
    ("nodes", "target", "share", "expected"),
    [
        ([4.0], 9.0, 0.5, [1.0]),  # one output is repeated
        ([0.0, 1.0], 3.0, 1.0, [-2.0, 3.0]),  # the whole line
        ([0.0, 1.0], 3.0, 0.5, [-1.0, 2.0]),  # half of the way
        ([0.0, 1.0], 3.0, 0.0, [0.0, 1.0]),  # frozen
    ],
)
def test_a_forecast_goes_a_share_of_the_way(nodes, target, share, expected):
    assert forecast_weights(nodes, target, share) == expected


def test_weighted_does_not_write_its_inputs():
    tensors = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])]
    assert weighted(tensors, [1.0, -1.5, 0.5]).item() == 1.0 - 3.0 + 2.0
    assert [t.item() for t in tensors] == [1.0, 2.0, 4.0]


def test_weighted_is_fresh_and_bit_exact_for_one_tensor():
    tensor = torch.randn(7, generator=torch.Generator().manual_seed(1))
    result = weighted([tensor], [1.0])
    assert torch.equal(result, tensor) and result.data_ptr() != tensor.data_ptr()


def test_weighted_adds_up_in_float32_and_returns_the_type_that_it_was_given():
    """In bfloat16, 256 + 1 is 256."""
    tensors = [torch.tensor([value], dtype=torch.bfloat16) for value in (256.0, 1.0, -256.0)]
    total = weighted(tensors, [1.0, 1.0, 1.0])
    assert total.item() == 1.0 and total.dtype == torch.bfloat16
    double = weighted([torch.tensor([1.0 / 3.0], dtype=torch.float64)], [3.0])
    assert double.dtype == torch.float64


@pytest.mark.parametrize(
    ("along", "length", "share"),
    [
        (2.0, 4.0, 0.5),
        (4.0, 4.0, 1.0),  # the output lies on the line
        (9.0, 4.0, 1.0),  # beyond it: never further than the line
        (-1.0, 4.0, 0.0),  # the line led away from it
        (0.0, 0.0, SHARE),  # equal outputs: nothing is known
        (float("nan"), 4.0, SHARE),
        (float("inf"), float("inf"), SHARE),
    ],
)
def test_the_best_share_by_hand(along, length, share):
    assert best_share(along, length) == share
