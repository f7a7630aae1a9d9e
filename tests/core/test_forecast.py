"""Forecasting features from those of earlier evaluations."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.bwcache_core.forecast import FeatureHistory, lagrange_weights


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


def full(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full((1, 2, 3), value, dtype=dtype)


def history(order: int, *entries: tuple[float, float]) -> FeatureHistory:
    """A history of constant features, (coordinate, value) in the order computed, sampled whole."""
    made = FeatureHistory(order)
    for coordinate, value in entries:
        made.store(coordinate, full(value), full(value))
    return made


FORECASTS = [
    # order of the history, (coordinate, value) of what was computed, order of the forecast, target, expected
    (0, [(0.0, 3.0)], 0, 5.0, 3.0),
    (0, [(0.0, 3.0), (1.0, 4.0)], 0, 5.0, 4.0),  # frozen: the newest
    (1, [(0.0, 3.0), (1.0, 4.0)], 0, 5.0, 4.0),
    (1, [(0.0, 3.0), (1.0, 4.0)], 1, 3.0, 6.0),  # a line: one more per step
    (1, [(9.0, 9.0), (0.0, 3.0), (2.0, 7.0)], 1, 3.0, 9.0),  # only the last two
    (1, [(0.0, 3.0)], 1, 3.0, 3.0),  # one node is all there is
    (2, [(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], 2, 3.0, 9.0),  # a parabola
    (2, [(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], 1, 3.0, 7.0),
    (2, [(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], 0, 3.0, 4.0),
    (1, [(0.0, 3.0), (1.0, 9.0), (1.0, 4.0)], 1, 3.0, 6.0),  # the second evaluation of a step replaces the first
    (2, [(0.0, 0.0), (1.0, 7.0), (2.0, 4.0), (1.0, 1.0)], 2, 3.0, 9.0),  # also when another came between
]


@pytest.mark.parametrize(("kept", "entries", "order", "target", "expected"), FORECASTS)
def test_forecasts_by_hand(kept, entries, order, target, expected):
    assert torch.equal(history(kept, *entries).forecast(target, order), full(expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_order_0_is_bit_exact(dtype):
    features = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    made = FeatureHistory(1)
    made.store(0.0, full(1.0), full(1.0))
    made.store(1.0, features, features)
    forecast = made.forecast(7.0, 0)
    assert forecast.dtype == dtype
    assert torch.equal(forecast, features)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_forecast_is_fresh_and_what_is_stored_is_a_copy(order):
    made, sources = FeatureHistory(2), [full(0.0), full(1.0), full(4.0)]
    for i, source in enumerate(sources):
        made.store(float(i), source, source.clone())
        source.fill_(100.0)  # as blocks that write in place do
    first = made.forecast(3.0, order)
    expected = first.clone()
    first.fill_(-100.0)  # as controls that write in place do
    assert torch.equal(made.forecast(3.0, order), expected)
    assert expected.unique().tolist() == [[4.0], [7.0], [9.0]][order]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_newest_features_are_written_over_the_oldest(order):
    """Nothing is allocated once all places are there, and none is written that a forecast still needs."""
    made, places = FeatureHistory(order), []
    for i in range(6):
        made.store(float(i), full(float(i)), full(float(i)))
        places.append({features.data_ptr() for _, features in made.nodes(order + 1)})
        assert [features.unique().tolist() for _, features in made.nodes(order + 1)][-1] == [float(i)]
    assert [len(held) for held in places[order:]] == [order + 1] * (6 - order)
    assert all(held == places[-1] for held in places[order:])


def test_a_second_evaluation_is_written_over_the_first():
    made = history(2, (0.0, 0.0), (1.0, 1.0), (2.0, 4.0))
    places = {coordinate: features.data_ptr() for coordinate, features in made.nodes(3)}
    made.store(1.0, full(8.0), full(8.0))
    assert [(coordinate, features.unique().tolist()) for coordinate, features in made.nodes(3)] == [
        (0.0, [0.0]), (2.0, [4.0]), (1.0, [8.0])
    ]
    assert {coordinate: features.data_ptr() for coordinate, features in made.nodes(3)} == places


def test_features_of_another_shape_get_a_place_of_their_own():
    made = history(0, (0.0, 1.0))
    made.store(1.0, torch.ones(1, 5, 3), full(2.0))
    assert made.forecast(2.0, 0).shape == (1, 5, 3)


def test_forecasts_that_could_have_been_are_judged_though_the_oldest_features_are_gone():
    made = history(2, (0.0, 0.0), (1.0, 1.0), (2.0, 4.0))
    made.entries.clear()
    missed = made.judge(3.0, full(10.0))
    assert [m.unique().tolist() for m in missed] == [[4.0 - 10.0], [7.0 - 10.0], [9.0 - 10.0]]


def test_a_second_evaluation_is_not_judged_by_the_first():
    made = history(1, (0.0, 3.0), (1.0, 9.0))
    assert [m.unique().tolist() for m in made.judge(1.0, full(4.0))] == [[-1.0]]  # 3 against 4


@pytest.mark.parametrize(("damping", "expected"), [(0.0, 4.0), (0.5, 5.0), (0.75, 5.5), (1.0, 6.0)])
def test_a_damped_forecast_goes_part_of_the_way(damping, expected):
    """From 3 at 0 and 4 at 1 the line reaches 6 at 3; frozen stays at 4. Judged as it would have been served."""
    made = FeatureHistory(1, damping)
    made.store(0.0, full(3.0), full(3.0))
    made.store(1.0, full(4.0), full(4.0))
    assert torch.equal(made.forecast(3.0, 1), full(expected))
    assert torch.equal(made.forecast(3.0, 0), full(4.0))
    assert [m.unique().tolist() for m in made.judge(3.0, full(1.0))] == [[3.0], [expected - 1.0]]
