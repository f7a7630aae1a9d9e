"""From a target speed-up to a tolerance: the smallest one that leaves no more evaluations to compute than remain.

Solved anew at every evaluation with the latest measured errors, so a run spends its computed evaluations where errors
grow fastest and still lands on its target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

HALVINGS = 14  # of the tolerance's range, in logarithm: to about 0.1 %
LOWEST = 1e-6
HIGHEST = 10.0


def computed_allowed(evaluations: int, target_speedup: float) -> int:
    """Evaluations that a run of `evaluations` may compute to be `target_speedup` times cheaper."""
    return max(1, round(evaluations / target_speedup))


def computed_needed(
    steps: Sequence[int], reused: int, nodes: Sequence[float], levels: Sequence[float],
    predict: Callable[[int, Sequence[float]], float], tolerance: float, must_compute: Callable[[int, int], bool],
) -> int:
    """How many of the evaluations to come are computed if errors stay as predicted.

    steps: the step of each. reused: evaluations reused in a row so far. nodes: noise levels of the computed ones, newest
    first. levels: of all steps. predict(step, nodes): error of a forecast at a step. must_compute(step, reused): rules
    that hold whatever the error.
    """
    count = 0
    nodes = list(nodes)
    for step in steps:
        if not must_compute(step, reused) and predict(step, nodes) < tolerance:
            reused += 1
            continue
        count, reused = count + 1, 0
        if nodes[0] != levels[step]:
            nodes.insert(0, levels[step])
    return count


def tolerance_for(budget: int, needed: Callable[[float], int]) -> float:
    """The smallest tolerance for which needed(tolerance), which falls as it rises, is at most `budget`."""
    low, high = LOWEST, HIGHEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        if needed(middle) <= budget:
            high = middle
        else:
            low = middle
    return high
