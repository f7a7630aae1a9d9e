"""What nodes/attach.py reads of ComfyUI, without a host: schedules, calls and their activity, the sampler."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.config import ForecastConfig
from bwcache_pack.bwcache_core.run import ForecastRun
from bwcache_pack.bwcache_core.schedule import schedule_of
from bwcache_pack.hosts.embedded import SAMPLERS, TinySampler
from bwcache_pack.nodes.attach import activity, call_of, find_run, is_flow, open_run, same, scale_of, trimmed, with_run

X = torch.zeros(1, 4, 2, 2)


def keyed(**changed):
    """The call of one evaluation, with parts of it changed."""
    parts = {"model": SimpleNamespace(), "conds": [[{}], [{}]], "x": X, "frames": None, "sigma": 0.5, **changed}
    run = ForecastRun(ForecastConfig(), schedule_of([1.0, 0.5, 0.0]))
    run.begin(torch.tensor([parts["sigma"]]), X)
    window = None if parts["frames"] is None else SimpleNamespace(index_list=parts["frames"])
    return call_of(run, MODELS.setdefault(id(parts["model"]), parts["model"]), parts["conds"], parts["x"],
                   {"transformer_options": {"context_window": window}})  # fmt: skip


MODELS: dict = {}  # kept, since their ids are compared
MODEL = SimpleNamespace()


@pytest.mark.parametrize(
    "changed",
    [
        {"model": SimpleNamespace()}, {"x": torch.zeros(2, 4, 2, 2)}, {"x": X.half()}, {"x": X.to("meta")},
        {"frames": [0, 1]}, {"conds": [[{}], None]}, {"conds": [None, [{}]]}, {"conds": [[{}]]},
        {"conds": [[{}, {}], [{}]]}, {"conds": [[{"timestep_start": 0.4}], [{}]]}, {"conds": [[{"timestep_end": 0.6}], [{}]]},
    ],
    ids=["model", "batch", "type", "device", "window", "no uncond", "no cond", "one condition", "two prompts", "not begun", "ended"],
)  # fmt: skip
def test_every_part_of_a_call_tells_it_from_others(changed):
    assert keyed(model=MODEL).key == keyed(model=MODEL).key
    assert keyed(**{"model": MODEL, **changed}).key != keyed(model=MODEL).key


def test_windows_are_told_apart_by_their_frames():
    assert keyed(model=MODEL, frames=[0, 1]).key != keyed(model=MODEL, frames=[1, 2]).key


def test_names_of_prompts_and_places_in_a_batch_say_nothing():
    """A cached guider hands its prompts on under the same names from run to run; batching depends on free memory."""
    one, other = ([[{"uuid": name, "model_conds": {}}], [{"uuid": name}]] for name in "ab")
    assert keyed(model=MODEL, conds=one).key == keyed(model=MODEL, conds=other).key


@pytest.mark.parametrize(
    ("conds", "frames", "labels"),
    [
        ([[{}], [{}]], None, ("cond", "uncond")),
        ([[{}], None], None, ("cond", None)),
        ([None, [{}]], None, (None, "uncond")),
        ([[{}], [{}], [{}]], None, ("cond", "uncond", "condition 3")),
        ([[{}], [{}]], [2, 3, 4], ("cond frames 2-4", "uncond frames 2-4")),
        ([[{"timestep_start": 0.2}], [{}]], None, (None, "uncond")),  # off at sigma 0.5
        ([[], [{}]], None, (None, "uncond")),
    ],
)
def test_conditions_are_named_in_the_order_that_guiders_ask_in(conds, frames, labels):
    assert keyed(model=MODEL, conds=conds, frames=frames).labels == labels


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, (True,)),
        ({"timestep_start": 0.5, "timestep_end": 0.5}, (True,)),  # the ends belong to the range
        ({"timestep_start": 0.499}, ()),
        ({"timestep_end": 0.501}, ()),
    ],
)
def test_a_condition_acts_within_its_range(entry, expected):
    assert activity(entry, 0.5) == expected


def control(first, last, previous=None):
    return SimpleNamespace(timestep_range=None if first is None else (first, last), previous_controlnet=previous)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (control(1.0, 0.0), (True, True)),
        (control(0.4, 0.0), (True, False)),
        (control(1.0, 0.6), (True, False)),
        (control(0.5, 0.5), (True, True)),
        (control(None, None), (True, True)),  # before a run has begun
        (control(0.4, 0.0, control(1.0, 0.0, control(1.0, 0.6))), (True, False, True, False)),
        (SimpleNamespace(), (True, True)),  # of another pack
    ],
)
def test_each_control_net_of_a_chain_acts_within_its_range(net, expected):
    assert activity({"control": net}, 0.5) == expected


def hook(*starts):
    return SimpleNamespace(hook_keyframe=SimpleNamespace(keyframes=[SimpleNamespace(start_t=start) for start in starts]))


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [
        ((), (True,)),
        ((hook(9e8, 0.6, 0.4),), (True, 2)),
        ((hook(9e8), hook(9e8, 0.5)), (True, 1, 2)),
        ((SimpleNamespace(),), (True, 0)),  # a hook without keyframes
    ],
)
def test_keyframes_of_hooks_that_have_begun_are_counted(hooks, expected):
    assert activity({"hooks": SimpleNamespace(hooks=hooks)}, 0.5) == expected


@pytest.mark.parametrize(
    ("sigmas", "expected"),
    [
        ([1.0, 0.5, 0.0], [1.0, 0.5, 0.0]),
        ([0.0, 1.0, 0.5, 0.0, 0.0], [1.0, 0.5, 0.0]),  # RES4LYF's resample
        ([0.0, 1.0, 0.5, 0.2, 0.0], [1.0, 0.5, 0.2, 0.0]),
        ([0.0, 0.2, 0.6, 1.0, 0.0], [0.2, 0.6, 1.0]),  # unsample: it rises
        ([1.0, 0.5], [1.0, 0.5]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([14.6, 2.0, 0.0], [14.6, 2.0, 0.0]),
    ],
)
def test_zeros_as_flags_are_left_out(sigmas, expected):
    assert list(trimmed(sigmas, True).sigmas) == expected


def test_a_schedule_is_the_same_within_what_samplers_write_into_it():
    assert same([1.0, 0.5, 0.0], [1.0, 0.5, 0.001])  # uni_pc
    assert not same([1.0, 0.5, 0.0], [1.0, 0.5])
    assert not same([1.0, 0.5, 0.0], [1.0, 0.51, 0.0])


class CONST:
    """ComfyUI's name for flows."""


class EPS:
    """Noise prediction."""


@pytest.mark.parametrize(("parametrisation", "flow"), [(CONST, True), (EPS, False)])
def test_comfyuis_model_sampling_says_whether_it_is_a_flow(parametrisation, flow):
    """Sigmas over 1 do not: schedules of flows may be multiplied."""
    sampling = type("ModelSampling", (parametrisation,), {})()
    assert is_flow(SimpleNamespace(get_model_object=lambda name: {"model_sampling": sampling}[name])) is flow


def test_a_host_without_model_sampling_has_flows():
    class Patcher:
        def get_model_object(self, name):
            raise AttributeError(name)

    assert is_flow(Patcher()) is True


class Patcher:
    """No model_sampling, a model."""

    def __init__(self, module=None) -> None:
        self.diffusion_model, self.model = module or torch.nn.Identity(), None

    def get_model_object(self, name):
        return getattr(self, name)


def opened(sampler, sigmas=(1.0, 0.8, 0.5, 0.2, 0.0), patcher=None, options=None, mask=None, latent_shapes=None, **settings):
    guider = SimpleNamespace(model_options=options or {}, model_patcher=patcher or Patcher())
    return open_run(ForecastConfig(**settings), None, guider, X, X, sampler, torch.tensor(sigmas), mask,
                    latent_shapes=latent_shapes)  # fmt: skip


@pytest.mark.parametrize(
    ("sampler", "settings", "known"),
    [
        (SAMPLERS["euler"], {}, True),
        (SAMPLERS["heun"], {}, True),
        (SAMPLERS["euler"], {"corrector": False}, True),  # it adds no noise
        (SAMPLERS["euler"], {"speedup": 1.0}, False),
        (SAMPLERS["euler"], {"threshold": 0.0}, False),
        (TinySampler(lambda *args, **kwargs: None), {}, False),
        (object(), {}, False),  # not a KSAMPLER of ComfyUI
    ],
)
def test_only_a_sampler_that_is_known_is_corrected_and_only_where_something_is_reused(sampler, settings, known):
    run = opened(sampler, **settings)
    assert bool(run.sampler) == known and not run.report.warnings
    assert run.config.corrector == settings.get("corrector", True)


@pytest.mark.parametrize("parametrisation", ["X0", "IMG_TO_IMG_FLOW"])
def test_a_model_whose_output_is_all_there_is_is_not_corrected(parametrisation):
    patcher = Patcher()
    patcher.model_sampling = type("ModelSampling", (type(parametrisation, (CONST,), {}),), {})()
    run = opened(SAMPLERS["euler"], patcher=patcher)
    assert run.sampler and not run.config.corrector and not run.report.warnings


@pytest.mark.parametrize(("name", "corrected"), [("sample_euler", True), ("sample_ipndm", False)])
def test_a_sampler_with_a_long_memory_is_known_and_not_corrected(name, corrected):
    def sample(*args, **kwargs):
        return None

    sample.__name__ = name
    assert opened(TinySampler(sample)).config.corrector == corrected


def test_a_sampler_that_will_not_be_asked_is_not_corrected_and_the_report_says_so():
    run = opened(TinySampler(SAMPLERS["euler"].sampler_function, {"unheard": 1}))
    assert run.sampler == ()
    [warning] = run.report.warnings
    assert warning.startswith("The corrector is off") and "TypeError" in warning


def test_a_run_knows_the_model_below_compilation_the_parts_of_a_latent_and_its_mask():
    class Model(torch.nn.Module):
        pass

    compiled, mask = torch.nn.Identity(), torch.ones(1, 1, 2, 2)
    compiled._orig_mod = Model()
    run = opened(SAMPLERS["euler"], patcher=Patcher(compiled), mask=mask, latent_shapes=[(1, 4, 2), (1, 3, 5)])
    assert run.report.model == "Model"
    assert (run.scale.parts, run.scale.mask) == ((8, 15), mask)
    assert opened(SAMPLERS["euler"], latent_shapes=[(1, 4, 2, 2)]).scale.parts == ()


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        ([(1, 24, 2, 4, 4), (1, 32, 2, 8)], ("picture", "sound")),
        ([(1, 24, 2, 4, 4), (1, 24, 1, 4, 4), (1, 32, 2, 8)], ("picture 1", "picture 2", "sound")),
        ([(1, 8192, 16), (1, 1, 5)], ("part 1", "part 2")),
    ],
    ids=["MiniMax-H3", "two pictures", "TripoSplat"],
)
def test_parts_of_a_latent_are_named_after_what_they_hold(shapes, names):
    assert scale_of(shapes, None).names == names


def test_other_caches_are_named():
    options = {"transformer_options": {"wrappers": {"outer_sample": {"easycache": [lambda *args: None]}}}}
    assert opened(SAMPLERS["euler"], options=options).report.rivals == ["EasyCache"]

    def fsampler(*args, **kwargs):
        pass

    assert opened(TinySampler(fsampler)).report.rivals == ["FSampler"]


@pytest.mark.parametrize("sigmas", [(float("nan"), 0.5, 0.0), (1.0, float("inf"), 0.0), (1.0,)])
def test_a_schedule_that_is_none_is_refused(sigmas):
    with pytest.raises(ValueError, match="sigma"):
        opened(SAMPLERS["euler"], sigmas)


def test_the_state_of_a_run_lies_in_a_copy_of_the_options():
    plain = {"transformer_options": {"a": 1}, "b": 2}
    run = object()
    carried = with_run(plain, run)
    assert find_run(carried) is run and find_run(plain) is None and find_run({}) is None
    assert plain == {"transformer_options": {"a": 1}, "b": 2}
    assert carried["b"] == 2 and carried["transformer_options"]["a"] == 1
