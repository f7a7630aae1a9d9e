"""The one event to the browser: `bwcache.step`, at most one per model evaluation, to the client that queued the prompt.

Its fields are listed in README.md, section "The event". Sending costs nothing where nobody listens, never waits, and
an error in it is logged once and ends the events of that run, not the run.
"""

from __future__ import annotations

import logging
import math
import sys
import uuid
from itertools import groupby

from ..bwcache_core.report import RunReport, StepReport

EVENT = "bwcache.step"
DIGITS = 4  # of the numbers sent: enough for a chart
MOST_ERRORS, MOST_HISTORY = 20, 1_000  # the newest ones: a run has up to 10,000 steps, and an event must stay small
LONGEST_ID = 200
BEFORE_THE_FIRST = StepReport(-1, -1, 0.0, "compute", "")

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
        last = report.steps[-1] if report.steps else BEFORE_THE_FIRST
        event = {
            "node_id": self.node_id,
            "run": self.run,
            "workflow": self.workflow,
            "model": report.model,
            "mode": report.mode,
            "total_steps": report.steps_total,
            "block_count": report.block_count,
            "threshold": rounded(report.threshold),
            **evaluation(last, report.block_count),
            "evaluations_reused": report.evaluations_reused,
            "speedup": rounded(report.speedup),
            "cache_bytes": report.cache_bytes,
            "warnings": list(report.warnings),
            "errors": report.errors[-MOST_ERRORS:],
            "done": done,
        }
        if done:
            event["finished"] = report.finished
            event["summary"] = report.summary()
            event["history"] = [evaluation(step, report.block_count) for step in report.steps[-MOST_HISTORY:]]
        return event


def evaluation(step: StepReport, block_count: int) -> dict:
    """The part of an event that describes one evaluation. Counts of evaluations and steps are 1-based here."""
    changes = step.block_changes
    return {
        "evaluation": step.evaluation + 1,
        "step": step.step + 1,
        "action": step.action,
        "reason": step.reason,
        "change": rounded(step.change),
        "forecast_error": rounded(step.forecast_errors[-1] if step.forecast_errors else None),
        "judged": rounded(step.judged),
        "limit": rounded(step.limit),
        "blocks_reused": step.blocks_total - step.blocks_run,
        "blocks_total": step.blocks_total,
        "reused": ranges(step.reused_blocks),
        "block_changes": [rounded(changes.get(block)) for block in range(block_count)] if changes else [],
        "seconds": rounded(step.seconds),
    }


def ranges(blocks: list[int]) -> list[list[int]]:
    """Ascending block indices as [first, last] pairs: [0, 1, 2, 5] is [[0, 2], [5, 5]]."""
    runs = [[block for _, block in run] for _, run in groupby(enumerate(blocks), key=lambda at: at[1] - at[0])]
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
