"""Plans that were tried on a model, and how close each came: what a trial found outweighs what anything promised. Pure numbers.

A clip is one uncached latent that plans were held against. PSNR differs more from clip to clip than from plan to plan, so
plans are compared on clips that both were tried on, and always with the automatic plan. Two clips say little of one plan, less
where they are of one prompt: so it has to be clearly closer, and its kind at the other speed-ups, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean as mean

from .plan import Plan, automatic
from .schedule import Schedule

AUTOMATIC, MEASURED, EVEN, EARLY = "automatic", "measured", "even", "early"
WORTHS = {EVEN: 0.0, EARLY: 30.0}  # of first steps, in the place of plan.py's: plans of the automatic kind that differ most
CLEARLY = 3.0  # dB of a score: with less, and without the other speed-ups, more got worse on other prompts (benchmarks/NOTES.md)
ALONE = 6.0  # dB closer: enough whatever its kind did at other speed-ups
MOST_PLANS, MOST_CLIPS = 400, 64  # that are kept, the newest


@dataclass(frozen=True)
class TriedPlan:
    """plan: what was tried. kind: how it was made, in a word. psnr: of its latents, in dB, by clip."""

    plan: Plan
    kind: str
    psnr: Mapping[str, float]

    @property
    def count(self) -> int:
        """Computed steps."""
        return len(self.plan.computes)

    @property
    def mean(self) -> float:
        """PSNR in dB."""
        return mean(self.psnr.values())

    def on(self, clips: Collection[str]) -> float:
        """Mean PSNR in dB over those of the clips that it was tried on."""
        return mean(db for clip, db in self.psnr.items() if clip in clips)

    def over(self, other: TriedPlan) -> float | None:
        """How much closer than another it came, in dB, over the clips of both. None without any."""
        both = self.psnr.keys() & other.psnr.keys()
        return self.on(both) - other.on(both) if both else None


@dataclass(frozen=True)
class Trials:
    """Every plan that was tried for one setup, oldest first. source: in words, for notes."""

    plans: tuple[TriedPlan, ...] = ()
    source: str = ""


def merged(before: Sequence[TriedPlan], new: Sequence[TriedPlan]) -> tuple[TriedPlan, ...]:
    """Both, each plan once, with the clips of both. What is new counts."""
    found = {each.plan.computes: each for each in before}
    for each in new:
        old = found.pop(each.plan.computes, each)
        clips = {clip: db for clip, db in old.psnr.items() if clip not in each.psnr} | each.psnr
        found[each.plan.computes] = replace(each, psnr=dict(list(clips.items())[-MOST_CLIPS:]))
    return tuple(found.values())[-MOST_PLANS:]


def variants(schedule: Schedule, speedup: float) -> dict[str, Plan]:
    """Plans as the automatic one, with first steps worth less and more."""
    return {
        kind: replace(automatic(schedule, speedup, early=worth), note=f"automatic, {kind}") for kind, worth in WORTHS.items()
    }


# --- which is better ---


def score(plans: Sequence[TriedPlan], of: TriedPlan) -> float | None:
    """How much closer than the automatic plan one came, in dB. Less where its kind came less close with other numbers of steps:
    then the mean of both, unless it came so much closer that it needs no support. None where it cannot be compared."""
    by_count: dict[int, dict[str, TriedPlan]] = {}
    for each in plans:
        by_count.setdefault(each.count, {})[each.kind] = each
    gains = {count: gain(kinds, of.kind) for count, kinds in by_count.items() if AUTOMATIC in kinds}
    own = of.over(by_count[of.count][AUTOMATIC]) if of.count in gains else None
    others = [found for count, found in gains.items() if count != of.count and found is not None]
    if own is None or not others or own >= ALONE:
        return own
    return min(own, (own + mean(others)) / 2)


def gain(kinds: Mapping[str, TriedPlan], kind: str) -> float | None:
    """Of a kind over the automatic plan; 0 where it was not tried, since it is then the same plan as a rule."""
    return kinds[kind].over(kinds[AUTOMATIC]) if kind in kinds else 0.0


def best(plans: Sequence[TriedPlan], among: Collection[TriedPlan]) -> TriedPlan | None:
    """Of the plans `among` them the one that is clearly closer than the automatic plan, else that one. None without that. The
    closest on one clip alone does not count where that was tried on more: one of several is always lucky."""
    plain = next((each for each in among if each.kind == AUTOMATIC), None)
    if plain is None:
        return None
    enough = [each for each in among if 2 * len(each.psnr.keys() & plain.psnr.keys()) > len(plain.psnr)]
    found = promising(plans, enough, CLEARLY)
    return found or plain


def promising(plans: Sequence[TriedPlan], among: Collection[TriedPlan], least: float = 0.0) -> TriedPlan | None:
    """The closest by its score, if that is at least `least` dB above the automatic plan."""
    scores = [(found, each) for each in among if each.kind != AUTOMATIC and (found := score(plans, each)) is not None]
    closest = max(scores, key=lambda scored: scored[0], default=(-math.inf, None))
    return closest[1] if closest[0] >= least else None


def level(pairs: Iterable[tuple[float, float]]) -> float | None:
    """What an expected error of 1 comes to, in dB: the mean over plans, (expected error, PSNR) each. That is what model and
    sampler make of an error, which no matrix tells. None where no error is expected."""
    found = [psnr + 20.0 * math.log10(error) for error, psnr in pairs if error > 0]
    return mean(found) if found else None


# --- for a run ---


def tried_plan(trials: Trials, plain: Plan, must: Collection[int] = ()) -> Plan | None:
    """The plan for a run whose automatic plan is `plain`, by what trials found; None where that one was not tried.

    must: steps that compute in any case.
    """
    among = [each for each in trials.plans if each.count == len(plain.computes) and set(must) <= set(each.plan.computes)]
    same = next((each for each in among if each.plan.computes == plain.computes), None)
    if same is None:
        return None
    among = [each for each in among if each.kind != AUTOMATIC and each is not same] + [replace(same, kind=AUTOMATIC)]
    others = [each for each in trials.plans if each.count != same.count]
    found = best([*others, *among], among)
    return replace(plain, computes=found.plan.computes, note=note_of(found, same, trials))


def untried(trials: Trials, plain: Plan) -> str:
    """Why tried_plan gives none, in words. A trial that was set aside is not kept, so it may have been tried."""
    count = len(plain.computes)
    if any(each.count == count for each in trials.plans):
        return "no trial is kept of this run's automatic plan"
    return f"no trial is kept of a plan of {count} computed steps"


def note_of(found: TriedPlan, plain: TriedPlan, trials: Trials) -> str:
    clips = found.psnr.keys() & plain.psnr.keys()
    latents = "1 latent" if len(clips) == 1 else f"{len(clips)} latents"
    tried = f"tried by BWCache Calibrate on {latents}, {trials.source}: {found.on(clips):.1f} dB"
    if found.plan.computes == plain.plan.computes:
        return f"automatic: {tried}, no other plan was clearly closer"
    return f"{found.kind}, {tried}, the automatic plan {plain.on(clips):.1f}"
