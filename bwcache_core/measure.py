"""What one uncached run teaches: how the model's outputs of all its evaluations relate to each other.

A run in mode measure samples as if nothing were attached: every call is computed, and what comes back is handed on
untouched. Of each output v = (x - D) / sigma it keeps the same few numbers, on the model's device, and reads them once, when
the run has ended. From them it makes one small matrix for each condition and one for the guided output: the inner products
of all evaluations, which planning.py makes plans from.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from .config import MEASURE
from .corrector import SamplerStep
from .planning import Course, Knowledge, Matrix, Spans, gains, gains_by_width
from .report import RunReport, StepReport
from .run import SAME_SIGMA, described
from .schedule import Schedule
from .track import Call, fits

PLACES = 1024  # numbers kept of an output: all of them gave the same plans
SPREAD = 2654435769  # 2**32 over the golden ratio: its multiples fall evenly between those before
FEWEST = 8  # steps: a model made for fewer needs each of them
MOST = 100  # steps: planning more would keep a run waiting for seconds
SWINGING = 0.25  # of the steps, at most: a few at once are a turn
GUIDED = "guided"


@dataclass(frozen=True)
class Lesson:
    """What one run taught. sigmas: of its evaluations. conditions: the matrix of each, in the words of its call."""

    knowledge: Knowledge
    sigmas: tuple[float, ...]
    conditions: dict[str, Matrix]


class NothingLearned(ValueError):
    """Why a run taught nothing."""


class Sampler:
    """Takes the same numbers of every latent of one shape."""

    def __init__(self, shape: Sequence[int], device: torch.device | str, mask: torch.Tensor | None = None) -> None:
        numel = math.prod(shape)
        self.shape, self.places = tuple(shape), places_in(numel, device)
        self.rows = self.places * shape[0] // max(numel, 1)
        self.mask = None
        if mask is not None and mask.ndim == len(shape) and fits(mask, torch.empty(shape, device="meta")):
            self.mask = self.take(mask.to(device).expand(shape))

    def take(self, latent: torch.Tensor) -> torch.Tensor:
        """The numbers of a latent, fresh, in float32."""
        return latent.detach().reshape(-1)[self.places].float()

    def output(self, before: torch.Tensor, denoised: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """v, from the numbers of x, from D and from the sigma of each row. 0 where the latent is given."""
        each = sigma.detach().reshape(-1).float()
        v = (before - self.take(denoised)) / (each[self.rows] if len(each) > 1 else each)
        return v if self.mask is None else v * self.mask


def places_in(numel: int, device: torch.device | str) -> torch.Tensor:
    """PLACES indices into `numel` numbers, evenly spread and always the same; all of them where there are no more.

    Made on the device: nothing is copied there.
    """
    if numel <= PLACES:
        return torch.arange(numel, device=device)
    turns = torch.arange(PLACES, device=device, dtype=torch.int64) * SPREAD % 2**32
    return turns * numel // 2**32


def sampled(latent: torch.Tensor) -> torch.Tensor:
    """The numbers that are kept of one latent."""
    return Sampler(latent.shape, latent.device).take(latent)


@dataclass
class Evaluation:
    """One that is going on, or went through. sigma: (1,), on the device. before: of the latent that it began with.
    outputs: the numbers kept, by condition."""

    sampler: Sampler
    sigma: torch.Tensor
    before: torch.Tensor
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)


class MeasureRun:
    """State of one run. Order of calls as in run.py: begin, call once per model call, end; and close at the end.

    sampler: what it does at each evaluation, empty where that is not known. mask: 0 where the latent is given. keep:
    called with the Lesson of a run that went well; returns how many runs are known now, or raises NothingLearned.
    on_step: called with each finished StepReport.
    """

    group = None  # each process decides for itself: nothing is decided

    def __init__(
        self, schedule: Schedule, model: str = "", sampler: Sequence[SamplerStep] = (), mask: torch.Tensor | None = None,
        keep: Callable[[Lesson], int] | None = None,
    ) -> None:
        self.sampler, self.mask, self.keep = sampler, mask, keep
        self.on_step: Callable[[StepReport], None] | None = None
        self.report = RunReport(MEASURE, 0.0, [], model)
        self._done: list[Evaluation] = []
        self._going: Evaluation | None = None
        self._samplers: dict[tuple, Sampler] = {}
        self._current: StepReport | None = None
        self._began = 0.0
        self.lay(schedule)

    def __deepcopy__(self, memo: dict) -> MeasureRun:
        """Some packs copy the options of a run: its state stays one."""
        return self

    def lay(self, schedule: Schedule) -> None:
        """The schedule of the run: at the start, and again where the sampler turns out to run over another one."""
        self.schedule = schedule
        self.report.sigmas, self.report.planned = list(schedule.sigmas), list(range(schedule.steps))

    @property
    def stopped(self) -> bool:
        """Nothing is kept any more."""
        return bool(self.report.unlearned)

    @property
    def is_open(self) -> bool:
        return self._going is not None

    @property
    def sigma(self) -> float:
        """Of the evaluation that is going on, as expected: the real one lies on the device."""
        return self._expected(len(self.report.steps))[1]

    def begin(self, timestep: torch.Tensor, latent: torch.Tensor) -> None:
        """An evaluation of `latent` at `timestep` (B,), which is sigma. Nothing is read from the device."""
        self._tell()
        evaluation = len(self.report.steps)
        step, sigma = self._expected(evaluation)
        sampler = self._sampler(latent)
        self._going = Evaluation(sampler, timestep.detach().flatten()[:1].float(), sampler.take(latent))
        self._current = StepReport(evaluation, step, sigma, reason="measured")
        self._began = time.perf_counter()

    def call(self, call: Call, timestep: torch.Tensor, latent: torch.Tensor, compute: Callable[[], list]) -> list:
        """D of a call's conditions, as `compute` makes them."""
        sampler = self._sampler(latent)
        before = sampler.take(latent)  # first: what runs below may write into the latent
        denoised = compute()
        self.count_plain(sum(label is not None for label in call.labels))
        if any(d is not None and d.requires_grad for d in denoised):
            self._stop("the model runs under gradients, as in training")
            return denoised
        going = self._going
        for label, d in zip(call.labels, denoised, strict=True):
            if label is not None:
                going.counts[label] += 1
                name = label if going.counts[label] == 1 else f"{label} pass {going.counts[label]}"
                going.outputs[name] = sampler.output(before, d, timestep)
        return denoised

    def count_plain(self, asked: int) -> None:
        """A call of `asked` conditions was made."""
        self._current.calls_run += asked
        self._current.calls_total += asked

    def end(self, denoised: torch.Tensor) -> None:
        """The evaluation is over, and the guider made `denoised` of it. One that made no call does not count."""
        going, self._going = self._going, None
        if not self._current.calls_total:
            self._current = None
            return
        if not self.stopped:
            going.outputs[GUIDED] = going.sampler.output(going.before, denoised, going.sigma)
            self._done.append(going)
        self._current.cache_bytes = sum(v.nbytes for evaluation in self._done for v in evaluation.outputs.values())
        self.report.steps.append(self._current)

    def close(self, finished: bool) -> RunReport:
        """End of the run: learn from it if it went well, drop every tensor, return the report."""
        self.report.finished = finished
        self._tell()
        try:
            if finished:
                self._close()
        finally:
            self._drop()
        return self.report

    def give_up(self, error: Exception) -> None:
        """Measuring itself failed: the run goes on, and the report says why nothing was learned."""
        self._stop(f"measuring failed: {described(error)}")

    def _stop(self, reason: str) -> None:
        self._drop()
        self.report.unlearned = self.report.unlearned or reason

    def _close(self) -> None:
        if self.stopped:
            return
        try:
            learned = self._learn()
            self.report.measured_runs = self.keep(learned) if self.keep else 1
        except NothingLearned as reason:
            self.report.unlearned = str(reason)

    def _learn(self) -> Lesson:
        """One transfer from the device, then numbers only."""
        if not self._done:
            raise NothingLearned("the guider or the sampler asks the model past this node")
        if len({evaluation.sampler.shape for evaluation in self._done}) > 1:
            raise NothingLearned("the latent changed its size in the run")
        sigmas, outputs = self._read()
        learned = lesson(self.schedule, sigmas, outputs, self.sampler)
        errors = Spans(learned.knowledge, self.schedule, ()).errors()
        for step, sigma, error in zip(self.report.steps, sigmas, errors, strict=True):
            step.sigma, step.error = sigma, error
        return learned

    def _read(self) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
        """Sigma and outputs of each evaluation, brought to the host."""
        device = self._done[0].sigma.device
        parts = [part for e in self._done for part in (e.sigma, *e.outputs.values())]
        numbers = iter(torch.cat([part.to(device) for part in parts]).cpu().split([len(part) for part in parts]))
        sigmas, outputs = [], []
        for evaluation in self._done:
            sigmas.append(float(next(numbers)))
            outputs.append({name: next(numbers) for name in evaluation.outputs})
        return sigmas, outputs

    def _sampler(self, latent: torch.Tensor) -> Sampler:
        key = (tuple(latent.shape), str(latent.device))
        if key not in self._samplers:
            self._samplers[key] = Sampler(latent.shape, latent.device, self.mask)
        return self._samplers[key]

    def _expected(self, evaluation: int) -> tuple[int, float]:
        """Step and sigma of an evaluation, as the sampler was asked beforehand; else one a step."""
        if evaluation < len(self.sampler):
            return self.sampler[evaluation].step, self.sampler[evaluation].sigma
        step = min(evaluation, self.schedule.steps - 1)
        return step, self.schedule.sigmas[step]

    def _tell(self) -> None:
        current, self._current = self._current, None
        if current is None or self._going is not None:  # it raised
            self._going = None
            return
        current.seconds = time.perf_counter() - self._began
        if self.on_step:
            self.on_step(current)

    def _drop(self) -> None:
        self._done.clear()
        self._samplers.clear()
        if self._going is not None:
            self._going.outputs.clear()
        self.mask = None


def lesson(
    schedule: Schedule, sigmas: Sequence[float], outputs: Sequence[dict[str, torch.Tensor]], sampler: Sequence[SamplerStep]
) -> Lesson:
    """What the numbers kept of a run say. Raises NothingLearned."""
    if schedule.steps < FEWEST:
        raise NothingLearned(f"a run of fewer than {FEWEST} steps teaches too little")
    if len(sigmas) > 2 * MOST or schedule.steps > MOST:
        raise NothingLearned(f"it has more than {MOST} steps")
    course = course_of(schedule, sigmas, sampler)
    always = [name for name in outputs[0] if all(name in kept for kept in outputs)]
    matrices = {name: inner_products([kept[name] for kept in outputs]) for name in always}
    if not all(math.isfinite(number) for matrix in matrices.values() for row in matrix for number in row):
        raise NothingLearned("the model's output holds NaN or infinity")
    guided = matrices.pop(GUIDED)
    if not any(guided[n][n] for n in range(len(guided))):
        raise NothingLearned("the model's output is all zero")
    if swings(course, guided) > SWINGING * schedule.steps:
        raise NothingLearned(
            "the sampler swings to and fro from step to step, so that its outputs do not show what a forecast would miss. More "
            "steps, a lower cfg or another sampler swing less"
        )
    return Lesson(Knowledge(course, guided, added(matrices.values()) or guided), tuple(sigmas), matrices)


def swings(course: Course, inner: Matrix) -> int:
    """Steps whose output is nearer to the one before the last than to the last."""
    firsts = [course.steps.index(step) for step in sorted(set(course.steps))]
    apart = [[inner[i][i] + inner[j][j] - 2.0 * inner[i][j] for j in firsts] for i in firsts]
    return sum(apart[n][n - 2] < apart[n][n - 1] for n in range(2, len(firsts)))


def course_of(schedule: Schedule, sigmas: Sequence[float], sampler: Sequence[SamplerStep]) -> Course:
    """Where the evaluations of a run lie, and what the sampler does with them. Raises NothingLearned."""
    if not all(map(math.isfinite, sigmas)):
        raise NothingLearned("a noise level is no finite number")
    turn = -1.0 if schedule.rises else 1.0
    if any(turn * (following - here) > SAME_SIGMA * abs(here) for here, following in pairwise(sigmas)):
        raise NothingLearned("the sampler goes back to a higher noise level")
    known = len(sampler) == len(sigmas) and all(
        math.isclose(step.sigma, sigma, rel_tol=SAME_SIGMA) for step, sigma in zip(sampler, sigmas, strict=True)
    )
    steps = [step.step for step in sampler] if known else [schedule.step_of(sigma) for sigma in sigmas]
    if set(steps) != set(range(schedule.steps)):
        raise NothingLearned("the sampler does not evaluate in each step of the schedule")
    moves = gains(sampler) if known else gains_by_width(schedule, steps)
    return Course(tuple(steps), tuple(map(schedule.coordinate, sigmas)), tuple(moves))


def inner_products(outputs: Sequence[torch.Tensor]) -> list[list[float]]:
    """(n, n), a mean over numbers."""
    stacked = torch.stack(list(outputs)).double()
    return (stacked @ stacked.T / stacked.shape[1]).tolist()


def added(matrices: Sequence[Matrix]) -> list[list[float]]:
    """The sum of matrices, empty for none."""
    return [[sum(numbers) for numbers in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]
