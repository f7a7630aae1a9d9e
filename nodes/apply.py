"""The BWCache Apply node."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ..bwcache_core.config import CACHE_DEVICES, CACHE_POINTS, CUSTOM, MODES, PRESETS, BWCacheConfig
from ..bwcache_core.report import RunStats
from .attach import attach
from .events import RunEvents
from .schema import CATEGORY, schema

Stats = io.Custom("BWCACHE_STATS")
SEARCH_ALIASES = ["teacache", "easycache", "magcache", "first block cache", "speed up", "faster", "cache"]
EXPERT = {"advanced": True}  # as extra_dict: the `advanced` argument exists only since ComfyUI 0.10


def adaptive_inputs(defaults: BWCacheConfig) -> list:
    """What the adaptive mode reads."""
    return [
        io.Combo.Input(
            "preset",
            options=[*PRESETS, CUSTOM],
            default=defaults.preset,
            tooltip="adaptive only. quality, balanced, fast: from closest to the uncached video to fastest. "
            "custom takes the tolerance below.",
        ),
        io.Float.Input(
            "tolerance",
            default=defaults.tolerance,
            min=0.0,
            max=1.0,
            step=0.005,
            round=0.001,
            tooltip="adaptive with preset custom only: error allowed in a forecast, as a share of its size. "
            "Higher is faster and drifts further from the uncached video. 0 turns reuse off.",
        ),
        io.Float.Input(
            "target_speedup",
            default=defaults.target_speedup,
            min=0.0,
            max=10.0,
            step=0.1,
            round=0.01,
            tooltip="adaptive only: speed-up to land on. 2 computes half of the steps, those where it matters "
            "most, and takes no notice of preset and tolerance. Higher is faster and drifts further. 0 = off.",
        ),
    ]


def paper_inputs(defaults: BWCacheConfig) -> list:
    """What the modes of the paper read."""
    return [
        io.Float.Input(
            "threshold",
            default=defaults.threshold,
            min=0.0,
            max=1.0,
            step=0.005,
            round=0.001,
            tooltip="paper and per block only: blocks that changed less than this are reused. Higher is "
            "faster and drifts further from the uncached video. 0 turns reuse off and only measures.",
        ),
        io.Int.Input(
            "reuse_interval",
            default=defaults.reuse_interval,
            min=0,
            max=100,
            tooltip="paper and per block only: steps reused after each computed one. Higher is faster and "
            "drifts further. 0 = 10 % of the steps, at least 1.",
        ),
    ]


def window_inputs(defaults: BWCacheConfig) -> list:
    """Which steps may be reused at all."""
    return [
        io.Int.Input(
            "start_step",
            default=defaults.start_step,
            min=-10_000,
            max=10_000,
            tooltip="First step that may be reused, 0-based within this sampler's run; negative counts from "
            "the end. Higher protects the layout and motion that early steps decide.",
        ),
        io.Int.Input(
            "end_step",
            default=defaults.end_step,
            min=-10_000,
            max=10_000,
            tooltip="Last step that may be reused; negative counts from the end, -1 is the last step. "
            "Higher reuses more of the late steps, which decide fine detail.",
        ),
    ]


def expert_inputs(defaults: BWCacheConfig) -> list:
    """Inputs folded away as advanced, with defaults that fit nearly everybody."""
    return [
        io.Combo.Input(
            "cache_point",
            options=list(CACHE_POINTS),
            default=defaults.cache_point,
            optional=True,
            extra_dict=EXPERT,
            tooltip="adaptive only. output: forecast the model's output, a few MB. features: forecast the "
            "last block's features, hundreds of MB; controls stay live in reused steps. auto: output.",
        ),
        io.Int.Input(
            "order",
            default=defaults.order,
            min=0,
            max=2,
            optional=True,
            extra_dict=EXPERT,
            tooltip="adaptive only: forecast along a constant (0), a line (1) or a parabola (2). Higher "
            "follows curved paths further and holds one more tensor per condition.",
        ),
        io.Boolean.Input(
            "corrector",
            default=defaults.corrector,
            optional=True,
            extra_dict=EXPERT,
            tooltip="adaptive with cached output only. On: the first computed step after reused ones also "
            "makes up for what their forecasts missed. Off: they stay as they were.",
        ),
        io.Int.Input(
            "max_reuse",
            default=defaults.max_reuse,
            min=1,
            max=100,
            optional=True,
            extra_dict=EXPERT,
            tooltip="adaptive only: steps reused in a row at most. Higher is faster on smooth stretches.",
        ),
        io.Int.Input(
            "monitor_every",
            default=defaults.monitor_every,
            min=1,
            max=1_000,
            optional=True,
            extra_dict=EXPERT,
            tooltip="Measure every n-th block. Higher costs less memory and sees less. per block measures all.",
        ),
        io.Int.Input(
            "tokens",
            default=defaults.tokens,
            min=1,
            max=4_096,
            optional=True,
            extra_dict=EXPERT,
            tooltip="Tokens sampled per block to measure change. Higher is closer to the full tensors and "
            "costs more memory.",
        ),
        io.Boolean.Input(
            "verbose",
            default=defaults.verbose,
            optional=True,
            extra_dict=EXPERT,
            tooltip="On: log every evaluation and why it was computed or reused. Off: one line per run.",
        ),
    ]


def memory_inputs(defaults: BWCacheConfig) -> list:
    """Where the cache lies and how large it may be: advanced, too."""
    return [
        io.Combo.Input(
            "cache_device",
            options=list(CACHE_DEVICES),
            default=defaults.cache_device,
            optional=True,
            extra_dict=EXPERT,
            tooltip="Where the cache lies. auto: on the GPU if the weights keep their room there, else what takes less "
            "(the output), else host memory. gpu, cpu: there in any case; cpu copies at every step.",
        ),
        io.Int.Input(
            "max_cache_mb",
            default=defaults.max_cache_mb,
            min=0,
            max=1_000_000,
            optional=True,
            extra_dict=EXPERT,
            tooltip="Most that the cache may hold, in MiB. A run that would need more caches the output instead of "
            "features, where it can, or nothing, and says so. 0 = no limit but what is free.",
        ),
    ]


def settings_inputs() -> list:
    """Inputs for all of BWCacheConfig, as every node that attaches a cache has them."""
    defaults = BWCacheConfig()
    mode = io.Combo.Input(
        "mode",
        options=list(MODES),
        default=defaults.mode,
        tooltip="adaptive: measures the error of its own forecasts and reuses while it is small. "
        "paper: replays all blocks while they hardly change. "
        "per block: each block is judged by its own change; holds far more memory.",
    )
    # Saved workflows count the inputs: new ones go to the end.
    rest = [adaptive_inputs, paper_inputs, window_inputs, expert_inputs, memory_inputs]
    return [mode, *(entry for inputs in rest for entry in inputs(defaults))]


class BWCacheApply(io.ComfyNode):
    """Returns a clone of the model that caches, and a stats handle that fills while sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheApply",
            display_name="BWCache Apply",
            category=CATEGORY,
            description="Reuses transformer blocks between sampling steps where they hardly change. "
            "Put it between the model loader (after LoRAs) and the sampler. Wan 2.2: one node per expert.",
            search_aliases=SEARCH_ALIASES,
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Wan, HunyuanVideo or other supported model. It is cloned, never changed."
                ),
                *settings_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the cache attached."),
                Stats.Output(display_name="stats", tooltip="Fills while sampling. Connect it to BWCache Report."),
            ],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # each node its own stats and events: equal nodes would share one cached output
        )

    @classmethod
    def execute(cls, model, **settings) -> io.NodeOutput:
        stats = RunStats()
        watch = partial(RunEvents, cls.hidden.unique_id)
        return io.NodeOutput(attach(model, BWCacheConfig(**settings), stats, watch), stats)
