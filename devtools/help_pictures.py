"""Draws the pictures of web/docs and of TinyWan's workflows, all from real runs of TinyWan on its embedded host:

python devtools/pack.py devtools.help_pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from ..bwcache_core.calibration import request_of
from ..bwcache_core.config import PER_BLOCK, BlockConfig, ForecastConfig
from ..bwcache_core.prospects import prospects
from ..bwcache_core.report import RunReport
from ..hosts.embedded import SAMPLERS, TinyGuider
from ..hosts.runs import EmbeddedHost, Job, noise_of, run
from ..nodes.charts import error_curve, pixels, reuse_map, step_times
from ..nodes.plan_charts import expected, frontier
from ..nodes.quality import heat_map, measure
from ..nodes.trials import Bench, Outcome, calibrate
from ..zoo.models import open_model
from ..zoo.sampling import schedule
from .pack import ROOT

DOCS = ROOT / "web" / "docs" / "images"
EXAMPLES = ROOT / "example_workflows"
CALIBRATED_CFG = 5.0  # as in the example workflow
JOB = Job(("red circle moving left",), (1,))
PER_BLOCK_THRESHOLD = 0.04  # in the middle of a run, some of TinyWan's blocks change less and some more
FULL_SCALE = 0.1  # of heat maps: the default of BWCache Compare
TILE, MARGIN, LABEL = 192, 8, 240  # pixels


def main() -> None:
    """Run TinyWan in every mode and draw."""
    torch.set_num_threads(1)
    host = EmbeddedHost(open_model("tinywan"))
    DOCS.mkdir(parents=True, exist_ok=True)
    run(host, JOB)  # the first run of a process pays for warm-up
    plain = run(host, JOB).clip
    measured = run(host, JOB, BlockConfig(threshold=0.0)).report
    cached = run(host, JOB, ForecastConfig())
    blocks = run(host, JOB, BlockConfig(mode=PER_BLOCK, threshold=PER_BLOCK_THRESHOLD)).report
    save_chart("u_curve", error_curve, measured)
    save_chart("forecast_error", error_curve, cached.report)
    save_chart("forecast_steps", reuse_map, cached.report)
    save_chart("forecast_times", step_times, cached.report)
    save_chart("per_block_map", reuse_map, blocks)
    rows = comparison(plain, cached.clip, cached.report)
    small_colours(rows).save(DOCS / "compare.png", optimize=True)
    card(rows, error_curve(cached.report)).save(EXAMPLES / "BWCache TinyWan.jpg", quality=80)
    draw_calibration(host, plain, rows)


def draw_calibration(host: EmbeddedHost, plain: torch.Tensor, rows: Image.Image) -> None:
    outcome = calibrated(host)
    plans = expected(prospects(outcome.reports[-1]))
    small_colours(Image.fromarray(pixels(plans))).save(DOCS / "plans.png", optimize=True)
    by_measure = run(host, JOB, ForecastConfig(plan=outcome.verdict.chosen.plan.text))
    measured = comparison(plain, by_measure.clip, by_measure.report)
    card(measured, plans).save(EXAMPLES / "BWCache Measure then render.jpg", quality=80)
    chart = frontier(outcome.verdict)
    small_colours(Image.fromarray(pixels(chart))).save(DOCS / "calibrate.png", optimize=True)
    card(rows, chart).save(EXAMPLES / "BWCache Calibrate.jpg", quality=80)


def calibrated(host: EmbeddedHost) -> Outcome:
    """What BWCache Calibrate finds on TinyWan with its defaults."""
    guider, encode = TinyGuider(host.model), host.zoo.language.encode
    guider.set_conds(encode(JOB.prompts[0]), encode(""))
    guider.set_cfg(CALIBRATED_CFG)

    def sample(seed: int, computes: Sequence[int] | None, what: str) -> dict:
        noise = noise_of(host.zoo, replace(JOB, seeds=(seed,)))
        return {"samples": guider.sample(noise, torch.zeros_like(noise), SAMPLERS["euler"], schedule(30, host.zoo.shift))}

    return calibrate(Bench(guider, sample), request_of("1.5 2 3", "2x", 0, 2, 2))


def save_chart(name: str, draw, report: RunReport) -> None:
    small_colours(Image.fromarray(pixels(draw(report)))).save(DOCS / f"{name}.png", optimize=True)


def small_colours(picture: Image.Image) -> Image.Image:
    """256 colours: a third of the bytes, and no difference to the eye in charts."""
    return picture.quantize(256)


def comparison(plain_FCHW: torch.Tensor, cached_FCHW: torch.Tensor, report: RunReport) -> Image.Image:
    """Three rows of frames: plain, cached, and the heat map of their difference."""
    quality = measure(cached_FCHW, plain_FCHW, 1.0)
    heat = heat_map(cached_FCHW, plain_FCHW, FULL_SCALE).movedim(-1, 1)
    computed = f"{report.evaluations - report.evaluations_reused} of {report.evaluations} steps computed"
    rows = (
        ("without the cache", plain_FCHW),
        (f"with it\n{computed}", cached_FCHW),
        (f"difference\nPSNR {quality.psnr:.1f} dB\nSSIM {quality.ssim:.3f}", heat),
    )
    pitch = TILE + MARGIN
    sheet = Image.new("RGB", (LABEL + pitch * len(plain_FCHW), pitch * len(rows) + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (label, frames) in enumerate(rows):
        top = MARGIN + i * pitch
        pen.multiline_text((MARGIN, top + TILE // 3), label, fill="black", font_size=20, spacing=8)
        for j, frame in enumerate(frames):
            values = (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
            tile = Image.fromarray(np.asarray(values)).resize((TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(tile, (LABEL + j * pitch, top))
    return sheet


def card(rows: Image.Image, figure: Figure) -> Image.Image:
    """Preview of a workflow: the clips over a chart."""
    chart = Image.fromarray(pixels(figure))
    chart = chart.resize((rows.width, chart.height * rows.width // chart.width), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (rows.width, rows.height + chart.height), "white")
    sheet.paste(rows, (0, 0))
    sheet.paste(chart, (0, rows.height))
    return sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
