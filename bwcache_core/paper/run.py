"""One sampling run of a block mode: its evaluations, streams, decisions and report. Dropped when the run ends."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import torch

from ..config import CPU, BlockConfig
from ..report import RunReport, StepReport
from ..run import described
from ..schedule import Schedule, schedule_of
from .measurement import DeviceSums, combine, read_sums
from .memory import readable
from .model_pass import ModelPass, PassSettings
from .modes import BLOCK_MODES
from .placement import Placement
from .rules import Decision, Measured, Position, Rules
from .storage import Pins
from .stream import Stream, StreamKey

FEW_STEPS = 8
LIGHTER = "Raise max_cache_mb, or choose mode forecast, which holds least."
TRAINING = "gradients go through the model, as in training"
UNSEEN = (
    "Nothing was cached: the model ran past the hooks of the cache. Another pack may run it in its own way, or this "
    "ComfyUI is newer than BWCache knows: try an update of BWCache."
)


class BlockRun:
    """State of one run. Order of calls: begin_evaluation, begin_pass / finish_pass once per model call,
    end_evaluation, and close at the end whatever happened. Model calls may come from several threads.

    sigmas: the run's schedule, steps + 1 numbers. on_step: called with each finished StepReport. group: processes that
    run the same evaluations, each on its share of the tokens. They read the same sums, so all decide alike. Where one of
    them raises, the others wait for it as long as the group lets them, then raise too. pins: host memory (storage.py).
    Raises ValueError for a schedule that is none (schedule.py).
    """

    def __init__(self, config: BlockConfig, block_count: int, sigmas: Sequence[float], model: str = "",
                 on_step: Callable[[StepReport], None] | None = None,
                 group: torch.distributed.ProcessGroup | None = None, pins: Pins | None = None) -> None:
        self.config, self.pins = config, pins
        self.schedule = schedule_of(sigmas)
        self.on_step = on_step
        self.group = group
        rules = Rules.of(config, self.schedule, block_count)
        self.mode = BLOCK_MODES[config.mode](rules)
        self.settings = PassSettings(block_count, frozenset(config.monitored_blocks(block_count)), self.mode)
        self.streams: dict[StreamKey, Stream] = {}
        self.measured: list[Measured] = []
        self.report = RunReport(config.mode, config.threshold, list(self.schedule.sigmas), model,
                                reuse_interval=rules.interval, block_count=block_count)
        self.report.warnings += schedule_warnings(config, self.schedule)
        self.position: Position | None = None
        self.decision = Decision()
        self._lock = threading.Lock()
        self._occurrences: dict[StreamKey, int] = {}
        self._unread: list[DeviceSums] = []
        self._current: StepReport | None = None
        self._began = 0.0
        self._seen = False  # whether any model call showed what to cache

    def __deepcopy__(self, memo: dict) -> BlockRun:
        """Some packs copy the options of a run: its state stays one."""
        return self

    def begin_evaluation(self, timestep: torch.Tensor) -> None:
        """Read sigma and the last evaluation's sums (the one host sync), then decide for all conditions alike.

        timestep: one number for each row, (B,) or a scalar. Raises ValueError for another shape, or a sigma that is no
        finite number; the run has no position then.
        """
        if self.position is not None:  # the last evaluation raised: only some of its conditions are up to date
            self._drop_tensors()
        self.position = None
        if timestep.ndim > 1:
            raise ValueError(f"the timestep is {tuple(timestep.shape)}, expected one number for each row")
        sigma = self._finish_step(timestep)
        if not math.isfinite(sigma):
            sigmas = self.schedule.sigmas
            raise ValueError(f"sigma is {sigma}, and the schedule goes from {sigmas[0]} to {sigmas[-1]}")
        self.position = Position(len(self.report.steps), self.schedule.step_of(sigma))
        self.decision = self._decide()
        self._occurrences.clear()
        why = (self.decision.reason, self.decision.judged, self.decision.limit)
        self._current = StepReport(self.position.evaluation, self.position.step, sigma, "compute", *why)
        self._began = time.perf_counter()

    @torch.compiler.disable
    def begin_pass(self, keys: Sequence[StreamKey]) -> ModelPass:
        """A model call over the conditions `keys`, in batch order. Only inside an evaluation."""
        with self._lock:
            streams = [self._stream(key) for key in keys]
        return ModelPass(self.settings, self.position, self.decision, streams)

    @torch.compiler.disable
    def finish_pass(self, model_pass: ModelPass) -> None:
        """Commit a model call that went through. A call that raised is never finished, so it leaves nothing usable."""
        with self._lock:
            sums = model_pass.finish()
            self._unread += sums
            self._seen = self._seen or bool(sums)
            self._count(model_pass.reused or frozenset())
            if model_pass.in_training and not self.stopped:
                self._stop(TRAINING, "")

    def count_plain_pass(self) -> None:
        """Account for a model call that ran without the cache, after it gave up."""
        with self._lock:
            if self._current:
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
        self._account(current.cache_bytes)
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
                self._finish_step(None)
        finally:  # reading waits for the group, which may be broken
            self._drop_tensors()
            self.position = None
        if finished and not self._seen and not self.stopped:
            self.report.warnings.append(UNSEEN)
        return self.report

    def place(self, placement: Placement) -> None:
        """Say where the cache lies, which `config` follows already; or that there is no room for it."""
        if not placement.device:
            self._stop(placement.reason)
            return
        report = self.report
        report.cache_device, report.placement = placement.device, placement.reason
        report.reserved_bytes, report.estimate_bytes = placement.reserved, placement.held or 0

    @property
    def stopped(self) -> bool:
        """Nothing is cached from here to the end of the run: no pass may begin."""
        return bool(self.report.stopped)

    def _decide(self) -> Decision:
        if self.stopped:
            return Decision(reason=self.report.stopped)
        return self.mode.decide(self.position, self.measured)

    def _stop(self, reason: str, remedy: str = LIGHTER) -> None:
        self.report.stopped = reason
        self.report.warnings.append(f"This run is not cached: {reason}. {remedy}".rstrip())
        self._drop_tensors()

    def _account(self, held: int) -> None:
        """Put the estimate right: what is held after the first evaluation is held to the end, or more."""
        report = self.report
        report.estimate_bytes = max(held, report.estimate_bytes) if report.steps else held
        if self.group is None and 0 < self.config.budget < held:  # processes of a group may not go apart
            self._stop(f"it would hold {readable(held)}, over max_cache_mb {self.config.max_cache_mb}")

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

    def _finish_step(self, timestep: torch.Tensor | None) -> float | None:
        """Close the books of the evaluation before this one. Returns sigma, the first number of `timestep`."""
        sigma, streams = read_sums(timestep, self._unread, self.group)
        self._unread = []
        current, self._current = self._current, None
        if current is None:
            return sigma
        current.seconds = time.perf_counter() - self._began
        measured = combine(Position(current.evaluation, current.step), streams)
        current.change, current.block_changes, current.fault = measured.change, measured.changes, measured.fault
        current.conditions = {s.label: s.change for s in streams if s.change is not None}
        if current.action != "reuse":
            self.measured.append(measured)
        if measured.fault:
            self._drop_tensors()  # nothing may be compared with broken features
        self.report.steps.append(current)
        if self.on_step:
            self.on_step(current)
        return sigma

    def _stream(self, key: StreamKey) -> Stream:
        occurrence = self._occurrences.get(key, 0)
        self._occurrences[key] = occurrence + 1
        key = key._replace(occurrence=occurrence)
        if key not in self.streams:
            self.streams[key] = Stream(key.label, self.config.cache_device == CPU, self.pins)
        return self.streams[key]


def schedule_warnings(config: BlockConfig, schedule: Schedule) -> list[str]:
    """What a user should know about this run before it starts."""
    warnings, steps = [], schedule.steps
    start, end = schedule.window(config.start_step, config.end_step)
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
