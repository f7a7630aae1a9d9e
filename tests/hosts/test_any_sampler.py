"""Random samplers: whatever they do, what is reused is nearly what the model would have returned, or it was computed."""

from __future__ import annotations

import torch
from hypothesis import example, given, settings, target
from hypothesis import strategies as st

from bwcache_pack.bwcache_core.advice import verdict
from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.tests.hosts.spy import held_tensors
from bwcache_pack.tests.hosts.wild import MOVES, Move, Outcome, sampled

FACTOR = 3.5
NEW = ("conditions that were not there before", "a context window that was not there before",
       "no forecast was checked on this path yet")  # fmt: skip
REASONS = {
    *NEW,
    "nothing was computed before", "the plan", "the sampler passed over planned steps", "sigma went back up",
    "fresh noise in the latent", "its forecast would err by more than the threshold", "the latent changed its size",
    "sigma is 0, where nothing is left to foretell",
    "the latent or the last output holds NaN or infinity", "every step computes",
}  # fmt: skip


def mostly(usual, *others, often: int = 8):
    return st.sampled_from([usual] * often + list(others))


MOVE = st.builds(
    Move,
    kind=mostly("step", *MOVES),
    size=mostly(1, 2, 3, often=4),
    noise=mostly(0.0, 0.05, 0.1, 0.2, 0.5, 1.0),
    guided=mostly(True, False),
    windows=mostly((), (0, 2), (0, 1, 2), (1,), (1, 2)),
    more=mostly(False, True),
    prompt=mostly(0, 1),
    resized=mostly(False, False, False, True),
    bare=mostly(False, True),
    breaks=mostly("", "", "", "", "nan", "raise"),
)


def flow(steps: int, shift: float) -> list[float]:
    return [shift * (1 - i / steps) / (1 + (shift - 1) * (1 - i / steps)) for i in range(steps + 1)]


@st.composite
def schedules(draw) -> tuple[list[float], list[float]]:
    """What a sampler runs, and what the host is told: with zeros as flags, or the whole where a part is run."""
    steps, shift = draw(st.sampled_from([8, 12, 20, 30])), draw(st.sampled_from([3.0, 5.0, 8.0]))
    whole = flow(steps, shift)
    kind = draw(st.sampled_from(["whole", "whole", "flags", "part", "rising"]))
    if kind == "flags":
        return whole, [0.0, *whole, 0.0]
    if kind == "part":
        first = draw(st.integers(0, steps // 2))
        return whole[first : first + steps // 2 + 1], whole
    rising = whole[-2:0:-1]
    return (rising, rising) if kind == "rising" else (whole, whole)


def check(outcome: Outcome, moves, threshold: float) -> None:
    report = outcome.report
    assert report.finished and report.stopped == "" and report.warnings == []
    assert report.evaluations == outcome.guider.evaluations
    assert torch.isfinite(outcome.latents).all() or any(move.breaks == "nan" for move in moves)
    target(max([answer.error / threshold for answer in outcome.answers], default=0.0))
    assert all(answer.error <= FACTOR * threshold for answer in outcome.answers), outcome.answers
    assert held_tensors(outcome.guider.run) == [] and "bwcache" not in outcome.guider.model_options["transformer_options"]
    for step in report.steps:
        assert step.reason in REASONS
        assert step.action == "compute" or step.reason == "the plan" or step.reason in NEW
    unplanned = [step for step in report.steps if step.action != "reuse" and step.step not in report.planned]
    text = verdict(report)
    assert not unplanned or any(words in text for words in ("All", "more step", "in part", "Broken numbers")), text


STEP, RESIZED, NOISY = Move(), Move(resized=True), Move(noise=0.05)
WIDE = [STEP, STEP, STEP, RESIZED, Move("refine"), Move("refine", resized=True)]
WIDER = [STEP, NOISY, RESIZED, NOISY, Move(noise=0.05, resized=True), Move("refine")]


# Once 3.7 and 3.6 thresholds: a step late in the schedule was trusted like each of the narrow ones before it.
@example(WIDE, [flow(12, 5.0)] * 2, 2.0, 0.2, 0)
@example(WIDER, [flow(20, 8.0)] * 2, 3.0, 0.2, 0)
@settings(max_examples=300, deadline=None)
@given(
    moves=st.lists(MOVE, min_size=4, max_size=30), schedule=schedules(), speedup=st.sampled_from([1.5, 2.0, 3.0]),
    threshold=st.sampled_from([0.5, 0.2]), seed=st.integers(0, 3),
)  # fmt: skip
def test_what_is_reused_is_nearly_right_whatever_a_sampler_does(moves, schedule, speedup, threshold, seed):
    runs, handed = schedule
    outcome = sampled(moves, runs, ForecastConfig(speedup=speedup, threshold=threshold), handed, seed)
    check(outcome, moves, threshold)
