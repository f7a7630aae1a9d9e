"""A forecast run under simulated samplers: latents of two numbers, models that count their calls, results by hand."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import weakref

import pytest
import torch

from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.bwcache_core.corrector import SamplerStep
from bwcache_pack.bwcache_core.forecast import forecast_weights
from bwcache_pack.bwcache_core.run import ForecastRun
from bwcache_pack.bwcache_core.schedule import Schedule
from bwcache_pack.bwcache_core.track import Call, Scale

SIGMAS = tuple(1.0 - 0.1 * i for i in range(11))
COND = Call("only", ("cond",))
BOTH = Call("both", ("cond", "uncond"))


def curve(condition: int, sigma: float, x: torch.Tensor) -> torch.Tensor:
    """v of a smooth model, another one for each condition."""
    return torch.tensor([[1.0 + sigma, 2.0 - 0.5 * sigma**2]]) * (1.0 + condition)


class Model:
    """Denoised latents of conditions, D = x - sigma v, and how often each was asked."""

    def __init__(self, v=curve):
        self.v = v
        self.calls = []

    def __call__(self, call, sigma, x):
        self.calls.append(round(float(torch.as_tensor(sigma).flatten()[0]), 3))
        return [torch.zeros_like(x) if label is None else x - sigma * self.v(i, sigma, x) for i, label in enumerate(call.labels)]


def new_run(plan="auto", sigmas=SIGMAS, sampler=(), scale=None, **settings) -> ForecastRun:
    return ForecastRun(ForecastConfig(plan=plan, **settings), Schedule(tuple(sigmas)), "Toy", sampler, scale)


def evaluate(run, model, sigma, x, calls=(COND,), end=True):
    """One evaluation of a guider that takes the first condition of its first call."""
    timestep = torch.full((len(x),), sigma)
    run.begin(timestep, x)
    made = [run.call(call, timestep, x, lambda call=call: model(call, sigma, x)) for call in calls]
    if end:
        run.end(made[0][0] if made else x)
    return made


def euler(run, model, sigmas=SIGMAS, x=None, calls=None, noise=None):
    """Sample with one evaluation a step. calls: of each step. noise: how much is added after each, of the noise level."""
    x = torch.tensor([[3.0, -1.0]]) if x is None else x
    generator = torch.Generator().manual_seed(0)
    for step, (here, following) in enumerate(itertools.pairwise(sigmas)):
        denoised = evaluate(run, model, here, x, calls[step] if calls else (COND,))[0][0]
        x = x + (x - denoised) / here * (following - here)
        if noise:
            x = x + noise * following * torch.randn(x.shape, generator=generator)
    run.close(True)
    return x


def actions(run) -> str:
    return "".join({"compute": "C", "reuse": "R", "partial": "P"}[step.action] for step in run.report.steps)


def test_the_planned_steps_compute_and_no_others():
    run, model = new_run("0-1 4 8/10"), Model()
    euler(run, model)
    assert run.report.flow and not ForecastRun(ForecastConfig(), Schedule((14.6, 1.0, 0.0), flow=False)).report.flow
    assert actions(run) == "CCRRCRRRCR"
    assert model.calls == [1.0, 0.9, 0.6, 0.2]
    assert run.report.planned == [0, 1, 4, 8] and run.report.finished


def test_a_reused_step_gets_the_line_through_the_last_two_outputs():
    run, model = new_run("0-1 5/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for sigma in (1.0, 0.9):
        evaluate(run, model, sigma, x)
    for step, sigma in ((2, 0.8), (3, 0.7)):
        run.trust.noise = 0.0
        [[denoised]] = evaluate(run, model, sigma, x, end=False)
        run._seen = None  # this test moves the latent as it likes
        older, newer = forecast_weights([0.0, 1.0], run.schedule.coordinate(sigma))
        v = older * curve(0, 1.0, x) + newer * curve(0, 0.9, x)
        assert torch.allclose(denoised, x - sigma * v, atol=1e-6), step
        break


def test_speedup_1_is_bit_identical_and_keeps_nothing():
    run, model = new_run(speedup=1.0), Model()
    x = torch.randn(1, 2, generator=torch.Generator().manual_seed(1))
    plain = x.clone()
    for here, following in itertools.pairwise(SIGMAS):
        plain = plain + (plain - Model()(COND, here, plain)[0]) / here * (following - here)
    assert torch.equal(euler(run, model, x=x), plain)
    assert actions(run) == "C" * 10 and run.report.cache_bytes == 0
    assert {step.error for step in run.report.steps} == {None}


def test_computed_steps_hand_on_the_models_own_tensors_before_anything_is_reused():
    run, model = new_run("0-3/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    computed = model(COND, 1.0, x)
    timestep = torch.ones(1)
    run.begin(timestep, x)
    assert run.call(COND, timestep, x, lambda: computed)[0] is computed[0]


def test_reused_tensors_are_fresh_and_nothing_handed_in_is_kept_or_written():
    run = new_run("0-1/10")
    x = torch.tensor([[3.0, -1.0]])
    made = []

    def model(call, sigma, x):
        made.append(x - sigma)
        return [made[-1]]

    for sigma in (1.0, 0.9):
        [[denoised]] = evaluate(run, model, sigma, x)
        denoised.fill_(77.0)  # as blocks and samplers do with what they get
    [[first]] = evaluate(run, model, 0.8, x)
    assert torch.allclose(first, x - 0.8, atol=1e-5)
    first.fill_(5.0)
    [[second]] = evaluate(run, model, 0.7, x)
    assert torch.allclose(second, x - 0.7, atol=1e-5)
    assert torch.equal(x, torch.tensor([[3.0, -1.0]]))


def test_a_run_twice_gives_the_same_bits():
    once, again = (euler(new_run(speedup=2.0), Model()) for _ in range(2))
    assert torch.equal(once, again)


def test_conditions_are_foretold_each_for_itself():
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[0.5, 0.5]])
    for sigma in (1.0, 0.9):
        evaluate(run, model, sigma, x, (BOTH,))
    [[cond, uncond]] = evaluate(run, model, 0.8, x, (BOTH,))
    assert torch.allclose((x - uncond) / 0.8, 2.0 * (x - cond) / 0.8, atol=1e-5)


def test_what_is_not_asked_for_is_zero_as_the_host_has_it():
    call = Call("one of two", ("cond", None))
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[0.5, 0.5]])
    results = [evaluate(run, model, sigma, x, (call,))[0] for sigma in (1.0, 0.9, 0.8)]
    assert all(torch.equal(uncond, torch.zeros(1, 2)) for _, uncond in results)
    assert [step.calls_total for step in run.report.steps] == [1, 1, 1]
    assert actions(run) == "CCR"


def test_calls_of_the_same_key_are_told_apart_by_their_order():
    """An extra guidance pass: another model for the second call of each evaluation."""
    run = new_run("0-1/10")
    x = torch.tensor([[0.5, 0.5]])
    models = [Model(), Model(lambda i, sigma, x: -curve(i, sigma, x))]
    for sigma in (1.0, 0.9, 0.8):
        timestep = torch.full((1,), sigma)
        run.begin(timestep, x)
        found = [run.call(COND, timestep, x, lambda m=m, s=sigma: m(COND, s, x))[0] for m in models]
        run.end(found[0])
    assert torch.allclose(x - found[0], found[1] - x, atol=1e-6)
    assert [len(model.calls) for model in models] == [2, 2]
    assert run.report.steps[1].conditions.keys() == {"cond", "cond pass 2"}


def test_a_call_that_was_not_there_before_computes_and_is_said_to():
    run = new_run("0-1/10")
    euler(run, Model(), calls=[(COND,), (COND,), *[(COND, BOTH)] * 8])
    assert actions(run) == "CCPRPRRRRR"
    assert "conditions" in run.report.steps[2].reason


def test_a_call_that_was_left_out_is_too_old_to_be_used():
    run = new_run("0-1/10")
    euler(run, Model(), calls=[(COND, BOTH), (COND, BOTH), (COND,), *[(COND, BOTH)] * 7])
    assert actions(run) == "CCRPRPRRRR"


def test_fresh_noise_in_every_step_computes_every_step():
    run = new_run(speedup=3.0)
    euler(run, Model(lambda i, sigma, x: x), noise=0.5)
    assert actions(run) == "C" * 10
    assert {step.reason for step in run.report.steps} <= {"nothing was computed before", "the plan", "fresh noise in the latent"}


def test_a_known_sampler_may_move_the_latent_a_little_otherwise_and_not_much():
    """Second-order samplers do so in the last steps. A swapped latent is another thing."""
    steps = [SamplerStep(s, 1.0, (0.1,), n) for n, s in enumerate(SIGMAS[:-1])]
    for nudge, corrector, expected in ((1.1, True, "CCRRRR"), (1.1, False, "CCRRRR"), (-3.0, True, "CCRRRC")):
        run, model = new_run("0-1/10", sampler=steps, corrector=corrector), Model()
        x = torch.tensor([[3.0, -1.0]])
        for i, here in enumerate(SIGMAS[:6]):
            x = x * nudge if i == 5 else x
            x = x + (x - evaluate(run, model, here, x)[0][0]) / here * -0.1
        assert actions(run) == expected
        assert run.report.steps[5].jump > run.trust.most_noise
    assert run.report.steps[5].reason == "the latent is not where the steps before led"


def test_a_sampler_of_a_higher_order_moves_as_far_as_the_denoised_latent_changed():
    """Where steps are wide and little noise is left, the share of the one before is more than that noise."""
    sigmas = [1.0, 0.1, 0.01, 0.001, 0.0]
    weights = [(0.9,), (1.35, -0.45), (1.35, -0.45), (1.0,)]
    steps = [SamplerStep(here, after / here, w, n) for n, (here, after, w) in enumerate(zip(sigmas, sigmas[1:], weights, strict=False))]
    jumps = []
    for known in (steps, ()):
        run, denoised = new_run("0-2/4", sigmas=sigmas, sampler=known), []
        x = torch.tensor([[3.0, -1.0]])
        for step in steps[:3]:
            denoised.insert(0, evaluate(run, Model(lambda i, sigma, x: x + sigma), step.sigma, x)[0][0])
            x = step.decay * x + sum(w * d for w, d in zip(step.weights, denoised, strict=False))
        jumps.append(run.report.steps[2].jump)
    assert jumps[0] < run.trust.threshold < jumps[1]


def test_a_latent_that_was_swapped_computes_and_later_steps_reuse_again():
    """Another tile, a restart at the same sigma: once."""
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for i, here in enumerate(SIGMAS[:-1]):
        if i == 5:
            x = -3.0 * x
        denoised = evaluate(run, model, here, x)[0][0]
        x = x + (x - denoised) / here * -0.1
    assert actions(run) == "CCRRRCRCRR"
    assert run.report.steps[5].reason == "fresh noise in the latent"
    assert run.report.steps[5].judged > run.report.steps[5].limit


def test_no_line_is_drawn_through_outputs_of_two_latents():
    """Another tile at the second planned step: the forecast after it is the last output alone."""
    run, seen = new_run("0-1/10", threshold=0.5), torch.tensor([[3.0, -1.0]])
    model = Model(lambda i, sigma, x: x)
    evaluate(run, model, 1.0, seen)
    other = seen * 0.9 * 1.2  # 0.2 off where the first led
    evaluate(run, model, 0.9, other)
    [[denoised]] = evaluate(run, model, 0.8, following := other * 0.9)
    assert actions(run) == "CCR" and 0.125 < run.report.steps[1].jump < 0.5
    assert torch.allclose((following - denoised) / 0.8, other, atol=1e-5)


def test_a_sampler_that_passes_over_planned_steps_computes_where_it_comes_next():
    """No forecast goes more than a step further than the plan's longest."""
    run, model = new_run("0-1 4 7/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for sigma, following in itertools.pairwise((1.0, 0.9, 0.5, 0.4, 0.2)):
        x = x + (x - evaluate(run, model, sigma, x)[0][0]) / sigma * (following - sigma)
    assert actions(run) == "CCCR"
    assert run.report.steps[2].reason == "the sampler passed over planned steps"


def test_a_sampler_that_takes_noise_from_the_negative_condition_is_no_fresh_noise():
    """CFG++: the next latent is D plus the noise that the other condition sees."""
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for here, following in itertools.pairwise(SIGMAS):
        cond, uncond = evaluate(run, model, here, x, (BOTH,))[0]
        x = cond + (x - uncond) / here * following
    assert actions(run) == "CCRRRRRRRR"


@pytest.mark.parametrize(
    ("latent", "reason"),
    [(torch.zeros(1, 3), "the latent changed its size"), (torch.full((1, 2), math.nan), "the latent or the last output holds NaN or infinity")],
)
def test_a_latent_that_cannot_be_compared_computes_for_a_true_reason(latent, reason):
    run, model = new_run("0-1/10"), Model(lambda i, sigma, x: torch.ones_like(x))
    for sigma, x in ((1.0, torch.ones(1, 2)), (0.9, torch.ones(1, 2)), (0.8, latent)):
        evaluate(run, model, sigma, x, (Call(tuple(x.shape), ("cond",)),))  # as the adapter names calls
    assert actions(run) == "CCC"
    assert run.report.steps[2].reason == reason


def test_refining_at_one_sigma_with_fresh_noise_computes():
    run = new_run("0-1/10")
    generator = torch.Generator().manual_seed(2)
    for sigma in (1.0, 0.9, 0.8, 0.8, 0.8):
        x = torch.randn(1, 2, generator=generator)
        evaluate(run, Model(lambda i, sigma, x: x), sigma, x)
    assert actions(run) == "CCCCC"


def test_the_second_evaluation_of_a_step_on_nearly_the_same_latent_reuses():
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for sigma in (1.0, 0.9):
        x = x + (x - evaluate(run, model, sigma, x)[0][0]) / sigma * -0.1
    for nudge in (1.0, 1.0001):
        evaluate(run, model, 0.8, x * nudge)
    assert actions(run) == "CCRR"


def test_sigma_that_rose_on_fresh_noise_computes_and_begins_a_new_line():
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for sigma in (1.0, 0.9, 0.8, 0.9):
        denoised = evaluate(run, model, sigma, x)[0][0]
        x = x + (x - denoised) / sigma * -0.1 if sigma != 0.8 else -x
    assert actions(run) == "CCRC"
    assert run.report.steps[3].reason == "sigma went back up"
    [track] = run.tracks.values()
    assert len(track.nodes) == 1


def test_a_sampler_that_goes_back_up_along_its_own_path_keeps_its_line():
    """heunpp2 looks two steps ahead and comes back one: what was computed there lies on both sides."""
    run, model = new_run("0-1 3/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for sigma, following in itertools.pairwise((1.0, 0.9, 0.8, 0.7, 0.8, 0.7, 0.6, 0.5)):
        x = x + (x - evaluate(run, model, sigma, x)[0][0]) / sigma * (following - sigma)
    assert actions(run) == "CCRCRCR"
    [track] = run.tracks.values()
    assert [round(node) for node, _ in track.nodes] == [1, 3]


def test_an_error_over_the_threshold_stops_reuse_until_it_falls():
    """From step 4 on, v changes sign at every step, and at step 7 that ends."""

    def wild(i, sigma, x):
        step = round((2.0 - sigma) * 10)
        return torch.ones(1, 2) * (1.0 if step < 4 or step > 6 else (-1.0) ** step * 3.0)

    sigmas = tuple(2.0 - 0.1 * i for i in range(13))
    run = new_run("0-2 5/12", sigmas=sigmas, threshold=0.2)
    euler(run, Model(wild), sigmas)
    assert actions(run) == "CCCRRCCCCRRR"
    assert run.report.steps[5].error > 0.2
    assert "threshold" in run.report.steps[6].reason


def test_an_evaluation_without_a_call_changes_nothing():
    """FlowEdit: every other evaluation runs with bare options, at the same sigma, on another latent."""
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for here in SIGMAS[:-1]:
        evaluate(run, model, here, torch.randn(1, 2), calls=())
        denoised = evaluate(run, model, here, x)[0][0]
        x = x + (x - denoised) / here * -0.1
    run.close(True)
    assert actions(run) == "CCRRRRRRRR"
    assert [step.evaluation for step in run.report.steps] == list(range(10))


def test_errors_are_measured_at_computed_evaluations_by_hand():
    run = new_run("0-2/10", threshold=5.0)
    values = iter([1.0, 2.0, 5.0])
    x = torch.zeros(1, 2)
    model = Model(lambda i, sigma, x: torch.full((1, 2), next(values)))
    for sigma in (1.0, 0.9, 0.8):
        evaluate(run, model, sigma, x)
    run.close(True)
    older, newer = forecast_weights([0.0, 1.0], 2.0)
    assert [step.error for step in run.report.steps] == [
        None, pytest.approx(1.0 / 2.0), pytest.approx(abs(older + 2.0 * newer - 5.0) / 5.0)
    ]  # fmt: skip


def test_the_worst_part_of_a_packed_latent_counts():
    """Three numbers of picture and one of sound, which alone is foretold badly."""
    run = new_run("0-1/10", scale=Scale((3, 1)), threshold=5.0)
    x = torch.zeros(1, 1, 4)
    sounds = iter([1.0, 4.0])
    for sigma in (1.0, 0.9):
        v = torch.tensor([[[100.0, 100.0, 100.0, next(sounds)]]])
        evaluate(run, lambda call, sigma, x, v=v: [x - sigma * v], sigma, x)
    run.close(True)
    assert run.report.steps[1].error == pytest.approx(3.0 / 4.0)
    assert not run.report.steps[1].parts, "parts without names are not told apart in the report"


def test_the_report_has_the_worst_error_of_each_named_part():
    """Two rows: the picture of the second is foretold badly, the sound of the first."""
    run = new_run("0-1/10", scale=Scale((3, 1), names=("picture", "sound")), threshold=5.0)
    x = torch.zeros(2, 1, 4)
    outputs = iter([
        torch.tensor([[[1.0, 1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]]]),
        torch.tensor([[[1.0, 1.0, 1.0, 4.0]], [[2.0, 2.0, 2.0, 1.0]]]),
    ])  # fmt: skip
    for sigma in (1.0, 0.9):
        v = next(outputs)
        evaluate(run, lambda call, sigma, x, v=v: [x - sigma * v], sigma, x)
    run.close(True)
    assert run.report.steps[0].parts == {}
    assert run.report.steps[1].parts == {"picture": pytest.approx(1 / 2), "sound": pytest.approx(3 / 4)}
    assert run.report.steps[1].error == pytest.approx(3 / 4)


def test_broken_numbers_have_no_parts():
    run = new_run("0-1/10", scale=Scale((3, 1), names=("picture", "sound")), threshold=5.0)
    for sigma, value in ((1.0, 1.0), (0.9, float("nan"))):
        v = torch.full((1, 1, 4), value)
        evaluate(run, lambda call, sigma, x, v=v: [x - sigma * v], sigma, torch.zeros(1, 1, 4))
    run.close(True)
    assert run.report.steps[1].fault and run.report.steps[1].parts == {}


def test_what_a_mask_gives_away_does_not_count():
    run = new_run("0-1/10", scale=Scale(mask=torch.tensor([[1.0, 0.0]])), threshold=5.0)
    outputs = iter([torch.tensor([[2.0, 1.0]]), torch.tensor([[2.0, 50.0]])])
    for sigma in (1.0, 0.9):
        v = next(outputs)
        evaluate(run, lambda call, sigma, x, v=v: [x - sigma * v], sigma, torch.zeros(1, 2))
    run.close(True)
    assert run.report.steps[1].error == pytest.approx(0.0, abs=1e-6)


def test_what_a_mask_gives_away_does_not_tell_how_far_the_line_is_followed():
    """The first number lies on a line, the second, which is given, swings."""
    run = new_run("0-2/10", scale=Scale(mask=torch.tensor([[1.0, 0.0]])), threshold=10.0)
    for step, sigma in enumerate((1.0, 0.9, 0.8)):
        v = torch.tensor([[1.0 + step, 9.0 * (-1.0) ** step]])
        evaluate(run, lambda call, sigma, x, v=v: [x - sigma * v], sigma, torch.zeros(1, 2))
    run.begin(torch.full((1,), 0.7), torch.zeros(1, 2))
    [track] = run.tracks.values()
    assert track.share == pytest.approx(1.0)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_numbers_are_reported_dropped_and_never_reused(broken):
    def model(i, sigma, x):
        return torch.full((1, 2), broken if round(sigma, 3) == 0.8 else 1.0)

    run = new_run("0-2 4/10")
    euler(run, Model(model))
    assert run.report.steps[2].fault
    assert actions(run)[:4] == "CCCC"
    assert run.report.faults


def test_a_call_that_raises_leaves_nothing_to_reuse():
    run, model = new_run("0-2/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for sigma in (1.0, 0.9):
        evaluate(run, model, sigma, x)

    def fails(call, sigma, x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(run, fails, 0.8, x)
    evaluate(run, model, 0.7, x)  # somebody caught it and went on
    assert actions(run) == "CCC"


def test_a_model_under_gradients_gets_no_cache():
    weight = torch.ones(1, 2, requires_grad=True)
    run, model = new_run("0-1/10"), Model(lambda i, sigma, x: weight * sigma)
    x = torch.zeros(1, 2)
    for sigma in (1.0, 0.9, 0.8):
        evaluate(run, model, sigma, x)
    assert actions(run) == "CCC" and not run.tracks and run._seen is None
    assert len(model.calls) == 3
    assert "gradients" in run.report.stopped


def test_a_latent_under_gradients_in_mid_run_stops_the_cache():
    """Guidance by a loss asks for the gradient of D: a forecast has none that is true."""
    run, model = new_run("0-1/10"), Model(lambda i, sigma, x: x * sigma)
    x = torch.tensor([[3.0, -1.0]])
    for sigma in (1.0, 0.9):
        x = x + (x - evaluate(run, model, sigma, x)[0][0]) / sigma * -0.1
    x = x.requires_grad_()
    [[denoised]] = evaluate(run, model, 0.8, x)
    [gradient] = torch.autograd.grad(denoised.sum(), x)
    assert torch.allclose(gradient, torch.full((1, 2), 1.0 - 0.8 * 0.8))
    assert actions(run) == "CCC" and "gradients" in run.report.stopped
    assert "gradients" in run.report.steps[2].reason


def test_whoever_copies_the_options_of_a_run_shares_its_state():
    run = new_run("0-1/10")
    run.on_step = memoryview(b"what cannot be copied")
    options = copy.deepcopy({"transformer_options": {"bwcache": run}})
    assert options["transformer_options"]["bwcache"] is run


COMING_AND_GOING = [(COND,), (COND,), *[(COND, Call(n, ("cond",))) for n in range(8)]]


def test_noise_adds_up_for_a_call_that_is_foretold_again_while_others_compute():
    run = new_run("0-1/10")
    euler(run, Model(), calls=COMING_AND_GOING, noise=0.005)
    assert actions(run) == "CC" + "P" * 8
    jumps = [step.jump for step in run.report.steps[2:]]
    assert run.trust.noise == pytest.approx(math.hypot(*jumps)) and min(jumps) > 0


def test_the_gap_is_that_of_the_call_that_was_foretold_longest():
    run = new_run("0-1/10")
    run.trust.measured = lambda *measured: None
    run.trust.reach = 3.5
    euler(run, Model(), calls=COMING_AND_GOING)
    assert actions(run) == "CCPPPCPPPC"


def test_closing_drops_every_tensor():
    run = new_run("0-1/10")
    x = torch.tensor([[3.0, -1.0]])
    for sigma in (1.0, 0.9, 0.8):
        evaluate(run, Model(), sigma, x)
    held = [weakref.ref(v) for track in run.tracks.values() for _, outputs in track.nodes for v in outputs]
    held += [weakref.ref(run._seen.latent)]
    assert run.report.steps[-1].cache_bytes == 2 * 2 * 4 + 2 * 2 * 4  # two outputs, the last latent and what came of it
    run.close(False)
    gc.collect()
    assert len(held) == 3 and all(reference() is None for reference in held)
    assert not run.report.finished


def test_giving_up_counts_on_and_computes_on():
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for sigma in (1.0, 0.9):
        evaluate(run, model, sigma, x)
    run.give_up(RuntimeError("no memory.\nDetails"))
    for sigma in (0.8, math.nan):  # nothing may fail now
        evaluate(run, model, sigma, x)
    run.close(True)
    assert actions(run) == "CCCC"
    [warning] = run.report.warnings
    assert "RuntimeError: no memory" in warning and "Details" not in warning
    assert "gave up" in run.report.steps[2].reason


def test_a_sigma_that_is_no_number_is_an_error_that_the_guard_catches():
    run = new_run()
    with pytest.raises(ValueError, match="nan"):
        run.begin(torch.full((1,), math.nan), torch.zeros(1, 2))


def test_evaluations_go_by_what_the_sampler_was_found_to_do():
    """Heun: two evaluations a step, the second at the sigma of the next step. A step computes as a whole."""
    sigmas = [1.0, 0.9, 0.9, 0.8, 0.8, 0.7]
    steps = [SamplerStep(s, 1.0, (0.1,), n // 2) for n, s in enumerate(sigmas)]
    run, model = new_run("0 2/3", sigmas=(1.0, 0.9, 0.8, 0.7), sampler=steps), Model()
    x = torch.tensor([[3.0, -1.0]])
    last = 1.0
    for sigma in sigmas:
        x = x + curve(0, last, x) * (sigma - last)
        evaluate(run, model, sigma, x)
        last = sigma
    assert actions(run) == "CCRRCC"


def test_a_sampler_that_does_something_else_is_followed_by_sigma_and_not_corrected():
    steps = [SamplerStep(s, 1.0, (0.1,), n) for n, s in enumerate(SIGMAS[:-1])]
    run, model = new_run("0-1 4/10", sampler=steps), Model()
    x = torch.tensor([[3.0, -1.0]])
    last = 1.0
    for sigma in (1.0, 0.9, 0.75, 0.6):
        x = x + curve(0, last, x) * (sigma - last)
        evaluate(run, model, sigma, x)
        last = sigma
    assert actions(run) == "CCRC" and run.sampler == ()


def test_a_computed_step_makes_up_for_reused_ones():
    """On a curved path the corrected run ends nearer to the plain one."""
    model = lambda: Model(lambda i, sigma, x: torch.tensor([[math.exp(2.0 * sigma), math.sin(4.0 * sigma)]]))  # noqa: E731
    steps = [SamplerStep(a, b / a, (1.0 - b / a,), n) for n, (a, b) in enumerate(itertools.pairwise(SIGMAS))]
    plain = euler(new_run(speedup=1.0), model())
    errors = [(euler(new_run("0-1 4-5 8-9/10", sampler=sampler), model()) - plain).abs().sum() for sampler in ((), steps)]
    assert errors[1] < 0.75 * errors[0]
    off = euler(new_run("0-1 4-5 8-9/10", sampler=steps, corrector=False), model())
    assert (off - plain).abs().sum() == errors[0]


def test_a_schedule_is_laid_anew_before_the_first_evaluation():
    run, model = new_run(speedup=2.0), Model()
    run.lay(Schedule(SIGMAS[5:]))
    euler(run, model, SIGMAS[5:])
    assert run.report.steps_total == 5 and len(run.report.steps) == 5
    assert len(model.calls) == len(run.report.planned)


def test_an_evaluation_at_sigma_0_computes_and_disturbs_nothing():
    """Causal samplers fill the model's memory so."""
    run, model = new_run("0-1/10"), Model()
    x = torch.tensor([[3.0, -1.0]])
    for sigma in (1.0, 0.9, 0.0, 0.8, 0.7):
        denoised = evaluate(run, model, sigma, x)[0][0]
        if sigma == 0.0:
            assert torch.equal(denoised, x)
        else:
            x = x + (x - denoised) / sigma * -0.1
    assert actions(run)[:3] == "CCC" and not run.report.faults
    assert run.report.steps[2].error is None


def test_where_a_row_is_at_sigma_0_nothing_is_foretold_or_broken():
    """Rows may stand at noise levels of their own. At 0 a row has no output to learn from."""
    run, model = new_run("0-1/10"), Model(lambda i, sigma, x: 0.1 * x + 1.0)
    x = torch.tensor([[3.0, -1.0], [2.0, 1.0]])
    for sigmas in ([1.0, 0.9], [0.9, 0.8], [0.8, 0.7], [0.7, 0.0], [0.6, 0.5], [0.5, 0.4]):
        sigma = torch.tensor(sigmas)
        run.begin(sigma, x)
        [denoised] = run.call(COND, sigma, x, lambda sigma=sigma, x=x: model(COND, sigma[:, None], x))
        run.end(denoised)
        x = x + torch.where(sigma[:, None] > 0, (x - denoised) / sigma[:, None], 0.0) * -0.1
    run.close(True)
    assert actions(run) == "CCRCCR" and run.report.faults == []
    assert run.report.steps[3].reason.startswith("sigma is 0")


def test_rows_at_noise_levels_of_their_own_are_no_fresh_noise():
    run, model = new_run("0-1/10"), Model(lambda i, sigma, x: torch.ones_like(x))
    x = torch.tensor([[3.0, -1.0], [2.0, 1.0]])
    for first in SIGMAS[:6]:
        sigma = torch.tensor([first, first - 0.3])
        run.begin(sigma, x)
        [denoised] = run.call(COND, sigma, x, lambda sigma=sigma, x=x: model(COND, sigma[:, None], x))
        run.end(denoised)
        x = x + (x - denoised) / sigma[:, None] * -0.1
    assert actions(run) == "CCRRRR"
    assert max(step.jump or 0.0 for step in run.report.steps) < 1e-4


def test_a_window_that_moved_is_said_to():
    run, window = new_run("0-1/10"), Call("window", ("cond frames 0-2",), window=True)
    euler(run, Model(), calls=[(COND,), (COND,), *[(COND, window)] * 8])
    assert run.report.steps[2].reason == "a context window that was not there before"


def test_listeners_see_every_evaluation_with_its_error():
    seen = []
    run = new_run("0-2/10")
    run.on_step = lambda step: seen.append((step.step, step.action, step.error is not None))
    euler(run, Model())
    assert seen[:4] == [(0, "compute", False), (1, "compute", True), (2, "compute", True), (3, "reuse", False)]
    assert len(seen) == 10


def test_forecasts_go_as_far_along_the_line_as_would_have_been_best():
    """Outputs 0, 4, 5: the line from 0 and 4 went 4 further, 1 would have been right, so forecasts after 5 go a quarter."""
    run = new_run("0-2/10", threshold=5.0)
    values = iter([0.0, 4.0, 5.0])
    x = torch.zeros(1, 2)
    model = Model(lambda i, sigma, x: torch.full((1, 2), next(values)))
    for sigma in (1.0, 0.9, 0.8):
        evaluate(run, model, sigma, x)
    [[denoised]] = evaluate(run, model, 0.7, x)
    assert torch.allclose(denoised, torch.full((1, 2), -0.7 * (5.0 + 0.25)), atol=1e-5)
