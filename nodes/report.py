"""The BWCache Report node."""

from __future__ import annotations

import logging

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw

from ..bwcache_core.report import RunReport, RunStats
from .apply import Stats
from .preview import shown
from .schema import CATEGORY, schema
from .verdict import verdict

NOTHING_YET = "No run yet. Connect passthrough to something made by the sampler, so that this node runs after it."
NO_CHARTS = "Charts need matplotlib. Install it in ComfyUI's Python:\npython -m pip install matplotlib"
BLANK = (1080, 480)  # as large as a chart

logger = logging.getLogger(__name__)


class BWCacheReport(io.ComfyNode):
    """Reads the newest run out of a stats handle."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheReport",
            display_name="BWCache Report",
            category=CATEGORY,
            description="What the cache did in the last run: a verdict with a suggestion, charts, figures and JSON. "
            "Put it after the sampler.",
            search_aliases=["teacache", "easycache", "cache", "cache statistics", "speed up", "chart"],
            is_output_node=True,
            inputs=[
                Stats.Input("stats", tooltip="The stats output of BWCache Apply."),
                io.AnyType.Input(
                    "passthrough", tooltip="Anything made by the sampler, such as its latent. Handed on unchanged: "
                    "it makes this node run after the sampling.",
                ),
            ],
            outputs=[  # saved workflows count them: new ones go to the end
                io.AnyType.Output(display_name="passthrough", tooltip="What came in."),
                io.String.Output(display_name="summary", tooltip="What was reused, and what to change if little was."),
                io.String.Output(display_name="json", tooltip="The last 8 runs, every evaluation, as JSON."),
                io.Int.Output(display_name="reused_steps", tooltip="Model evaluations served without running a block."),
                io.Int.Output(display_name="total_steps", tooltip="Model evaluations of the run."),
                io.Int.Output(display_name="reused_blocks", tooltip="Block executions saved."),
                io.Int.Output(display_name="total_blocks", tooltip="Block executions of the same run uncached."),
                io.Float.Output(
                    display_name="speedup", tooltip="Measured: all evaluations at the time of a computed one, over "
                    "the time they took. 0 if too few were computed to say.",
                ),
                io.String.Output(display_name="verdict", tooltip="The run in plain words, and what to try next."),
                io.Image.Output(
                    display_name="change_chart", tooltip="What was held against the threshold or tolerance, over the "
                    "steps. paper and per block: the change of the blocks, by condition. adaptive: the forecast error.",
                ),
                io.Image.Output(display_name="reuse_chart", tooltip="Steps by blocks: which ran, which were reused."),
                io.Image.Output(display_name="time_chart", tooltip="Seconds per step, computed against reused."),
            ],
        )

    @classmethod
    def execute(cls, stats: RunStats, passthrough) -> io.NodeOutput:
        if not stats.runs:
            empty = written(NOTHING_YET)
            text = (NOTHING_YET, empty, empty, empty)
            return io.NodeOutput(passthrough, NOTHING_YET, "[]", 0, 0, 0, 0, 0.0, *text, ui=shown(cls, NOTHING_YET))
        run = stats.runs[-1]
        figures = (run.evaluations_reused, run.evaluations, run.blocks_reused, run.blocks_total, run.speedup or 0.0)
        text, pictures = verdict(run), charts(run)
        on_node = shown(cls, f"{text}\n{run.summary()}", torch.cat(pictures, dim=1))  # below each other: one is larger
        return io.NodeOutput(passthrough, run.summary(), stats.to_json(), *figures, text, *pictures, ui=on_node)


def charts(run: RunReport) -> list[torch.Tensor]:
    """Three images (1, H, W, 3) of one size. Without matplotlib, three that say how to get it."""
    try:
        from .charts import change_curve, pixels, reuse_map, step_times  # matplotlib is optional, and slow to load
    except ModuleNotFoundError as error:
        logger.warning("BWCache Report draws no charts: %s. %s", error, NO_CHARTS.replace("\n", " "))
        return [written(NO_CHARTS)] * 3
    return [image_of(pixels(draw(run))) for draw in (change_curve, reuse_map, step_times)]


def written(text: str) -> torch.Tensor:
    """A white image with a text on it."""
    picture = Image.new("RGB", BLANK, "white")
    ImageDraw.Draw(picture).multiline_text((40, 40), text, fill="black", font_size=28)
    return image_of(np.asarray(picture))


def image_of(pixels_HWC: np.ndarray) -> torch.Tensor:
    """ComfyUI's IMAGE (1, H, W, 3) in [0, 1] of uint8 pixels."""
    return torch.from_numpy(pixels_HWC.astype(np.float32) / 255.0)[None]
