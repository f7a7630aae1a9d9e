"""What a run did, as plain numbers: for the log, for JSON, for nodes and charts. Holds no tensor."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from .config import ADAPTIVE, CPU, GPU, PER_BLOCK
from .memory import readable

KEPT_RUNS = 8
PLACES = {GPU: "on the GPU", CPU: "in host memory"}
SHOWN_ERRORS = 20


@dataclass
class StepReport:
    """One model evaluation.

    step: 0-based place in the schedule. action: "compute", "reuse", or "partial" (some blocks reused).
    change: ARL1 / N, None where nothing was compared. conditions: the same by condition. block_changes: by block.
    forecast_errors: relative L1 error a forecast of order 0, 1, ... would have had here.
    judged, limit: the number that decided, and what it was held against; None where a rule decided.
    reused_blocks: indices that did not run in any pass. seconds: wall time until the next evaluation began.
    """

    evaluation: int
    step: int
    sigma: float
    action: str
    reason: str
    judged: float | None = None
    limit: float | None = None
    change: float | None = None
    forecast_errors: list[float] = field(default_factory=list)
    conditions: dict[str, float] = field(default_factory=dict)
    block_changes: dict[int, float] = field(default_factory=dict)
    reused_blocks: list[int] = field(default_factory=list)
    blocks_run: int = 0
    blocks_total: int = 0
    cache_bytes: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass
class RunReport:
    """One sampling run. blocks are counted per pass of the model: 2 conditions in 2 passes count twice.

    cache_point, cache_device: what is cached and where, as settled before the run; no device: nothing is cached.
    placement: why that is not what was asked for. stopped: why nothing is cached any more. reserved_bytes: what ComfyUI
    was told that the cache takes of the model's device. estimate_bytes: what it will hold in all; from shapes at first,
    exact after the first evaluation.
    """

    mode: str
    threshold: float
    reuse_interval: int
    steps_total: int
    block_count: int
    sigmas: list[float]
    model: str = ""
    cache_point: str = ""
    cache_device: str = ""
    placement: str = ""
    stopped: str = ""
    reserved_bytes: int = 0
    estimate_bytes: int = 0
    finished: bool = False
    warnings: list[str] = field(default_factory=list)
    steps: list[StepReport] = field(default_factory=list)

    @property
    def evaluations(self) -> int:
        return len(self.steps)

    @property
    def evaluations_reused(self) -> int:
        return sum(step.action == "reuse" for step in self.steps)

    @property
    def blocks_total(self) -> int:
        return sum(step.blocks_total for step in self.steps)

    @property
    def blocks_reused(self) -> int:
        return self.blocks_total - sum(step.blocks_run for step in self.steps)

    @property
    def bypassed(self) -> str:
        """Why no model call came by the cache, if none did: then nothing was measured, and nothing changed."""
        if not self.evaluations or self.blocks_total:
            return ""
        return "the sampler calls the model past the cache, as autoregressive sampling does: this run is a plain one"

    @property
    def block_ratio(self) -> float:
        """Block executions of the plain model over those of this run: the speed-up if blocks were all the cost."""
        run = self.blocks_total - self.blocks_reused
        return self.blocks_total / run if run else 1.0

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def speedup(self) -> float | None:
        """Measured: what all evaluations would take at the median of the computed ones, over what they took.

        None before two evaluations were computed; the first is left out, it pays for warm-up.
        """
        computed = [step.seconds for step in self.steps[1:] if step.action == "compute" and step.seconds > 0]
        if not computed:
            return None
        rest = sum(step.seconds for step in self.steps[1:])
        return statistics.median(computed) * (self.evaluations - 1) / rest

    @property
    def cache_bytes(self) -> int:
        return max((step.cache_bytes for step in self.steps), default=0)

    @property
    def held(self) -> str:
        """How much was held, of what and where; with the estimate where that was another number."""
        what = f" ({self.cache_point} {PLACES[self.cache_device]})" if self.cache_device else ""
        held, estimate = readable(self.cache_bytes), readable(self.estimate_bytes)
        return f"{held} held{what}" + (f", {estimate} estimated" if self.cache_device and estimate != held else "")

    @property
    def errors(self) -> list[str]:
        return [f"step {step.step}: {step.error}" for step in self.steps if step.error]

    def summary(self) -> str:
        """One line a user can act on, then why nothing was reused if so, then warnings and errors."""
        speed = f", {self.speedup:.2f}x measured" if self.speedup else ""
        lines = [
            f"BWCache {self.mode}: {self.evaluations_reused} of {self.evaluations} evaluations reused, "
            f"{self.block_ratio:.2f}x fewer block executions{speed}, {self.held}"
            + ("" if self.finished else " (run did not finish)")
        ]
        if self.placement:
            lines.append(f"Memory: {self.placement}.")
        if self.evaluations and not self.blocks_reused and not self.stopped:
            lines.append(self._why_nothing_was_reused())
        errors = self.errors
        if len(errors) > SHOWN_ERRORS:
            errors = [*errors[:SHOWN_ERRORS], f"and {len(errors) - SHOWN_ERRORS} more errors"]
        return "\n".join(lines + self.warnings + errors)

    def _why_nothing_was_reused(self) -> str:
        if self.bypassed:
            return f"Nothing was reused: {self.bypassed}."
        setting, measure = ("tolerance", "forecast error") if self.mode == ADAPTIVE else ("threshold", "change")
        if self.threshold == 0:
            return f"Nothing was reused: {setting} is 0. Raise it to reuse."
        numbers = self._numbers_judged()
        if numbers and min(numbers) >= self.threshold:
            suggested = suggested_threshold(numbers)
            advice = f"Try a {setting} of {suggested:g}." if suggested <= 1 else "Its steps are too far apart."
            return (
                f"Nothing was reused: {setting} {self.threshold:g} is under the smallest {measure} seen, "
                f"{min(numbers):.4f}. {advice}"
            )
        reasons = {step.reason: None for step in reversed(self.steps)}
        return "Nothing was reused: " + ", ".join(list(reasons)[:3]) + "."

    def _numbers_judged(self) -> list[float]:
        """What this mode held against the threshold."""
        if self.mode == PER_BLOCK:
            return [change for step in self.steps for change in step.block_changes.values()]
        judged = [step.judged if self.mode == ADAPTIVE else step.change for step in self.steps]
        return [number for number in judged if number is not None]

    def to_dict(self) -> dict:
        """Every field and figure as plain values. Numbers that are not finite become None: JSON has no NaN."""
        figures = {
            "evaluations": self.evaluations,
            "evaluations_reused": self.evaluations_reused,
            "blocks_total": self.blocks_total,
            "blocks_reused": self.blocks_reused,
            "block_ratio": self.block_ratio,
            "speedup": self.speedup,
            "seconds": self.seconds,
            "cache_bytes": self.cache_bytes,
        }
        return finite_only({**asdict(self), **figures})


def suggested_threshold(changes: Sequence[float]) -> float:
    """A threshold that half of the steps seen would have been under: their median, rounded up to two digits."""
    median = statistics.median(changes)
    digit = 10.0 ** (math.floor(math.log10(median)) - 1)
    rounded = float(f"{median:.2g}")
    return rounded if rounded > median else float(f"{rounded + digit:.2g}")


def finite_only(value):
    """Copy of plain data with None for NaN and infinities."""
    if isinstance(value, dict):
        return {str(key): finite_only(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_only(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class RunStats:
    """Handle that a node passes on before anything ran; it fills while sampling. Keeps the last 8 runs."""

    def __init__(self) -> None:
        self.runs: deque[RunReport] = deque(maxlen=KEPT_RUNS)

    def to_json(self) -> str:
        """All kept runs, oldest first, as a JSON list."""
        return json.dumps([run.to_dict() for run in self.runs], indent=1)
