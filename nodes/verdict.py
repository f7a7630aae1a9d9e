"""What a run means in plain words, and what to try next. Pure functions of a RunReport."""

from __future__ import annotations

import math

from ..bwcache_core.adaptive import TAIL, WARMUP
from ..bwcache_core.config import ADAPTIVE, PRESETS
from ..bwcache_core.report import RunReport, suggested_threshold

LITTLE = 0.15  # share of block executions; under it the cache is hardly worth its memory
MUCH = 0.6  # over it, look at the result before trusting the setting
SLOWER_THAN_BLOCKS = 0.75  # of the ratio of blocks: the rest of the time is spent elsewhere


def verdict(run: RunReport) -> str:
    """One or more sentences: what happened, why, and what to try."""
    sentences = [outcome(run)]
    if run.errors:
        sentences.append(
            f"Broken numbers were found ({run.errors[0]}), and everything held was dropped. If the video is black or "
            "noise without BWCache too, the model or its precision is at fault."
        )
    elif run.evaluations and not run.blocks_reused:
        sentences += [] if run.stopped else [nothing_reused(run)]  # a warning says why it was stopped
    elif run.blocks_total and run.blocks_reused < LITTLE * run.blocks_total:
        sentences.append(f"That is little. {more_reuse(run)}")
    elif run.blocks_reused > MUCH * run.blocks_total:
        sentences.append("That is much: compare with a run of the same seed without the cache (BWCache Compare).")
    if run.speedup and run.blocks_reused and run.speedup < SLOWER_THAN_BLOCKS * run.block_ratio:
        sentences.append(
            f"Blocks would allow {run.block_ratio:.1f}x: the rest of the time goes into work that a cache cannot skip, "
            "or into moving weights when memory is short."
        )
    if run.placement:
        sentences.append(f"Memory: {run.placement}.")
    return " ".join([*sentences, *run.warnings])


def outcome(run: RunReport) -> str:
    """First sentence: how much was reused and what it gained."""
    if not run.evaluations:
        return "The run made no model evaluation, so there is nothing to report."
    unit = "steps" if run.evaluations <= run.steps_total else "model evaluations"
    skipped = f"{run.evaluations_reused} of {run.evaluations} {unit} were reused"
    partial = sum(step.action == "partial" for step in run.steps)
    if partial:
        skipped += f" and {partial} in part"
    if not run.finished:
        return f"The run stopped before its end; until then {skipped}."
    if not run.blocks_reused:
        return f"{skipped}: no time was saved."
    gain = f"{run.speedup:.1f}x faster, measured" if run.speedup else f"{run.block_ratio:.1f}x fewer block executions"
    return f"{skipped}: {gain}."


def nothing_reused(run: RunReport) -> str:
    """Why nothing was reused, and what to change."""
    if run.bypassed:
        return f"Nothing was reused because {run.bypassed}. Leave BWCache Apply out here."
    name = limit_name(run)
    if run.threshold == 0 and not any(step.limit for step in run.steps):
        return f"Nothing was reused because {name} is 0, which only measures. {more_reuse(run)}"
    shortest = WARMUP + TAIL
    if run.mode == ADAPTIVE and run.evaluations <= shortest:
        return (
            f"Nothing was reused because the first {WARMUP} steps and the last {TAIL} always compute, and this run has "
            f"{run.steps_total}. Use more steps, or leave the cache out."
        )
    smallest = smallest_measured(run)
    if smallest is not None and smallest >= run.threshold:
        return (
            f"Nothing was reused because no step stayed under {name} {run.threshold:g}: the smallest "
            f"{'predicted error' if run.mode == ADAPTIVE else 'change'} was {smallest:.3g}. {more_reuse(run)}"
        )
    reasons = list(dict.fromkeys(step.reason for step in reversed(run.steps)))
    return f"Nothing was reused because of: {', '.join(reasons[:3])}. Check start_step and end_step."


def more_reuse(run: RunReport) -> str:
    """What to set for more reuse, from what this run measured."""
    if run.mode == ADAPTIVE:
        slower = {limit: name for name, limit in PRESETS.items()}
        following = [limit for limit in sorted(slower) if limit > run.threshold]
        smallest = smallest_measured(run) or 0.0
        fitting = next((limit for limit in following if limit > smallest), None)
        if fitting is not None:
            return f"Try preset {slower[fitting]}, or more steps."
        return f"Try preset custom with a tolerance over {max(smallest, run.threshold):.2g}, or more steps."
    changes = measured_changes(run)
    if changes and suggested_threshold(changes) <= 1.0 and suggested_threshold(changes) > run.threshold:
        return f"Try a threshold of {suggested_threshold(changes):g}: half of the changes seen were under it."
    return "Try a higher reuse_interval, or more steps: what could be reused is limited by the interval and the tail."


def limit_name(run: RunReport) -> str:
    return "tolerance" if run.mode == ADAPTIVE else "threshold"


def measured_changes(run: RunReport) -> list[float]:
    """Relative L1 changes that the mode held, or would hold, against its threshold; positive and finite."""
    by_block = [change for step in run.steps for change in step.block_changes.values()]
    changes = by_block if run.mode == "per block" else [s.change for s in run.steps if s.change is not None]
    return [change for change in changes if change > 0 and math.isfinite(change)]


def smallest_measured(run: RunReport) -> float | None:
    """The smallest number that was, or would have been, held against the limit. None if nothing was measured."""
    if run.mode == ADAPTIVE:
        return min((step.judged for step in run.steps if step.judged is not None), default=None)
    return min(measured_changes(run), default=None)
