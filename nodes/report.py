"""The BWCache Report node."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..bwcache_core.report import RunStats
from .apply import Stats

NOTHING_YET = "No run yet. Connect passthrough to something made by the sampler, so that this node runs after it."


class BWCacheReport(io.ComfyNode):
    """Reads the newest run out of a stats handle."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BWCacheReport",
            display_name="BWCache Report",
            category="model/speed",
            description="What the cache did in the last run: summary, JSON and figures. Put it after the sampler.",
            is_output_node=True,
            inputs=[
                Stats.Input("stats", tooltip="The stats output of BWCache Apply."),
                io.AnyType.Input(
                    "passthrough", tooltip="Anything made by the sampler, such as its latent. Handed on unchanged: "
                    "it makes this node run after the sampling.",
                ),
            ],
            outputs=[
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
            ],
        )

    @classmethod
    def execute(cls, stats: RunStats, passthrough) -> io.NodeOutput:
        if not stats.runs:
            return io.NodeOutput(passthrough, NOTHING_YET, "[]", 0, 0, 0, 0, 0.0, ui=ui.PreviewText(NOTHING_YET))
        run = stats.runs[-1]
        summary = run.summary()
        figures = (run.evaluations_reused, run.evaluations, run.blocks_reused, run.blocks_total, run.speedup or 0.0)
        return io.NodeOutput(passthrough, summary, stats.to_json(), *figures, ui=ui.PreviewText(summary))
