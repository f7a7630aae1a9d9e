"""The corrector: computed outputs after reused steps also make up for what their forecasts missed.

A sampler is linear in the denoised latents D = x - sigma * output that it is given: the next latent is decay * x plus a
weighted sum of the newest D (SamplerStep; nodes/sampler_response.py measures them). Reused steps gave it D from forecasts.
Once an output is computed, a line from the computed one before it tells better what they should have been, and so how
far the latent lags behind where better outputs would have led. A model that sees a latent which lags a little still
finds nearly the same D, so the lag fades with sigma, and what is left of it is taken out by moving D of the
computed evaluation: predictor and corrector of one solver, without an evaluation more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .forecast import SHARE, forecast_weights

STRENGTH = 0.7  # of the lag that one evaluation takes out; the line errs too (benchmarks/NOTES.md)
MAX_GAIN = 4.0  # on the computed output; where it would be more, the step is too narrow to correct in
CARRIED = 4  # tensors from one computed evaluation to the next, at most: each takes an output's bytes
NEGLIGIBLE = 1e-3  # of a step's weights, where its own denoised latent weighs 1: rounding of the measured ones


@dataclass(frozen=True)
class SamplerStep:
    """How the latent of the next evaluation comes about: decay * latent + sum_i weights[i] * D, D newest first.

    sigma: of this evaluation. decay: the next sigma over this one. weights[0] is of this evaluation's own D.
    step: of the schedule, in which the sampler evaluates here.
    """

    sigma: float
    decay: float
    weights: tuple[float, ...]
    step: int = 0


@dataclass(frozen=True)
class Served:
    """A reused evaluation: which, and where it was."""

    evaluation: int
    coordinate: float


@dataclass(frozen=True)
class Correction:
    """Weights of tensors: those carried, the earlier outputs (oldest first), the new output (last).

    added: to the new output. carried: of each tensor that is carried on: the lag, then errors of D, newest first.
    """

    added: list[float]
    carried: list[list[float]]


def sampler_steps(
    sigmas: Sequence[float], gains: Sequence[Sequence[float]], places: Sequence[int] | None = None
) -> tuple[SamplerStep, ...]:
    """What each evaluation's step does, from gains[n][j]: the part of D of evaluation j in the latent that n sees.

    sigmas: of the evaluations, and where the schedule ends. The last row of gains is of the sampler's result. places: the
    step of each evaluation, the n-th unless given.
    """
    steps = []
    for n, (here, following) in enumerate(pairwise(sigmas)):
        decay = following / here
        weights = [gains[n + 1][j] - decay * gains[n][j] for j in range(n, -1, -1)]
        least = NEGLIGIBLE * abs(weights[0])
        reach = max((i + 1 for i, weight in enumerate(weights) if abs(weight) > least), default=1)
        steps.append(SamplerStep(here, decay, tuple(weights[:reach]), places[n] if places else n))
    return tuple(steps)


def correction(
    steps: Sequence[SamplerStep], evaluation: int, served: Sequence[Served], nodes: Sequence[float], carried: int,
    share: float = SHARE,
) -> Correction:
    """What a computed evaluation adds to its output after `served` were reused from outputs at `nodes` (oldest first).

    carried: how many tensors the last computed evaluation carried on: 0, or the lag and errors of D. share: how far
    forecasts went to the line.
    """
    basis = _Basis(carried, len(nodes), share)
    lag, errors = basis.carried()
    for s in served:
        step = steps[s.evaluation]
        line = basis.line((s.evaluation - served[0].evaluation + 1) / (evaluation - served[0].evaluation + 1))
        missed = total((1.0, line), (-1.0, basis.forecast(nodes, s.coordinate)))
        errors = [total((1.0, lag), (-step.sigma, missed)), *errors]
        lag = moved(step, lag, errors)
    step = steps[evaluation]
    coming = moved(step, lag, [basis.zero, *errors])
    part = STRENGTH / step.weights[0] if step.weights[0] else math.inf
    if not abs(part * coming[-1]) <= MAX_GAIN * step.sigma:
        part = 0.0
    wanted = total((part, coming))  # of D, which moves by -sigma where the output moves by 1
    added = total((-1.0 / step.sigma, wanted))
    lag = total((1.0, coming), (-step.weights[0], wanted))
    return Correction(added, [lag, total((-1.0, wanted)), *errors][: carried_tensors(steps)])


def carried_tensors(steps: Sequence[SamplerStep]) -> int:
    """How many tensors of an output's size a condition carries on: the lag, and errors of D that will be used again.

    euler 1, dpmpp_2m and res_multistep 2, uni_pc 4.
    """
    return min(max((len(step.weights) for step in steps), default=0), CARRIED)


def moved(step: SamplerStep, lag: list[float], errors: Sequence[list[float]]) -> list[float]:
    """The lag of the next latent. errors: what D lacked, newest first."""
    return total((step.decay, lag), *zip(step.weights, errors, strict=False))


def total(*terms: tuple[float, list[float]]) -> list[float]:
    """Sum of factor * weights."""
    return [sum(factor * weights[i] for factor, weights in terms) for i in range(len(terms[0][1]))]


@dataclass(frozen=True)
class _Basis:
    """Tensors by number: those carried, the earlier outputs, the new output. Everything here is weights of them."""

    tensors: int
    nodes: int
    share: float

    def one(self, index: int) -> list[float]:
        return [float(i == index) for i in range(self.tensors + self.nodes + 1)]

    @property
    def zero(self) -> list[float]:
        return [0.0] * (self.tensors + self.nodes + 1)

    def carried(self) -> tuple[list[float], list[list[float]]]:
        """The lag, and the errors of D, newest first."""
        lag, *errors = [self.one(i) for i in range(self.tensors)] or [self.zero]
        return lag, errors

    def line(self, share: float) -> list[float]:
        """Between the last computed output and the new one."""
        new = self.tensors + self.nodes
        return total((1.0 - share, self.one(new - 1)), (share, self.one(new)))

    def forecast(self, nodes: Sequence[float], coordinate: float) -> list[float]:
        weights = forecast_weights(nodes, coordinate, self.share)
        return total(*((weight, self.one(self.tensors + i)) for i, weight in enumerate(weights)))

