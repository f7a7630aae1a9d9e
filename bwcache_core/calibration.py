"""What is tried on a model, what that costs, and what the trials say. Pure numbers and words: the runs are nodes/trials.py's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from .plan import Plan, automatic, rounded
from .schedule import Schedule
from .tried import AUTOMATIC, TriedPlan, best, level, promising

FASTEST = 10.0  # as BWCache Apply's speedup
MOST_SPEEDUPS = 12
KINDS = 4  # of plans for each speed-up: automatic, measured, and the automatic plan's variants
CHOICES = 'Such as "2x", one of the speed-ups that are tried, or "at least 35 dB", the fastest that keeps it.'
EXAMPLE = "Such as 1.5 2 2.5 3: numbers with spaces between."
NUMBER = r"[0-9]{1,3}(?:\.[0-9]{1,6})?"
DIGITS = 2  # of a PSNR in dB that is kept
MISSED = 0.9  # of a speed-up: below it, a run landed elsewhere
FEWEST_RANKED = 4  # plans: the order of fewer says nothing


class CalibrationError(ValueError):
    """What was asked for cannot be done. The message says what to change."""

    __module__ = "builtins"  # ComfyUI shows users the name with its module, and ours is a path


@dataclass(frozen=True)
class Choice:
    """Which plan is wanted: that of a speed-up, or the fastest of at least so many dB. One of them is None."""

    speedup: float | None = None
    decibels: float | None = None


@dataclass(frozen=True)
class Request:
    """measured: seeds that plans are made from. tried: seeds that plans are tried on: the first with every plan, the others with
    the automatic plan and the one that came closest. Raises CalibrationError."""

    speedups: tuple[float, ...]
    choice: Choice
    measured: tuple[int, ...]
    tried: tuple[int, ...]

    @property
    def unseen(self) -> tuple[int, ...]:
        """Seeds that are tried, but not measured: each takes an uncached run, too."""
        return tuple(seed for seed in self.tried if seed not in self.measured)

    def cost(self, schedule: Schedule) -> int:
        """Computed steps of all runs, at most: plans of a speed-up that are the same run once. A plan that is set aside computes
        more."""
        trials = KINDS + 2 * (len(self.tried) - 1)
        planned = sum(len(automatic(schedule, speedup).computes) for speedup in self.speedups)
        return (len(self.measured) + len(self.unseen)) * schedule.steps + trials * planned


def request_of(speedups: str, choose: str, first_seed: int, seeds: int, trials: int) -> Request:
    """What a user asks for. Measured: `seeds` seeds from `first_seed`. Tried: the next one, then those that were measured,
    and where these are too few, others after it."""
    measured = tuple(range(first_seed, first_seed + seeds))
    others = (measured[-1] + 1, *measured, *range(measured[-1] + 2, measured[-1] + 1 + trials))
    asked = speedups_of(speedups)
    return Request(asked, choice_of(choose, asked), measured, others[:trials])


def speedups_of(text: str) -> tuple[float, ...]:
    """Speed-ups of a text such as "1.5 2 2.5 3", rising. Raises CalibrationError."""
    parts = [part.removesuffix("x") for part in parts_of(text)]
    if not parts:
        raise CalibrationError(f"speedups is empty, expected the speed-ups to try. {EXAMPLE}")
    for part in parts:
        if not re.fullmatch(NUMBER, part) or not 1.0 < float(part) <= FASTEST:
            raise CalibrationError(
                f"speedups has {part[:20]!r}, expected numbers above 1, up to {FASTEST:g}. {EXAMPLE}"
            )
    found = tuple(sorted({float(part) for part in parts}))
    if len(found) > MOST_SPEEDUPS:
        raise CalibrationError(f"speedups has {len(found)} numbers, expected at most {MOST_SPEEDUPS}. {EXAMPLE}")
    return found


def parts_of(text: str) -> list[str]:
    """The numbers of a text, one by one. A comma parts them as in "1.5,2,3", or is a decimal one as in "1,5 2 2,5 3". Raises
    CalibrationError where it may be either."""
    spaced = [part for part in re.split(r",?[\s;]+", text.strip(" \n\t,;")) if part]
    decimal = [part for part in spaced if re.fullmatch(r"[0-9],[0-9]x?", part)]
    listed_too = any("." in part or "," in part for part in spaced if part not in decimal)
    if decimal and (listed_too or len(spaced) == 1):
        first = decimal[0].removesuffix("x")
        either = f"{first.replace(',', '.')}, or {first.replace(',', ' ')}"
        raise CalibrationError(f"speedups has {first!r}, which may be one number or two: write {either}. {EXAMPLE}")
    if decimal:
        return [part.replace(",", ".") for part in spaced]
    return [part for each in spaced for part in each.split(",") if part]


def choice_of(text: str, speedups: Sequence[float]) -> Choice:
    """What "2x" or "at least 35 dB" wants. Raises CalibrationError."""
    plainly = re.sub(r"(?<=[0-9]),(?=[0-9])", ".", text.strip().lower())  # one number: no list
    if match := re.fullmatch(rf"({NUMBER})\s*x?", plainly):
        speedup = float(match[1])
        if speedup not in speedups:
            raise CalibrationError(
                f"choose is {speedup:g}x, which is not tried. Add it to speedups, or choose {listed(speedups)}."
            )
        return Choice(speedup=speedup)
    if match := re.fullmatch(rf"(?:at least\s*)?({NUMBER})\s*db", plainly):
        return Choice(decibels=float(match[1]))
    raise CalibrationError(f"choose is {text[:40]!r}. {CHOICES}")


def listed(speedups: Sequence[float]) -> str:
    return ", ".join(f"{speedup:g}x" for speedup in speedups)


# --- trials ---


@dataclass(frozen=True)
class Trial:
    """One plan on one seed. speedup: that was asked for. kind: as in tried.py. unseen: the seed was not measured. clip: what it
    was held against, as in tried.py.

    computed, total: evaluations of the model. psnr: of the latent against the uncached one, in dB. expected: root mean square
    of what the latent misses, by what was measured; None where nothing is known.
    """

    speedup: float
    kind: str
    plan: Plan
    seed: int
    unseen: bool
    computed: int
    total: int
    psnr: float
    expected: float | None = None
    clip: str = ""

    @property
    def landed(self) -> float:
        """The speed-up by evaluations: below `speedup` where planned steps could not be reused."""
        return self.total / max(self.computed, 1)

    @property
    def lands(self) -> bool:
        """Whether it came out about as fast as planned: one that was set aside is close to the uncached run for another reason."""
        return self.landed >= MISSED * self.plan.speedup


@dataclass(frozen=True)
class Tried:
    """Every trial of one plan at one speed-up. psnr: the mean over its seeds."""

    trials: tuple[Trial, ...]

    @property
    def plan(self) -> Plan:
        return self.trials[0].plan

    @property
    def speedup(self) -> float:
        return self.trials[0].speedup

    @property
    def kind(self) -> str:
        return self.trials[0].kind

    @property
    def seeds(self) -> list[int]:
        return [trial.seed for trial in self.trials]

    @property
    def psnr(self) -> float:
        return mean(trial.psnr for trial in self.trials)

    @property
    def landed(self) -> float:
        return mean(trial.landed for trial in self.trials)

    @property
    def lands(self) -> bool:
        return self.landed >= MISSED * self.plan.speedup


@dataclass(frozen=True)
class Verdict:
    """What the trials say. best: the plan of each speed-up, the slowest first. chosen: one of them. missed: why that is not
    quite what was asked for. note: why nothing was measured. unkept: why later runs will not know of the trials."""

    trials: tuple[Trial, ...]
    best: tuple[Tried, ...]
    chosen: Tried
    missed: str = ""
    note: str = ""
    unkept: str = ""

    @property
    def tried(self) -> list[Tried]:
        return tried(self.trials)

    @property
    def _pairs(self) -> dict[tuple[int, ...], tuple[float | None, float]]:
        """Expected error and PSNR of each plan, by its steps: two speed-ups may have one plan."""
        return {each.plan.computes: (each.trials[0].expected, each.psnr) for each in self.tried}

    @property
    def correlation(self) -> float | None:
        """How far the order of expected errors agrees with that of measured ones, over all plans, each with the mean of its
        seeds: some are harder than others whatever the plan. None where it is unknown."""
        known = [(error, -psnr) for error, psnr in self._pairs.values() if error is not None]
        return rank_correlation(*zip(*known, strict=True)) if len(known) >= FEWEST_RANKED else None

    def expected(self, of: Tried) -> float | None:
        """What PSNR the other plans let expect of one, in dB: by its expected error, on the level of theirs. None where that is
        not known."""
        error = of.trials[0].expected
        height = level(pair for computes, pair in self._pairs.items() if pair[0] and computes != of.plan.computes)
        return height - 20.0 * math.log10(error) if error and height is not None else None


def verdict_on(trials: Sequence[Trial], choice: Choice, note: str = "", unkept: str = "") -> Verdict:
    """The better plan of each speed-up, and the one that was asked for."""
    rising = [better(trials, speedup) for speedup in sorted({trial.speedup for trial in trials})]
    chosen, missed = chosen_of(rising, choice)
    return Verdict(tuple(trials), tuple(rising), chosen, missed, note, unkept)


def better(trials: Sequence[Trial], speedup: float) -> Tried:
    """The plan of a speed-up that is clearly closer than the automatic one, else that one, as BWCache Apply takes it. Where that
    was set aside, the closest of those that were not."""
    every = {each.kind: each for each in tried(trials) if each.speedup == speedup}
    found = best(kept(trials), kept(trial for trial in trials if trial.speedup == speedup))
    return every[found.kind] if found else max(every.values(), key=lambda each: (each.lands, each.psnr))


def finalist(trials: Sequence[Trial], speedup: float) -> str | None:
    """The kind of plan that is tried on more seeds, beside the automatic plan; None where none came closer."""
    found = promising(kept(trials), kept(trial for trial in trials if trial.speedup == speedup))
    return found and found.kind


def kept(trials: Iterable[Trial]) -> list[TriedPlan]:
    """As they are kept for later runs: trials that came out about as fast as planned."""
    landed = [trial for trial in trials if trial.lands]
    return [
        TriedPlan(each.plan, each.kind, {trial.clip: round(trial.psnr, DIGITS) for trial in each.trials}) for each in tried(landed)
    ]


def tried(trials: Sequence[Trial]) -> list[Tried]:
    """Trials by speed-up and plan."""
    together: dict[tuple, list[Trial]] = {}
    for trial in trials:
        together.setdefault((trial.speedup, trial.kind), []).append(trial)
    return [Tried(tuple(of_one)) for of_one in together.values()]


def chosen_of(better: Sequence[Tried], choice: Choice) -> tuple[Tried, str]:
    """The plan that was asked for, and what it is short of. Nothing is thrown away for a wish that cannot be met."""
    if choice.decibels is None:
        return next(each for each in better if each.speedup == choice.speedup), ""
    enough = [each for each in better if each.psnr >= choice.decibels]
    if enough:
        return max(enough, key=lambda each: (each.landed, each.psnr)), ""
    nearest = max(better, key=lambda each: each.psnr)
    return nearest, f"No plan keeps {choice.decibels:g} dB: the nearest is taken. Try lower speedups."


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's: -1 to 1, equal numbers share their ranks. None where all of one are equal."""
    a, b = ranks(one), ranks(other)
    middle = (len(a) - 1) / 2
    across = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    widths = math.sqrt(sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b))
    return across / widths if widths else None


def ranks(numbers: Sequence[float]) -> list[float]:
    """From 0; the mean of their ranks for equal ones."""
    rising = sorted(numbers)
    last = {number: place for place, number in enumerate(rising)}
    return [(rising.index(number) + last[number]) / 2 for number in numbers]


# --- in words ---


def cost_line(request: Request, schedule: Schedule) -> str:
    """What is going to be done, and what it costs."""
    steps, times = schedule.steps, math.ceil(10 * request.cost(schedule) / schedule.steps) / 10
    measured, others = count(len(request.measured), "seed"), count(len(request.unseen), "other")
    tries = f"up to four plans for each of {listed(request.speedups)}"
    tries += f", the better two on {count(len(request.tried), 'seed')}" if len(request.tried) > 1 else ""
    whole = f"At most {times:.1f} times an uncached run of {steps} steps, more if planned steps cannot be reused"
    return f"{whole}: {measured} to measure, {others} to compare with, then {tries}."


def count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def plan_lines(verdict: Verdict) -> str:
    """The plan of each speed-up."""
    return "\n".join(f"{each.speedup:g}x: {each.plan.text}" for each in verdict.best)


def table(verdict: Verdict) -> str:
    """A row for each plan that was tried, as text and as Markdown."""
    heads = ["speed-up", "plan", "computed", "PSNR in dB", "by seed (* measured)", "expected dB", "steps"]
    rows = [row(each, verdict) for each in verdict.tried]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def row(each: Tried, verdict: Verdict) -> list[str]:
    mark = ", chosen" if each == verdict.chosen else ", better" if each in verdict.best else ""
    first = each.trials[0]
    seeds = ", ".join(f"{trial.seed}{'' if trial.unseen else '*'}: {trial.psnr:.1f}" for trial in each.trials)
    computed = f"{rounded(mean(trial.computed for trial in each.trials))} of {first.total}"
    db = verdict.expected(each)
    expected = "-" if db is None else f"{db:.1f}"
    return [f"{each.speedup:g}x", each.kind + mark, computed, f"{each.psnr:.1f}", seeds, expected, each.plan.text]


def summary(verdict: Verdict) -> str:
    """What a user should know, the choice first."""
    chosen = verdict.chosen
    lines = [f"Chosen: {chosen.speedup:g}x with the {chosen.kind} plan, PSNR {chosen.psnr:.1f} dB{landing(chosen)}."]
    lines += [verdict.missed] if verdict.missed else []
    better = [each for each in verdict.best if each.landed > chosen.landed and each.psnr > chosen.psnr]
    lines += [f"{listed([each.speedup for each in better])} came out faster and closer." for _ in better[:1]]
    lines += [in_words(each, verdict.tried) for each in verdict.best]
    lines.append(f"PSNR is of the latents against the uncached ones, {whose(verdict.trials)}. 100 dB: no difference.")
    lines += [f"No plan was made by what was measured: {verdict.note}."] if verdict.note else []
    lines += [f"Plan auto will not know of it: {verdict.unkept}."] if verdict.unkept else []
    lines += [correlation_line(verdict)] if verdict.correlation is not None else []
    return "\n".join(lines)


def in_words(best: Tried, every: Sequence[Tried]) -> str:
    """One speed-up: the better plan, another one, and where it landed."""
    rivals = [each for each in every if each.speedup == best.speedup and each.kind != best.kind and each.seeds == best.seeds]
    other = min(rivals, key=lambda each: (each.kind != AUTOMATIC, -each.psnr), default=None)
    closer = ", not clearly closer" if other and other.psnr > best.psnr else ""
    beside = f" ({other.kind} {other.psnr:.1f}{closer})" if other else ""
    why = "" if best.lands else ": more steps had to be computed than planned"
    return f"{best.speedup:g}x: {best.psnr:.1f} dB, {best.kind} plan{beside}{landing(best)}{why}"


def landing(each: Tried) -> str:
    """Where a plan landed, unless it is about as fast as asked for: few steps leave no plan of so few."""
    return "" if each.landed >= MISSED * each.speedup else f", landed at {each.landed:.2g}x"


def whose(trials: Sequence[Trial]) -> str:
    seeds = {trial.seed: trial.unseen for trial in trials}
    unseen = [seed for seed in seeds if seeds[seed]]
    if len(seeds) == 1:
        return f"of seed {trials[0].seed}, which was {'not ' if unseen else ''}measured"
    which = "none" if len(unseen) == len(seeds) else f"{len(seeds) - len(unseen)}"
    return f"the mean over seeds {', '.join(map(str, seeds))} ({which} of them measured)"


def correlation_line(verdict: Verdict) -> str:
    plans = len({each.plan.computes for each in verdict.tried})
    return (
        f"Over {plans} plans the order of expected and measured errors agrees to {verdict.correlation:.2f} (rank correlation, "
        "1 is the same order)."
    )
