"""When something fails: an error of ours costs the run its cache, an error of the model or a cancel passes untouched."""

from __future__ import annotations

import gc
import itertools
import logging

import pytest
import torch

from bwcache_pack.bwcache_core.paper import model_pass
from bwcache_pack.bwcache_core.paper import run as block_run
from bwcache_pack.bwcache_core.paper.per_block import PerBlock
from bwcache_pack.bwcache_core.paper.stream import Stream
from bwcache_pack.bwcache_core.paper.whole_stack import WholeStack
from bwcache_pack.tests.hosts.lab import FORCED, STEPS, difference
from bwcache_pack.tests.hosts.spy import held_tensors, options_of

pytestmark = pytest.mark.family("wan21_t2v", "hunyuan")
SETTINGS = {"paper": FORCED, "per block": {**FORCED, "mode": "per block"}}
PLACES = {  # code of the cache that moves tensors, so that allocators may fail in it
    "store": (Stream, "keep_features"),
    "replay": (WholeStack, "replay"),
    "sample": (model_pass, "sample_tokens"),
    "sums of features": (model_pass, "kept_sums"),
    "sums of blocks": (model_pass, "device_sums"),
    "copies of inputs": (PerBlock, "before"),
    "residual": (Stream, "keep_residual"),
    "sum of residuals": (PerBlock, "replay"),
    "reading": (block_run, "read_sums"),
    "identities": (block_run.BlockRun, "_stream"),
}
REACHED = {
    "paper": ["store", "replay", "sample", "sums of features", "sums of blocks", "reading", "identities"],
    "per block": [
        "copies of inputs", "sample", "sums of features", "sums of blocks", "residual", "sum of residuals", "reading",
    ],
}
REUSES = {"paper": "replay", "per block": "sum of residuals"}
CASES = [(mode, place) for mode, places in REACHED.items() for place in places]


class Fault:
    """Raises in the cache's own code from evaluation `first` on, the first time `place` is reached.

    error: a class; an object that was raised keeps its frames, and so the model, alive.
    """

    def __init__(self, monkeypatch, place: str, error: type, first: int = 0) -> None:
        owner, name = PLACES[place]
        self.first = first
        self.evaluation = -1
        self.raised_at: int | None = None
        original = getattr(owner, name)

        def failing(*args, **kwargs):
            if self.raised_at is None and self.evaluation >= self.first:
                self.raised_at = self.evaluation
                raise error("no memory. Tried to allocate\nmuch")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, failing)

    def counting(self, model):
        """`model` with a wrapper outside the cache that counts evaluations. Attach the cache to it."""
        model = model.clone()
        model.add_wrapper_with_key("predict_noise", "counting", self._predict_noise)
        return model

    def _predict_noise(self, executor, *args, **kwargs):
        self.evaluation += 1
        return executor(*args, **kwargs)


def warnings_of(caplog) -> list[str]:
    """What the pack warned of; ComfyUI has warnings of its own."""
    ours = [record for record in caplog.records if record.name.startswith("bwcache_pack")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


def fresh(lab, settings: dict) -> torch.Tensor:
    """Latents of a run on a model that was never cached before."""
    return lab.once("fresh", *settings.items(), make=lambda: lab.sample(lab.cached(**settings).model))


def first_reuse(lab, settings: dict) -> int:
    """The first evaluation that such a run reuses."""

    def look() -> int:
        cached = lab.cached(**settings)
        lab.sample(cached.model)
        return cached.actions.index("reuse")

    return lab.once("first reuse", *settings.items(), make=look)


# Our own errors


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("first", [0, 3, 5])
@pytest.mark.parametrize(("mode", "place"), CASES)
def test_an_error_of_the_cache_costs_the_run_its_cache_and_nothing_else(lab, monkeypatch, caplog, mode, place, first):
    """What was reused before it stays; from there on the run is the plain one."""
    settings = SETTINGS[mode]
    fault = Fault(monkeypatch, place, torch.OutOfMemoryError, first)
    cached = lab.cached(fault.counting(lab.plain), **settings)
    out = lab.sample(cached.model)
    at, report = fault.raised_at, cached.report
    if at is None:
        assert first == 5, "the place was never reached"
        return
    assert cached.actions[at:] == ["compute"] * (STEPS - at)
    [warning] = warnings_of(caplog)
    told = at if place == "reading" and at else at + 1  # what the evaluation before had measured is read
    assert f"gave up in evaluation {told}" in warning
    assert "OutOfMemoryError: no memory. Tried to allocate." in warning and "much" not in warning
    assert report.finished and report.evaluations == STEPS
    assert all("gave up" in step.reason for step in report.steps[at + 1 :])
    assert report.blocks_total == STEPS * report.block_count
    monkeypatch.undo()
    if at <= first_reuse(lab, settings):
        assert difference(out, lab.uncached()) == 0.0
    else:
        same_until_then = lab.cached(**{**settings, "end_step": at - 1})
        assert difference(out, lab.sample(same_until_then.model)) == 0.0
        assert same_until_then.actions == cached.actions
    assert difference(lab.sample(cached.model), fresh(lab, settings)) == 0.0


@pytest.mark.parametrize("mode", SETTINGS)
def test_after_an_error_of_the_cache_nothing_is_held_while_the_run_goes_on(lab, monkeypatch, mode):
    """The model is called again without the memory that was missing."""
    fault = Fault(monkeypatch, REUSES[mode], torch.OutOfMemoryError)
    cached = lab.cached(fault.counting(lab.plain), **SETTINGS[mode])
    spy = lab.spy(cached.model)
    held, left = [], []

    def look(*_) -> None:
        if fault.raised_at is None:
            held.extend(held_tensors(spy.run()))
        elif not left:
            left.append([tensor() for tensor in held if tensor() is not None])

    handle = spy.blocks[0].register_forward_pre_hook(look)
    try:
        with spy.watching():
            lab.sample(spy.model)
    finally:
        handle.remove()
    assert held and left == [[]]


@pytest.mark.parametrize("mode", SETTINGS)
def test_an_error_in_the_second_call_of_an_evaluation_computes_that_call(lab, monkeypatch, mode):
    calls = itertools.count()
    owner, name = PLACES[REUSES[mode]]
    original = getattr(owner, name)
    reached = 4  # blocks of the first call

    def failing(*args, **kwargs):
        if next(calls) == reached:
            raise RuntimeError
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)
    cached = lab.cached(**SETTINGS[mode])
    spy, _ = lab.watch(cached.model, one_by_one=lambda evaluation: True)
    blocks, at = list(range(cached.report.block_count)), cached.actions.index("partial")
    assert [sorted(set(call.ran)) for call in spy.evaluations[at].calls if call.ran] == [blocks]
    assert cached.actions == ["compute"] * at + ["partial"] + ["compute"] * (STEPS - at - 1)
    last = spy.evaluations[at].calls[-1]
    made, tokens = last.produced[blocks[-1]], last.head.shape[1]  # HunyuanVideo's text is before or after the video
    assert 0.0 in (difference(last.head, made[:, -tokens:]), difference(last.head, made[:, :tokens]))


def closing_badly(close):
    def closing(run, finished):
        close(run, finished)
        raise ZeroDivisionError

    return closing


def test_a_fault_at_the_end_of_a_run_keeps_its_result(lab, monkeypatch, caplog):
    monkeypatch.setattr(block_run.BlockRun, "close", closing_badly(block_run.BlockRun.close))
    cached = lab.cached(**FORCED)
    spy = lab.spy(cached.model)
    held = []
    with spy.watching():
        out = lab.host.run(lab.guider(spy.model), lab.noise(), lab.sigmas(), "euler",
                           lambda *_: held.extend(held_tensors(spy.run())))
    monkeypatch.undo()
    assert difference(out, fresh(lab, FORCED)) == 0.0
    assert "ZeroDivisionError" in cached.report.warnings[-1]
    gc.collect()
    assert held and [tensor() for tensor in held if tensor() is not None] == []


# Cancels and the model's errors


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_cancel_anywhere_passes_and_leaves_nothing(lab, monkeypatch, mode):
    """At every step: between steps, in a block, and in our own store and replay. Then the same model starts anew."""
    settings = SETTINGS[mode]
    expected = fresh(lab, settings)
    cached = lab.cached(**settings)
    places = ["store" if mode == "paper" else "residual", REUSES[mode]]
    for evaluation in range(STEPS):
        for cancelled in (cancelled_between, cancelled_in_a_block):
            with pytest.raises(lab.host.Interrupt):
                cancelled(lab, cached.model, evaluation)
            assert_stopped(cached)
        for place in places:
            with monkeypatch.context() as patch:
                fault = Fault(patch, place, lab.host.Interrupt, evaluation)
                counted = lab.cached(fault.counting(lab.plain), **settings)
                try:
                    lab.sample(counted.model)
                except lab.host.Interrupt:
                    assert_stopped(counted)
                else:
                    assert fault.raised_at is None and place == REUSES[mode]
        assert difference(lab.sample(cached.model), expected) == 0.0


def assert_stopped(cached) -> None:
    assert not cached.report.finished
    assert cached.report.warnings == []


def cancelled_between(lab, model, evaluation: int) -> None:
    def cancel(step, *_) -> None:
        if step == evaluation:
            raise lab.host.Interrupt("stop")

    lab.sample(model, callback=cancel)


def cancelled_in_a_block(lab, model, evaluation: int) -> None:
    """In the first block that runs at this evaluation or later."""
    spy = lab.spy(model)

    def cancel(*_) -> None:
        if len(spy.evaluations) > evaluation:
            raise lab.host.Interrupt("stop")

    handle = spy.blocks[2].register_forward_hook(cancel)
    try:
        with spy.watching():
            lab.sample(spy.model)
    finally:
        handle.remove()


def foreign(model, block: tuple[str, int], hook):
    model = model.clone()
    model.set_model_patch_replace(hook, "dit", *block)
    return model


class Foreign(Exception):
    pass


def raising(calls: list):
    def hook(args, extra):
        calls.append(1)
        if len(calls) == 3:
            raise Foreign
        return extra["original_block"](args)

    return hook


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_hook_of_another_pack_that_raises_ends_the_run_as_without_us(lab, mode):
    """Once: it is not called again."""
    calls: list = []
    cached = lab.cached(foreign(lab.plain, ("double_block", 1), raising(calls)), **SETTINGS[mode])
    with pytest.raises(Foreign):
        lab.sample(cached.model)
    assert len(calls) == 3
    assert_stopped(cached)
    assert torch.isfinite(lab.sample(cached.model)).all()
    assert cached.report.finished and cached.report.evaluations_reused > 0


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_hook_of_another_pack_that_returns_more_keys_is_cached(lab, mode):
    def hook(args, extra):
        return {**extra["original_block"](args), "more": args["img"], "number": 7}

    cached = lab.cached(foreign(lab.plain, ("double_block", 1), hook), **SETTINGS[mode])
    assert difference(lab.sample(cached.model), fresh(lab, SETTINGS[mode])) == 0.0
    assert cached.report.warnings == []


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_hook_of_another_pack_that_returns_other_keys_fails_as_without_us(lab, mode):
    def hook(args, extra):
        return {"hidden": extra["original_block"](args)["img"]}

    model = foreign(lab.plain, lab.block_keys[-1], hook)
    with pytest.raises(KeyError) as plain:
        lab.sample(model)
    with pytest.raises(KeyError) as ours:
        lab.sample(lab.cached(model, **SETTINGS[mode]).model)
    assert str(ours.value) == str(plain.value)


# A host that calls otherwise


class Sandwich:
    """Wrappers around ours: outside, calls are changed on their way in; inside, changed back for the model."""

    def __init__(self, hook_point: str, change, restore) -> None:
        self.hook_point, self.change, self.restore = hook_point, change, restore

    def outside(self, model):
        model = model.clone()
        model.add_wrapper_with_key(self.hook_point, "outside", self.call(self.change))
        return model

    def inside(self, model):
        model = model.clone()
        model.add_wrapper_with_key(self.hook_point, "inside", self.call(self.restore))
        return model

    @staticmethod
    def call(change):
        def wrapper(executor, *args, **kwargs):
            args, kwargs = change(list(args), dict(kwargs))
            return executor(*args, **kwargs)

        return wrapper


def renamed(at: int, name: str):
    """The argument at a place becomes a keyword; the ones after it stay in their order, one place further left."""
    return lambda args, kwargs: (args[:at] + args[at + 1 :], {**kwargs, name: args[at]})


def named_again(at: int, name: str):
    def restore(args, kwargs):
        value = kwargs.pop(name)
        return [*args[:at], value, *args[at:]], kwargs

    return restore


def one_more(args, kwargs):
    return ["new", *args], kwargs


def one_less(args, kwargs):
    return args[1:], kwargs


def without_option(name: str):
    """An option of the model call goes by another name."""

    def change(args, kwargs):
        options = options_of(args, kwargs)
        options[f"new {name}"] = options.pop(name)
        return args, kwargs

    def restore(args, kwargs):
        options = options_of(args, kwargs)
        options[name] = options.pop(f"new {name}")
        return args, kwargs

    return change, restore


CALLS = {  # how a host calls its wrappers, and whether we still cache then
    "sigmas by another name": ("outer_sample", renamed(3, "schedule"), named_again(3, "schedule"), False),
    "one more argument before the sigmas": ("outer_sample", one_more, one_less, False),
    "timestep by another name": ("predict_noise", renamed(1, "t"), named_again(1, "t"), False),
    "timestep by its name": ("predict_noise", renamed(1, "timestep"), named_again(1, "timestep"), False),
    "one more argument before the timestep": ("predict_noise", one_more, one_less, False),
    "model input by its name": ("diffusion_model", renamed(0, "x"), named_again(0, "x"), True),
    "model input by another name": ("diffusion_model", renamed(0, "latent"), named_again(0, "latent"), False),
    "no uuids": ("diffusion_model", *without_option("uuids"), False),
    "no cond_or_uncond": ("diffusion_model", *without_option("cond_or_uncond"), False),
    "no state of the run": ("diffusion_model", *without_option("bwcache"), False),
    "one more argument after the known ones": (
        "predict_noise", lambda args, kwargs: ([*args, "new"], kwargs), lambda args, kwargs: (args[:-1], kwargs), True,
    ),
    "one more named argument": (
        "outer_sample", lambda args, kwargs: (args, {**kwargs, "new": 1}),
        lambda args, kwargs: (args, {name: value for name, value in kwargs.items() if name != "new"}), True,
    ),
}


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("mode", SETTINGS)
@pytest.mark.parametrize(("hook_point", "change", "restore", "cached_still"), CALLS.values(), ids=CALLS)
def test_a_host_that_calls_otherwise_is_not_cached_and_says_so_once(
    lab, caplog, mode, hook_point, change, restore, cached_still
):
    sandwich = Sandwich(hook_point, change, restore)
    cached = lab.cached(sandwich.outside(lab.plain), **SETTINGS[mode])
    out = lab.sample(sandwich.inside(cached.model))
    assert cached.report.finished
    if cached_still:
        assert difference(out, fresh(lab, SETTINGS[mode])) == 0.0
        assert warnings_of(caplog) == []
        return
    assert difference(out, lab.uncached()) == 0.0
    [warning] = warnings_of(caplog)
    assert "cache" in warning and warning.removeprefix("BWCache: ") in cached.report.warnings
    assert cached.report.evaluations_reused == 0


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("mode", SETTINGS)
@pytest.mark.parametrize("hook_point", ["predict_noise", "diffusion_model"])
def test_a_host_without_one_of_our_hook_points_is_not_cached_and_says_so_once(lab, caplog, mode, hook_point):
    cached = lab.cached(**SETTINGS[mode])
    cached.model.remove_wrappers_with_key(hook_point, "bwcache")
    assert difference(lab.sample(cached.model), lab.uncached()) == 0.0
    [warning] = warnings_of(caplog)
    assert "Nothing was cached" in warning and cached.report.finished


def told_otherwise(hook, args, extra):
    """Hidden states go in and come out by another name."""

    def original(block_args):
        out = extra["original_block"](translated(block_args, "hidden", "img"))
        return translated(out, "img", "hidden")

    return translated(hook(translated(args, "img", "hidden"), {"original_block": original}), "hidden", "img")


def translated(features: dict, name: str, other: str) -> dict:
    return {other if key == name else key: value for key, value in features.items()}


def told_in_order(hook, args, extra):
    """Arguments come without names."""

    def original(block_args):
        return extra["original_block"](dict(zip(args, block_args, strict=True)))

    return hook(list(args.values()), {"original_block": original})


BLOCK_CALLS = {
    "hidden states by another name": told_otherwise,
    "no original block": lambda hook, args, extra: hook(args, {}),
    "one more argument": lambda hook, args, extra: hook(args, extra, "new"),
    "named arguments": lambda hook, args, extra: hook(block_args=args, more=extra),
    "arguments that are no dict": told_in_order,
    "never": None,
}


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("mode", SETTINGS)
@pytest.mark.parametrize("call", BLOCK_CALLS.values(), ids=BLOCK_CALLS)
def test_a_host_that_calls_block_hooks_otherwise_is_not_cached_and_says_so_once(lab, caplog, mode, call):
    def wrapper(executor, *args, **kwargs):
        hooks = options_of(args, kwargs).get("patches_replace", {}).get("dit", {})
        for key, hook in list(hooks.items()):
            if call is None:
                del hooks[key]
            else:
                hooks[key] = lambda block_args, extra, hook=hook: call(hook, block_args, extra)
        return executor(*args, **kwargs)

    cached = lab.cached(**SETTINGS[mode])
    model = cached.model.clone()
    model.add_wrapper_with_key("diffusion_model", "otherwise", wrapper)
    assert difference(lab.sample(model), lab.uncached()) == 0.0
    [warning] = warnings_of(caplog)
    assert "cache" in warning and cached.report.finished
    assert cached.report.evaluations_reused == 0


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("mode", SETTINGS)
@pytest.mark.parametrize("first", [float("nan"), float("inf")])
def test_a_first_sigma_that_is_no_number_leaves_a_plain_run_and_a_reason(lab, caplog, mode, first):
    cached = lab.cached(**SETTINGS[mode])
    sigmas = lab.sigmas()
    sigmas[0] = first
    lab.host.run(lab.guider(cached.model), lab.noise(), sigmas, "euler")
    [warning] = warnings_of(caplog)
    assert "no finite number" in warning and "not cached" in warning
    assert cached.report.finished and cached.report.stopped and not cached.report.steps


@pytest.mark.family("wan21_t2v")
@pytest.mark.parametrize("mode", SETTINGS)
@pytest.mark.parametrize("at", [0, 3])
def test_a_sampler_that_comes_to_a_sigma_that_is_no_number_is_not_cached_from_there_on(lab, caplog, mode, at):
    """The schedule is sound, and one evaluation is not: it and what follows are the plain model's."""
    evaluations = itertools.count()

    def spoil(executor, x, timestep, *args, **kwargs):
        broken = torch.full_like(timestep, float("nan")) if next(evaluations) == at else timestep
        return executor(x, broken, *args, **kwargs)

    model = lab.plain
    model.add_wrapper_with_key("predict_noise", "spoil", spoil)
    cached = lab.cached(model, **SETTINGS[mode])
    lab.sample(cached.model)
    [warning] = warnings_of(caplog)
    assert f"gave up in evaluation {at + 1}" in warning and "sigma is nan" in warning
    assert cached.report.finished and cached.report.evaluations == STEPS - 1
    assert cached.actions[at:] == ["compute"] * (STEPS - 1 - at)


# ComfyUI moves models


@pytest.mark.comfyui
@pytest.mark.parametrize("mode", SETTINGS)
def test_a_model_that_is_unloaded_between_runs_samples_the_same(lab, mode):
    import comfy.model_management as management

    cached = lab.cached(**SETTINGS[mode])
    first = lab.sample(cached.model)
    management.unload_all_models()
    assert difference(lab.sample(cached.model), first) == 0.0
    management.free_memory(1e30, management.get_torch_device())
    assert difference(lab.sample(cached.model), first) == 0.0
    assert [report.evaluations_reused for report in cached.stats.runs] == [cached.report.evaluations_reused] * 3
    assert cached.report.evaluations_reused > 0
