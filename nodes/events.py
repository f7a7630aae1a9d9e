"""The one event to the browser: `bwcache.step`, to the client that queued the prompt.

One when a run begins, with its plan, then one for each model evaluation. Its fields are listed in docs/events.md.
Steps and evaluations count from 0, as in the report and the inputs. Sending costs nothing where nobody listens,
never waits, and an error in it is logged once and ends the events of that run, not the run.
"""

from __future__ import annotations

import logging
import math
import sys
import uuid
from collections.abc import Sequence
from itertools import groupby

from ..bwcache_core.advice import WORTH_TELLING, notice, speed, verdict
from ..bwcache_core.prospects import Prospects
from ..bwcache_core.report import RunReport, StepReport

EVENT = "bwcache.step"
DIGITS = 4  # of the numbers sent: enough for a chart
MOST_HISTORY = 1_000  # the newest ones: a run has up to 10,000 steps, and an event must stay small
LONGEST_ID = 200

logger = logging.getLogger(__name__)


class RunEvents:
    """Tells the browser about one run of one node. Call it after each evaluation, and with done=True at the end.

    node_id: the qualified id, "12:7" inside a subgraph.
    """

    def __init__(self, node_id: str, report: RunReport) -> None:
        self.node_id = node_id
        self.report = report
        self.run = uuid.uuid4().hex
        self.server = running_server()
        self.client = getattr(self.server, "client_id", None)
        self.workflow = running_workflow(self.server)
        self(False)  # the plan, before the first step

    def __call__(self, done: bool = False) -> None:
        # The last evaluation of a finished run is told by the closing event.
        if self.client is None or (self.report.finished and not done):
            return
        try:
            self.server.send_sync(EVENT, self.payload(done), self.client)
        except Exception as error:  # whatever a server does, sampling goes on
            logger.warning("BWCache: the live view stopped, sampling goes on: %r", error)
            self.client = None

    def payload(self, done: bool) -> dict:
        """The event as plain values; None where there is no number, or none that is finite."""
        report = self.report
        event = {
            "node_id": self.node_id,
            "run": self.run,
            "workflow": self.workflow,
            "model": report.model,
            "mode": report.mode,
            "total_steps": report.steps_total,
            "threshold": rounded(report.threshold),
            "plan": report.plan,
            "planned": ranges(report.planned),
            "plan_note": report.plan_note,
            "block_count": report.block_count,
            "evaluation": evaluation(report.steps[-1], report.block_count) if report.steps else None,
            "evaluations_reused": report.evaluations_reused,
            "speedup": None,
            "seconds_saved": None,
            "cache_bytes": report.cache_bytes,
            "notice": notice(report),
            "done": done,
        }
        return {**event, **ending(report)} if done else event


def ending(report: RunReport) -> dict:
    """What is known of a run when it has ended."""
    factor, saved = (speed(report) if report.finished else None) or (0.0, 0.0)
    told = factor >= WORTH_TELLING
    return {
        "finished": report.finished,
        "speedup": rounded(factor) if told else None,
        "seconds_saved": rounded(saved) if told else None,
        "verdict": verdict(report),
        "history": [evaluation(step, report.block_count) for step in report.steps[-MOST_HISTORY:]],
    }


def evaluation(step: StepReport, block_count: int) -> dict:
    """One evaluation of the model."""
    changes = step.block_changes
    return {
        "evaluation": step.evaluation,
        "step": step.step,
        "sigma": rounded(step.sigma),
        "action": step.action,
        "reason": step.reason,
        "error": rounded(step.error),
        "parts": {name: rounded(error) for name, error in step.parts.items()},
        "jump": rounded(step.jump),
        "judged": rounded(step.judged),
        "limit": rounded(step.limit),
        "change": rounded(step.change),
        "block_changes": [rounded(changes.get(block)) for block in range(block_count)] if changes else [],
        "reused_blocks": ranges(step.reused_blocks),
        "work_run": step.blocks_run if step.blocks_total else step.calls_run,
        "work_total": step.blocks_total or step.calls_total,
        "seconds": rounded(step.seconds),
    }


def plans_payload(plans: Prospects) -> dict:
    """Plans beside what ran, for the view of BWCache Report."""
    strips = [
        {"name": strip.name, "computed": ranges(strip.computes), "errors": [rounded(error) for error in strip.errors]}
        for strip in plans.strips
    ]
    return {"sigmas": [rounded(sigma) for sigma in plans.sigmas], "strips": strips}


def ranges(numbers: Sequence[int]) -> list[list[int]]:
    """Rising numbers as [first, last] pairs: [0, 1, 2, 5] is [[0, 2], [5, 5]]."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), key=lambda at: at[1] - at[0])]
    return [[run[0], run[-1]] for run in runs]


def rounded(value: float | None) -> float | None:
    """The few digits that a chart needs. None for what JSON has no word for."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def running_server():
    """ComfyUI's server if this process runs one. Looked up, not imported: tests and scripts have none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def running_workflow(server) -> str | None:
    """Id of the workflow being executed, so that a browser tells apart its tabs. None if it cannot be known."""
    try:
        [item] = server.prompt_queue.currently_running.values()
        workflow = item[3]["extra_pnginfo"]["workflow"]["id"]
        return workflow if isinstance(workflow, str) and len(workflow) <= LONGEST_ID else None  # a client wrote it
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None
