"""The similarity indicator: relative L1 change of block features between computed evaluations.

Source: Cui et al., arXiv:2509.13789v3, section on the similarity indicator.
Shapes: N = monitored blocks, B = rows of one condition, L = tokens, S = sampled tokens, D = model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

SAMPLED_TOKENS = 256  # of each block: the samples of all blocks stay small beside the features
GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


def token_sample(length: int, count: int) -> list[int]:
    """Indices of at most `count` of `length` tokens, spread evenly, one in each of `count` equal stretches.

    Tokens lie in (time, height, width) order. Inside its stretch a token is offset by a golden-ratio sequence, so that
    the sample does not fall into one column when the stretch is a multiple of the width. Deterministic.
    """
    if length <= count:
        return list(range(length))
    edges = [i * length // count for i in range(count + 1)]
    return [low + int(i * GOLDEN_RATIO % 1.0 * (high - low)) for i, (low, high) in enumerate(pairwise(edges))]


def sample_tokens(hidden_BLD: torch.Tensor, index_S: torch.Tensor) -> torch.Tensor:
    """Copy of the sampled tokens, (B, S, D). Cost: one gather."""
    return hidden_BLD.flatten(1, -2).index_select(1, index_S)


def l1_norms(samples_BSD: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum of absolute values of each sample and row, (N, B), accumulated in float32 or better. Stays on the device.

    Samples may differ in S and D. Cost on a GPU: a few kernels, whatever N, and nothing copied.
    """
    rows = [row for sample in samples_BSD for row in sample.unbind()]
    dtype = torch.promote_types(rows[0].dtype, torch.float32)
    return torch.stack(torch._foreach_norm(rows, 1, dtype)).unflatten(0, (len(samples_BSD), -1))


def relative_change(difference: float, reference: float) -> float | None:
    """L1rel = ||h(t) - h(t+1)||_1 / ||h(t+1)||_1 of one block. None where it is undefined: NaN, infinite, or 0/0."""
    if not (math.isfinite(difference) and math.isfinite(reference)) or reference <= 0.0:
        return None
    return difference / reference


def mean_change(changes: Sequence[float]) -> float:
    """ARL1(t) / N: mean change over the monitored blocks, the number that is held against the threshold."""
    return sum(changes) / len(changes)
