"""The BWCache Report node."""

from __future__ import annotations

import logging

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw

from ..bwcache_core.advice import parts_line, plan_line, verdict
from ..bwcache_core.experts import computed, evaluations, factor, together
from ..bwcache_core.paper.memory import readable
from ..bwcache_core.prospects import Prospects, prospects
from ..bwcache_core.report import RunReport, RunStats
from .apply import Stats
from .events import plans_payload
from .preview import shown
from .schema import CATEGORY, schema

NO_CACHE = "No cache on this run: BWCache Apply is bypassed, or its stats are not connected."
NOTHING_YET = "No run yet. Connect passthrough to something made by the sampler, so that this node runs after it."
REPLACED = "No run yet. Another BWCache Apply on the same model took the place of this one: connect its stats instead."
NO_CHARTS = "Charts need matplotlib: python -m pip install matplotlib, with ComfyUI's Python."
BLANK = (1200, 570)  # as large as a chart
CHARTS = 4
NOT_MEASURED = "Nothing was measured for such a run yet:\nuse BWCache Apply in mode measure, or BWCache Calibrate."

logger = logging.getLogger(__name__)


class BWCacheReport(io.ComfyNode):
    """Reads the newest run out of a stats handle. Without one it hands on what comes in, and says so."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheReport",
            display_name="BWCache Report",
            category=CATEGORY,
            description="What the cache did in the last run: in words with one thing to try, as charts, figures, JSON, and "
            "the plan as text. Put it after the sampler.",
            search_aliases=["teacache", "easycache", "cache", "cache statistics", "speed up", "chart"],
            is_output_node=True,
            inputs=[
                io.AnyType.Input(
                    "passthrough", tooltip="Anything made by the sampler, such as its latent. Handed on unchanged: "
                    "it makes this node run after the sampling.",
                ),
                Stats.Input(
                    "stats", optional=True,
                    tooltip="The stats output of BWCache Apply. While that node is bypassed, this one only hands on.",
                ),
                Stats.Input(
                    "other_stats", optional=True,
                    tooltip="For a model of two experts, such as Wan 2.2: the stats of the other one. What both computed and saved "
                    "together is told as well.",
                ),
            ],
            outputs=[
                io.AnyType.Output(display_name="passthrough", tooltip="What came in."),
                io.String.Output(display_name="verdict", tooltip="The run in plain words, and what to try next."),
                io.String.Output(
                    display_name="plan", tooltip="The plan that ran, as text for BWCache Apply: plan custom, steps. Empty in "
                    "paper and per block.",
                ),
                io.String.Output(display_name="json", tooltip="The last 8 runs, every evaluation of the model, as JSON."),
                io.Int.Output(display_name="computed_steps", tooltip="Evaluations of the model that were computed."),
                io.Int.Output(display_name="total_steps", tooltip="Evaluations of the model in all."),
                io.Float.Output(
                    display_name="speedup", tooltip="Estimated: all evaluations at the time of a computed one, over the "
                    "time they took. 1 where nothing was reused, or where it cannot be told.",
                ),
                io.Image.Output(
                    display_name="error_chart", tooltip="forecast: the error of the forecasts over the steps, with the plan. "
                    "paper, per block: the change of the blocks. Both with the threshold.",
                ),
                io.Image.Output(
                    display_name="reuse_chart", tooltip="Which steps were computed and which reused, and in paper and per "
                    "block which blocks.",
                ),
                io.Image.Output(display_name="time_chart", tooltip="Seconds per step, computed against reused."),
                io.Image.Output(
                    display_name="plan_chart", tooltip="Where mode measure or BWCache Calibrate learned this model: what each "
                    "speed-up is expected to cost, and which steps the automatic plan, the measured one and this run compute.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, passthrough, stats: RunStats | None = None, other_stats: RunStats | None = None) -> io.NodeOutput:
        runs = list(stats.runs) if stats is not None else []
        if not runs:
            return without_run(cls, passthrough, stats)
        others = list(other_stats.runs) if other_stats not in (None, stats) else []
        both = [runs[-1], *others[-1:]]
        run, plans = runs[-1], prospects(runs[-1])
        pictures, text = charts(run, plans), "\n".join(filter(None, [told(runs), together(both)]))
        if pictures:
            on_node = shown(cls, text, torch.cat(on_the_node(run, plans, pictures), dim=1))  # below each other
        else:
            pictures, on_node = [written(NO_CHARTS)] * CHARTS, shown(cls, f"{text}\n{NO_CHARTS}")
        on_node |= for_browser(stats, plans)
        words = "\n".join(filter(None, [verdict(run), together(both)]))
        figures = (stats.to_json(), computed(both), evaluations(both), factor(both))
        return io.NodeOutput(passthrough, words, run.plan, *figures, *pictures, ui=on_node)


def on_the_node(run: RunReport, plans: Prospects | None, pictures: list[torch.Tensor]) -> list[torch.Tensor]:
    """The pictures that its preview has room for."""
    errors, steps, _, expected = pictures
    return [errors, expected] if plans else [errors] if run.plan else [errors, steps]


def told(runs: list[RunReport]) -> str:
    """The text on the node: the newest run, its plan, its errors by part, and that there are others."""
    run = runs[-1]
    held = [f"Most held at once: {readable(run.cache_bytes)}."] if run.cache_bytes else []
    counted = f"{computed(runs)} of {evaluations(runs)} model evaluations were computed in all"
    more = [f"The newest of {len(runs)} runs, all in json: {counted}."] if len(runs) > 1 else []
    return "\n".join([verdict(run), *filter(None, [plan_line(run), parts_line(run)]), *held, *more])


def without_run(node: type[io.ComfyNode], passthrough, stats: RunStats | None) -> io.NodeOutput:
    """What comes in is handed on, and the reason is said."""
    text = NO_CACHE if stats is None else REPLACED if stats.replaced else NOTHING_YET
    pictures = [written(text)] * CHARTS
    return io.NodeOutput(passthrough, text, "", "[]", 0, 0, 1.0, *pictures, ui=shown(node, text) | for_browser(stats, None))


def for_browser(stats: RunStats | None, plans: Prospects | None) -> dict:
    """What the views of BWCache Apply and BWCache Report draw. The same keys always, as in `shown`."""
    newest = stats.newest if stats is not None and stats.runs else None
    watched = newest is not None and newest.report is stats.runs[-1]
    return {
        "bwcache_run": [newest.payload(done=True)] if watched else [],
        "bwcache_plans": [plans_payload(plans)] if plans else [],
    }


def charts(run: RunReport, plans: Prospects | None) -> list[torch.Tensor]:
    """Four images (1, H, W, 3), the first three of one size. None without matplotlib."""
    try:
        from .charts import error_curve, pixels, reuse_map, step_times  # matplotlib is optional, and slow to load
        from .plan_charts import expected
    except ModuleNotFoundError as error:
        logger.warning("BWCache Report draws no charts: %s. %s", error, NO_CHARTS)
        return []
    pictures = [image_of(pixels(draw(run))) for draw in (error_curve, reuse_map, step_times)]
    return [*pictures, image_of(pixels(expected(plans))) if plans else written(NOT_MEASURED)]


def written(text: str) -> torch.Tensor:
    """A dark image with a text on it."""
    picture = Image.new("RGB", BLANK, "#17181b")
    ImageDraw.Draw(picture).multiline_text((40, 40), text, fill="#d7d9dd", font_size=28)
    return image_of(np.asarray(picture))


def image_of(pixels_HWC: np.ndarray) -> torch.Tensor:
    """ComfyUI's IMAGE (1, H, W, 3) in [0, 1] of uint8 pixels."""
    return torch.from_numpy(pixels_HWC.astype(np.float32) / 255.0)[None]
