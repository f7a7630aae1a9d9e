"""The BWCache Apply node."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ..bwcache_core.report import RunReport, RunStats
from .attach import KEY, OUTER_SAMPLE, attach
from .events import RunEvents
from .inputs import check, check_choices, config_of, settings_inputs
from .schema import CATEGORY, schema

Stats = io.Custom("BWCACHE_STATS")
SEARCH_ALIASES = [
    "teacache", "easycache", "magcache", "first block cache", "cache-dit", "taylorseer", "wavespeed", "cache", "faster",
    "speed up", "speed up video", "accelerate", "skip steps",
]  # fmt: skip


class BWCacheApply(io.ComfyNode):
    """Returns a clone of the model that caches, and a stats handle that fills while sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheApply",
            display_name="BWCache Apply",
            category=CATEGORY,
            description="Makes sampling faster: computes only some of the steps and foretells the others. Put it between "
            "the model loader (after LoRAs) and the sampler. Wan 2.2 14B: one node for each expert.",
            search_aliases=SEARCH_ALIASES,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Any model. It is cloned, never changed. paper and per block need a transformer that they know.",
                ),
                *settings_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the cache attached."),
                Stats.Output(display_name="stats", tooltip="Fills while sampling. Connect it to BWCache Report."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            not_idempotent=True,  # each node its own stats and events: equal nodes would share one cached output
        )

    @classmethod
    def validate_inputs(cls, mode: dict | None = None, **others) -> bool:
        return check(mode)

    @classmethod
    def execute(cls, model, mode: dict | None = None) -> io.NodeOutput:
        node_id = cls.hidden.unique_id
        check_choices(inputs_of(cls.hidden.dynprompt, node_id))
        stats = RunStats()
        watch = partial(watched, stats, display_id(cls.hidden.dynprompt, node_id))
        cached = attach(model, config_of(mode), stats, watch)
        for earlier in stats_of(model):
            earlier.replaced = True
        for wrapper in wrappers_of(cached):
            wrapper.stats = stats
        return io.NodeOutput(cached, stats)


def watched(stats: RunStats, node_id: str, report: RunReport) -> RunEvents:
    """Tells the browser of a run. The stats keep it: a page that is opened later hears of the run from BWCache Report."""
    stats.newest = RunEvents(node_id, report)
    return stats.newest


def wrappers_of(model) -> list:
    """Our own wrappers of whole samplings on a model."""
    return model.wrappers.get(OUTER_SAMPLE, {}).get(KEY, [])


def stats_of(model) -> list[RunStats]:
    """Stats of a cache that a model had from another BWCache Apply before this one."""
    return [wrapper.stats for wrapper in wrappers_of(model) if hasattr(wrapper, "stats")]


def inputs_of(dynprompt, node_id: str) -> dict:
    """A node's inputs as the prompt has them."""
    return dynprompt.get_node(node_id)["inputs"] if dynprompt else {}


def display_id(dynprompt, node_id: str) -> str:
    """The node that the browser shows: inside a loop a node runs under ids such as 12.0.0.7."""
    return dynprompt.get_display_node_id(node_id) if dynprompt else node_id
