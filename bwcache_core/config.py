"""Settings of one BWCache node: frozen, and checked once, here."""

from __future__ import annotations

from dataclasses import dataclass

ADAPTIVE = "adaptive"
PAPER = "paper"
PER_BLOCK = "per block"
MODES = (ADAPTIVE, PAPER, PER_BLOCK)

CUSTOM = "custom"
PRESETS = {"quality": 0.008, "balanced": 0.03, "fast": 0.06}  # tolerance of adaptive; measured: benchmarks/NOTES.md

FEATURES = "features"
OUTPUT = "output"
AUTO = "auto"
CACHE_POINTS = (AUTO, FEATURES, OUTPUT)

GPU = "gpu"
CPU = "cpu"
CACHE_DEVICES = (AUTO, GPU, CPU)


class ConfigError(ValueError):
    """A setting is out of its range. The message says what was found, what is allowed and what to change."""


@dataclass(frozen=True)
class BWCacheConfig:
    """What the user chose. Raises ConfigError for a value outside its bounds.

    Attributes:
        mode: how reuse is decided. "adaptive" measures the error of its own forecasts, "paper" replays the whole
            stack of blocks while it hardly changes, "per block" judges each block alone.
        preset: tolerance of adaptive by name; "custom" takes `tolerance`.
        tolerance: adaptive: relative L1 error allowed in a forecast. Higher is faster and drifts further. 0 never
            reuses, and the output is bit-identical to the plain model.
        corrector: adaptive with the output cached: the first computed step after reused ones also makes up for what
            their forecasts missed.
        target_speedup: adaptive: all over computed evaluations to land on, whatever tolerance that takes. 0 is off.
        max_reuse: adaptive: evaluations reused in a row at most.
        order: adaptive: degree of the forecast at most; 0 frozen, 1 linear, 2 quadratic.
        damping: adaptive: how far a forecast goes from the newest features to the polynomial; 0 frozen, 1 all the way.
            Outputs of a guided model are noisy slopes, and going all the way overshoots (benchmarks/NOTES.md).
        cache_point: adaptive: what is forecast. "output" of the model takes a few MB; "features" of the last block
            take hundreds, and what controls add after the last block stays live in reused steps. "auto" is "output".
        cache_device: where features, outputs and residuals are kept: "gpu" is the model's device, "cpu" the host's
            memory. "auto" takes the GPU while ComfyUI need not evict weights for it; else it caches less (adaptive: the
            output), else it takes host memory (placement.py).
        max_cache_mb: most MiB that the cache may hold; more is not cached at all. 0 sets no limit of its own.
        threshold: paper and per block: relative L1 change (delta in the paper, 0.15 there) under which features count
            as similar. Higher reuses more and drifts further. 0 never reuses.
        reuse_interval: steps served from one computed step (R in the paper). 0 = 10 % of the steps, at least 1.
            Higher is faster and drifts further.
        start_step: first step of a run (0-based, negative counts from the end) that may be reused.
        end_step: last step of a run that may be reused, itself included. -1 = the last step.
        monitor_every: the indicator reads every n-th block and the last one. Higher costs less memory and time.
        tokens: tokens sampled per block for the indicator. Higher follows the full tensors more closely.
        verbose: log every evaluation, not only the summary of the run.
    """

    mode: str = ADAPTIVE
    preset: str = "balanced"
    tolerance: float = 0.05
    target_speedup: float = 0.0
    max_reuse: int = 6
    order: int = 1
    damping: float = 0.5
    cache_point: str = AUTO
    cache_device: str = AUTO
    max_cache_mb: int = 0
    corrector: bool = True
    threshold: float = 0.15
    reuse_interval: int = 0
    start_step: int = 0
    end_step: int = -1
    monitor_every: int = 1
    tokens: int = 256
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode is {self.mode!r}, expected one of {', '.join(MODES)}.")
        if self.preset not in (*PRESETS, CUSTOM):
            raise ConfigError(f"preset is {self.preset!r}, expected one of {', '.join((*PRESETS, CUSTOM))}.")
        if self.cache_point not in CACHE_POINTS:
            raise ConfigError(f"cache_point is {self.cache_point!r}, expected one of {', '.join(CACHE_POINTS)}.")
        if self.cache_device not in CACHE_DEVICES:
            raise ConfigError(f"cache_device is {self.cache_device!r}, expected one of {', '.join(CACHE_DEVICES)}.")
        self._check_range("max_cache_mb", 0, 1_000_000, "0 sets no limit")
        self._check_range("tolerance", 0.0, 1.0, "0 turns reuse off")
        self._check_range("target_speedup", 0.0, 10.0, "0 is off, 2 computes half of the steps")
        self._check_range("max_reuse", 1, 100, "6 is the default")
        self._check_range("damping", 0.0, 1.0, "0.5 is the default")
        self._check_range("order", 0, 2, "0 frozen, 1 linear, 2 quadratic")
        self._check_range("threshold", 0.0, 1.0, "0 turns reuse off, 0.15 is the paper's value")
        self._check_range("reuse_interval", 0, 100, "0 means 10 % of the steps")
        self._check_range("start_step", -10_000, 10_000, "0 is the first step of the run")
        self._check_range("end_step", -10_000, 10_000, "-1 is the last step of the run")
        self._check_range("monitor_every", 1, 1_000, "1 reads every block")
        self._check_range("tokens", 1, 4_096, "256 is the default")
        same_origin = (self.start_step < 0) == (self.end_step < 0)
        if same_origin and self.start_step > self.end_step:
            raise ConfigError(
                f"start_step {self.start_step} is after end_step {self.end_step}, so no step could be reused. "
                "Lower start_step or raise end_step."
            )

    def _check_range(self, name: str, low: float, high: float, hint: str) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # NaN included
            raise ConfigError(f"{name} is {value}, expected {low} to {high} ({hint}).")

    @property
    def limit(self) -> float:
        """The number that this mode holds its measurements against."""
        if self.mode != ADAPTIVE:
            return self.threshold
        return PRESETS.get(self.preset, self.tolerance)

    @property
    def forecast_order(self) -> int:
        """Degree of the forecasts that this mode serves, at most."""
        return self.order if self.mode == ADAPTIVE else 0

    @property
    def budget(self) -> int:
        """max_cache_mb in bytes; 0 is no limit."""
        return self.max_cache_mb * 1024 * 1024

    @property
    def caches_output(self) -> bool:
        """True where the model's output is forecast, False where block features are."""
        return self.mode == ADAPTIVE and self.cache_point != FEATURES

    def monitored_blocks(self, block_count: int) -> tuple[int, ...]:
        """Indices of the blocks whose change is measured: none where only the output is judged, all in "per block"."""
        if self.caches_output:
            return ()
        if self.mode == PER_BLOCK:
            return tuple(range(block_count))
        chosen = set(range(0, block_count, self.monitor_every)) | {block_count - 1}
        return tuple(sorted(chosen))
