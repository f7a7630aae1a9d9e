"""What the forecast mode promises on every host and for every model: packed or not, whatever the model predicts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.bwcache_core.report import RunStats
from bwcache_pack.hosts.embedded import TinySampler, sample_euler
from bwcache_pack.nodes.attach import attach
from bwcache_pack.tests.hosts.calls import Calls, foretold
from bwcache_pack.tests.hosts.lab import STEPS, Lab, difference

COMPUTED = [0, 1, 4, 7]
PLAN = {"plan": "0-1 4 7/8", "threshold": 10.0, "corrector": False}  # untrained models: trust would set the plan aside


def test_speedup_1_is_bit_identical(any_lab):
    cached = any_lab.cached(speedup=1.0)
    assert difference(any_lab.sample(cached.model), any_lab.uncached()) == 0.0
    assert cached.actions == ["compute"] * STEPS
    assert cached.report.finished and cached.report.planned == list(range(STEPS)) and cached.report.cache_bytes == 0


def test_exactly_the_planned_steps_run_and_the_others_get_the_line(any_lab):
    """x - sigma * line for each condition and row, against a line drawn by hand. Computed ones are handed on untouched."""
    watched = Calls(any_lab, **PLAN)
    first = watched.sample()
    seen, report = watched.evaluations, watched.report
    assert watched.ran == COMPUTED and report.planned == COMPUTED and report.plan.startswith("0-1 4 7/8")
    assert [step.action for step in report.steps] == ["compute" if n in COMPUTED else "reuse" for n in range(STEPS)]
    asked = sum(seen[0].calls[0].present)
    assert [(step.calls_total, step.calls_run) for step in report.steps] == [
        (asked, asked if n in COMPUTED else 0) for n in range(STEPS)
    ]
    for n, evaluation in enumerate(seen):
        assert not evaluation.input_written and len(evaluation.calls) == 1
        [call] = evaluation.calls
        for condition, wanted in enumerate(call.present):
            given = call.given[condition]
            if n in COMPUTED:
                assert torch.equal(given, call.computed[condition])
            elif wanted:
                expected = foretold(seen, n, 0, condition, range(STEPS))
                torch.testing.assert_close(given, expected, rtol=2e-5, atol=2e-5 * float(expected.abs().max()))
            else:
                assert difference(given, torch.zeros_like(given)) == 0.0
    assert difference(first, any_lab.uncached()) > 1e-4, "the forecasts do nothing here"
    assert torch.isfinite(first).all()
    assert difference(watched.sample(), first) == 0.0
    assert watched.ran == COMPUTED


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_the_automatic_plan_halves_the_model_calls(lab):
    watched = Calls(lab, speedup=2.0, threshold=10.0)
    watched.sample()
    assert watched.ran == watched.report.planned
    assert len(watched.ran) == STEPS / 2
    assert watched.report.work_ratio == 2.0


@pytest.mark.family("wan21_t2v")
def test_runs_know_nothing_of_each_other(lab):
    """The same run gives the same latents before and after another seed and another size, as in a second pass."""
    cached = lab.cached(speedup=2.0)
    first = lab.sample(cached.model)
    other = lab.sample(cached.model, noise=lab.noise(seed=2, frames=3, size=6))
    assert difference(lab.sample(cached.model), first) == 0.0
    fresh = lab.cached(speedup=2.0)
    assert difference(lab.sample(fresh.model, noise=lab.noise(seed=2, frames=3, size=6)), other) == 0.0
    assert cached.report.evaluations_reused > 0


@pytest.mark.family("wan21_t2v")
def test_attaching_leaves_the_model_as_it_was(lab):
    model = lab.plain
    cached = lab.cached(model, speedup=2.0)
    lab.sample(cached.model)
    assert difference(lab.sample(model), lab.uncached()) == 0.0
    assert not any(model.wrappers.get(point, {}).get("bwcache") for point in model.wrappers)
    assert len(cached.stats.runs) == 1


@pytest.mark.family("wan21_t2v")
def test_a_class_that_another_pack_put_on_the_model_is_cached_alike_in_every_run(lab):
    """Some packs change the class of the module and leave it so: a forecast of its output asks for no class."""
    expected, module = lab.sample(lab.cached(speedup=2.0).model), lab.module()
    own = type(module)
    try:
        module.__class__ = type("Patched", (own,), {})
        cached = [lab.cached(speedup=2.0) for _ in range(2)]
        assert [difference(lab.sample(c.model), expected) for c in cached] == [0.0, 0.0]
    finally:
        module.__class__ = own
    assert all(c.report.evaluations_reused == STEPS / 2 and c.report.model == "Patched" for c in cached)


@pytest.mark.family("wan21_t2v")
def test_a_second_apply_replaces_the_first_and_a_clone_downstream_keeps_it(lab):
    """ComfyUI before 0.14 copies model options deeply on clone, which splits state that lives in them."""
    first = lab.cached(speedup=3.0)
    second = lab.cached(first.model.clone(), speedup=2.0)
    expected = lab.sample(lab.cached(speedup=2.0).model)
    assert difference(lab.sample(second.model.clone().clone()), expected) == 0.0
    assert (len(first.stats.runs), len(second.stats.runs)) == (0, 1)
    assert second.report.evaluations_reused > 0


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("one_by_one", [lambda evaluation: True, lambda evaluation: evaluation % 2 == 0])
def test_batching_of_conditions_changes_nothing(lab, one_by_one):
    """Cond and uncond in one model call or in two, as free memory has it."""
    together, apart = lab.cached(speedup=2.0), lab.cached(speedup=2.0)
    expected = lab.sample(together.model)
    torch.testing.assert_close(lab.sample(apart.model, one_by_one=one_by_one), expected, rtol=1e-3, atol=1e-3)
    assert apart.actions == together.actions and "reuse" in apart.actions


@pytest.mark.family("wan21_t2v", "hunyuan")
def test_every_row_of_a_batch_has_its_own_line(lab):
    watched = Calls(lab, **PLAN)
    watched.sample(noise=lab.noise(batch=2))
    for n in (2, 5, 6):
        for condition in (0, 1):
            expected = foretold(watched.evaluations, n, 0, condition, range(STEPS))
            torch.testing.assert_close(watched.evaluations[n].calls[0].given[condition], expected, rtol=1e-4, atol=1e-4)
            assert difference(expected[0], expected[1]) > 0.1
    assert watched.ran == COMPUTED


@pytest.mark.family("wan21_t2v")
def test_where_a_sampler_is_known_computed_steps_make_up_for_what_was_missed(lab):
    """Step 4, after two reused ones. The last step, which ends at sigma 0, gives its own answer whatever was before."""
    watched = Calls(lab, **{**PLAN, "corrector": True})
    latents = watched.sample()
    calls = {n: watched.evaluations[n].calls[0] for n in COMPUTED}
    assert [n for n, call in calls.items() if difference(call.given[0], call.computed[0])] == [4]
    without = lab.sample(lab.cached(**PLAN).model)
    assert difference(latents, without) > 1e-4


@pytest.mark.family("wan21_t2v")
def test_whoever_watches_sees_every_evaluation_and_the_end(lab):
    seen, stats = [], RunStats()

    def watch(report):
        seen.append(("begin", report.plan, len(report.steps)))
        return lambda done: seen.append((done, len(report.steps), report.finished))

    lab.sample(attach(lab.plain, ForecastConfig(speedup=2.0), stats, watch))
    [run] = stats.runs
    assert seen[0] == ("begin", run.plan, 0) and run.plan
    assert [done for done, *_ in seen[1:]] == [False] * STEPS + [True]
    assert [count for _, count, _ in seen[1:]] == [*range(1, STEPS + 1), STEPS]
    assert seen[-1][2] is True
    assert [step.seconds > 0 for step in run.steps] == [True] * STEPS


def euler_in_place(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for sigma, following in pairwise(sigmas.tolist()):
        denoised = model(x, x.new_full((len(x),), sigma))
        x.sub_(denoised).mul_(following / sigma).add_(denoised)
        denoised.fill_(float("nan"))
    return x


def test_a_sampler_may_write_into_its_latent_and_into_what_it_was_given(embedded):
    """Where it went is told from copies: what is written is no fresh noise, and spoils nothing that is reused."""
    lab, runs = Lab(embedded, "wan21_t2v"), {}
    for name, function in {"fresh": sample_euler, "in place": euler_in_place}.items():
        cached = lab.cached(**PLAN)
        latents = lab.guider(cached.model).sample(lab.noise(), torch.zeros_like(lab.noise()), TinySampler(function), lab.sigmas())
        runs[name] = (cached.actions, latents)
        assert all((step.jump or 0.0) < 1e-3 for step in cached.report.steps), name
    assert runs["in place"][0] == runs["fresh"][0] == ["compute" if n in COMPUTED else "reuse" for n in range(STEPS)]
    torch.testing.assert_close(runs["in place"][1], runs["fresh"][1], rtol=1e-4, atol=1e-4)
