"""One run of the forecast mode: which evaluation computes, and what the others get."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed

from .config import ForecastConfig
from .corrector import SamplerStep
from .plan import Plan, plan_for
from .planning import Found, Planner, best_plan
from .report import RunReport, StepReport
from .schedule import Schedule
from .track import Call, Place, Scale, Track
from .trust import Trust

SAME_SIGMA = 1e-3  # relative: half precision rounds sigmas
PLANNED = "the plan"
PASSED = "the sampler passed over planned steps"
UNKNOWN = "conditions that were not there before"
ELSEWHERE = "the latent is not where the steps before led"
MOVED = "a context window that was not there before"
UNPROVEN = "no forecast was checked on this path yet"
RESIZED = "the latent changed its size"
BROKEN = "the latent or the last output holds NaN or infinity"
GRADIENTS = "the model runs under gradients, as in training"


@dataclass(frozen=True)
class Seen:
    """The last evaluation: the latent x, what the guider made of it (D), where, and sigma of each row (B, 1, ...).
    away: D of the condition that guidance leads away from, None without one. change: of D since the evaluation before, L1
    norms (P, B): samplers of a higher order use both; None where the sampler is not known."""

    place: Place
    sigma: torch.Tensor
    latent: torch.Tensor
    denoised: torch.Tensor
    away: torch.Tensor | None
    change: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.latent, self.denoised, self.away) if tensor is not None)

    def noises(self, sigma: torch.Tensor, flow: bool) -> list[torch.Tensor]:
        """What samplers take D of the next latent at `sigma` (B, 1, ...) to lack: the noise that D left, and, in CFG++
        (arXiv:2406.08070), that of the other condition, for noise that is added and for flows."""
        ratio = sigma / self.sigma
        noises = [(self.latent - self.denoised) * ratio]
        if self.away is not None:
            noises.append((self.latent - self.away) * ratio)
        if self.away is not None and flow:
            noises.append(noises[1] + sigma * (self.away - self.denoised))
        return noises


@dataclass(frozen=True)
class Unread:
    """An error whose numbers still lie on the device: of which condition, over how many steps, L1 norms (2, P, B)."""

    label: str
    distance: float
    width: float
    sums: torch.Tensor


class ForecastRun:
    """State of one run. Order of calls: begin, call once per model call, end; and close at the end whatever happened.

    sampler: what it does at each evaluation (corrector.py), empty where that is not known. group: processes that sample
    the same latent together, and have to decide alike. on_step: called with each finished StepReport.
    known: what was measured for runs over a schedule.
    """

    def __init__(
        self, config: ForecastConfig, schedule: Schedule, model: str = "", sampler: Sequence[SamplerStep] = (),
        scale: Scale | None = None, group: torch.distributed.ProcessGroup | None = None,
        on_step: Callable[[StepReport], None] | None = None, known: Callable[[Schedule], Found] | None = None,
    ) -> None:
        self._known = known
        self.config, self.scale, self.group, self.on_step = config, scale or Scale(), group, on_step
        self.sampler = sampler
        self.trust = Trust(config.threshold)
        self.report = RunReport(config.mode, config.threshold, [], model, speedup_asked=config.speedup)
        self.tracks: dict[Hashable, Track] = {}
        self._counts: dict[Hashable, int] = {}
        self._unread: list[Unread] = []
        self._slopes: list[tuple[Track, torch.Tensor]] = []  # numbers that still lie on the device, as those of _unread
        self._seen: Seen | None = None
        self._latent = self._rows = None  # of the evaluation that is going on: x, and sigma of each row
        self._asked: list[torch.Tensor] = []  # D of the evaluation's first call
        self._place: Place | None = None  # of the evaluation that is going on
        self._current: StepReport | None = None  # until the next one begins
        self._jump: float | None = None
        self._reuse: bool | None = None  # decided at the first call: an evaluation without one changes nothing
        self._ended = False  # some row is at sigma 0
        self._began = 0.0
        self.lay(schedule)

    def __deepcopy__(self, memo: dict) -> ForecastRun:
        """Some packs copy the options of a run: its state stays one."""
        return self

    def lay(self, schedule: Schedule) -> None:
        """Make the plan for a schedule: at the start, and again where the sampler turns out to run over another one."""
        self.schedule, self.plan, report = schedule, self._plan(schedule), self.report
        report.sigmas, report.plan, report.plan_note = list(schedule.sigmas), self.plan.text, self.plan.note
        report.flow = schedule.flow
        report.planned = list(self.plan.computes)
        self._longest = max(b - a for a, b in pairwise([*self.plan.computes, self.plan.steps])) - 1

    def _plan(self, schedule: Schedule) -> Plan:
        config = self.config
        if self._known is None or config.plan_given or not config.reuses:
            return plan_for(schedule, config.speedup, config.plan, config.start_step, config.end_step)
        found = self._known(schedule)
        self.report.warnings += [warning for warning in found.warnings if warning not in self.report.warnings]
        if found.knowledge:
            self.report.planner = Planner(found.knowledge, schedule, config.start_step, config.end_step, found.trials)
        return best_plan(found, schedule, config.speedup, config.start_step, config.end_step)

    @property
    def stopped(self) -> bool:
        return bool(self.report.stopped)

    @property
    def keeps(self) -> bool:
        """Whether anything may be reused: else nothing is kept or measured."""
        return len(self.plan.computes) < self.plan.steps and self.config.threshold > 0 and not self.stopped

    @property
    def is_open(self) -> bool:
        """Whether an evaluation is going on. What calls the model at other times is no business of ours."""
        return self._place is not None

    @property
    def sigma(self) -> float:
        """Of the evaluation that is going on."""
        return self._place.sigma

    def begin(self, timestep: torch.Tensor, latent: torch.Tensor) -> None:
        """An evaluation of `latent` at `timestep` (B,), which is sigma: one host read, one decision for all its calls."""
        if self._place is not None:  # the last one raised: only some of its calls are up to date
            self._drop()
            self._current = None
        if timestep.ndim > 1 and not self.stopped:
            raise ValueError(f"the timestep is {tuple(timestep.shape)}, expected one number for each row")
        sigma, least, jump = self._settle(timestep, latent)
        if not (math.isfinite(sigma) or self.stopped):
            raise ValueError(f"sigma is {sigma}, expected a finite number")
        self._place = place = self._locate(sigma)
        self._current = StepReport(place.evaluation, place.step, sigma, jump=jump)
        self._jump, self._reuse, self._ended = jump, None, least <= 0
        self._counts.clear()
        self._latent = latent
        self._rows = timestep.reshape(-1, *[1] * (latent.ndim - 1)).clone() if self.keeps else None
        self._began = time.perf_counter()

    def call(self, call: Call, timestep: torch.Tensor, latent: torch.Tensor, compute: Callable[[], list]) -> list:
        """D of a call's conditions, made by `compute` or foretold. Tensors are fresh, or compute's own and not kept."""
        if self._reuse is None:
            self._reuse = self._decide(self._jump)
        key = (call.key, self._counts.get(call.key, 0))
        self._counts[call.key] = key[1] + 1
        if latent.requires_grad and torch.is_grad_enabled():
            self._stop(GRADIENTS)
        track = self.tracks.get(key)  # `end` leaves none that took no part in the evaluation before
        sigma = timestep.reshape(-1, *[1] * (latent.ndim - 1))
        asked = sum(label is not None for label in call.labels)
        if self._reuse and track and self.keeps and self._reaches(track):
            denoised = track.recall(self._place, sigma, latent)
        else:
            if self._reuse and not self.stopped:
                self._current.reason = UNPROVEN if track else MOVED if call.window else UNKNOWN
            denoised = compute()
            self._current.calls_run += asked
            if any(d is not None and d.requires_grad for d in denoised):
                self._stop(GRADIENTS)
            if not self.keeps or self._ended:
                return self._count(asked, denoised)
            track = track or Track(first=not self.report.steps)
            denoised = self._learn(call, key, track, sigma, latent, denoised)
        track.evaluation = self._place.evaluation
        self.tracks[key] = track
        return self._count(asked, denoised)

    def count_plain(self, asked: int) -> None:
        """A call of `asked` conditions was made without the cache, after it gave up."""
        self._current.calls_run += asked
        self._current.calls_total += asked

    def end(self, denoised: torch.Tensor) -> None:
        """The evaluation is over, and the guider made `denoised` of it. One that made no call changes nothing."""
        current, place, latent = self._current, self._place, self._latent
        self._place = self._latent = None
        asked, self._asked = self._asked, []
        if not current.calls_total:
            self._current = None
            return
        if current.calls_run < current.calls_total:
            current.action = "partial" if current.calls_run else "reuse"
        if self.keeps and not self._ended:
            self.tracks = {key: track for key, track in self.tracks.items() if track.evaluation == place.evaluation}
            away = asked[1].clone() if len(asked) == 2 and asked[1].shape == latent.shape else None
            change = self._changed(denoised) if self.sampler and self._seen else None
            self._seen = Seen(place, self._rows, latent.clone(), denoised.clone(), away, change)
            if current.calls_run == current.calls_total:
                self.trust.computed()
        current.cache_bytes = self._held()
        self.report.steps.append(current)

    def close(self, finished: bool) -> RunReport:
        """End of the run: read what is left if it went well, drop every tensor, return the report."""
        self.report.finished = finished  # before the last on_step, so that its receiver knows it is the last
        try:
            if finished:
                self._settle(None, None)
        finally:  # reading waits for the group, which may be broken
            self._drop()
            self._place = None
        return self.report

    def give_up(self, error: Exception) -> None:
        """The cache itself failed: drop every tensor. What is left of the run computes, and the report says why."""
        self._drop()
        if self.stopped:
            return
        evaluation = len(self.report.steps)
        if self._current is not None:
            self._current.reason = f"the cache gave up in evaluation {evaluation}"
        self.report.stopped = f"the cache gave up in evaluation {evaluation}"
        self.report.warnings.append(
            f"The cache gave up in evaluation {evaluation}, and the rest of the run was computed without it: "
            f"{described(error)}."
        )

    def _stop(self, reason: str) -> None:
        """Drop every tensor. What is left of the run computes, and the report says why."""
        self._drop()
        self.report.stopped = self._current.reason = self.report.stopped or reason

    def _count(self, asked: int, denoised: list) -> list:
        """A call is counted once it went through. The first of an evaluation tells where the sampler may go from here."""
        self._current.calls_total += asked
        self._asked = self._asked or denoised
        return denoised

    def _learn(self, call: Call, key: Hashable, track: Track, sigma, latent, denoised: list) -> list:
        distance = abs(self._place.coordinate - track.newest) if track.nodes else 0.0
        width = self.schedule.width(track.newest, self._place.coordinate) if track.nodes else 0.0
        asked = [d if label is not None else None for d, label in zip(denoised, call.labels, strict=True)]
        corrected = self.sampler if self.config.corrector else ()
        learned, missed = track.learn(self._place, sigma, latent, asked, corrected, self.scale)
        if track.slope is not None:
            self._slopes.append((track, track.slope))
        labels = [label + (f" pass {key[1] + 1}" if key[1] else "") for label in call.labels if label is not None]
        for label, (output, difference) in zip(labels, missed, strict=False):
            self._unread.append(Unread(label, distance, width, self.scale.sums(difference, output)))
        return [d if mine is None else mine for mine, d in zip(learned, denoised, strict=True)]

    def _decide(self, jump: float | None) -> bool:
        """Whether this evaluation reuses; its report says why."""
        place, current, seen, trust = self._place, self._current, self._seen, self.trust
        if self.stopped or not self.keeps:
            current.reason = self.report.stopped or "every step computes"
            return False
        if self._ended:
            current.reason = "sigma is 0, where nothing is left to foretell"
            return False
        if seen is None or not self.tracks:
            current.reason = "nothing was computed before"
            return False
        if jump is None or not math.isfinite(jump):
            current.reason = RESIZED if jump is None else BROKEN
            self._leave()
            return False
        if jump > trust.most_noise and self._rose(place.sigma, seen.place.sigma):  # else along its own path
            current.reason = "sigma went back up"
            self._leave()
            return False
        trust.moved(0.0 if self.sampler and jump <= trust.threshold else jump)  # one that is known adds no noise
        if trust.noise > trust.most_noise:  # a line through outputs of both latents would lead anywhere
            self._leave()
        current.reason = PLANNED
        newest = min(track.newest for track in self.tracks.values())
        if self._planned(newest):
            return False
        objection = trust.objection(abs(place.coordinate - newest), self.schedule.width(newest, place.coordinate))
        if objection:
            current.reason, current.judged, current.limit = objection
            if trust.noise > trust.most_noise and self.sampler:  # which adds none
                current.reason = ELSEWHERE
        return objection is None

    def _planned(self, newest: float) -> bool:
        """Whether the plan computes here, or would have a step ago: a sampler may pass over steps."""
        place = self._place
        if place.step in self.plan.computes:
            return True
        passed = place.coordinate - newest > self._longest + 1
        if passed:
            self._current.reason = PASSED
        return passed

    def _reaches(self, track: Track) -> bool:
        """Whether a forecast may go so far before the first one on its path was measured."""
        distance = abs(self._place.coordinate - track.newest)
        return track.proven or distance <= self.trust.first_reach(track.first) + SAME_SIGMA

    def _leave(self) -> None:
        """The sampler went on elsewhere: nothing may be foretold from what was computed so far."""
        for track in self.tracks.values():
            track.leave()

    def _rose(self, sigma: float, before: float) -> bool:
        slack = SAME_SIGMA * abs(before)
        return sigma < before - slack if self.schedule.rises else sigma > before + slack

    def _locate(self, sigma: float) -> Place:
        """Where the sampler stands: as it was asked beforehand, else by sigma."""
        evaluation = len(self.report.steps)
        expected = self.sampler[evaluation] if evaluation < len(self.sampler) else None
        if expected is None or not math.isclose(expected.sigma, sigma, rel_tol=SAME_SIGMA):
            self.sampler = ()
        step = expected.step if self.sampler else self.schedule.step_of(sigma)
        return Place(evaluation, step, self.schedule.coordinate(sigma), sigma)

    def _settle(self, timestep: torch.Tensor | None, latent: torch.Tensor | None) -> tuple[float, float, float | None]:
        """Close the books of the evaluation before. Returns sigma, the least of any row, and how far the latent jumped;
        None if unknown."""
        (unread, slopes), self._unread, self._slopes = (self._unread, self._slopes), [], []
        moved = self._moved(timestep, latent) if self._seen and self.keeps and latent is not None else []
        sums = [*(u.sums for u in unread), *(slope for _, slope in slopes), *moved]
        sigma, least, numbers = read(timestep, sums, self.group)
        jump = min(map(worst, numbers[len(unread) + len(slopes) :]), default=None)
        for (track, _), slope in zip(slopes, numbers[len(unread) :], strict=False):
            track.adopt(slope)
        current, self._current = self._current, None
        if current is not None:
            current.seconds = time.perf_counter() - self._began
            self._judge(current, [(u.label, (u.distance, u.width), worst(n)) for u, n in zip(unread, numbers, strict=False)])
            current.parts = {} if current.fault else self._by_part(unread, numbers)
            if self.on_step:
                self.on_step(current)
        return sigma, least, jump

    def _judge(self, current: StepReport, errors: list[tuple[str, tuple, float]]) -> None:
        """Put what was measured into the report of an evaluation, and tell trust."""
        if not errors:
            return
        current.conditions = {label: error for label, _, error in errors}
        _, distance, current.error = max(errors, key=lambda measured: measured[2])
        if any(not math.isfinite(error) for _, _, error in errors):
            current.fault = "the model's output is all zero, or holds NaN or infinity"
            current.error = None
            self._drop()
        else:
            self.trust.measured(current.error, *distance)

    def _by_part(self, unread: Sequence[Unread], numbers: Sequence[list[list[float]]]) -> dict[str, float]:
        """The largest error of each part of a packed latent over conditions and rows; empty for one part."""
        errors: dict[str, float] = {}
        for error, norms in zip(unread, numbers, strict=False):
            rows = error.sums.shape[2]
            for i, name in enumerate(self.scale.names if error.sums.shape[1] > 1 else ()):
                here = worst([sums[i * rows : (i + 1) * rows] for sums in norms])
                errors[name] = max(here, errors.get(name, 0.0))
        return errors

    def _moved(self, timestep: torch.Tensor, latent: torch.Tensor) -> list[torch.Tensor]:
        """L1 norms (2, P, B) of what the latent is off from where the last D led, and of sigma * v there; for each way
        that samplers go."""
        seen = self._seen
        if seen.latent.shape != latent.shape:
            return []
        sigma = timestep.reshape(-1, *[1] * (latent.ndim - 1))
        off = latent - seen.denoised
        sums = [self.scale.sums(off - noise, noise) for noise in seen.noises(sigma, self.schedule.flow)]
        if seen.change is not None:
            for norms in sums:
                norms[1] += seen.change
        return sums

    def _changed(self, denoised: torch.Tensor) -> torch.Tensor | None:
        before = self._seen.denoised
        return self.scale.sums(denoised - before, before)[0] if before.shape == denoised.shape else None

    def _held(self) -> int:
        return sum(track.nbytes for track in self.tracks.values()) + (self._seen.nbytes if self._seen else 0)

    def _drop(self) -> None:
        self.tracks.clear()
        self._unread.clear()
        self._slopes.clear()
        self._asked = []
        self._seen = self._latent = self._rows = None


def read(
    timestep: torch.Tensor | None, sums: Sequence[torch.Tensor], group: torch.distributed.ProcessGroup | None = None
) -> tuple[float, float, list[list[list[float]]]]:
    """Bring sigma, the least of any row, and norms (2, P, B) to the host in one transfer: the only host sync of an
    evaluation.

    The norms of a group's processes are added up first, so all of them read the same.
    """
    flat = [part.flatten() for part in sums]
    if flat and group is not None:
        flat = [torch.cat(flat)]
        torch.distributed.all_reduce(flat[0], group=group)
    if timestep is not None:
        rows = timestep.flatten().float()
        flat.insert(0, torch.stack([rows[0], rows.min()]))
    if not flat:
        return math.nan, math.nan, []
    numbers = torch.cat([part.to(flat[0].device) for part in flat]).tolist()
    sigma, least = (numbers.pop(0), numbers.pop(0)) if timestep is not None else (math.nan, math.nan)
    norms = []
    for part in sums:
        here, numbers = numbers[: part.numel()], numbers[part.numel() :]
        half = len(here) // 2
        norms.append([here[:half], here[half:]])
    return sigma, least, norms


def worst(norms: Sequence[Sequence[float]]) -> float:
    """The largest relative L1 error over parts and rows. Infinite where a number is broken."""
    errors = [relative(difference, reference) for difference, reference in zip(*norms, strict=True)]
    return max(errors, default=0.0)


def relative(difference: float, reference: float) -> float:
    if not (math.isfinite(difference) and math.isfinite(reference)):
        return math.inf
    return difference / reference if reference else (0.0 if difference == 0.0 else math.inf)


def described(error: Exception) -> str:
    """An error as a short line: those of allocators run over many."""
    text = str(error).strip().split("\n")[0][:200].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
