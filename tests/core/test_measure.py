"""What a run in mode measure keeps: matrices by hand, nothing touched, reasons where nothing is learned."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bwcache_pack.bwcache_core.corrector import SamplerStep
from bwcache_pack.bwcache_core.measure import FEWEST, MOST, PLACES, MeasureRun, NothingLearned, Sampler, places_in
from bwcache_pack.bwcache_core.schedule import Schedule
from bwcache_pack.bwcache_core.track import Call

SIGMAS = tuple(1.0 - 0.1 * i for i in range(11))
BOTH = Call("both", ("cond", "uncond"))


def v_of(condition: int, sigma: float) -> torch.Tensor:
    return torch.tensor([[1.0 + sigma, 2.0 - sigma**2]]) * (1.0 + condition)


def sample(run, sigmas=SIGMAS, v=v_of, call=BOTH, cfg=3.0, finish=True):
    """Euler with guidance, as ComfyUI's guiders combine: uncond + cfg * (cond - uncond)."""
    x = torch.tensor([[3.0, -1.0]])
    for here, following in pairwise(sigmas):
        timestep = torch.full((1,), here)
        run.begin(timestep, x)
        made = [x - here * v(i, here) for i in range(2)]
        given = run.call(call, timestep, x, lambda made=made: made)
        assert given is made, "handed on untouched"
        guided = given[1] + cfg * (given[0] - given[1])
        run.end(guided)
        x = x + (x - guided) / here * (following - here)
    run.close(finish)
    return x


def learned(**settings) -> tuple[MeasureRun, list]:
    lessons = []
    run = MeasureRun(Schedule(SIGMAS), "Toy", keep=lambda lesson: lessons.append(lesson) or len(lessons), **settings)
    return run, lessons


def test_the_matrices_are_inner_products_of_what_the_model_gave():
    run, lessons = learned()
    sample(run)
    [lesson] = lessons
    outputs = [torch.cat([v_of(i, sigma) for sigma in SIGMAS[:-1]]).double() for i in range(2)]
    guided = outputs[1] + 3.0 * (outputs[0] - outputs[1])

    def inner(v):
        return v @ v.T / 2

    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(torch.tensor(lesson.knowledge.guided).double(), inner(guided), **close)
    assert set(lesson.conditions) == {"cond", "uncond"}
    torch.testing.assert_close(torch.tensor(lesson.conditions["uncond"]).double(), inner(outputs[1]), **close)
    single = inner(outputs[0]) + inner(outputs[1])
    torch.testing.assert_close(torch.tensor(lesson.knowledge.single).double(), single, **close)
    assert lesson.sigmas == pytest.approx(SIGMAS[:-1])
    course = lesson.knowledge.course
    assert course.steps == tuple(range(10)) and course.gains == pytest.approx([-0.1] * 10)
    assert course.places == pytest.approx(range(10))
    assert run.report.measured_runs == 1 and not run.report.unlearned
    assert [step.sigma for step in run.report.steps] == pytest.approx(SIGMAS[:-1])
    assert run.report.steps[0].error is None and 0.0 < run.report.steps[-1].error < 0.05
    assert run.report.evaluations_reused == 0 and run.report.work_ratio == 1.0


def test_what_the_sampler_does_is_weighed_where_it_is_known():
    steps = [SamplerStep(here, to / here, (2.0,), i) for i, (here, to) in enumerate(pairwise(SIGMAS))]
    run, [*lessons] = learned(sampler=steps)[0], []
    run.keep = lambda lesson: lessons.append(lesson) or 1
    sample(run)
    assert lessons[0].knowledge.course.gains != pytest.approx([-0.1] * 10)
    assert lessons[0].knowledge.course.gains[-1] == pytest.approx(-2.0 * 0.1)


def test_nothing_is_kept_of_a_run_that_was_cancelled():
    run, lessons = learned()
    sample(run, finish=False)
    assert lessons == [] and run.report.measured_runs == 0 and not run.report.finished


def test_an_evaluation_that_raised_leaves_nothing():
    run, lessons = learned()
    x = torch.zeros(1, 2)

    def fails():
        raise RuntimeError("out of memory")

    run.begin(torch.ones(1), x)
    with pytest.raises(RuntimeError):
        run.call(BOTH, torch.ones(1), x, fails)
    sample(run)  # the host tries again
    assert len(lessons) == 1 and len(run.report.steps) == 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sigmas": SIGMAS[:4]}, "does not evaluate in each step"),
        ({"v": lambda i, sigma: v_of(i, sigma) * (float("nan") if sigma < 0.5 else 1.0)}, "NaN"),
        ({"v": lambda i, sigma: 0.0 * v_of(i, sigma)}, "all zero"),
        ({"v": lambda i, sigma: v_of(i, sigma) * (-1.0) ** round(10 * sigma)}, "swings to and fro"),
        ({"sigmas": (*SIGMAS[:6], 0.9, 0.7, *SIGMAS[6:])}, "higher noise level"),
    ],
)
def test_why_nothing_was_learned(change, reason):
    run, lessons = learned()
    sample(run, **change)
    assert reason in run.report.unlearned and lessons == []
    assert run.report.finished


def test_a_run_of_few_steps_teaches_nothing():
    run = MeasureRun(Schedule(SIGMAS[-FEWEST:]))
    sample(run, SIGMAS[-FEWEST:])
    assert run.report.unlearned == f"a run of fewer than {FEWEST} steps teaches too little"


def test_a_run_of_very_many_steps_teaches_nothing():
    sigmas = tuple(1.0 - i / (MOST + 1) for i in range(MOST + 2))
    run = MeasureRun(Schedule(sigmas))
    sample(run, sigmas)
    assert run.report.unlearned == f"it has more than {MOST} steps"


def test_evaluations_that_ask_for_nothing_do_not_count():
    run, lessons = learned()
    x = torch.zeros(1, 2)
    run.begin(torch.ones(1), x)
    run.end(x)
    assert run.report.steps == []
    run.close(True)
    assert "past this node" in run.report.unlearned and lessons == []


def test_gradients_and_failures_stop_it_and_the_run_goes_on():
    run, lessons = learned()
    sample(run, v=lambda i, sigma: v_of(i, sigma).requires_grad_())
    assert "gradients" in run.report.unlearned and lessons == [] and len(run.report.steps) == 10
    run, lessons = learned()
    run.give_up(ValueError("no such latent"))
    assert run.stopped and run.report.unlearned == "measuring failed: ValueError: no such latent"


def test_a_latent_that_changes_its_size_teaches_nothing():
    run, lessons = learned()
    for n, sigma in enumerate(SIGMAS[:-1]):
        x, timestep = torch.ones(1, 2 + n // 5), torch.full((1,), sigma)
        run.begin(timestep, x)
        run.call(BOTH, timestep, x, lambda x=x: [x * 0.5, x * 0.3])
        run.end(x * 0.5)
    run.close(True)
    assert run.report.unlearned == "the latent changed its size in the run" and lessons == []


def test_a_keeper_that_refuses_says_why():
    def refuse(lesson):
        raise NothingLearned("the folder cannot be written")

    run = MeasureRun(Schedule(SIGMAS), keep=refuse)
    sample(run)
    assert run.report.unlearned == "the folder cannot be written" and run.report.measured_runs == 0


@pytest.mark.parametrize("numel", [1, 10, PLACES, PLACES + 1, 10_000, 16 * 21 * 90 * 160, 2**31 - 1])
def test_places_are_few_within_the_latent_and_evenly_spread(numel):
    places = places_in(numel, "cpu")
    assert len(places) == min(numel, PLACES) and 0 <= int(places.min()) and int(places.max()) < numel
    assert torch.equal(places, places_in(numel, "cpu"))
    gaps = places.sort().values.double().diff()
    assert len(gaps) == 0 or gaps.max() <= 3.0 * max(numel / PLACES, 1.0)


def test_rows_have_their_own_sigma_and_given_places_say_nothing():
    x = torch.arange(8.0).reshape(2, 1, 2, 2)
    mask = torch.tensor([[[[1.0, 0.0]]]])
    sampler = Sampler(x.shape, "cpu", mask)
    v = sampler.output(sampler.take(x), torch.zeros_like(x), torch.tensor([1.0, 2.0]))
    assert v.tolist() == [0.0, 0.0, 2.0, 0.0, 2.0, 0.0, 3.0, 0.0]


def test_passes_of_one_condition_are_told_apart():
    run, lessons = learned()
    for sigma in SIGMAS[:-1]:
        x, timestep = torch.ones(1, 2), torch.full((1,), sigma)
        run.begin(timestep, x)
        for _ in range(2):
            run.call(Call("one", ("cond", None)), timestep, x, lambda x=x: [x * 0.5, x * 0.0])
        run.end(x * 0.5)
    run.close(True)
    assert list(lessons[0].conditions) == ["cond", "cond pass 2"]
