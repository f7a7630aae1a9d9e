"""The runs of one calibration: uncached ones that are measured, and trials of plans. Knows guiders, imports nothing of ComfyUI.

Every run samples the guider that came in, by way of its own model: the wrappers of a clone are lent to that for a run and
taken back. Afterwards the model has what it had before, another BWCache Apply included.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

from ..bwcache_core.calibration import CalibrationError, Request, Trial, Verdict, finalist, kept, verdict_on
from ..bwcache_core.config import ForecastConfig
from ..bwcache_core.measure import Lesson, NothingLearned
from ..bwcache_core.plan import Plan, automatic, rounded
from ..bwcache_core.planning import Found, Knowledge, Planner, expected_error, together
from ..bwcache_core.report import RunReport, RunStats
from ..bwcache_core.schedule import Schedule, schedule_of
from ..bwcache_core.tried import AUTOMATIC, MEASURED, variants
from .attach import attach, attach_measuring, is_flow, rivals_at_rest
from .identity import Setup, digest
from .plans import find, remember, remember_trials, was_measured
from .quality import latent_psnr, parts

Sample = Callable[[int, Sequence[int] | None, str], dict]  # from a seed, the steps that will compute, and what for, to a LATENT
PASSED_BY = "This guider or sampler asks the model past BWCache, so no step of it can be spared."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """latent: of the first seed, uncached. reports: of the plans that are given, the chosen one last."""

    latent: dict
    verdict: Verdict
    reports: tuple[RunReport, ...]


def calibrate(bench: Bench, request: Request) -> Outcome:
    """All runs of a request. Costs what request.cost says. What was measured and tried is kept as it comes in."""
    bench.refuse_rivals()
    latents = {seed: bench.measure(seed) for seed in request.measured}
    latents |= {seed: bench.compare_with(seed) for seed in request.unseen}
    first, *others = request.tried
    plans = {speedup: bench.plans(speedup) for speedup in request.speedups}
    trials, reports = [], {}

    def attempt(speedup: float, kinds: Iterable[str], seeds: Iterable[int]) -> None:
        for kind, seed in product(kinds, seeds):
            trial, reports[speedup, kind] = bench.attempt(speedup, kind, plans[speedup][kind], seed, latents[seed])
            trials.append(trial)
        bench.keep(trials)

    for speedup in request.speedups:
        attempt(speedup, plans[speedup], [first])
    for speedup in request.speedups if others else ():  # by then it is known how each kind of plan did at the others
        attempt(speedup, [AUTOMATIC, *filter(None, [finalist(trials, speedup)])], others)
    verdict = verdict_on(trials, request.choice, bench.note, bench.unkept)
    given = sorted(verdict.best, key=lambda each: each == verdict.chosen)
    return Outcome(latents[request.measured[0]], verdict, tuple(reports[each.speedup, each.kind] for each in given))


class Bench:
    """One guider with its sampler: every run is the same, but for the seed and what is attached.

    sample: samples the guider as a workflow would, with `sampler`. note: why nothing was learned, unkept: why trials are
    not kept; empty where they are.
    """

    def __init__(self, guider, sample: Sample, sampler: object = None) -> None:
        self.guider, self.sample, self.sampler = guider, sample, sampler
        self.found, self.note, self.unkept = Found(), "", ""
        self.schedule: Schedule | None = None
        self._measured: set[int] = set()
        self._learned: list[Knowledge] = []
        self._planner: Planner | None = None  # once all is measured
        self._setup: Setup | None = None  # of the newest uncached run
        self._runs: dict[tuple[str, int], tuple[RunReport, float]] = {}

    def refuse_rivals(self) -> None:
        """Before anything runs. Raises CalibrationError where another cache is on the model."""
        refuse(rivals_at_rest(self.guider, self.sampler))

    def measure(self, seed: int) -> dict:
        """The uncached latent of a seed, which is learned from."""
        latent, report = self._uncached(seed, self._learn, "measured")
        self._measured.add(seed)
        self.schedule = self.schedule or schedule_of(report.sigmas, is_flow(self.guider.model_patcher))
        self.note = "" if self.found.knowledge else report.unlearned
        return latent

    def compare_with(self, seed: int) -> dict:
        """The uncached latent of a seed that plans are not made from, unless it was measured at another time."""
        known = []

        def look(setup: Setup, lesson: Lesson) -> int:
            known.append(was_measured(setup, lesson))
            return 1

        latent, _ = self._uncached(seed, look, "to compare with")
        if any(known):
            self._measured.add(seed)
        return latent

    def plans(self, speedup: float) -> dict[str, Plan]:
        """By kind, the automatic plan first, each plan once."""
        found = {AUTOMATIC: automatic(self.schedule, speedup)}
        if self.found.knowledge is not None:
            self._planner = self._planner or Planner(self.found.knowledge, self.schedule)
            found[MEASURED] = self._planner.candidates(speedup)[1]
        found |= variants(self.schedule, speedup)
        once = {plan.computes: kind for kind, plan in reversed(found.items())}
        return {kind: plan for kind, plan in found.items() if once[plan.computes] == kind}

    def attempt(self, speedup: float, kind: str, plan: Plan, seed: int, uncached: dict) -> tuple[Trial, RunReport]:
        """A plan on a seed, held against the uncached latent. What ran before is not run again."""
        if (plan.text, seed) not in self._runs:
            self._runs[plan.text, seed] = self._cached(plan, seed, uncached, f"{speedup:g}x, {kind} plan: seed {seed}")
        report, psnr = self._runs[plan.text, seed]
        logger.info("BWCache Calibrate: %gx, %s plan %s, seed %d: %.1f dB", speedup, kind, plan.text, seed, psnr)
        computed, unseen = computed_of(report), seed not in self._measured
        expected = expected_error(self.found.knowledge, self.schedule, plan.computes) if self.found.knowledge else None
        clip = clip_of(uncached["samples"])
        return Trial(speedup, kind, plan, seed, unseen, computed, report.evaluations, psnr, expected, clip), report

    def keep(self, trials: Sequence[Trial]) -> None:
        """In the file of this setup, where BWCache Apply finds it, and for reports."""
        found = kept(trials)
        if self._planner:
            self._planner.tried = found
        try:
            remember_trials(replace(self._setup, sigmas=self.schedule.sigmas), found)
            self.unkept = ""
        except NothingLearned as reason:
            self.unkept = str(reason)

    def _learn(self, setup: Setup, lesson: Lesson) -> int:
        try:
            return remember(setup, lesson)
        finally:  # a run that adds nothing may be known; and where no file can be written, there is still what was seen here
            self._learned.append(lesson.knowledge)
            self.found = found if (found := find(lambda: setup)).knowledge else Found(together(self._learned))

    def _see(self, setup: Setup) -> None:
        self._setup = setup

    def _uncached(self, seed: int, keep: Callable[[Setup, Lesson], int], what: str) -> tuple[dict, RunReport]:
        stats = RunStats()
        measuring = attach_measuring(self.guider.model_patcher, stats, keep=keep, see=self._see)
        with lent(self.guider.model_patcher, measuring):
            latent = self.sample(seed, None, f"uncached, {what}: seed {seed}")
        report = stats.runs[-1] if stats.runs else None
        if report is None or not report.evaluations:
            raise CalibrationError(f"Plans cannot be tried here. {' '.join(report.warnings if report else ()) or PASSED_BY}")
        refuse(report.rivals)  # some come with the run
        return latent, report

    def _cached(self, plan: Plan, seed: int, uncached: dict, what: str) -> tuple[RunReport, float]:
        stats = RunStats()
        trying = attach(self.guider.model_patcher, ForecastConfig(plan=plan.text), stats)
        with lent(self.guider.model_patcher, trying):
            latent = self.sample(seed, plan.computes, what)
        report, psnr = stats.runs[-1], latent_psnr(latent["samples"], uncached["samples"])
        if math.isnan(psnr):
            raise CalibrationError(f"The latent of seed {seed} holds NaN or infinity. Check the model's precision.")
        report.planner = self._planner
        report.plan_note = f"{plan.note}, tried by BWCache Calibrate"
        return report, psnr


def refuse(rivals: Sequence[str]) -> None:
    if rivals:
        raise CalibrationError(f"{rivals[0]} is on the same model, so that no run is an uncached one. Remove it.")


def computed_of(report: RunReport) -> int:
    """Evaluations that the model ran, those in part by their share: of context windows that move, only the new ones."""
    return rounded(sum(step.calls_run / step.calls_total for step in report.steps))


def clip_of(samples) -> str:
    """Tells an uncached latent from others, in few digits, since a GPU does not add up the same way twice."""
    return digest([f"{float(part.float().std()):.4g}" for latent in parts(samples) for part in latent.flatten().tensor_split(2)])


@contextmanager
def lent(patcher, attached) -> Iterator[None]:
    """`patcher` has the wrappers of its clone meanwhile. Sampling the clone would leave a dead model in ComfyUI's list of
    loaded ones."""
    own = patcher.wrappers
    patcher.wrappers = attached.wrappers
    try:
        yield
    finally:
        patcher.wrappers = own
