"""The indicator: which tokens are read, and the change that they show."""

from __future__ import annotations

import math

import pytest
import torch

from bwcache_pack.bwcache_core.paper.similarity import (
    l1_norms,
    mean_change,
    relative_change,
    sample_tokens,
    token_sample,
)

NAN, INF = math.nan, math.inf

LENGTHS = [(1, 1), (4, 4), (5, 4), (7, 5), (257, 256), (300, 256), (400, 256), (1560, 256), (32760, 256), (75600, 4096)]


@pytest.mark.parametrize(("length", "count"), LENGTHS)
def test_one_token_in_each_of_count_equal_stretches(length, count):
    chosen = token_sample(length, count)
    assert len(chosen) == min(length, count)
    for i, token in enumerate(chosen):
        assert i * length // count <= token < (i + 1) * length // count


@pytest.mark.parametrize(("length", "count"), LENGTHS)
def test_tokens_differ_and_ascend(length, count):
    chosen = token_sample(length, count)
    assert chosen == sorted(set(chosen))


def test_a_short_sequence_is_read_whole():
    assert token_sample(3, 256) == [0, 1, 2]


def test_the_choice_is_deterministic():
    assert token_sample(32760, 256) == token_sample(32760, 256)


def test_columns_are_spread_when_the_stretch_is_a_multiple_of_the_width():
    width = 16
    columns = [token % width for token in token_sample(64 * width, 64)]  # a stretch is one row of the frame
    counts = [columns.count(column) for column in range(width)]
    assert min(counts) >= 2  # 64 tokens over 16 columns: 4 each if perfectly even
    assert max(counts) <= 6


def test_sampled_tokens_are_a_copy_of_the_chosen_rows():
    hidden = torch.arange(24.0).reshape(2, 4, 3)
    sample = sample_tokens(hidden, torch.tensor([0, 3]))
    assert sample.tolist() == [[[0.0, 1.0, 2.0], [9.0, 10.0, 11.0]], [[12.0, 13.0, 14.0], [21.0, 22.0, 23.0]]]
    hidden.zero_()
    assert sample.sum() > 0


def test_tokens_in_several_dimensions_are_counted_in_order():
    hidden = torch.arange(24.0).reshape(1, 2, 4, 3)  # (B, T, HW, D)
    assert sample_tokens(hidden, torch.tensor([5])).tolist() == [[[15.0, 16.0, 17.0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_l1_norms_by_hand_in_every_precision(dtype):
    """Two blocks of B = 2 rows: S = 1, D = 2 in the first, S = 2, D = 2 in the second."""
    first = torch.tensor([[[1.0, -2.0]], [[3.0, 0.5]]], dtype=dtype)
    second = torch.tensor([[[1.0, 1.0], [-1.0, 1.0]], [[0.0, 0.0], [0.0, -8.0]]], dtype=dtype)
    norms = l1_norms([first, second])
    assert norms.tolist() == [[3.0, 3.5], [4.0, 8.0]]
    assert norms.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_l1_norms_of_half_precision_do_not_overflow():
    samples = torch.full((1, 64, 64), 60_000.0, dtype=torch.float16)  # the sum is 2.4e8, over the 65504 of float16
    assert l1_norms([samples]).item() == 64 * 64 * 60_000.0


def test_the_norm_of_no_token_is_zero():
    assert l1_norms([torch.ones(2, 0, 3)]).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("difference", "reference", "expected"),
    [
        (1.0, 4.0, 0.25),
        (0.0, 4.0, 0.0),
        (6.0, 4.0, 1.5),
        (0.0, 0.0, None),
        (1.0, 0.0, None),
        (NAN, 1.0, None),
        (1.0, NAN, None),
        (INF, 1.0, None),
        (1.0, INF, None),  # 1 / inf would be 0, "identical"
    ],
)
def test_relative_change_by_hand(difference, reference, expected):
    assert relative_change(difference, reference) == expected


def test_mean_change_is_the_sum_over_blocks_divided_by_their_number():
    assert mean_change([0.5, 0.25, 0.75]) == 0.5
