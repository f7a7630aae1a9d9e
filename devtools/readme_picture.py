"""Draws the README's first picture, the same clips by several methods, on the ComfyUI that COMFYUI_PATH names:

python devtools/pack.py devtools.readme_picture
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from ..benchmarks.design import Setting
from ..benchmarks.measure import BlockCounter, job_of
from ..benchmarks.methods import EASYCACHE, FEWER_STEPS, FORECAST, Method
from ..benchmarks.rivals import easycache
from ..bwcache_core.config import PAPER, BlockConfig, ForecastConfig
from ..hosts.runs import Host, open_host, run
from ..nodes.quality import heat_map, measure
from .pack import ROOT

SETTING = Setting("postcards", "res_multistep", 30, 3.5, 12.0)  # one of those that all methods ran
METHODS = (  # each at its point nearest to 2x in the results
    Method(FORECAST, "2x", ForecastConfig(speedup=2.0)),
    Method(PAPER, "R 1", BlockConfig(mode=PAPER, reuse_interval=1)),
    Method(EASYCACHE, "0.2", patch=easycache(0.2)),
    Method(FEWER_STEPS, "15", steps=15),
)
NAMES = {FORECAST: "BWCache", PAPER: "BWCache, mode paper", FEWER_STEPS: "half of the steps"}
CLIPS = {0: "first clip", 2: "worst of four"}
FRAME = 2  # the middle one
FULL_SCALE = 0.25  # of the differences
PICTURE = ROOT / "docs" / "images" / "side-by-side.png"


@dataclass(frozen=True)
class Column:
    """clips: (B, F, 3, H, W). speedup: block executions of the uncached run over its own."""

    name: str
    clips: torch.Tensor
    speedup: float


def main() -> None:
    torch.set_num_threads(1)
    figure = draw(columns(open_host(SETTING.model)))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE)


def columns(host: Host) -> list[Column]:
    """The uncached clips, then those of each method."""
    job, found, plain = job_of(host, SETTING), [], 0
    counter = BlockCounter(host.model.get_model_object("diffusion_model"))
    for method in (Method("uncached", ""), *METHODS):
        with counter.counting():
            clips = run(host, method.job(job), method.config, method.patch).clips
        plain = plain or counter.count
        found.append(Column(NAMES.get(method.name, method.name), clips, plain / counter.count))
    return found


def draw(shown: Sequence[Column]) -> Figure:
    """A row of frames and a row of differences for each clip."""
    plain = shown[0]
    figure = Figure(
        figsize=(2.0 * len(shown), 4.15 * len(CLIPS) + 0.4), dpi=100, layout="constrained", facecolor="white"
    )
    axes = figure.subplots(2 * len(CLIPS), len(shown))
    for i, (clip, name) in enumerate(CLIPS.items()):
        reference = plain.clips[clip]
        for j, column in enumerate(shown):
            frames = column.clips[clip]
            heat = heat_map(frames, reference, FULL_SCALE)
            above, below = axes[2 * i, j], axes[2 * i + 1, j]
            above.imshow(frames[FRAME].clamp(0, 1).movedim(0, -1).numpy(), interpolation="nearest")
            below.imshow(heat[FRAME].numpy(), interpolation="nearest")
            below.set_xlabel(f"{measure(frames, reference, 1.0).psnr:.1f} dB" if column is not plain else "")
            if not i:
                above.set_title(
                    f"{column.name}\n{column.speedup:.1f}x" if column is not plain else column.name, fontsize=12
                )
        axes[2 * i, 0].set_ylabel(name, fontsize=12)
        axes[2 * i + 1, 0].set_ylabel("difference", fontsize=12)
    for each in axes.flat:
        each.set(xticks=[], yticks=[])
        each.xaxis.label.set_fontsize(12)
    return figure


if __name__ == "__main__":
    main()
