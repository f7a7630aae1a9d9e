"""What a cell promises. A cell's workflow runs plainly, switched off, and cached; then the checks compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bwcache_pack.bwcache_core.config import FORECAST

from .cells import Cell
from .combinations import COMBINATIONS
from .desk import Bench, Desk
from .variants import VARIANTS
from .watch import Cached, plain, relative_error

ERROR = {"forecast": 1.25, "paper": 1.25, "per block": 1.25}
"""Most that one reused call may differ from the truth, in thresholds: forecast mode, relative L1 of the model's output;
block modes, of what the model returned, weighted by the step's width. The threshold bounds what was measured before, not
what comes: hence the factor of the block modes."""

DISTANCE = 0.5
"""Most that the latents may end up away from the plain ones: relative L1, in thresholds."""

SEEN = 1e-4
"""Least that a changed input must change in the latents, whose values are of size 1 to 4."""

TURN = 1.25  # the guidance in reused evaluations, where a check turns it


@dataclass
class Run:
    """Latents of one run of a workflow, and what stood in for BWCache Apply."""

    latents: torch.Tensor
    cached: Cached


class Experiment:
    """One cell's workflow in one mode, in all the ways that the checks need. plain: its latents without the cache."""

    def __init__(self, bench: Bench, cell: Cell, mode: str, uncached: torch.Tensor) -> None:
        self.bench, self.cell, self.mode, self.plain = bench, cell, mode, uncached
        self.settings = cell.settings(mode)
        self.limit = self.settings["threshold"]

    def run(self, changed: str = "", off: bool = False, **watching) -> Run:
        switched = {"speedup": 1.0} if self.mode == FORECAST else {"threshold": 0.0}
        cached = Cached({**self.settings, **(switched if off else {})}, **watching)
        return Run(sample(self.bench, self.cell, cached, changed), cached)

    def check(self, thoroughly: bool) -> dict[str, float]:
        """The checks of one mode. Returns what was measured. thoroughly: with all inputs, with guidance, and
        switched off in combinations too."""
        if thoroughly or self.cell.combination == "alone":
            self.check_off()
        cached = self.run(truth=self.cell.judged)
        self.check_reuse(cached)
        self.check_again(cached)
        for name in self.cell.changes if thoroughly else ():
            self.check_input(cached, name)
        for name in self.cell.live if self.mode != FORECAST else ():
            self.check_live_input(cached, name)
        if thoroughly and self.guided:
            self.check_guidance(cached)
        return self.measured(cached)

    @property
    def guided(self) -> bool:
        """Whether guidance has a say in reused steps."""
        here = COMBINATIONS[self.cell.combination].guided and self.mode not in self.cell.unreused
        return here and Desk(self.bench, VARIANTS[self.cell.variant].checkpoint, plain).cfg != 1.0

    def check_off(self) -> None:
        """a. Speedup 1 or threshold 0 is the plain model, bit for bit."""
        off = self.run(off=True)
        assert torch.equal(off.latents, self.plain), f"{self.mode}: switched off, it differs from plain"
        assert all(run.work_ratio == 1.0 for run in off.cached.runs)

    def check_reuse(self, run: Run) -> None:
        """b. Something is reused, and what comes out is as close as the threshold says. e. Nothing is left."""
        reports = run.cached.runs
        assert reports and all(report.finished and not report.faults for report in reports), self.mode
        assert not any(report.stopped for report in reports), [report.stopped for report in reports]
        assert torch.isfinite(run.latents).all(), self.mode
        left_over = run.cached.left_over()
        assert not left_over, f"{self.mode}: left over are {left_over}"
        if self.mode == FORECAST:
            assert not any(report.warnings for report in reports), [report.warnings for report in reports]
            assert run.cached.untouched == run.cached.reused, "something ran that was reported as reused, or did not"
        if self.mode in self.cell.unreused:
            assert torch.equal(run.latents, self.plain), f"{self.mode}: uncached, but not plain"
            assert all(report.work_ratio == 1.0 for report in reports)
            return
        assert all(report.work_ratio > 1.0 for report in reports), f"{self.mode}: nothing was reused"
        measured = self.measured(run)
        assert measured["error"] <= ERROR[self.mode] * self.cell.error, f"{self.mode}: {measured}"
        assert 0.0 < measured["distance"] <= DISTANCE * self.cell.distance, f"{self.mode}: {measured}"

    def check_again(self, run: Run) -> None:
        """d. The same again decides alike, and gives the same."""
        again = self.run()
        assert again.cached.decisions == run.cached.decisions, f"{self.mode}: other decisions"
        assert torch.equal(again.latents, run.latents), f"{self.mode}: other latents"

    def check_input(self, run: Run, name: str) -> None:
        """c. Another prompt, control, sound or reference gives other latents."""
        assert difference(self.run(changed=name).latents, run.latents) > SEEN, f"{self.mode}: {name} does nothing"

    def check_live_input(self, run: Run, name: str) -> None:
        """c. What a model adds after its last block acts in reused steps of block modes, if it changes in those alone."""
        changed = self.run(changed=name, truth=True)
        swapped = self.run(swapped=changed.cached.calls)
        assert difference(swapped.latents, run.latents) > SEEN, f"{self.mode}: {name} does nothing in reused steps"

    def check_guidance(self, run: Run) -> None:
        """c. Guidance acts in reused steps, if it changes in those alone."""
        turned = self.run(turned=run.cached.reused, turn=TURN)
        assert difference(turned.latents, run.latents) > SEEN, f"{self.mode}: guidance does nothing in reused steps"

    def measured(self, run: Run) -> dict[str, float]:
        """error and distance in thresholds; reused, a share of all model calls or block executions."""
        shares = [1.0 - 1.0 / report.work_ratio for report in run.cached.runs]
        return {
            "error": max(run.cached.errors, default=0.0) / self.limit,
            "distance": relative_error(run.latents, self.plain) / self.limit,
            "reused": sum(shares) / len(shares) if shares else 0.0,
        }


def sample(bench: Bench, cell: Cell, insert=plain, changed: str = "") -> torch.Tensor:
    """Latents of a cell's workflow."""
    variant = VARIANTS[cell.variant]
    with torch.inference_mode():
        latents = COMBINATIONS[cell.combination].run(Desk(bench, variant.checkpoint, insert, changed), variant)["samples"]
    parts = latents.unbind() if latents.is_nested else [latents]  # picture and sound
    return torch.cat([part.flatten() for part in parts])


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference; 0.0 means bit-identical."""
    return float((a - b).abs().max())


def check(bench: Bench, cell: Cell) -> dict[str, dict[str, float]]:
    """All checks of a cell in all of its modes. Returns what was measured, by mode."""
    uncached = sample(bench, cell)
    assert torch.isfinite(uncached).all(), "the workflow itself is broken"
    return {
        mode: Experiment(bench, cell, mode, uncached).check(thoroughly=mode == cell.modes[0]) for mode in cell.modes
    }
