"""From points to tables: mean and worst fidelity of each method at each speed-up, regret, and where it is too little."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import mean

from ..bwcache_core.config import PAPER, PER_BLOCK
from ..bwcache_core.plan import rounded
from .design import SAMPLERS, SCALES, SPEEDUPS, STEPS, Setting, core
from .measure import Point
from .methods import EASYCACHE, FEWER_STEPS, FORECAST, LEFT_OUT, MAGCACHE, MEASURED, ORACLE, TEACACHE

TOLD_APART = 1.02  # below this speed-up nothing was reused, and 100 dB stand for equality
PLANNED = (FORECAST, MEASURED, LEFT_OUT, ORACLE, FEWER_STEPS)  # made for a speed-up; others are read between their points
METHODS = (
    FORECAST, MEASURED, LEFT_OUT, ORACLE, "LeMiCa", "MeanCache", PAPER, PER_BLOCK, EASYCACHE, TEACACHE, MAGCACHE, FEWER_STEPS
)
LEAST_GAIN = 10.0  # dB over fewer steps at 2x: what is aimed at
AXES: dict[str, Callable[[Setting], object]] = {
    "sampler": lambda setting: setting.sampler,
    "guidance": lambda setting: setting.scale,
    "steps": lambda setting: setting.steps,
}
VALUES = {"sampler": SAMPLERS, "guidance": SCALES, "steps": STEPS}


class Results:
    """Points by setting and method."""

    def __init__(self, points: Iterable[Point]) -> None:
        self.points = list(points)
        self._by: dict[tuple[Setting, str], list[Point]] = defaultdict(list)
        for point in self.points:
            self._by[point.setting, point.method].append(point)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(point.setting.model for point in self.points))

    @property
    def methods(self) -> list[str]:
        return [name for name in METHODS if any(point.method == name for point in self.points)]

    def settings(self, model: str | None = None) -> list[Setting]:
        """Those on which the forecast was measured."""
        found = [setting for setting, method in self._by if method == FORECAST]
        return [setting for setting in found if model in (None, setting.model)]

    def planned(self, setting: Setting, method: str, speedup: float) -> Point | None:
        """The point that was made for this speed-up."""
        wanted = fewer(setting, speedup) if method == FEWER_STEPS else f"{speedup:g}x"
        return next((point for point in self._by[setting, method] if point.point == wanted), None)

    def compared(self, model: str) -> list[Setting]:
        """The settings of a model that all methods ran on, those of the core; all of them where none of these ran."""
        everywhere = self.settings(model)
        return [setting for setting in everywhere if setting in core(model)] or everywhere

    def psnr(self, setting: Setting, method: str, speedup: float, of: Callable = mean) -> float | None:
        """Mean (or worst) over clips in dB, read between a method's points where it was not made for the speed-up."""
        if method in PLANNED:
            point = self.planned(setting, method, speedup)
            return None if point is None else of(point.psnr)
        return between([(p.speedup, of(p.psnr)) for p in self._by[setting, method]], speedup)

    def regrets(self, model: str, speedup: float | None = None, method: str = FORECAST) -> list[float]:
        """dB that the oracle's plan is ahead, by setting (and speed-up, unless one is given)."""
        places = [(s, v) for s in self.settings(model) for v in ((speedup,) if speedup else SPEEDUPS)]
        return self._ahead(places, ORACLE, method)

    def gains(self, places: Sequence[tuple[Setting, float]]) -> list[float]:
        """dB that the forecast is ahead of fewer steps."""
        return self._ahead(places, FORECAST, FEWER_STEPS)

    def _ahead(self, places: Iterable[tuple[Setting, float]], first: str, second: str) -> list[float]:
        pairs = [(self.psnr(*place(p, first)), self.psnr(*place(p, second))) for p in places]
        return [a - b for a, b in pairs if a is not None and b is not None]


def place(at: tuple[Setting, float], method: str) -> tuple[Setting, str, float]:
    return at[0], method, at[1]


def fewer(setting: Setting, speedup: float) -> str:
    """The point of fewer steps at a speed-up: how many."""
    return f"{rounded(setting.steps / speedup)}"


def between(points: Sequence[tuple[float, float]], speedup: float) -> float | None:
    """PSNR at a speed-up between the two points around it, the better where there are several. None outside."""
    ordered, found = sorted(point for point in points if point[0] > TOLD_APART), []
    for (left, low), (right, high) in pairwise(ordered):
        if left <= speedup <= right and right > left:
            found.append(low + (speedup - left) / (right - left) * (high - low))
    nearest = [psnr for at, psnr in ordered if abs(at - speedup) < 0.05 * speedup]
    return max([*found, *nearest], default=None)


def by_model(results: Results) -> list[str]:
    """Markdown: the forecast beside fewer steps and the oracle, mean and worst."""
    lines = [
        "| model | speed-up | forecast, mean / worst clip | oracle's plan | regret, mean / worst setting | fewer steps | "
        "gain, mean / least | speed-up that came out |",
        "|---" * 8 + "|",
    ]
    for model in results.models:
        lines += [row for speedup in SPEEDUPS if (row := model_row(results, model, speedup))]
    return lines


def overview(results: Results, speedup: float) -> list[str]:
    """Markdown: every method on every model at one speed-up, mean / worst clip, on the settings that all of them ran."""
    lines = [f"| at {speedup:g}x | {' | '.join(results.models)} |", "|---" * (len(results.models) + 1) + "|"]
    for method in results.methods:
        cells = [overview_cell(results, method, model, speedup) for model in results.models]
        if any(text != "-" for text in cells):
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def overview_cell(results: Results, method: str, model: str, speedup: float) -> str:
    settings = results.compared(model)
    means, worst = ([results.psnr(s, method, speedup, of) for s in settings] for of in (mean, min))
    known = [value for value in worst if value is not None]
    if not known:
        return "-"
    share = "" if len(known) == len(settings) else f" ({len(known)} of {len(settings)})"
    return f"{mean(value for value in means if value is not None):.1f} / {min(known):.1f}{share}"


def model_row(results: Results, model: str, speedup: float) -> str:
    settings = results.settings(model)
    found = [point for s in settings if (point := results.planned(s, FORECAST, speedup))]
    regrets, gains = results.regrets(model, speedup), results.gains([(s, speedup) for s in settings])
    if not found or not regrets or not gains:
        return ""
    psnrs = [value for point in found for value in point.psnr]
    oracle = [value for s in settings if (value := results.psnr(s, ORACLE, speedup)) is not None]
    plain = [value for s in settings if (value := results.psnr(s, FEWER_STEPS, speedup)) is not None]
    landed = 1.0 / mean(1.0 / point.speedup for point in found)
    cells = [
        f"{mean(psnrs):.1f} / {min(psnrs):.1f}", f"{mean(oracle):.1f}", f"{mean(regrets):.1f} / {max(regrets):.1f}",
        f"{mean(plain):.1f}", f"{mean(gains):+.1f} / {min(gains):+.1f}", f"{landed:.2f}x",
    ]
    return f"| {model} | {speedup:g}x | {' | '.join(cells)} |"


def beside_others(results: Results, settings: Sequence[Setting], model: str) -> list[str]:
    """Markdown: every method at the same speed-ups, on the settings that all of them ran."""
    lines = [f"| {model} | " + " | ".join(f"{v:g}x" for v in SPEEDUPS) + " |", "|---" * (len(SPEEDUPS) + 1) + "|"]
    for method in results.methods:
        cells = [cell([results.psnr(s, method, speedup) for s in settings]) for speedup in SPEEDUPS]
        if any(text != "-" for text in cells):
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def cell(values: Sequence[float | None]) -> str:
    """Mean; how many of the settings had one where not all did."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    share = "" if len(known) == len(values) else f" ({len(known)} of {len(values)})"
    return f"{mean(known):.1f}{share}"


def gains_by(results: Results, axis: str) -> list[str]:
    """Markdown: gain over fewer steps at 2x by model and value of an axis, mean and least."""
    values = VALUES[axis]
    lines = [f"| {axis} | " + " | ".join(f"{value}" for value in values) + " |", "|---" * (len(values) + 1) + "|"]
    for model in results.models:
        cells = []
        for value in values:
            gains = results.gains([(s, 2.0) for s in results.settings(model) if AXES[axis](s) == value])
            cells.append(f"{mean(gains):+.1f} / {min(gains):+.1f}" if gains else "-")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def missed(results: Results) -> list[str]:
    """Markdown: settings at 2x that gain less than aimed at, those below fewer steps, and those where more steps are worse."""
    lines = []
    for setting in results.settings():
        told = {v: results.gains([(setting, v)]) for v in SPEEDUPS}
        low = [f"{v:g}x {gain[0]:+.1f}" for v, gain in told.items() if gain and gain[0] < (LEAST_GAIN if v == 2.0 else 0.0)]
        psnrs = {v: results.psnr(setting, FORECAST, v) for v in SPEEDUPS}
        worse = [
            f"{b:g}x is better than {a:g}x by {psnrs[b] - psnrs[a]:.1f}"
            for a, b in pairwise(SPEEDUPS)
            if None not in (psnrs[a], psnrs[b]) and psnrs[b] > psnrs[a]
        ]
        if low or worse:
            lines.append(f"- {setting.name}: {'; '.join([*low, *worse])}")
    return lines or ["None."]


def everything(results: Results, setting: Setting) -> list[str]:
    """Markdown: every point of a setting."""
    lines = ["| method | point | speed-up | PSNR, dB, mean | worst | SSIM | computed steps |", "|---" * 7 + "|"]
    for point in results.points:
        if point.setting == setting:
            numbers = f"{point.speedup:.2f}x | {mean(point.psnr):.1f} | {min(point.psnr):.1f} | {mean(point.ssim):.4f}"
            lines.append(f"| {point.method} | {point.point} | {numbers} | {point.plan} |")
    return lines
