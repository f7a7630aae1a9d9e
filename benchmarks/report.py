"""The result folder: README.md with conditions and tables, one chart for each model."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure

from ..bwcache_core.config import PAPER, PER_BLOCK
from ..bwcache_core.plan import automatic, parse
from ..bwcache_core.schedule import schedule_of
from ..hosts.runs import Host
from ..zoo.models import open_model
from ..zoo.sampling import schedule
from .design import Setting, core
from .measure import OTHER_SEEDS, PROMPTS, TAUGHT, read_points
from .methods import EASYCACHE, FEWER_STEPS, FORECAST, LEFT_OUT, MAGCACHE, MEASURED, ORACLE, PUBLISHED, TEACACHE
from .summary import AXES, TOLD_APART, Results, beside_others, by_model, everything, gains_by, missed, overview

STYLES = {  # colour, marker, line
    FORECAST: ("#c8553d", "o", "-"),
    MEASURED: ("#d9862c", "o", "-."),
    LEFT_OUT: ("#e0a08f", "o", ":"),
    ORACLE: ("#222222", "", "--"),
    "LeMiCa": ("#2a9d8f", "^", ""),
    "MeanCache": ("#8fb339", "v", ""),
    PAPER: ("#3b6ea8", "s", "-"),
    PER_BLOCK: ("#7fa8d4", "s", ":"),
    EASYCACHE: ("#8e6bbf", "D", "-"),
    TEACACHE: ("#d1a23c", "P", "-"),
    MAGCACHE: ("#b9813a", "X", ":"),
    FEWER_STEPS: ("#777777", "x", "-"),
}


def write_report(folder: Path, host: Host, quick: bool) -> None:
    """README.md and charts over everything that the folder holds."""
    results = Results(read_points(sorted(folder.glob("runs-*.jsonl"))))
    if not results.settings():
        return
    note = f"{host.name}; the settings that every method ran on, see README.md"
    for model in results.models:
        chart(results, model, results.compared(model), note).savefig(folder / f"front-{model}.png")
    lines = [f"# Fidelity and speed, {datetime.date.today()}", ""]
    if quick:
        lines += ["QUICK: one setting and two prompts for each model. It shows that all of it works.", ""]
    lines += [*conditions(host, results), "", *tables(results)]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def tables(results: Results) -> list[str]:
    lines = ["## Beside other methods, mean / worst clip in dB", "", *OTHERS_NOTE, ""]
    for speedup in (2.0, 3.0):
        lines += [*overview(results, speedup), ""]
    lines += ["## Ours, on all settings", "", *by_model(results), ""]
    for model in results.models:
        lines += [f"![PSNR over speed-up, {model}](front-{model}.png)", ""]
    lines += ["## Means at each speed-up, where all methods ran", ""]
    for model in results.models:
        lines += [*beside_others(results, results.compared(model), model), ""]
    lines += left_out(results)
    lines += ["## Gain over fewer steps at 2x, mean / least, dB", ""]
    for axis in AXES:
        lines += [*gains_by(results, axis), ""]
    lines += ["## Less than aimed at", "", *MISSED_NOTE, "", *missed(results), ""]
    lines += ["## Published lists and ours", "", *distances(), ""]
    for setting in sorted(results.settings(), key=lambda setting: setting.name):
        summary = f"<details><summary>{setting.name}</summary>"
        lines += [summary, "", *everything(results, setting), "", "</details>", ""]
    return lines


OTHERS_NOTE = (
    "On the settings that all methods ran; how many of them have a value where not all do. Methods with a threshold are read",
    "between their points. LeMiCa and MeanCache: published lists of steps, run with our forecast and corrector.",
)
MISSED_NOTE = (
    "Settings (model/sampler/steps/guidance/shift) that gain less than 10 dB over fewer steps at 2x or nothing at another",
    "speed-up, and where fewer computed steps came out better.",
)


def left_out(results: Results) -> list[str]:
    """Regret with constants that were chosen without the model, where they are known."""
    rows = [(model, results.regrets(model, None, LEFT_OUT)) for model in results.models]
    if not any(regrets for _, regrets in rows):
        return []
    lines = ["## Each model left out", "", "| model | regret of constants chosen without it, mean / worst |", "|---|---|"]
    lines += [f"| {model} | {mean(regrets):.1f} / {max(regrets):.1f} |" for model, regrets in rows if regrets]
    return [*lines, ""]


def distances() -> list[str]:
    """Markdown: how far the k-th computed step of the automatic plan lies from that of a published list, in 50 steps."""
    lines = ["Automatic plan at shift 5, mean distance of the k-th computed step:", "", "| list | distance |", "|---|---|"]
    for listed in PUBLISHED:
        plan = parse(listed.text)
        own = automatic(schedule_of(schedule(plan.steps, 5.0).tolist()), plan.speedup).computes
        distance = mean(abs(a - b) for a, b in zip(own, plan.computes, strict=False))
        lines.append(f"| {listed.name} | {distance:.1f} |")
    return lines


def conditions(host: Host, results: Results) -> list[str]:
    """Everything needed to repeat the numbers."""
    root = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout.strip()
    counts = {model: len(results.settings(model)) for model in results.models}
    clips = max(len(point.psnr) for point in results.points)
    return [
        f"- Host: {host.name}, torch {torch.__version__}, Python {platform.python_version()}; written at commit {commit}.",
        f"- Machine: {platform.machine()}, {os.cpu_count()} cores, {'a GPU' if torch.cuda.is_available() else 'no GPU'}; "
        "float32. Other work shared the machine, so no wall time is reported here.",
        *(f"- {model_line(name)} {count} settings." for name, count in counts.items()),
        f"- {clips} prompts, seeds 0 to {clips - 1}, one batch; scheduler simple. What caches measure, they measure of the "
        "whole batch.",
        "- Settings: benchmarks/design.py. Each pair of values of sampler, steps, guidance and shift occurs for each model. "
        f"The other methods ran on {len(core('tinywan'))} settings a model, which over the models hold each pair, too.",
        "- Speed-up: block executions of the uncached run over those of the method. Fidelity: against the uncached run of "
        "the same noise. 100 dB is equality.",
        f"- Measured plans: what mode measure makes of runs of {TAUGHT} other prompts, with the threshold of the forecast.",
        f"- The oracle's plan: dynamic programming over the outputs on {PROMPTS} other prompts, seeds from {OTHER_SEEDS} on "
        "(benchmarks/oracle.py), for the share of the line that serves it best; it runs whatever its forecasts err. It knows "
        "nothing of the corrector, so it can be beaten. Regret: its mean PSNR less the forecast's.",
        "- EasyCache is ComfyUI's own, with its input protected (it writes into it in float32). TeaCache and MagCache are "
        "their signals over a residual cache of this bench, tuned to the speed-up: the packs do not load here.",
    ]


def model_line(name: str) -> str:
    model = open_model(name)
    side = 2 * model.latent_shape[-1]
    return f"{model.name}: {side}x{side} pixels, {model.latent_shape[1]} frames, guidance by {model.guidance};"


def chart(results: Results, model: str, settings: Sequence[Setting], note: str) -> Figure:
    """Mean PSNR over speed-up on some settings of a model, one line per method."""
    figure = Figure(figsize=(8.4, 5.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name in results.methods:
        line = mean_line(results, settings, name)
        if line:
            colour, marker, style = STYLES[name]
            width = 2.4 if name in (FORECAST, ORACLE) else 1.2
            axes.plot(*zip(*line, strict=True), color=colour, marker=marker, linestyle=style, linewidth=width, label=name)
    axes.set_xlim(1.2, 3.6)
    axes.set_xlabel("fewer block executions, x", fontsize=11)
    axes.set_ylabel("PSNR against the uncached clip, dB", fontsize=11)
    axes.set_title(f"{model}: mean of {len(settings)} settings", loc="left", fontsize=13)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.supxlabel(note, fontsize=8, color="#666666")
    return figure


def mean_line(results: Results, settings: Sequence[Setting], method: str) -> list[tuple[float, float]]:
    """One mark for each point of a method: the speed-up of all runs together, and mean PSNR."""
    groups: dict[object, list] = defaultdict(list)
    for point in results.points:
        if point.setting in settings and point.method == method:
            key = point.point if method != FEWER_STEPS else round(2 * point.speedup)  # 7 of 20 is 10 of 30
            groups[key].append(point)
    marks = [(1.0 / mean(1.0 / p.speedup for p in group), mean(mean(p.psnr) for p in group)) for group in groups.values()]
    return sorted(mark for mark in marks if mark[0] > TOLD_APART)
