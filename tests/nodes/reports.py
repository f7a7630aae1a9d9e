"""Reports made by hand for the tests of advice, charts and events."""

from __future__ import annotations

from bwcache_pack.bwcache_core.report import RunReport, StepReport

BLOCKS = 4
CALLS = 2
SECONDS = {"compute": 1.0, "partial": 0.4, "reuse": 0.1}


def step(place: int, action: str = "compute", **fields) -> StepReport:
    """One evaluation of a block mode."""
    run = {"compute": BLOCKS, "partial": 1, "reuse": 0}[action]
    defaults = {"blocks_run": run, "blocks_total": BLOCKS, "seconds": SECONDS[action],
                "reused_blocks": list(range(run, BLOCKS)), "reason": "because"}  # fmt: skip
    return StepReport(place, place, 10.0 - place, action, **{**defaults, **fields})


def call(place: int, action: str = "compute", **fields) -> StepReport:
    """One evaluation of the forecast mode, with guidance."""
    run = {"compute": CALLS, "partial": 1, "reuse": 0}[action]
    defaults = {"calls_run": run, "calls_total": CALLS, "seconds": SECONDS[action], "reason": "the plan"}
    return StepReport(place, place, 10.0 - place, action, **{**defaults, **fields})


def report(*steps: StepReport, steps_total: int = 0, **fields) -> RunReport:
    """A run of mode paper."""
    sigmas = [float(sigma) for sigma in range(steps_total or len(steps), -1, -1)]
    defaults = {"mode": "paper", "threshold": 0.1, "reuse_interval": 2, "block_count": BLOCKS, "sigmas": sigmas,
                "finished": True}  # fmt: skip
    return RunReport(steps=list(steps), **{**defaults, **fields})


def forecast(actions: str, planned: str = "", **fields) -> RunReport:
    """A run of mode forecast. actions, planned: a letter for each step, c, r or p."""
    names = {"c": "compute", "r": "reuse", "p": "partial"}
    steps = [call(place, names[letter]) for place, letter in enumerate(actions)]
    computes = [place for place, letter in enumerate(planned or actions) if letter == "c"]
    defaults = {"mode": "forecast", "threshold": 0.5, "speedup_asked": 2.0, "planned": computes, "plan": "0 2/4",
                "plan_note": "automatic", "block_count": 0, "reuse_interval": 0}  # fmt: skip
    return report(*steps, **{**defaults, **fields})
