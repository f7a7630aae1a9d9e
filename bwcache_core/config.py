"""Settings of one BWCache node: frozen, and checked once, here."""

from __future__ import annotations

from dataclasses import dataclass

from .plan import AUTO, PlanError, parse

FORECAST = "forecast"
PAPER = "paper"
PER_BLOCK = "per block"
MEASURE = "measure"
MODES = (FORECAST, PAPER, PER_BLOCK, MEASURE)

GPU = "gpu"
CPU = "cpu"
CACHE_DEVICES = (AUTO, GPU, CPU)


class ConfigError(ValueError):
    """A setting is out of its range. The message says what was found, what is allowed and what to change."""

    __module__ = "builtins"  # ComfyUI shows users the name with its module, and ours is a path


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every mode has. Raises ConfigError for a value outside its bounds.

    Attributes:
        start_step: first step of a run (0-based, negative counts from the end) that may be reused.
        end_step: last step of a run that may be reused, itself included. -1 = the last step.
    """

    start_step: int = 0
    end_step: int = -1

    def __post_init__(self) -> None:
        self._check("start_step", -10_000, 10_000, "0 is the first step of the run")
        self._check("end_step", -10_000, 10_000, "-1 is the last step of the run")
        same_origin = (self.start_step < 0) == (self.end_step < 0)
        if same_origin and self.start_step > self.end_step:
            raise ConfigError(
                f"start_step {self.start_step} is after end_step {self.end_step}, so no step could be reused. "
                "Lower start_step or raise end_step."
            )

    def _check(self, name: str, low: float, high: float, hint: str) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # NaN included
            raise ConfigError(f"{name} is {value}, expected {low} to {high} ({hint}).")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ConfigError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}.")


@dataclass(frozen=True, kw_only=True)
class ForecastConfig(Config):
    """Forecast mode: a plan says which steps compute, the others are foretold from the outputs of computed ones.

    Attributes:
        speedup: all steps over computed ones. 1 computes every step: the output is bit-identical to the plain model's.
        threshold: relative L1 error of a forecast; above it nothing is reused, whatever the plan says.
        plan: "auto", or the text of a plan (plan.py), which then decides instead of `speedup`.
        corrector: computed steps also make up for what the forecasts before them missed.
    """

    speedup: float = 2.0
    threshold: float = 0.5
    plan: str = AUTO
    corrector: bool = True

    mode = FORECAST

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("speedup", 1.0, 10.0, "2 computes half of the steps, 1 computes all")
        self._check("threshold", 0.0, 10.0, "0 turns reuse off, 0.5 is the default")
        try:
            parse(self.plan)
        except PlanError as error:
            raise ConfigError(str(error)) from error

    @property
    def reuses(self) -> bool:
        """False where every step computes."""
        return self.threshold > 0 and (self.plan_given or self.speedup > 1.0)

    @property
    def plan_given(self) -> bool:
        return parse(self.plan) is not None


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Measure mode: no cache, learns a plan's worth from the run. There is nothing to set."""

    mode = MEASURE


@dataclass(frozen=True, kw_only=True)
class BlockConfig(Config):
    """The modes of the paper: blocks are reused, frozen, while they hardly change.

    Attributes:
        mode: "paper" replays the whole stack of blocks, "per block" judges each block alone.
        threshold: relative L1 change (delta in the paper, 0.15 there) under which features count as similar. Higher
            reuses more and drifts further. 0 never reuses.
        reuse_interval: steps served from one computed step (R in the paper). 0 = 10 % of the steps, at least 1.
        monitor_every: the indicator reads every n-th block and the last one. Higher costs less memory and time.
            "per block" reads them all.
        cache_device: where features and residuals are kept: "gpu" is the model's device, "cpu" the host's memory.
            "auto" takes the GPU while ComfyUI need not evict weights for it, else host memory.
        max_cache_mb: most MiB that the cache may hold; more is not cached at all. 0 sets no limit of its own.
    """

    mode: str = PAPER
    threshold: float = 0.15
    reuse_interval: int = 0
    monitor_every: int = 1
    cache_device: str = AUTO
    max_cache_mb: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("mode", (PAPER, PER_BLOCK))
        self._check_choice("cache_device", CACHE_DEVICES)
        self._check("threshold", 0.0, 1.0, "0 turns reuse off, 0.15 is the paper's value")
        self._check("reuse_interval", 0, 100, "0 means 10 % of the steps")
        self._check("monitor_every", 1, 1_000, "1 reads every block")
        self._check("max_cache_mb", 0, 1_000_000, "0 sets no limit")

    @property
    def budget(self) -> int:
        """max_cache_mb in bytes; 0 is no limit."""
        return self.max_cache_mb * 1024 * 1024

    def monitored_blocks(self, block_count: int) -> tuple[int, ...]:
        """Indices of the blocks whose change is measured."""
        if self.mode == PER_BLOCK:
            return tuple(range(block_count))
        return tuple(sorted({*range(0, block_count, self.monitor_every), block_count - 1}))
