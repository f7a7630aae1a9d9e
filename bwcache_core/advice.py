"""What a run means in plain words: what happened, why, and the one thing to do next. The only place that advises.

The log, the live view and BWCache Report say what is made here. Pure functions of a RunReport. Advice names values that
the inputs take.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .config import FORECAST, MEASURE, PER_BLOCK, BlockConfig, ForecastConfig
from .plan import FEWEST
from .report import RunReport, StepReport
from .schedule import FULL_NOISE, ZERO, whole_run

FEW_STEPS = 8.5  # of a whole run; models distilled for so few need each of them
FULL_ADDED = 10.0  # sigma from which on a run begins with noise alone, where noise is added: models of EPS at 11 to 80
LITTLE = 0.15  # share of the work; under it the cache is hardly worth its memory
MUCH = 2.75  # times less work; over it, look at the result before trusting it
WORTH_TELLING = 1.05  # times faster; less is within the estimate's own error
SHORT = 5.0  # seconds of a run; in a shorter one times say little
LEAST_SAVED = 0.05  # seconds; less would be told as 0.0 s
SLOWER_THAN_WORK = 0.75  # of the ratio of work: the rest of the time is spent elsewhere
MOST_INTERVAL = 100  # what reuse_interval takes
SHOWN_REASONS = 3
FULLY_MEASURED = 3  # runs; more hardly change a plan
WORDS = ("no", "one", "two")
LEAVE_OUT = "Leave BWCache Apply out here."
QUIET = "Use a sampler that adds none, such as euler or dpmpp_2m, or leave BWCache Apply out here."
SET_ASIDE = (  # a word of the reason why most steps were computed against the plan, what that means, what to do
    ("fresh noise", "The sampler adds noise as it goes, so its next step cannot be foretold.", QUIET),
    ("not where", "The steps are so wide that the latent was not where those before led.",
     "Use more steps, so that they differ less, or leave BWCache Apply out here."),
    ("sigma went", "The sampler goes back to a higher noise level, where nothing can be foretold.", QUIET),
    ("window", "The context windows moved in most steps, and what a new one shows cannot be foretold.",
     "Set context_schedule to standard_static, where they stay."),
    ("conditions", "Prompts, controls or guidance changed in most steps, and what a new one does cannot be foretold.", LEAVE_OUT),
    ("no forecast was checked", "Something changed again before a forecast could be measured.", LEAVE_OUT),
    ("size", "The latent changed its size in most steps, and another size cannot be foretold.", LEAVE_OUT),
)  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """what: happened. why: nothing or less was reused, or saved. next: what to do. notes: facts and warnings."""

    what: str
    why: str = ""
    next: str = ""
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Each said once, the first of them alone."""
        rest = " ".join(part for part in (self.why, self.next) if part)
        return list(dict.fromkeys(line for line in (self.what, rest, *self.notes) if line))


def verdict(run: RunReport) -> str:
    """The run in plain words."""
    return "\n".join(advise(run).lines)


def log_lines(run: RunReport) -> list[str]:
    """The run for the log: one line, then one for each note. Its plan was logged when it began."""
    advice = advise(run)
    told = " ".join(part for part in (advice.what, advice.why, advice.next) if part)
    return [f"BWCache {run.mode}: {told}".replace(" :", ":"), *(f"BWCache: {note}" for note in dict.fromkeys(advice.notes))]


def plan_line(run: RunReport) -> str:
    """The plan of a run in one line, as text that the node takes. Empty in modes without one."""
    note = f" ({run.plan_note})" if run.plan_note else ""
    return f"Plan: {run.plan}{note}" if run.plan else ""


def parts_line(run: RunReport) -> str:
    """Errors of picture and sound, where one latent holds both. Empty for one part, and where nothing was measured."""
    worst: dict[str, float] = {}
    for step in run.steps:
        for name, error in step.parts.items():
            worst[name] = max(error, worst.get(name, 0.0))
    told = ", ".join(f"{name} {error:.2g}" for name, error in worst.items())
    return f"Largest error of a forecast: {told}. The worse of them decides." if told else ""


def notice(run: RunReport) -> str:
    """The one thing worth saying below the live view; empty when there is none."""
    if run.faults or run.stopped or run.warnings or run.rivals:
        return [*(f"Broken numbers: {fault}" for fault in run.faults[:1]), *notes(run)][0]
    advice = advise(run) if run.finished else Advice("")
    return f"{advice.why} {advice.next}".strip() if advice.next else ""


def advise(run: RunReport) -> Advice:
    why, what_next = "", ""
    if run.mode == MEASURE:
        why, what_next = measured(run)
    elif run.finished and run.evaluations and not run.stopped:
        why, what_next = (nothing_reused if run.work_ratio == 1.0 else something_reused)(run)
    return Advice(what_happened(run), why, what_next, tuple(notes(run)))


def notes(run: RunReport) -> list[str]:
    """Warnings first. What stopped the cache has a warning of its own, as a rule."""
    rivals = [f"{name} is on the same model: two caches add up their errors. Remove one of them." for name in run.rivals]
    stopped = [f"The cache stopped: {run.stopped}."] if run.stopped and not run.warnings else []
    memory = [f"Memory: {run.placement}."] if run.placement else []
    return [*rivals, *run.warnings, *stopped, *memory, *run.notes]


# --- what happened ---


def what_happened(run: RunReport) -> str:
    """First sentence: how much was computed, and what that saved."""
    if not run.evaluations:
        return passed_by(run)
    unit = "steps" if run.evaluations <= run.steps_total else "model evaluations"
    computed = sum(step.action == "compute" for step in run.steps)
    partial = sum(step.action == "partial" for step in run.steps)
    counted = f"{computed} of {run.evaluations} {unit} were computed" + (f", {partial} in part" if partial else "")
    if not run.finished:
        return f"The run stopped before its end. Until then {counted}."
    if computed == run.evaluations:
        return f"All {computed} {unit} were computed." if computed > 1 else "The only step was computed."
    return ", ".join([counted, *gains(run)]) + "."


def passed_by(run: RunReport) -> str:
    if not run.finished:
        return "The run stopped before its first step."
    if run.warnings:
        return "This run was a plain one."
    return "This run was a plain one: its guider or sampler asks the model past the cache. Leave BWCache Apply out here."


def gains(run: RunReport) -> list[str]:
    """Speed and time saved; none where another cache is on the model, since it may be its work."""
    if run.rivals:
        return []
    estimated = speed(run)
    if estimated is None:
        return [f"{run.work_ratio:.1f}x less work"]
    factor, saved = estimated
    if factor < WORTH_TELLING:
        return ["hardly any time was saved"]
    return [f"about {factor:.1f}x", *([f"about {duration(saved)} saved"] if saved >= LEAST_SAVED else [])]


def speed(run: RunReport) -> tuple[float, float] | None:
    """How many times faster, and seconds saved: estimated from computed steps, and never more than the work saved.

    None where nothing was reused, nothing is known of it, or another cache is on the model.
    """
    if run.speedup is None or run.rivals:
        return None
    factor = min(run.speedup, run.work_ratio)
    return factor, (factor - 1) * run.seconds


def duration(seconds: float) -> str:
    """0.3 s, 12 s, 3:05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02} min"


# --- why, and what next ---


def measured(run: RunReport) -> tuple[str, str]:
    """What a run in mode measure learned, and what one more would bring."""
    if not run.finished:
        return "Nothing was learned from it.", ""
    if run.unlearned:
        return f"Nothing was learned: {run.unlearned}.", ""
    runs = "1 run" if run.measured_runs == 1 else f"{run.measured_runs} runs"
    missing = FULLY_MEASURED - run.measured_runs
    if missing <= 0:
        return f"Measured on {runs}.", "Set mode to forecast: it uses what was measured."
    more = f"{WORDS[missing]} more prompt{'s make' if missing > 1 else ' makes'} the plan better"
    return f"Measured on {runs}: {more}.", "Mode forecast uses what was measured."


def nothing_reused(run: RunReport) -> tuple[str, str]:
    if run.faults:
        return broken(run)
    if run.threshold == 0:
        return "threshold is 0, which turns reuse off.", f"Set threshold to {threshold_for(run):g}."
    return forecast_nothing(run) if run.mode == FORECAST else blocks_nothing(run)


def broken(run: RunReport) -> tuple[str, str]:
    return (
        f"Broken numbers were found ({run.faults[0]}), and what was kept until then was dropped.",
        "If the video is black or noise without BWCache too, the model or its precision is at fault.",
    )


def threshold_for(run: RunReport) -> float:
    """A threshold with which a run such as this one would reuse."""
    if run.mode == FORECAST:
        return ForecastConfig.threshold
    changes = measured_changes(run)
    return suggested_threshold(changes) if changes else BlockConfig.threshold


def forecast_nothing(run: RunReport) -> tuple[str, str]:
    """The plan computes all steps, or it was set aside at each step that it would have reused."""
    aside = set_aside(run)
    if aside:
        return forecast_set_aside(run, aside)
    if run.plan_note and not run.plan_note.startswith("automatic"):
        return "The plan computes every step.", "Take steps out of its text, or set plan to auto."
    if run.speedup_asked <= 1:
        return "speedup is 1, which computes every step.", f"Set speedup to {ForecastConfig.speedup:g}."
    steps = run.steps_total
    if steps <= FEWEST:
        return f"A run of {'one step' if steps < 2 else f'{steps} steps'} has nothing to reuse.", "Leave BWCache Apply out here."
    if steps / run.speedup_asked > steps - 0.5:
        return f"speedup {run.speedup_asked:g} leaves no step of {steps}.", f"Set speedup to {rounded_up(steps / (steps - 1)):g}."
    return "start_step and end_step leave no step to reuse.", "Lower start_step or raise end_step."


def set_aside(run: RunReport) -> list[StepReport]:
    """Evaluations that the plan would have reused."""
    return [step for step in run.steps if step.action == "compute" and step.step not in run.planned]


def forecast_set_aside(run: RunReport, aside: Sequence[StepReport]) -> tuple[str, str]:
    reason = statistics.mode(step.reason for step in aside)
    for word, why, what_next in SET_ASIDE:
        if word in reason:
            return why, what_next
    errors = [step.error for step in run.steps if step.error is not None and math.isfinite(step.error)]
    if errors and max(errors) > run.threshold:
        seen = f"Forecasts were off by up to {max(errors):.2g}, more than threshold {run.threshold:g}."
        return seen, forecast_threshold_advice(run, errors)
    return because(run), "Check start_step and end_step."


def forecast_threshold_advice(run: RunReport, errors: Sequence[float]) -> str:
    """A higher threshold where that is under the default: more would be taking poor forecasts for good."""
    if run.threshold < ForecastConfig.threshold:
        return f"Set threshold to {min(rounded_up(max(errors)), ForecastConfig.threshold):g}."
    return "Use more steps, so that they differ less, or leave BWCache Apply out here."


def blocks_nothing(run: RunReport) -> tuple[str, str]:
    changes = measured_changes(run)
    if changes and min(changes) >= run.threshold:
        why = f"Nothing changed by less than threshold {run.threshold:g}: the smallest change was {min(changes):.2g}."
        return why, block_advice(run)
    return because(run), "Check start_step and end_step."


def because(run: RunReport) -> str:
    reasons = list(dict.fromkeys(step.reason for step in reversed(run.steps) if step.reason))
    return f"Nothing was reused: {', '.join(reasons[:SHOWN_REASONS])}."


def something_reused(run: RunReport) -> tuple[str, str]:
    if run.faults:
        return broken(run)
    why = less_than_planned(run) or time_elsewhere(run)
    if run.mode == FORECAST and whole_steps(run) <= FEW_STEPS:
        return why, "A model made for so few steps needs each of them: leave BWCache Apply out here."
    aside = set_aside(run)
    if run.mode == FORECAST and len(aside) > run.evaluations_reused:
        meant, what_next = forecast_set_aside(run, aside)
        return f"{why} {meant}", what_next
    if run.mode != FORECAST and run.work_ratio < 1 / (1 - LITTLE):
        return why or "That is little.", block_advice(run)
    if run.work_ratio > MUCH:
        return why, "That is much: compare with a run of the same seed without the cache (BWCache Compare)."
    return why, ""


def whole_steps(run: RunReport) -> float:
    """Steps from pure noise to none: more than those of a run over a part of a schedule, as one of two experts has it.

    Infinite for a part of a schedule of added noise, as of an image that is painted over: such parts do not tell.
    """
    whole = run.sigmas[0] > (FULL_NOISE if run.flow else FULL_ADDED) and abs(run.sigmas[-1]) <= ZERO
    if whole:
        return run.steps_total
    return whole_run(run.sigmas) if run.flow else math.inf


def less_than_planned(run: RunReport) -> str:
    aside = set_aside(run) if run.planned else []
    if not aside:
        return ""
    steps = "1 more step than planned was" if len(aside) == 1 else f"{len(aside)} more steps than planned were"
    reason = statistics.mode(step.reason for step in aside)
    if "err by more" in reason:
        reason = f"forecasts were expected to be off by more than threshold {run.threshold:g}"
    return f"{steps} computed: {reason}."


def time_elsewhere(run: RunReport) -> str:
    estimated = speed(run)
    if estimated is None or run.seconds < SHORT or estimated[0] >= SLOWER_THAN_WORK * run.work_ratio:
        return ""
    return (
        f"There was {run.work_ratio:.1f}x less work: the rest of the time goes into what a cache cannot skip, or into moving "
        "weights when memory is short."
    )


def block_advice(run: RunReport) -> str:
    """What to set for more reuse, from what this run measured."""
    changes = measured_changes(run)
    suggested = suggested_threshold(changes) if changes else 0.0
    if run.threshold < suggested <= 1.0:
        return f"Set threshold to {suggested:g}: half of the changes seen were under it."
    if suggested > 1.0:
        return "Its steps are too far apart for this mode: use more steps, or mode forecast."
    return f"Set reuse_interval to {min(2 * max(run.reuse_interval, 1), MOST_INTERVAL)}, or use more steps."


def measured_changes(run: RunReport) -> list[float]:
    """Relative L1 changes that the mode held, or would hold, against its threshold; positive and finite."""
    by_block = [change for step in run.steps for change in step.block_changes.values()]
    changes = by_block if run.mode == PER_BLOCK else [s.change for s in run.steps if s.change is not None]
    return [change for change in changes if change > 0 and math.isfinite(change)]


def suggested_threshold(changes: Sequence[float]) -> float:
    """A threshold that half of the changes seen would have been under."""
    return rounded_up(statistics.median(changes))


def rounded_up(value: float) -> float:
    """The next number of two digits over `value`."""
    rounded = float(f"{value:.2g}")
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return rounded if rounded > value else float(f"{rounded + digit:.2g}")
