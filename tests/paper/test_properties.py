"""Random runs: whatever the sampler, the guider and the model do, the same few things hold."""

from __future__ import annotations

import json
from typing import NamedTuple

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bwcache_pack.tests.hosts.spy import held_tensors
from bwcache_pack.tests.paper.toys import Condition, Run, ToyModel, condition, falling

STEPS, INTERVAL = 12, 2
GUIDANCE = 5  # a third condition, as extra guidance adds


class Boom(Exception):
    pass


class Evaluation(NamedTuple):
    """What happens in one evaluation. advance: steps since the last one. breaks: "", "nan" or "raise"."""

    advance: int
    conditions: list[int]
    split: bool
    tokens: int
    drift: float
    breaks: str


def bytes_of(things) -> int:
    """Of all tensors that `things` lead to; two that show the same memory count once."""
    tensors = [tensor() for tensor in held_tensors(things)]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def mostly(usual, *others):
    return st.sampled_from([usual] * 6 + list(others))


EVALUATIONS = st.builds(
    Evaluation,
    advance=mostly(1, 0, 2, -1),
    conditions=st.one_of(
        st.just([0, 1]),
        st.permutations([0, 1]),
        st.lists(st.sampled_from([0, 1, GUIDANCE]), min_size=1, max_size=3, unique=True),
    ),
    split=st.booleans(),
    tokens=mostly(6, 8),
    drift=mostly(0.01, 0.0, 0.4),
    breaks=mostly("", "", "", "nan", "raise"),
)

PAPER = {"mode": "paper", "threshold": 0.15, "reuse_interval": INTERVAL}
PER_BLOCK = {**PAPER, "mode": "per block"}


class Checked:
    """A run that is checked after each evaluation against what it should hold."""

    def __init__(self, in_place: bool, **mode) -> None:
        blocks = [lambda x: x.mul_(2.0), self.middle, lambda x: x.add_(0.5)] if in_place else [
            lambda x: x * 2.0, self.middle, lambda x: x + 0.5]
        self.run = Run(ToyModel(blocks), falling(STEPS), **mode)
        self.whole_stack = mode["mode"] != "per block"
        self.breaks = ""
        self.place = 0
        self.scale = 1.0
        self.frozen: dict[int, torch.Tensor] = {}  # output of the last computed pass of each condition
        self.computed_at: dict[int, int] = {}
        self.before: set[int] = set()  # conditions of the evaluation before, if it went well
        self.passes = 0
        self.held: list[int] = []  # bytes at the end of each evaluation, 0 where it raised

    def middle(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.breaks == "raise":
            raise Boom
        if self.breaks == "nan":
            hidden[0, -1, -1] = float("nan")
        return hidden * 3.0

    def inputs(self, evaluation: Evaluation) -> list[Condition]:
        self.scale *= 1.0 + evaluation.drift
        base = torch.linspace(1.0, 2.0, 2 * evaluation.tokens * 4).reshape(2, evaluation.tokens, 4)
        return [condition(which, base * (1.0 + which) * self.scale) for which in evaluation.conditions]

    def evaluate(self, evaluation: Evaluation) -> None:
        self.place = min(max(self.place + evaluation.advance, 0), STEPS - 1)
        given = self.inputs(evaluation)
        batches = [[c] for c in given] if evaluation.split else [given]
        self.run.block_run.begin_evaluation(torch.tensor([float(STEPS - self.place)]))
        sound, raised = True, None
        for batch in batches:
            self.breaks = evaluation.breaks if batch is batches[-1] else ""
            self.run.model.ran.clear()
            try:
                outputs = self.run.run_pass(batch)
            except Boom as error:
                sound, raised = False, error.args
                break
            assert not self.run.model.ran or self.run.model.ran == [0, 1, 2] or not self.whole_stack
            assert self.run.block_run.decision.reuse or self.run.model.ran == [0, 1, 2]  # one decision holds for all
            self.passes += 1
            sound &= self.check_pass(batch, outputs)
        else:
            self.run.block_run.end_evaluation()
            assert {key.condition for key in self.run.block_run.streams} == set(evaluation.conditions)
        self.held.append(bytes_of(self.run.block_run.streams) if raised is None else 0)
        self.before = set(evaluation.conditions) if sound else set()

    def check_pass(self, batch: list[Condition], outputs: list[torch.Tensor]) -> bool:
        """Checks the outputs of a pass and writes into them. False if the pass was broken."""
        assert self.run.model.ran in ([], [0, 1, 2])  # all or nothing
        if self.run.model.ran:
            expected = [c.img * 2.0 * 3.0 + 0.5 for c in batch]
            if self.breaks == "nan":
                expected[0][0, -1, -1] = float("nan")
        else:
            assert {c.key.condition for c in batch} <= self.before
            expected = [self.frozen[c.key.condition] for c in batch]
        for c, output, wanted in zip(batch, outputs, expected, strict=True):
            assert torch.equal(output.nan_to_num(-1.0), wanted.nan_to_num(-1.0))
            if self.run.model.ran:
                self.frozen[c.key.condition] = output.clone()
                self.computed_at[c.key.condition] = self.place
            output.fill_(1e9)  # nothing that is handed out may be held
            c.img.fill_(1e9)  # nor what came in
        return not (self.run.model.ran and self.breaks)


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(EVALUATIONS, min_size=4, max_size=16))
def test_reuse_is_frozen_recent_and_alone(in_place, evaluations):
    checked = Checked(in_place, **PAPER)
    for evaluation in evaluations:
        checked.evaluate(evaluation)
        ages = [abs(checked.place - at) for at in map(checked.computed_at.get, evaluation.conditions) if at is not None]
        assert not checked.before or max(ages) <= INTERVAL
    report = checked.run.block_run.close(True)
    assert held_tensors(checked.run.block_run) == []
    assert [step.cache_bytes for step in report.steps] == checked.held
    assert report.evaluations == len(evaluations)
    assert report.blocks_total == 3 * checked.passes
    json.dumps(report.to_dict(), allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([PAPER, PER_BLOCK]),
    st.booleans(),
    st.lists(EVALUATIONS, min_size=4, max_size=16),
)
def test_any_mode_survives_any_run(mode, in_place, evaluations):
    """Without an oracle of its numbers: right shapes, nothing broken comes back, books that add up."""
    checked = Checked(in_place, **mode)
    ran = 0

    def check(batch, outputs):
        nonlocal ran
        ran += len(checked.run.model.ran)
        assert [output.shape for output in outputs] == [c.img.shape for c in batch]
        broken = checked.breaks == "nan" and 1 in checked.run.model.ran
        assert broken or all(torch.isfinite(output).all() for output in outputs)
        if checked.run.model.ran == [0, 1, 2] and not broken:
            for c, output in zip(batch, outputs, strict=True):
                assert torch.equal(output, c.img * 2.0 * 3.0 + 0.5)
        for output in outputs:
            output.fill_(1e9)
        return not broken

    checked.check_pass = check
    for evaluation in evaluations:
        checked.evaluate(evaluation)
    report = checked.run.block_run.close(True)
    assert report.blocks_total - report.blocks_reused == ran
    assert held_tensors(checked.run.block_run) == []
    assert [step.cache_bytes for step in report.steps] == checked.held
    reused = [step.action for step in report.steps].count("reuse")
    assert reused == report.evaluations_reused <= report.evaluations == len(evaluations)
    assert report.warnings == [] and report.finished
    json.dumps(report.to_dict(), allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["paper", "per block"]), st.booleans(), st.lists(EVALUATIONS, min_size=2, max_size=12))
def test_threshold_0_is_the_plain_model_in_any_run(mode, in_place, evaluations):
    checked = Checked(in_place, mode=mode, threshold=0.0)
    for evaluation in evaluations:
        checked.evaluate(evaluation)
    assert checked.run.block_run.close(True).blocks_reused == 0
