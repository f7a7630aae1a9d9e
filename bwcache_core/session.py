"""One sampling run: its evaluations, its streams, its decisions, its report. Dropped when the run ends."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from .config import ADAPTIVE, CPU, PER_BLOCK, BWCacheConfig
from .corrector import SamplerStep, carried_tensors
from .forecast import FeatureHistory
from .measurement import DeviceSums, combine, read_sums
from .memory import readable
from .model_pass import ModelPass, PassSettings
from .modes import make_policy
from .placement import Placement
from .policy import Decision, Measured, Position, RunShape, resolve_interval, resolve_window
from .report import RunReport, StepReport
from .stream import Stream, StreamKey

FEW_STEPS = 8
LEAST = 0.01  # of noise or of signal: less is not seen by a model, so outputs change little there
LIGHTER = "Raise max_cache_mb, or choose adaptive with cache_point auto, which holds least."
SAME_PLACE = 0.25  # steps: forecasts divide by the distance between places, so nearer ones count as one
SAME_SIGMA = 1e-3  # relative: half precision rounds sigmas
UNSEEN = (
    "Nothing was cached: the model ran past the hooks of the cache. Another pack may run it in its own way, or this "
    "ComfyUI is newer than BWCache knows: try an update of BWCache."
)


def step_of(sigma: float, sigmas: Sequence[float]) -> int:
    """0-based step whose interval holds `sigma`, in a schedule of steps + 1 sigmas that falls, or rises (flipped).

    Samplers evaluate slightly off a sigma of the schedule, between two, or go back again: never assume equality.
    """
    if sigmas[-1] > sigmas[0]:
        reached = sum(s <= sigma * (1.0 + 1e-4) for s in sigmas)
    else:
        reached = sum(s >= sigma * (1.0 - 1e-4) for s in sigmas)
    return min(max(reached, 1), len(sigmas) - 1) - 1


def position_of(evaluation: int, sigma: float, sigmas: Sequence[float]) -> Position:
    """Where an evaluation stands. Its coordinate is a real-valued step: 3.5 lies halfway, in sigma, from 3 to 4."""
    step = step_of(sigma, sigmas)
    width = sigmas[step] - sigmas[step + 1]
    coordinate = step + (sigmas[step] - sigma) / width if width else float(step)
    return Position(evaluation, step, coordinate, width, noise_level(sigma, sigmas))


def noise_level(sigma: float, sigmas: Sequence[float]) -> float:
    """Log of noise over signal, each with LEAST added. Schedules up to 1 are flows, (1 - sigma) x + sigma n; others add
    noise to x."""
    signal = 1.0 if max(sigmas) > 1.0 else max(1.0 - sigma, 0.0) + LEAST
    return math.log((max(sigma, 0.0) + LEAST) / signal)


class Session:
    """State of one run. Order of calls: begin_evaluation, begin_pass / finish_pass once per model call,
    end_evaluation, and close at the end whatever happened. Model calls may come from several threads.

    sigmas: the run's schedule, steps + 1 numbers. on_step: called with each finished StepReport. sampler: what it does at
    each evaluation, for the corrector (corrector.py); empty where that is not known. group: processes that run the same
    evaluations, each on its share of the tokens. They read the same sums, so all decide alike. Where one of
    them raises, the others wait for it as long as the group lets them, then raise too.
    """

    def __init__(self, config: BWCacheConfig, block_count: int, sigmas: Sequence[float], model: str = "",
                 on_step: Callable[[StepReport], None] | None = None, sampler: Sequence[SamplerStep] = (),
                 group: torch.distributed.ProcessGroup | None = None) -> None:
        steps = max(len(sigmas) - 1, 1)
        self.config = config
        self.sampler = sampler if config.corrector and config.caches_output else ()
        self.sigmas = list(sigmas)
        self.on_step = on_step
        self.group = group
        widths = tuple(here - following for here, following in pairwise(self.sigmas))
        levels = tuple(noise_level(sigma, self.sigmas) for sigma in self.sigmas[:-1])
        self.policy = make_policy(config, RunShape(steps, block_count, self.sigmas[-1] == 0.0, widths, levels))
        monitored = frozenset(config.monitored_blocks(block_count))
        self.settings = PassSettings(
            block_count, monitored, config.tokens, config.mode == PER_BLOCK, config.caches_output
        )
        self.streams: dict[StreamKey, Stream] = {}
        self.measured: list[Measured] = []
        self.report = RunReport(config.mode, config.limit, resolve_interval(config, steps), steps, block_count,
                                self.sigmas, model)
        self.report.warnings += schedule_warnings(config, steps)
        self.position: Position | None = None
        self.decision = Decision()
        self._lock = threading.Lock()
        self._occurrences: dict[StreamKey, int] = {}
        self._unread: list[DeviceSums] = []
        self._current: StepReport | None = None
        self._began = 0.0
        self._seen = False  # whether any model call showed what to cache

    def begin_evaluation(self, timestep: torch.Tensor) -> None:
        """Read sigma and the last evaluation's sums (the one host sync), then decide for all conditions alike."""
        if self.position is not None:  # the last evaluation raised: only some of its conditions are up to date
            self._drop_tensors()
        if timestep.ndim > 1:
            raise ValueError(f"the timestep is {tuple(timestep.shape)}, expected one number for each row")
        sigma = self._settle(timestep)
        evaluation = len(self.report.steps)
        self.position = self._place(evaluation, sigma)
        if not expected(self.sampler, evaluation, sigma):
            self.sampler = ()
        if not math.isfinite(self.position.coordinate):
            raise ValueError(f"sigma is {sigma}, and the schedule goes from {self.sigmas[0]} to {self.sigmas[-1]}")
        stopped = Decision(reason=self.report.stopped)
        self.decision = stopped if stopped.reason else self.policy.decide(self.position, self.measured)
        self._occurrences.clear()
        why = (self.decision.reason, self.decision.judged, self.decision.limit)
        self._current = StepReport(evaluation, self.position.step, sigma, "compute", *why)
        self._began = time.perf_counter()

    @torch.compiler.disable
    def begin_pass(self, keys: Sequence[StreamKey]) -> ModelPass:
        """A model call over the conditions `keys`, in batch order. Only inside an evaluation."""
        with self._lock:
            streams = [self._stream(key) for key in keys]
        return ModelPass(self.settings, self.position, self.decision, streams, self.sampler)

    @torch.compiler.disable
    def finish_pass(self, model_pass: ModelPass) -> None:
        """Commit a model call that went through. A call that raised is never finished, so it leaves nothing usable."""
        with self._lock:
            sums = model_pass.finish()
            self._unread += sums
            self._seen = self._seen or bool(sums)
            self._count(model_pass.reused or frozenset())

    def count_plain_pass(self) -> None:
        """Account for a model call that ran without the cache, after it gave up."""
        with self._lock:
            self._count(frozenset())

    def give_up(self, error: Exception) -> None:
        """The cache itself failed: drop every tensor. What is left of the run computes, and the report says why."""
        with self._lock:
            self._drop_tensors()
            if self.stopped:
                return
            evaluation = len(self.report.steps) + 1
            self.report.stopped = f"the cache gave up in evaluation {evaluation}"
            self.report.warnings.append(
                f"The cache gave up in evaluation {evaluation}, and the rest of the run was computed without it: "
                f"{described(error)}."
            )
            if self._current:
                self._current.reason = self.report.stopped

    def end_evaluation(self) -> None:
        """Forget the conditions that did not take part, and account for what is held."""
        evaluation = self.position.evaluation
        self.streams = {key: stream for key, stream in self.streams.items() if stream.evaluation == evaluation}
        self._unread.sort(key=lambda sums: sums.label)  # threads finish in any order
        current = self._current
        current.cache_bytes = sum(stream.nbytes for stream in self.streams.values())
        self._account(sum(stream.expected_bytes for stream in self.streams.values()))
        skipped = current.blocks_total - current.blocks_run
        if not skipped and self.decision.reuse and not self.stopped:
            current.reason = "a condition holds no features that fit"
        if skipped:
            current.action = "partial" if current.blocks_run else "reuse"
        self.position = None

    def close(self, finished: bool) -> RunReport:
        """End of the run: read what is left if it went well, drop every tensor, return the report."""
        self.report.finished = finished  # before the last on_step, so that its receiver knows it is the last
        try:
            if finished and self._current:
                self._settle(None)
        finally:  # reading waits for the group, which may be broken
            self._drop_tensors()
            self.position = None
        if finished and not self._seen and not self.stopped and len(self.sigmas) > 1:
            self.report.warnings.append(UNSEEN)
        self.report.warnings += target_warnings(self.config, self.report)
        return self.report

    def place(self, placement: Placement) -> None:
        """Say where the cache lies, which `config` follows already; or that there is no room for it."""
        report = self.report
        if not placement.device:
            self._stop(placement.reason)
            return
        report.cache_point, report.cache_device, report.placement = placement.point, placement.device, placement.reason
        report.reserved_bytes = placement.reserved
        report.estimate_bytes = placement.size.total if placement.size else 0

    @property
    def stopped(self) -> bool:
        """Nothing is cached from here to the end of the run: no pass may begin."""
        return bool(self.report.stopped)

    def _stop(self, reason: str) -> None:
        self.report.stopped = reason
        self.report.warnings.append(f"This run is not cached: {reason}. {LIGHTER}")
        self._drop_tensors()

    def _account(self, expected: int) -> None:
        """Put the estimate right: what the shapes of this evaluation will take, once all of it is held."""
        report = self.report
        report.estimate_bytes = max(expected, report.estimate_bytes) if report.steps else expected
        if self.group is None and 0 < self.config.budget < expected:  # processes of a group may not go apart
            self._stop(f"it would hold {readable(expected)}, over max_cache_mb {self.config.max_cache_mb}")

    def _count(self, reused: frozenset[int]) -> None:
        current = self._current
        first = current.blocks_total == 0
        current.reused_blocks = sorted(reused if first else reused & set(current.reused_blocks))
        current.blocks_total += self.settings.block_count
        current.blocks_run += self.settings.block_count - len(reused)

    def _drop_tensors(self) -> None:
        for stream in self.streams.values():  # a traceback may hold the call that broke off, and its streams
            stream.forget()
        self.streams.clear()
        self._unread.clear()
        self.settings.token_index.clear()

    def _settle(self, timestep: torch.Tensor | None) -> float | None:
        """Close the books of the evaluation before this one."""
        sigma, streams = read_sums(timestep, self._unread, self.group)
        self._unread = []
        current, self._current = self._current, None
        if current is None:
            return sigma
        current.seconds = time.perf_counter() - self._began
        measured = combine(self._place(current.evaluation, current.sigma), streams)
        current.change, current.block_changes, current.error = measured.change, measured.changes, measured.error
        current.forecast_errors = list(measured.forecast_errors)
        current.conditions = {s.label: s.change for s in streams if s.change is not None}
        if current.action != "reuse":
            self.measured.append(measured)
        if measured.error:
            self._drop_tensors()  # nothing may be compared with broken features, or extrapolated from them
        self.report.steps.append(current)
        if self.on_step:
            self.on_step(current)
        return sigma

    def _place(self, evaluation: int, sigma: float) -> Position:
        """Where an evaluation stands: samplers come back to a sigma nearly, and then it is the place as before."""
        position = position_of(evaluation, sigma, self.sigmas)
        places = [m.position for m in self.measured]
        nearest = min(places, key=lambda place: abs(place.coordinate - position.coordinate), default=position)
        if abs(nearest.coordinate - position.coordinate) >= SAME_PLACE:
            return position
        return replace(position, coordinate=nearest.coordinate, level=nearest.level)

    def _stream(self, key: StreamKey) -> Stream:
        occurrence = self._occurrences.get(key, 0)
        self._occurrences[key] = occurrence + 1
        key = key._replace(occurrence=occurrence)
        if key not in self.streams:
            config = self.config
            history = FeatureHistory(config.forecast_order, config.damping, config.cache_device == CPU)
            self.streams[key] = Stream(key.label, history, carries=carried_tensors(self.sampler))
        return self.streams[key]


def expected(sampler: Sequence[SamplerStep], evaluation: int, sigma: float) -> bool:
    """Whether the sampler evaluates where it did when its steps were measured."""
    return evaluation < len(sampler) and math.isclose(sampler[evaluation].sigma, sigma, rel_tol=SAME_SIGMA)


def schedule_warnings(config: BWCacheConfig, steps: int) -> list[str]:
    """What a user should know about this run before it starts."""
    warnings = []
    start, end = resolve_window(config, steps)
    if start > end or start >= steps or end < 0:
        warnings.append(
            f"start_step {config.start_step} and end_step {config.end_step} leave no step of this {steps}-step run "
            "to reuse. Lower start_step or raise end_step."
        )
    if steps < FEW_STEPS:
        warnings.append(
            f"This run has {steps} steps. Under {FEW_STEPS}, steps differ too much to be reused well: "
            "remove BWCache here, or check the result against a run without it."
        )
    return warnings


def target_warnings(config: BWCacheConfig, report: RunReport) -> list[str]:
    """Why a run missed its target speed-up by more than 5 %, where it did."""
    computed = report.evaluations - report.evaluations_reused
    if config.mode != ADAPTIVE or not config.target_speedup or not report.finished or not computed:
        return []
    reached = report.evaluations / computed
    if abs(reached / config.target_speedup - 1.0) <= 0.05:
        return []
    reasons = Counter(step.reason.split(":")[0] for step in report.steps if step.action != "reuse")
    most = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    return [
        f"The target speed-up {config.target_speedup:g} was not met: {reached:.2f} was reached in {report.evaluations} "
        f"evaluations. Computed because of: {most}. More steps, or a higher max_reuse, leave more room."
    ]


def described(error: Exception) -> str:
    """An error as a short line: those of allocators run over many."""
    text = str(error).strip().split("\n")[0][:200].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
