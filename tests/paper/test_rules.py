"""Decisions on plain numbers: the paper's rules to the letter, and the same per block.

A run is written as a string, one letter per evaluation: C computes, R reuses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from bwcache_pack.bwcache_core.config import BlockConfig
from bwcache_pack.bwcache_core.paper.block_mode import BlockMode
from bwcache_pack.bwcache_core.paper.per_block import PerBlock
from bwcache_pack.bwcache_core.paper.rules import Measured, Position, Rules
from bwcache_pack.bwcache_core.paper.whole_stack import WholeStack
from bwcache_pack.bwcache_core.schedule import schedule_of

BLOCKS = 2
LOW, HIGH = 0.05, 0.5  # under and over the paper's threshold of 0.15


def rules(steps: int, last: float, **settings) -> Rules:
    """Of a run whose schedule ends at sigma `last`."""
    return Rules.of(BlockConfig(**settings), schedule_of([*range(steps, 0, -1), last]), BLOCKS)


def paper(steps: int, last: float = 0.0, **settings) -> WholeStack:
    return WholeStack(rules(steps, last, mode="paper", **settings))


def run(mode: BlockMode, change_at: Callable[[int], float], pattern: Sequence[int] | None = None) -> str:
    """What the mode does over a run whose computed evaluation at step s measures change_at(s).

    pattern: the step of each evaluation; by default one per step. The same step again measures no change.
    """
    measured: list[Measured] = []
    letters = ""
    for evaluation, step in enumerate(pattern or range(mode.rules.steps)):
        decision = mode.decide(Position(evaluation, step), measured)
        letters += "R" if decision.reuse else "C"
        assert decision.reason
        if not decision.reuse:
            new_step = bool(measured) and measured[-1].position.step != step
            measured.append(Measured(Position(evaluation, step), change=change_at(step) if new_step else None))
    return letters


def low_from(first: int) -> Callable[[int], float]:
    return lambda step: LOW if step >= first else HIGH


def test_the_papers_own_run():
    """30 steps, R = 3, similar from k = 9 on: 12 of 29 steps are reused (41.38 %), and the last 4 compute."""
    letters = run(paper(30, reuse_interval=3), low_from(9))
    assert letters == "C" * 10 + "RRRC" * 4 + "CCCC"
    assert letters.count("R") == 12
    assert round(100 * 12 / 29, 2) == 41.38


RUNS = [
    # name, steps, settings, change at a step, expected
    ("threshold 0 never reuses", 10, {"threshold": 0.0}, lambda s: 0.0, "C" * 10),
    ("never similar", 10, {}, lambda s: HIGH, "C" * 10),
    ("at the threshold is not under it", 10, {}, lambda s: 0.15, "C" * 10),
    ("just under the threshold", 6, {"reuse_interval": 1}, lambda s: 0.1499, "CCRCRC"),
    ("R = 0 is 10 % of 30 steps", 30, {}, low_from(1), "CC" + "RRRC" * 7),
    ("R = 0 is at least one step", 4, {}, low_from(1), "CCRC"),
    ("R = 1", 8, {"reuse_interval": 1}, low_from(1), "CCRCRCRC"),
    ("R = 2", 8, {"reuse_interval": 2}, low_from(1), "CCRRCRRC"),
    ("R longer than the run", 6, {"reuse_interval": 100}, low_from(1), "CCRRRR"),
    ("tail of 4 // 2 = 2", 12, {"reuse_interval": 2}, low_from(4), "CCCCCRRCRRCC"),
    ("tail of 5 // 2 = 2", 12, {"reuse_interval": 5}, low_from(5), "CCCCCCRRRRCC"),
    ("tail of 6 // 2 = 3", 12, {"reuse_interval": 5}, low_from(6), "CCCCCCCRRCCC"),
    ("the tail is of the first similar step, not of the last", 12, {"reuse_interval": 1},
     lambda s: LOW if s in (2, 8) else HIGH, "CCCRCCCCCRCC"),
    ("every computed step is judged anew", 10, {"reuse_interval": 2}, lambda s: LOW if s in (2, 6) else HIGH,
     "CCCRRCCRRC"),
    ("U-shape", 12, {"reuse_interval": 2}, lambda s: abs(s - 6) / 16, "CCCCCRRCRRCC"),  # under 0.15 from 4 to 8
    ("start_step", 8, {"reuse_interval": 1, "start_step": 4}, low_from(1), "CCCCRCRC"),
    ("start_step from the end", 8, {"reuse_interval": 1, "start_step": -3}, low_from(1), "CCCCCRCC"),
    ("end_step itself may be reused", 8, {"reuse_interval": 2, "end_step": 3}, low_from(1), "CCRRCCCC"),
    ("end_step from the end", 8, {"reuse_interval": 2, "end_step": -3}, low_from(1), "CCRRCRCC"),
    ("one step in the window", 8, {"start_step": 5, "end_step": 5}, low_from(1), "CCCCCRCC"),
    ("a window before the run", 8, {"start_step": -20, "end_step": -15}, low_from(1), "C" * 8),
]


@pytest.mark.parametrize(
    ("steps", "settings", "change_at", "expected"), [r[1:] for r in RUNS], ids=[r[0] for r in RUNS]
)
def test_runs_by_hand(steps, settings, change_at, expected):
    assert run(paper(steps, **settings), change_at) == expected


def test_similarity_before_the_window_does_not_move_the_tail():
    """Similar from step 2 on, but first reused at step 10: the tail is 9 // 2 = 4, as if similar from step 9 on."""
    letters = run(paper(20, reuse_interval=20, start_step=10), low_from(2))
    assert letters == "C" * 10 + "R" * 6 + "C" * 4


def test_no_tail_in_a_run_that_ends_before_sigma_0():
    """The first expert of Wan 2.2 hands over in the middle: fine detail is decided by the second."""
    assert run(paper(12, last=0.5, reuse_interval=5), low_from(6)) == "C" * 7 + "R" * 5
    for last in (0.0, 0.001):  # uni_pc ends a little above
        assert run(paper(12, last, reuse_interval=5), low_from(6)) == "C" * 7 + "RR" + "CCC"


PATTERNS = [
    # sampler, step of each evaluation, expected with R = 1 and every change low, without a tail
    ("euler", [0, 1, 2, 3, 4, 5, 6], "CCRCRCR"),
    ("heun", [0, 1, 1, 2, 2, 3, 3, 4, 4], "CCRRRCRRR"),
    ("heunpp2", [0, 1, 2, 1, 2, 3, 2, 3, 4], "CCRRRCRRR"),
    ("seeds_2", [0, 0, 1, 1, 2, 2, 3, 3], "CCCRRRCR"),
]


@pytest.mark.parametrize(("pattern", "expected"), [p[1:] for p in PATTERNS], ids=[p[0] for p in PATTERNS])
def test_intervals_count_steps_whatever_the_evaluations_per_step(pattern, expected):
    assert run(paper(9, last=0.5, reuse_interval=1), low_from(0), pattern) == expected


def test_a_sampler_that_never_leaves_a_step_computes_again():
    """Off the grid the step may stand still: at most three evaluations per step of the interval are reused."""
    assert run(paper(9, reuse_interval=1), low_from(0), [0, 1] + [1] * 8) == "CC" + "RRRC" * 2


def test_a_sampler_may_jump_over_the_start_of_the_window():
    mode = paper(20, start_step=10, reuse_interval=9)
    assert run(mode, low_from(1), [0, 3, 6, 12, 13, 14, 17]) == "CCCRRRC"


def test_a_sampler_may_go_back():
    """A restart climbs to an earlier step: features of a later one are too far if more than R steps away."""
    assert run(paper(9, last=0.5, reuse_interval=2), low_from(0), [0, 1, 2, 3, 4, 1, 2, 3, 4]) == "CCRRCCRRC"


@pytest.mark.parametrize("mode", [paper(10), PerBlock(paper(10).rules)], ids=["paper", "per block"])
def test_a_fault_in_the_last_measurement_computes(mode):
    similar = Measured(Position(1, 1), {0: LOW, 1: LOW}, LOW)
    broken = Measured(Position(2, 2), fault="the features hold NaN")
    assert mode.decide(Position(2, 2), [similar]).reuse
    decision = mode.decide(Position(3, 3), [similar, broken])
    assert not decision.reuse
    assert decision.reason == "the features hold NaN"


@pytest.mark.parametrize("mode", [paper(10), PerBlock(paper(10).rules)], ids=["paper", "per block"])
def test_after_a_fault_only_what_was_measured_since_counts(mode):
    similar = Measured(Position(1, 1), {0: LOW, 1: LOW}, LOW)
    broken = Measured(Position(2, 1), fault="the features hold NaN")
    unjudged = Measured(Position(3, 1))
    assert not mode.decide(Position(4, 2), [similar, broken, unjudged]).reuse


def test_reuse_of_the_paper_is_the_whole_stack():
    measured = [Measured(Position(0, 0)), Measured(Position(1, 1), change=LOW)]
    decision = paper(10).decide(Position(2, 2), measured)
    assert decision.reuse == {0, 1}
    assert "0.0500" in decision.reason


def test_what_is_not_similar_says_by_how_much():
    measured = [Measured(Position(0, 0)), Measured(Position(1, 1), change=0.25)]
    assert paper(10).decide(Position(2, 2), measured).reason == "change 0.2500 is not under threshold 0.15"


def per_block(steps: int, last: float = 0.5, **settings) -> PerBlock:
    return PerBlock(rules(steps, last, mode="per block", **settings))


def run_blocks(mode: BlockMode, changes: Sequence[Callable[[int], float]]) -> list[str]:
    """Like `run`, one string per block; changes[b](step) is what block b measures when it computes at that step."""
    measured: list[Measured] = []
    letters = ["" for _ in changes]
    for step in range(mode.rules.steps):
        decision = mode.decide(Position(step, step), measured)
        for block in range(len(changes)):
            letters[block] += "R" if block in decision.reuse else "C"
        if len(decision.reuse) < len(changes):
            found = {b: c(step) for b, c in enumerate(changes) if step > 0 and b not in decision.reuse}
            measured.append(Measured(Position(step, step), found, max(found.values(), default=None)))
    return letters


BLOCK_RUNS = [
    ("one block is similar", {"reuse_interval": 2}, [low_from(1), lambda s: HIGH], ["CCRRCRRC", "CCCCCCCC"]),
    ("each from its own step on", {"reuse_interval": 2}, [low_from(1), low_from(2)], ["CCRRCRRC", "CCCRRCRR"]),
    ("each by its own last change", {"reuse_interval": 1}, [lambda s: LOW if s in (1, 5) else HIGH, low_from(1)],
     ["CCRCCCRC", "CCRCRCRC"]),
    ("threshold 0", {"threshold": 0.0}, [lambda s: 0.0, lambda s: 0.0], ["CCCCCCCC", "CCCCCCCC"]),
    ("window", {"reuse_interval": 1, "start_step": 3, "end_step": 5}, [low_from(1), low_from(1)],
     ["CCCRCRCC", "CCCRCRCC"]),
]


@pytest.mark.parametrize(
    ("settings", "changes", "expected"), [r[1:] for r in BLOCK_RUNS], ids=[r[0] for r in BLOCK_RUNS]
)
def test_per_block_runs_by_hand(settings, changes, expected):
    assert run_blocks(per_block(8, **settings), changes) == expected


def test_per_block_tail_follows_the_first_similar_block():
    """Block 0 is similar from step 4 on: the last 4 // 2 = 2 steps compute for every block."""
    letters = run_blocks(per_block(10, last=0.0, reuse_interval=1), [low_from(4), low_from(6)])
    assert letters == ["CCCCCRCRCC", "CCCCCCCRCC"]


@pytest.mark.parametrize("threshold", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("interval", [1, 2, 5])
def test_invariants_over_all_short_runs(threshold, interval):
    """Whatever is measured: never more than R in a row, never at the start, and never after a change too large."""
    steps = 7
    for changes in itertools.product([0.01, 0.1, 0.9], repeat=steps - 2):
        by_step = [9.0, *changes, 9.0]
        letters = run(paper(steps, threshold=threshold, reuse_interval=interval), by_step.__getitem__)
        assert letters.startswith("CC")
        assert "R" * (interval + 1) not in letters
        for step in range(1, steps):
            if letters[step] == "R" and letters[step - 1] == "C":
                assert by_step[step - 1] < threshold


@pytest.mark.parametrize(("change", "reused"), [(LOW, True), (HIGH, False)])
def test_a_measured_decision_carries_its_numbers_and_a_rule_has_none(change, reused):
    mode = paper(10)
    measured = [Measured(Position(0, 0)), Measured(Position(1, 1), change=change)]
    decision = mode.decide(Position(2, 2), measured)
    assert (bool(decision.reuse), decision.judged, decision.limit) == (reused, change, 0.15)
    assert mode.decide(Position(0, 0), []).judged is None
    assert mode.decide(Position(1, 1), measured[:1]).limit is None
