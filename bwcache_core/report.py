"""What a run did, as plain numbers: for the log, for JSON, for nodes and charts. Holds no tensor, gives no advice."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from dataclasses import asdict, dataclass, field, replace

from .planning import Planner

KEPT_RUNS = 8


@dataclass
class StepReport:
    """One model evaluation.

    step: 0-based place in the schedule. action: "compute", "reuse", or "partial" (some of it was reused).
    error: relative L1 error that the forecast had, or would have had, where the truth was computed; None where nothing
    was compared. conditions: what was measured by condition. parts: the same of picture and sound, where one latent
    holds both: the worse of them is the error. jump: how far the latent was from where the last
    evaluation led, as a share of the model's output: fresh noise.
    judged, limit: the number that decided, and what it was held against; None where a rule decided.
    calls_total, calls_run: conditions that were asked for, and those that the model computed.
    fault: what was broken (NaN, infinite). seconds: wall time until the next evaluation began.
    Block modes: change is ARL1 / N, block_changes the same by block, reused_blocks those that ran in no pass.
    """

    evaluation: int
    step: int
    sigma: float
    action: str = "compute"
    reason: str = ""
    judged: float | None = None
    limit: float | None = None
    error: float | None = None
    jump: float | None = None
    conditions: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    calls_run: int = 0
    calls_total: int = 0
    cache_bytes: int = 0
    seconds: float = 0.0
    fault: str = ""
    change: float | None = None
    block_changes: dict[int, float] = field(default_factory=dict)
    reused_blocks: list[int] = field(default_factory=list)
    blocks_run: int = 0
    blocks_total: int = 0


@dataclass
class RunReport:
    """One sampling run.

    threshold: what errors (forecast) or changes (block modes) were held against. stopped: why nothing is cached any
    more. notes: facts that a user may want. warnings: what goes wrong.
    Forecast mode: speedup_asked; plan: the text of the plan; planned: the steps that it computes; plan_note: where it
    comes from.
    Measure mode: measured_runs: how many runs are known now; unlearned: why this one taught nothing.
    planner: makes plans from what was measured for such runs; None where nothing is known. flow: noise is mixed in, not
    added. Neither is in to_dict.
    Block modes: cache_device: where the cache lies; placement: why that is not what was asked for; reserved_bytes: what
    ComfyUI was told that the cache takes of the model's device; estimate_bytes: what it will hold in all, from shapes at
    first, exact after the first evaluation. Blocks are counted per pass: 2 conditions in 2 passes count twice.
    """

    mode: str
    threshold: float
    sigmas: list[float]
    model: str = ""
    speedup_asked: float = 0.0
    plan: str = ""
    planned: list[int] = field(default_factory=list)
    plan_note: str = ""
    measured_runs: int = 0
    unlearned: str = ""
    planner: Planner | None = field(default=None, repr=False, compare=False)
    flow: bool = True
    reuse_interval: int = 0
    block_count: int = 0
    cache_device: str = ""
    placement: str = ""
    reserved_bytes: int = 0
    estimate_bytes: int = 0
    stopped: str = ""
    finished: bool = False
    rivals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    steps: list[StepReport] = field(default_factory=list)

    @property
    def steps_total(self) -> int:
        return max(len(self.sigmas) - 1, 0)

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
    def work_ratio(self) -> float:
        """What the plain model would have run over what ran, in blocks, or in model calls for each condition: the
        speed-up if these were all the cost."""
        blocks = sum(step.blocks_total for step in self.steps)
        total = blocks or sum(step.calls_total for step in self.steps)
        run = sum(step.blocks_run if blocks else step.calls_run for step in self.steps)
        return total / run if run else 1.0

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def plain_seconds(self) -> float | None:
        """What the run would have taken with every evaluation computed: the median of the computed ones for each.

        None before two evaluations were computed; the first is left out, it pays for warm-up.
        """
        computed = [step.seconds for step in self.steps[1:] if step.action == "compute" and step.seconds > 0]
        if not computed:
            return None
        return self.steps[0].seconds + statistics.median(computed) * (self.evaluations - 1)

    @property
    def speedup(self) -> float | None:
        """Estimated: plain_seconds over what the run took. None where nothing was reused, or nothing is known of it."""
        plain = self.plain_seconds
        if plain is None or not self.seconds or self.work_ratio == 1.0:
            return None
        return plain / self.seconds

    @property
    def cache_bytes(self) -> int:
        return max((step.cache_bytes for step in self.steps), default=0)

    @property
    def faults(self) -> list[str]:
        return [f"step {step.step}: {step.fault}" for step in self.steps if step.fault]

    def to_dict(self) -> dict:
        """Every field and figure as plain values. Numbers that are not finite become None: JSON has no NaN."""
        figures = {
            "steps_total": self.steps_total,
            "evaluations": self.evaluations,
            "evaluations_reused": self.evaluations_reused,
            "work_ratio": self.work_ratio,
            "speedup": self.speedup,
            "seconds": self.seconds,
            "cache_bytes": self.cache_bytes,
        }
        told = asdict(replace(self, planner=None))
        del told["planner"], told["flow"]
        return finite_only({**told, **figures})


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
    """Handle that a node passes on before anything ran; it fills while sampling. Keeps the last 8 runs.

    replaced: another cache was attached to the same model after this one. newest: whoever watches the newest run.
    """

    replaced = False
    newest = None

    def __init__(self) -> None:
        self.runs: deque[RunReport] = deque(maxlen=KEPT_RUNS)

    def to_json(self) -> str:
        """All kept runs, oldest first, as a JSON list."""
        return json.dumps([run.to_dict() for run in self.runs], indent=1)
