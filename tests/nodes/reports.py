"""Reports made by hand for the tests of charts and verdicts."""

from __future__ import annotations

from bwcache_pack.bwcache_core.report import RunReport, StepReport

BLOCKS = 4


def step(place: int, action: str = "compute", **fields) -> StepReport:
    run = {"compute": BLOCKS, "partial": 1, "reuse": 0}[action]
    seconds = {"compute": 1.0, "partial": 0.4, "reuse": 0.1}[action]
    defaults = {"blocks_run": run, "blocks_total": BLOCKS, "seconds": seconds, "reused_blocks": list(range(run, BLOCKS))}
    return StepReport(place, place, 10.0 - place, action, **{"reason": "because", **defaults, **fields})


def report(*steps: StepReport, **fields) -> RunReport:
    defaults = {"mode": "paper", "threshold": 0.1, "reuse_interval": 2, "steps_total": len(steps), "block_count": BLOCKS,
                "sigmas": [10.0, 0.0], "finished": True}
    return RunReport(steps=list(steps), **{**defaults, **fields})
