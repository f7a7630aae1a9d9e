"""What is said of a run: a table of the texts, and that the advice would work."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bwcache_pack.bwcache_core import advice
from bwcache_pack.bwcache_core.advice import (
    advise,
    log_lines,
    notice,
    parts_line,
    plan_line,
    rounded_up,
    suggested_threshold,
    verdict,
)
from bwcache_pack.bwcache_core.config import BlockConfig, ForecastConfig
from bwcache_pack.tests.nodes.reports import call, forecast, report, step

NOISY = "fresh noise in the latent"
ERRS = "its forecast would err by more than the threshold"
GONE = "Use a sampler that adds none, such as euler or dpmpp_2m, or leave BWCache Apply out here."


def shifted(steps: int, shift: float) -> list[float]:
    """Sigmas of a flow."""
    shares = [1.0 - i / steps for i in range(steps + 1)]
    return [shift * u / (1.0 + (shift - 1.0) * u) for u in shares]


def aside(reason: str, **fields) -> list:
    """A run of 12 steps in which all that the plan would have reused was computed."""
    return [call(place, reason=reason if place % 2 else "the plan", **(fields if place else {})) for place in range(12)]


def _with(steps: list, **fields):
    run = forecast("c" * len(steps), "cr" * (len(steps) // 2), **fields)
    run.steps = steps
    return run


SAYS = {  # the run: all that is said of it
    "half reused": (
        forecast("cr" * 10),
        "10 of 20 steps were computed, about 1.8x, about 9.0 s saved.",
    ),
    "nothing known of the time": (
        forecast("crrrrrrrr"),
        "1 of 9 steps were computed, 9.0x less work.\n"
        "That is much: compare with a run of the same seed without the cache (BWCache Compare).",
    ),
    "two evaluations a step": (
        forecast("crcrcrcrcrcrcrcrcr", steps_total=9),
        "9 of 18 model evaluations were computed, about 1.8x, about 8.1 s saved.",
    ),
    "in part": (
        report(step(0), step(1), step(2, "partial"), step(3, "reuse"), threshold=0.1),
        "2 of 4 steps were computed, 1 in part, about 1.6x, about 1.5 s saved.",
    ),
    "cancelled": (
        forecast("ccr", steps_total=20, finished=False),
        "The run stopped before its end. Until then 2 of 3 steps were computed.",
    ),
    "cancelled before anything was computed": (
        forecast("", steps_total=20, finished=False),
        "The run stopped before its first step.",
    ),
    "a run that could not be cached": (
        forecast("", steps_total=20, stopped="it was not cached", warnings=["This run was not cached: ValueError: why."]),
        "This run was a plain one.\nThis run was not cached: ValueError: why.",
    ),
    "threshold 0": (
        forecast("c" * 20, "cr" * 10, threshold=0.0),
        "All 20 steps were computed.\nthreshold is 0, which turns reuse off. Set threshold to 0.5.",
    ),
    "speedup 1": (
        forecast("c" * 20, speedup_asked=1.0),
        "All 20 steps were computed.\nspeedup is 1, which computes every step. Set speedup to 2.",
    ),
    "a speed-up that is too small for so few steps": (
        forecast("cccc", speedup_asked=1.1),
        "All 4 steps were computed.\nspeedup 1.1 leaves no step of 4. Set speedup to 1.4.",
    ),
    "a plan of all steps": (
        forecast("cccc", plan_note="your plan"),
        "All 4 steps were computed.\nThe plan computes every step. Take steps out of its text, or set plan to auto.",
    ),
    "one step": (
        forecast("c"),
        "The only step was computed.\nA run of one step has nothing to reuse. Leave BWCache Apply out here.",
    ),
    "few steps, some reused": (
        forecast("crcr", sigmas=shifted(4, 3.0)),
        "2 of 4 steps were computed, about 1.8x, about 1.8 s saved.\n"
        "A model made for so few steps needs each of them: leave BWCache Apply out here.",
    ),
    "two steps": (
        forecast("cc"),
        "All 2 steps were computed.\nA run of 2 steps has nothing to reuse. Leave BWCache Apply out here.",
    ),
    "eight steps, as of a turbo model": (
        forecast("crcrcrcr", sigmas=shifted(8, 3.0)),
        "4 of 8 steps were computed, about 1.8x, about 3.6 s saved.\n"
        "A model made for so few steps needs each of them: leave BWCache Apply out here.",
    ),
    "eight steps of a model of added noise": (
        forecast("crcrcrcr", flow=False, sigmas=[14.6, 7.0, 4.0, 2.5, 1.6, 1.0, 0.6, 0.3, 0.0]),
        "4 of 8 steps were computed, about 1.8x, about 3.6 s saved.\n"
        "A model made for so few steps needs each of them: leave BWCache Apply out here.",
    ),
    "the last eight of 16 such steps, as where an image is painted over": (
        forecast("crcrcrcr", flow=False, sigmas=[1.6, 1.3, 1.0, 0.8, 0.6, 0.4, 0.3, 0.15, 0.0]),
        "4 of 8 steps were computed, about 1.8x, about 3.6 s saved.",
    ),
    "four low-noise steps of eight": (
        forecast("crcr", sigmas=shifted(8, 5.0)[4:]),
        "2 of 4 steps were computed, about 1.8x, about 1.8 s saved.\n"
        "A model made for so few steps needs each of them: leave BWCache Apply out here.",
    ),
    "four high-noise steps of eight": (
        forecast("crcr", sigmas=shifted(8, 5.0)[:5]),
        "2 of 4 steps were computed, about 1.8x, about 1.8 s saved.\n"
        "A model made for so few steps needs each of them: leave BWCache Apply out here.",
    ),
    "ten low-noise steps of twenty": (
        forecast("cr" * 5, sigmas=shifted(20, 5.0)[10:]),
        "5 of 10 steps were computed, about 1.8x, about 4.5 s saved.",
    ),
    "the first steps of a schedule, some reused": (
        forecast("crcr", sigmas=[1.0, 0.9, 0.8, 0.7, 0.6]),
        "2 of 4 steps were computed, about 1.8x, about 1.8 s saved.",
    ),
    "a window that leaves nothing": (
        forecast("c" * 20, plan_note="automatic, start_step 19"),
        "All 20 steps were computed.\nstart_step and end_step leave no step to reuse. "
        "Lower start_step or raise end_step.",
    ),
    "noise in every step": (
        _with(aside(NOISY)),
        "All 12 steps were computed.\n"
        f"The sampler adds noise as it goes, so its next step cannot be foretold. {GONE}",
    ),
    "a sampler that restarts": (
        _with(aside("sigma went back up")),
        "All 12 steps were computed.\n"
        f"The sampler goes back to a higher noise level, where nothing can be foretold. {GONE}",
    ),
    "context windows that move": (
        _with(aside("a context window that was not there before")),
        "All 12 steps were computed.\nThe context windows moved in most steps, and what a new one shows cannot be foretold. "
        "Set context_schedule to standard_static, where they stay.",
    ),
    "conditions that come and go": (
        _with(aside("conditions that were not there before")),
        "All 12 steps were computed.\nPrompts, controls or guidance changed in most steps, and what a new one does cannot be "
        "foretold. Leave BWCache Apply out here.",
    ),
    "changes without end": (
        _with(aside("no forecast was checked on this path yet")),
        "All 12 steps were computed.\nSomething changed again before a forecast could be measured. "
        "Leave BWCache Apply out here.",
    ),
    "another size in every step": (
        _with(aside("the latent changed its size")),
        "All 12 steps were computed.\nThe latent changed its size in most steps, and another size cannot be foretold. "
        "Leave BWCache Apply out here.",
    ),
    "errors over the default threshold": (
        _with(aside(ERRS, error=0.83)),
        "All 12 steps were computed.\nForecasts were off by up to 0.83, more than threshold 0.5. "
        "Use more steps, so that they differ less, or leave BWCache Apply out here.",
    ),
    "errors over a threshold set low": (
        _with(aside(ERRS, error=0.112), threshold=0.1),
        "All 12 steps were computed.\nForecasts were off by up to 0.11, more than threshold 0.1. Set threshold to 0.12.",
    ),
    "less than planned": (
        forecast("cccrcrcrcr", "crcrcrcrcr"),
        "6 of 10 steps were computed, about 1.6x, about 3.6 s saved.\n1 more step than planned was computed: the plan.",
    ),
    "steps that were passed over": (
        _with([*[call(place, "reuse" if place % 2 else "compute") for place in range(8)],
               *[call(place, reason="the sampler passed over planned steps") for place in range(8, 12)]]),
        "8 of 12 steps were computed, about 1.4x, about 3.6 s saved.\n"
        "2 more steps than planned were computed: the sampler passed over planned steps.",
    ),
    "less than planned, by the threshold": (
        _with([*[call(place, "reuse" if place % 2 else "compute") for place in range(11)], call(11, reason=ERRS)]),
        "7 of 12 steps were computed, about 1.6x, about 4.5 s saved.\n"
        "1 more step than planned was computed: forecasts were expected to be off by more than threshold 0.5.",
    ),
    "the last eight of 30 such steps, at sigmas that a flow has, too": (
        forecast("crcrcrcr", flow=False, sigmas=[0.87, 0.79, 0.7, 0.6, 0.5, 0.38, 0.25, 0.03, 0.0]),
        "4 of 8 steps were computed, about 1.8x, about 3.6 s saved.",
    ),
    "steps too wide for the sampler": (
        _with(aside("the latent is not where the steps before led")),
        "All 12 steps were computed.\nThe steps are so wide that the latent was not where those before led. "
        "Use more steps, so that they differ less, or leave BWCache Apply out here.",
    ),
    "most of what was planned, by noise that fades towards the end": (
        _with([*[call(place, reason="the plan" if place % 2 == 0 else NOISY) for place in range(9)],
               *[call(place, "reuse" if place % 2 else "compute") for place in range(9, 12)]]),
        "10 of 12 steps were computed, about 1.2x, about 1.8 s saved.\n"
        "4 more steps than planned were computed: fresh noise in the latent. "
        f"The sampler adds noise as it goes, so its next step cannot be foretold. {GONE}",
    ),
    "much": (
        forecast("crrr" * 5),
        "5 of 20 steps were computed, about 3.1x, about 14 s saved.\n"
        "That is much: compare with a run of the same seed without the cache (BWCache Compare).",
    ),
    "a rival": (
        forecast("cr" * 10, rivals=["EasyCache"]),
        "10 of 20 steps were computed.\n"
        "EasyCache is on the same model: two caches add up their errors. Remove one of them.",
    ),
    "broken numbers": (
        _with([*aside("the plan")[:11], call(11, fault="the output holds NaN")]),
        "All 12 steps were computed.\n"
        "Broken numbers were found (step 11: the output holds NaN), and what was kept until then was dropped. "
        "If the video is black or noise without BWCache too, the model or its precision is at fault.",
    ),
    "the hooks were passed by": (
        forecast("", steps_total=20),
        "This run was a plain one: its guider or sampler asks the model past the cache. Leave BWCache Apply out here.",
    ),
    "the cache gave up": (
        forecast("ccccc", "crcrc", stopped="it gave up", warnings=["The cache gave up in evaluation 2: no memory."]),
        "All 5 steps were computed.\nThe cache gave up in evaluation 2: no memory.",
    ),
    "stopped": (
        forecast("ccccc", "crcrc", stopped="the model is under gradients"),
        "All 5 steps were computed.\nThe cache stopped: the model is under gradients.",
    ),
    "a fact": (
        forecast("cr" * 10, notes=["Two runs share this cache.", "Two runs share this cache."]),
        "10 of 20 steps were computed, about 1.8x, about 9.0 s saved.\nTwo runs share this cache.",
    ),
    "paper, threshold 0": (
        report(*[step(place, change=0.2) for place in range(9)], threshold=0.0),
        "All 9 steps were computed.\nthreshold is 0, which turns reuse off. Set threshold to 0.21.",
    ),
    "paper, threshold too low": (
        report(step(0), *[step(1 + i, change=change) for i, change in enumerate([0.3, 0.2, 0.25, 0.4])]),
        "All 5 steps were computed.\nNothing changed by less than threshold 0.1: the smallest change was 0.2. "
        "Set threshold to 0.28: half of the changes seen were under it.",
    ),
    "paper, steps too far apart": (
        report(*[step(place, change=2.5) for place in range(9)]),
        "All 9 steps were computed.\nNothing changed by less than threshold 0.1: the smallest change was 2.5. "
        "Its steps are too far apart for this mode: use more steps, or mode forecast.",
    ),
    "paper, window": (
        report(*[step(place, change=0.01, reason="before start_step 20") for place in range(9)]),
        "All 9 steps were computed.\nNothing was reused: before start_step 20. Check start_step and end_step.",
    ),
    "paper, little": (
        report(*[step(place, change=0.05) for place in range(19)], step(19, "reuse")),
        "19 of 20 steps were computed, hardly any time was saved.\n"
        "That is little. Set reuse_interval to 4, or use more steps.",
    ),
    "per block, too low": (
        report(*[step(place, change=0.5, block_changes={0: 0.3, 1: 0.7}) for place in range(8)], mode="per block"),
        "All 8 steps were computed.\nNothing changed by less than threshold 0.1: the smallest change was 0.3. "
        "Set threshold to 0.51: half of the changes seen were under it.",
    ),
    "work saved, but no time": (
        report(*[step(place) for place in range(5)], *[step(5 + i, "reuse", seconds=0.9) for i in range(5)]),
        "5 of 10 steps were computed, about 1.1x, about 0.5 s saved.\n"
        "There was 2.0x less work: the rest of the time goes into what a cache cannot skip, or into moving weights when "
        "memory is short.",
    ),
    "placed elsewhere": (
        report(step(0), step(1), step(2, "reuse"), placement="in host memory: 900 MiB to spare on the GPU"),
        "2 of 3 steps were computed, about 1.4x, about 0.9 s saved.\n"
        "Memory: in host memory: 900 MiB to spare on the GPU.",
    ),
}


@pytest.mark.parametrize("name", SAYS)
def test_what_is_said(name):
    run, text = SAYS[name]
    assert verdict(run) == text


ELSEWHERE = ("earned", "easured", "better", "no forecast was checked", "Broken numbers:", "worse of them", "Largest error")


def test_every_text_of_a_verdict_is_in_the_table():
    """Read from the source. What mode measure says, and what is said below the live view, has tables of its own."""
    tree = ast.parse(Path(advice.__file__).read_text(encoding="utf-8"))
    places = (ast.Module, ast.FunctionDef, ast.ClassDef)
    docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, places) and isinstance(node.body[0], ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
    pieces = [node.value.strip() for node in constants if isinstance(node.value, str) and len(node.value) > 12]
    said = "\n".join(verdict(run) for run, _ in SAYS.values())
    unsaid = [piece for piece in pieces if " " in piece and piece not in said]
    assert [piece for piece in unsaid if not any(word in piece for word in ELSEWHERE)] == []


@pytest.mark.parametrize("name", SAYS)
def test_nothing_is_said_twice_and_the_log_says_the_same(name):
    run, _ = SAYS[name]
    lines = verdict(run).split("\n")
    assert len(lines) == len(set(lines))
    logged = " ".join(log_lines(run))
    assert all(line in logged for line in lines)
    assert logged.startswith("BWCache")


def test_a_threshold_that_is_advised_reuses():
    changes = [0.3, 0.2, 0.25, 0.4]
    advised = suggested_threshold(changes)
    assert sum(change < advised for change in changes) >= 2
    BlockConfig(threshold=advised)
    ForecastConfig(threshold=rounded_up(0.4999))


def test_the_notice_is_what_went_wrong_and_else_why_nothing_was_reused():
    assert notice(forecast("cr" * 10)) == ""
    assert notice(forecast("ccc", finished=False)) == ""
    assert notice(SAYS["a rival"][0]).startswith("EasyCache is on the same model")
    assert notice(SAYS["broken numbers"][0]) == "Broken numbers: step 11: the output holds NaN"
    assert notice(SAYS["threshold 0"][0]).startswith("threshold is 0")
    assert notice(forecast("cccrcrcrcr", "crcrcrcrcr")) == "", "the live view shows that by itself"
    assert notice(forecast("c", warnings=["w"], finished=False)) == "w"


def test_the_plan_is_told_as_text_that_the_node_takes():
    assert plan_line(forecast("crcr")) == "Plan: 0 2/4 (automatic)"
    assert plan_line(report(step(0))) == ""
    ForecastConfig(plan=plan_line(forecast("crcr", plan_note="")).removeprefix("Plan: "))


def test_the_worst_error_of_picture_and_of_sound_is_told():
    run = forecast("ccrc")
    run.steps[1].parts, run.steps[3].parts = {"picture": 0.04, "sound": 0.2}, {"picture": 0.123, "sound": 0.1}
    assert parts_line(run) == "Largest error of a forecast: picture 0.12, sound 0.2. The worse of them decides."
    assert parts_line(forecast("ccrc")) == ""


def test_advice_comes_only_at_the_end():
    assert advise(forecast("cc", "cr", threshold=0.0, finished=False)).next == ""
