"""The corrector on numbers: by hand, and against a simulation of the sampler along the better outputs."""

from functools import partial

import pytest

from bwcache_pack.bwcache_core import corrector
from bwcache_pack.bwcache_core.corrector import (
    MAX_GAIN,
    STRENGTH,
    SamplerStep,
    Served,
    carried_tensors,
    correction,
    sampler_steps,
)  # fmt: skip
from bwcache_pack.bwcache_core.forecast import forecast_weights

EULER = [SamplerStep(sigma, 1.0 - 1.0 / sigma, (1.0 / sigma,)) for sigma in (6.0, 5.0, 4.0, 3.0, 2.0, 1.0)]
MULTISTEP = [SamplerStep(s.sigma, s.decay, (1.5 * s.weights[0], -0.5 * s.weights[0])) for s in EULER]
THREE_OLD = [SamplerStep(s.sigma, s.decay, (s.weights[0], 0.3 * s.weights[0], -0.2 * s.weights[0], 0.05 * s.weights[0]))
             for s in EULER]  # fmt: skip
whole = partial(correction, share=1.0)
SAMPLERS = {"euler": EULER, "multistep": MULTISTEP, "three old ones": THREE_OLD}


def served(*evaluations):
    return [Served(evaluation, float(evaluation)) for evaluation in evaluations]


def test_steps_from_gains_by_hand():
    # Sigmas 4, 2, 1, 0 with Euler: x' = x / 2 + D / 2, and D alone at the end.
    gains = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.25, 0.5, 0.0], [0.0, 0.0, 1.0]]
    expected = (SamplerStep(4.0, 0.5, (0.5,), 0), SamplerStep(2.0, 0.5, (0.5,), 1), SamplerStep(1.0, 0.0, (1.0,), 2))
    assert sampler_steps([4.0, 2.0, 1.0, 0.0], gains) == expected
    assert carried_tensors(expected) == 1
    # The second step takes 3/4 of its own D and gives back 1/4 of the first; rounding of the third is no weight.
    gains = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.75, 0.0], [1e-6, 0.0, 1.0]]
    steps = sampler_steps([4.0, 2.0, 1.0, 0.0], gains)
    assert [step.weights for step in steps] == [(0.5,), (0.75, -0.25), (1.0,)]
    assert carried_tensors(steps) == 2
    assert carried_tensors(()) == 0


def test_a_correction_by_hand():
    # Outputs a at evaluation 0 and b at 1. Evaluation 2 got their line, 2b - a. Evaluation 3 is computed as o: the line
    # from b to o passes 2 at (b + o) / 2, so the output at 2 missed m = a - 1.5 b + 0.5 o. That moved the latent by a
    # width of 1 too little of -m; two thirds of the lag are there at sigma 2, half of what D weighs at sigma 3.
    found = whole(EULER, 3, served(2), [0.0, 1.0], 0)
    missed = [1.0, -1.5, 0.5]
    assert found.added == pytest.approx([STRENGTH * 2.0 / 3.0 * m for m in missed])
    assert found.carried == [pytest.approx([-(1.0 - STRENGTH) * 2.0 / 3.0 * m for m in missed])]
    # Served frozen, m = (b + o) / 2 - b.
    half = [0.0, -0.5 * STRENGTH * 2.0 / 3.0, 0.5 * STRENGTH * 2.0 / 3.0]
    assert correction(EULER, 3, served(2), [0.0, 1.0], 0, share=0.0).added == pytest.approx(half)


def test_what_is_left_of_a_lag_is_taken_out_later_and_fades():
    # Nothing was reused since: of the lag at sigma 3, tensor 0, two thirds are there at sigma 2.
    found = whole(EULER, 3, [], [1.0, 2.0], 1)
    assert found.added == pytest.approx([-STRENGTH * 2.0 / 3.0, 0.0, 0.0, 0.0])
    assert found.carried == [pytest.approx([(1.0 - STRENGTH) * 2.0 / 3.0, 0.0, 0.0, 0.0])]
    at_the_end = whole(EULER, 5, [], [1.0, 2.0], 1)
    assert at_the_end.added == at_the_end.carried[0] == [0.0] * 4


def test_outputs_on_a_line_need_no_correction():
    found = whole(MULTISTEP, 5, served(2, 3, 4), [0.0, 1.0], 0)
    for weights in (found.added, *found.carried):
        assert weights[0] * 10.0 + weights[1] * 13.0 + weights[2] * 25.0 == pytest.approx(0.0)


def test_a_step_too_narrow_to_correct_in_is_left_alone_and_the_lag_carried_on():
    narrow = [*EULER[:3], SamplerStep(3.0, 1.0 - 0.04, (0.04,)), *EULER[4:]]
    assert abs(STRENGTH * 0.96 * 0.5 / 0.12) < MAX_GAIN
    assert whole(narrow, 3, served(2), [0.0, 1.0], 0).added[-1] != 0.0
    narrow[3] = SamplerStep(3.0, 1.0 - 0.01, (0.01,))
    found = whole(narrow, 3, served(2), [0.0, 1.0], 0)
    assert found.added == [0.0, 0.0, 0.0]
    assert found.carried == [pytest.approx([-0.99 * m for m in (1.0, -1.5, 0.5)])]
    narrow[3] = SamplerStep(3.0, 1.0, (0.0,))
    assert whole(narrow, 3, served(2), [0.0, 1.0], 0).added == [0.0, 0.0, 0.0]


class Latents:
    """A sampler's latents, from the outputs that it is given."""

    def __init__(self, steps):
        self.steps = steps
        self.seen = [1.0]
        self.denoised = []

    def give(self, output):
        self.give_denoised(self.seen[-1] - self.steps[len(self.denoised)].sigma * output)

    def give_denoised(self, denoised):
        self.denoised.append(denoised)
        step = self.steps[len(self.denoised) - 1]
        newest = zip(step.weights, reversed(self.denoised), strict=False)
        self.seen.append(step.decay * self.seen[-1] + sum(weight * d for weight, d in newest))


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["whole line", "half of it"])
@pytest.mark.parametrize("strength", [1.0, 0.7])
@pytest.mark.parametrize("steps", SAMPLERS.values(), ids=SAMPLERS)
def test_the_latent_comes_to_where_the_better_outputs_lead(steps, strength, share, monkeypatch):
    """Evaluations 2, 3 of six are reused, with outputs that share nothing. What the corrector believes of the lag is what
    a simulation finds, in every later step; at full strength it is gone in the next latent."""
    monkeypatch.setattr(corrector, "STRENGTH", strength)
    outputs = {0: 2.0, 1: -1.0, 4: 0.7, 5: 3.0}
    run, better, carried = Latents(steps), Latents(steps), []
    for n in (0, 1):
        run.give(outputs[n])
        better.give(outputs[n])
    for n in (2, 3):
        older, newer = forecast_weights([0.0, 1.0], float(n), share)
        run.give(older * outputs[0] + newer * outputs[1])
        better.give(outputs[1] + (outputs[4] - outputs[1]) * (n - 1) / 3.0)
    for n, reused, nodes in ((4, served(2, 3), (0, 1)), (5, [], (1, 4))):
        better.give_denoised(run.seen[-1] - steps[n].sigma * outputs[n])  # what the model finds, a little off or not
        found = correction(steps, n, reused, [float(i) for i in nodes], len(carried), share)
        tensors = [*carried, *(outputs[i] for i in nodes), outputs[n]]
        added, *carried = [dot(weights, tensors) for weights in (found.added, *found.carried)]
        run.give(outputs[n] + added)
        assert len(carried) == carried_tensors(steps)
        assert carried[0] == pytest.approx(better.seen[-1] - run.seen[-1], abs=1e-9)
        if n == 4:
            assert (abs(carried[0]) < 1e-9) == (strength == 1.0)


def dot(weights, numbers):
    return sum(weight * number for weight, number in zip(weights, numbers, strict=True))


def test_a_step_may_have_several_evaluations():
    gains = [[0.0, 0.0], [0.5, 0.0], [0.25, 0.5]]
    assert [step.step for step in sampler_steps([4.0, 2.0, 2.0], gains, [0, 0])] == [0, 0]
