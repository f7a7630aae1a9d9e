"""Inputs of the nodes that attach a cache, and the settings that they make.

`mode` is a DynamicCombo: only the inputs of the mode that is chosen are there, as `mode.speedup` in a prompt. Every one
but the mode may be left out. A fresh node shows four: mode, speedup, threshold and plan. What few need comes with
plan `custom`, since the classic canvas folds nothing away.
"""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io

from ..bwcache_core.config import (
    CACHE_DEVICES,
    FORECAST,
    MEASURE,
    MODES,
    PAPER,
    PER_BLOCK,
    BlockConfig,
    Config,
    ConfigError,
    ForecastConfig,
    MeasureConfig,
)
from ..bwcache_core.plan import AUTO
from ..bwcache_core.published_plans import LISTS

CUSTOM = "custom"
PUBLISHED = "published"
PLANS = (AUTO, PUBLISHED, CUSTOM)
WORKER_MODES = tuple(mode for mode in MODES if mode != MEASURE)  # where several processes sample one video
EXPERT = {"advanced": True}  # as extra_dict: the `advanced` argument exists only since ComfyUI 0.10
FARTHEST = 10_000  # steps


def settings_inputs(modes: Sequence[str] = MODES) -> list:
    """The mode, with the inputs of each."""
    options = [
        io.DynamicCombo.Option(FORECAST, forecast_inputs(ForecastConfig(), measured=MEASURE in modes)),
        io.DynamicCombo.Option(PAPER, block_inputs(BlockConfig(), paper=True)),
        io.DynamicCombo.Option(PER_BLOCK, block_inputs(BlockConfig(mode=PER_BLOCK), paper=False)),
        io.DynamicCombo.Option(MEASURE, []),
    ]
    tooltip = (
        "forecast: a plan says which steps are computed, the others are foretold. For any model. "
        "paper: the published method, replays all blocks while they hardly change. "
        "per block: each block is judged by its own change; holds far more memory."
    )
    tooltip += " measure: no cache; learns from the run which steps this model needs, for forecast." if MEASURE in modes else ""
    options = [option for option in options if option.key in modes]
    return [io.DynamicCombo.Input("mode", options=options, tooltip=tooltip)]


def forecast_inputs(defaults: ForecastConfig, measured: bool) -> list:
    """measured: whether mode measure is offered, whose plans are used then."""
    learned = ", by what BWCache Calibrate tried or mode measure learned" if measured else ""
    plan = io.DynamicCombo.Input(
        "plan",
        options=[
            io.DynamicCombo.Option(AUTO, []),
            io.DynamicCombo.Option(PUBLISHED, published_inputs()),
            io.DynamicCombo.Option(CUSTOM, custom_inputs(defaults)),
        ],
        optional=True,
        tooltip=f"Which steps are computed. auto: chosen for the speedup{learned}. published: "
        "lists that others found on large models. custom: the steps, the window in which steps may be reused, and the "
        "corrector are yours to set.",
    )
    speedup = number(
        "speedup", defaults.speedup, 1.0, 10.0, 0.1,
        "All steps over computed steps: 2 computes half of them. Higher is faster and drifts further from the uncached "
        "video. 1 computes all: the cache is off, bit for bit.",
    )  # fmt: skip
    return [speedup, threshold_input(defaults.threshold, 10.0, 0.05), plan]


def threshold_input(default: float, most: float, step: float):
    """Of every mode: translations know an input by its name alone, so the text is one."""
    return number(
        "threshold", default, 0.0, most, step,
        "Reuse only under it. forecast: the error of the forecasts, measured at computed steps. paper, per block: the "
        "change of the blocks. Higher reuses more and drifts further from the uncached video. 0 turns reuse off.",
    )  # fmt: skip


def published_inputs() -> list:
    lists = io.Combo.Input(
        "list", options=[known.name for known in LISTS], optional=True,
        tooltip="Steps that were found by trying on this model's weights: which model, by which method, how many of how many "
        "steps. For another number of steps or shift it is fitted. speedup does not count.",
    )  # fmt: skip
    return [lists]


def custom_inputs(defaults: ForecastConfig) -> list:
    steps = io.String.Input(
        "steps", default=defaults.plan, optional=True,
        tooltip="The steps to compute, then the number of steps they are meant for: 0-3 5 8 12/20. BWCache Report gives "
        "the plan of a run in this form. With a plan here, speedup does not count. auto: chosen for the speedup.",
    )  # fmt: skip
    corrector = io.Boolean.Input(
        "corrector", default=defaults.corrector, optional=True,
        tooltip="On: computed steps also make up for what the forecasts before them missed, where the sampler is known. "
        "Off: they do not.",
    )  # fmt: skip
    return [steps, *window_inputs(defaults), corrector]


def block_inputs(defaults: BlockConfig, paper: bool) -> list:
    interval = whole(
        "reuse_interval", defaults.reuse_interval, 0, 100,
        "Steps reused after each computed one. Higher is faster and drifts further. 0 = 10 % of the steps, at least 1.",
    )  # fmt: skip
    monitor = whole(
        "monitor_every", defaults.monitor_every, 1, 1_000,
        "The change of every n-th block is measured. Higher costs less memory and sees less.", EXPERT,
    )  # fmt: skip
    rest = [monitor] if paper else []
    threshold = threshold_input(defaults.threshold, 1.0, 0.005)
    return [threshold, interval, *window_inputs(defaults), *rest, *memory_inputs(defaults)]


def window_inputs(defaults: Config) -> list:
    """Which steps may be reused at all."""
    start = whole(
        "start_step", defaults.start_step, -FARTHEST, FARTHEST,
        "First step that may be reused. Steps count from 0 in this sampler's run; negative ones count from its end. Higher "
        "protects the layout and motion that early steps decide.",
    )  # fmt: skip
    end = whole(
        "end_step", defaults.end_step, -FARTHEST, FARTHEST,
        "Last step that may be reused. -1 is the last of the run. Lower protects the fine detail that late steps decide.",
    )  # fmt: skip
    return [start, end]


def memory_inputs(defaults: BlockConfig) -> list:
    device = io.Combo.Input(
        "cache_device", options=list(CACHE_DEVICES), default=defaults.cache_device, optional=True, extra_dict=EXPERT,
        tooltip="Where the cache lies. auto: on the GPU if the weights keep their room there, else in host memory. "
        "gpu, cpu: there in any case; cpu copies at every step.",
    )  # fmt: skip
    limit = whole(
        "max_cache_mb", defaults.max_cache_mb, 0, 1_000_000,
        "Most that the cache may hold, in MiB. A run that would need more is not cached, and says so. 0 = no limit but "
        "what is free.", EXPERT,
    )  # fmt: skip
    return [device, limit]


def number(name: str, default: float, low: float, high: float, step: float, tooltip: str):
    """An optional number with a widget."""
    return io.Float.Input(
        name, default=default, min=low, max=high, step=step, round=0.001, optional=True, tooltip=tooltip
    )


def whole(name: str, default: int, low: int, high: int, tooltip: str, extra: dict | None = None):
    """An optional whole number with a widget."""
    return io.Int.Input(name, default=default, min=low, max=high, optional=True, extra_dict=extra, tooltip=tooltip)


def config_of(mode: dict | None) -> Config | MeasureConfig:
    """Settings from what a node's `mode` came as: nested, None where a value was left out. Raises ConfigError."""
    given = filled(mode)
    name = given.pop("mode", FORECAST)
    if name == MEASURE:
        return MeasureConfig()
    if name != FORECAST:
        return BlockConfig(mode=name, **given)
    custom = filled(given.pop("plan", None))
    custom.pop("plan", None)
    steps = custom.pop("list", "") or custom.pop("steps", "").strip()
    return ForecastConfig(**given, plan=steps or AUTO, **custom)


def filled(values: dict | None) -> dict:
    """What is there of the inputs of a DynamicCombo."""
    return {name: value for name, value in (values or {}).items() if value is not None}


def check_choices(inputs: dict, modes: Sequence[str] = MODES) -> None:
    """Raises ConfigError for a choice that is not offered: ComfyUI leaves it out with all that belongs to it."""
    for name, choices in (("mode", modes), ("mode.plan", PLANS)):
        value = inputs.get(name, choices[0])
        if isinstance(value, str) and value not in choices:
            raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(choices)}.")


def check(mode: dict | None) -> bool:
    """For validate_inputs, before a model is loaded. Raises ConfigError: a text that is returned would be shown once for
    every input of the node."""
    try:
        config_of(mode)
    except TypeError:  # a word for a number: ComfyUI has a text for that
        pass
    return True
