"""What stands where a workflow has BWCache Apply: nothing, or the node between watchers that see a run's insides.

The watchers are wrappers of their own, one set outside the cache and one inside. They change nothing but what a check
asks of them: compute the truth beside what was reused, or turn the guidance or swap an input in reused evaluations alone.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from bwcache_pack.bwcache_core.config import FORECAST
from bwcache_pack.bwcache_core.report import RunReport, RunStats
from bwcache_pack.tests.hosts.calls import worst_row
from bwcache_pack.tests.hosts.spy import held_tensors, options_of

KEY = "bwcache"
WIDTH_POWER = 0.35  # what an error of a block mode counts grows by this power of its step's width


def plain(model):
    """The workflow without the cache."""
    return model


def apply_node(model, **settings) -> tuple:
    """Outputs of the BWCache Apply node, run as ComfyUI's executor runs it."""
    from comfy_api.latest import io

    from bwcache_pack.nodes.apply import BWCacheApply

    node = BWCacheApply.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "12:7"}})
    return node.execute(model=model, mode=settings).args


@dataclass
class Traces:
    """What one BWCache Apply left behind for the checks. Weak references only, apart from numbers and the model.

    model, options: what went into the node, and its options as they were. states, held: weak references to the states of
    runs and to the tensors that they held. kept_options: whether each run gave the guider its options back. errors:
    relative L1 distance of what each reused call returned from the truth: forecast mode, of the model's output, block
    modes, of what the model returned, weighted by the step's width. computed: how many calls reached ComfyUI below the
    cache, by run and evaluation. reached: whether the call that goes on did.
    """

    model: object
    options: dict
    stats: RunStats
    states: list[weakref.ref] = field(default_factory=list)
    held: list[weakref.ref] = field(default_factory=list)
    kept_options: list[bool] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    computed: list[list[int]] = field(default_factory=list)
    reached: bool = False

    @property
    def run(self) -> int:
        return len(self.computed) - 1

    @property
    def evaluation(self) -> int:
        return len(self.computed[-1]) - 1


@dataclass
class ModelCall:
    """What a model call was given beside the latents, their timestep and the options."""

    args: tuple
    named: dict
    patches: dict | None


class Cached:
    """Puts BWCache Apply into a workflow, wherever and as often as that calls desk.apply.

    truth: measure what is reused against the model. turned: evaluations in which guidance is turned up, as `reused` gives
    them, and by how much. swapped: calls of another run of the workflow; reused model calls get what those got.
    """

    def __init__(
        self, settings: dict, truth: bool = False, turned: Sequence[Sequence[set[int]]] = (), turn: float = 1.0,
        swapped: list[ModelCall] | None = None,
    ) -> None:
        self.settings, self.truth = settings, truth
        self.turned, self.turn = turned, turn
        self.swapped = swapped
        self.traces: list[Traces] = []
        self.calls: list[ModelCall] = []
        self._asking = False  # for the truth

    @property
    def forecast(self) -> bool:
        return self.settings["mode"] == FORECAST

    def __call__(self, model):
        traces = Traces(model, model_state(model), RunStats())
        outside, place = model.clone(), len(self.traces)
        outside.add_wrapper_with_key("outer_sample", f"matrix outside {place}", self._around_run(traces))
        if self.forecast:
            outside.add_wrapper_with_key("calc_cond_batch", f"matrix outside {place}", self._around_conditions(traces))
        elif self.truth or self.swapped is not None:
            outside.add_wrapper_with_key("diffusion_model", f"matrix outside {place}", self._around_model(traces))
        applied, traces.stats = apply_node(outside, **self.settings)
        inside = applied.clone()
        inside.add_wrapper_with_key("predict_noise", f"matrix inside {place}", self._look_in(traces))
        if self.forecast:
            inside.add_wrapper_with_key("calc_cond_batch", f"matrix inside {place}", self._below(traces))
        self.traces.append(traces)
        return inside

    @property
    def runs(self) -> list[RunReport]:
        """Reports of all runs. An Apply node that another one replaced has none."""
        return [run for traces in self.traces for run in traces.stats.runs]

    @property
    def decisions(self) -> list:
        return [[(s.action, s.reused_blocks, s.blocks_run, s.calls_run) for s in run.steps] for run in self.runs]

    @property
    def reused(self) -> list[list[set[int]]]:
        """Evaluations that were reused, of each run of each Apply node."""
        return [
            [{n for n, step in enumerate(run.steps) if step.action == "reuse"} for run in traces.stats.runs]
            for traces in self.traces
        ]

    @property
    def untouched(self) -> list[list[set[int]]]:
        """Evaluations of which nothing reached ComfyUI below the cache, as `reused`."""
        return [
            [{n for n, count in enumerate(run) if not count} for run in traces.computed] if traces.stats.runs else []
            for traces in self.traces
        ]

    @property
    def errors(self) -> list[float]:
        return [error for traces in self.traces for error in traces.errors]

    def left_over(self) -> list[str]:
        """What outlived the runs. Call it when the workflow has returned."""
        gc.collect()
        found = []
        for traces in self.traces:
            found += ["the state of a run" for state in traces.states if state() is not None]
            found += ["a tensor" for tensor in traces.held if tensor() is not None]
            found += ["changed options of a guider" for kept in traces.kept_options if not kept]
            found += ["a tensor in the stats" for tensor in held_tensors(traces.stats)]
            found += [] if model_state(traces.model) == traces.options else ["changes of the model that went in"]
        return found

    def _around_run(self, traces: Traces):
        def outer_sample(executor, *args, **kwargs):
            guider = executor.class_obj
            before = guider.model_options
            traces.computed.append([])
            try:
                return executor(*args, **kwargs)
            finally:
                traces.kept_options.append(guider.model_options is before)

        return outer_sample

    def _around_conditions(self, traces: Traces):
        def calc_cond_batch(executor, model, conds, x, timestep, options, *rest):
            traces.reached = False
            given = executor(model, conds, x, timestep, options, *rest)
            if not self.truth or traces.reached or KEY not in options["transformer_options"]:
                return given
            kept = [d.clone() for d in given]
            bare = {name: value for name, value in options["transformer_options"].items() if name != KEY}
            self._asking = True
            truth = executor(model, conds, x, timestep, {**options, "transformer_options": bare}, *rest)
            self._asking = False
            traces.errors += [worst_row(d, t, x) for d, t, entries in zip(kept, truth, conds, strict=True) if entries]
            return kept

        return calc_cond_batch

    def _below(self, traces: Traces):
        def calc_cond_batch(executor, *args, **kwargs):
            if not self._asking:
                traces.reached = True
                if traces.computed[-1]:
                    traces.computed[-1][-1] += 1
            return executor(*args, **kwargs)

        return calc_cond_batch

    def _around_model(self, traces: Traces):
        def diffusion_model(executor, *args, **kwargs):
            options = options_of(args, kwargs)
            state = options.get(KEY)
            given = exchanged(args[2:], options, None), exchanged(kwargs, options, None)
            self.calls.append(ModelCall(*given, options.get("patches")))
            if state is None or not state.decision.reuse:
                return executor(*args, **kwargs)
            if self.swapped is not None:
                args, kwargs = with_inputs(self.swapped[len(self.calls) - 1], args, kwargs, options)
            served = executor(*args, **kwargs)
            if self.truth:
                bare = {name: value for name, value in options.items() if name != KEY}
                truth = executor(*exchanged(args, options, bare), **exchanged(kwargs, options, bare))
                count = len(options["uuids"])
                errors = map(relative_error, flat(served).chunk(count), flat(truth).chunk(count))
                traces.errors.append(step_weight(state) * max(errors))
            return served

        return diffusion_model

    def _look_in(self, traces: Traces):
        def predict_noise(executor, *args, **kwargs):
            guider = executor.class_obj
            state = guider.model_options.get("transformer_options", {}).get(KEY)
            if state is None:
                return executor(*args, **kwargs)
            traces.computed[-1].append(0)
            traces.states.append(weakref.ref(state))
            place = next(i for i, other in enumerate(self.traces) if other is traces)
            runs = self.turned[place] if place < len(self.turned) else ()
            turned = runs[traces.run] if traces.run < len(runs) else ()
            before = self._turn(guider) if traces.evaluation in turned else {}
            try:
                return executor(*args, **kwargs)
            finally:
                vars(guider).update(before)
                traces.held += held_tensors(state)

        return predict_noise

    def _turn(self, guider) -> dict[str, float]:
        """Turn up the guidance of `guider`. Returns its strengths as they were."""
        before = {name: getattr(guider, name) for name in ("cfg", "cfg1") if hasattr(guider, name)}
        vars(guider).update({name: strength * self.turn for name, strength in before.items()})
        return before


def flat(output: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
    """A model's output as one tensor: picture and sound, of one row, come as two."""
    return output if torch.is_tensor(output) else torch.cat([part.flatten(1) for part in output], dim=1)


def with_inputs(call: ModelCall, args: tuple, kwargs: dict, options: dict) -> tuple[tuple, dict]:
    """Arguments of a model call with the inputs of another: the latents, the timestep and the options stay."""
    patched = options if call.patches is None else {**options, "patches": call.patches}
    args = (*args[:2], *[patched if a is options else other for a, other in zip(args[2:], call.args, strict=True)])
    named = {name: patched if kwargs[name] is options else call.named[name] for name in kwargs}
    return args, named


def exchanged(arguments, old: object, new: object):
    """`arguments`, a tuple or a dict, with `new` in place of `old`."""
    if isinstance(arguments, dict):
        return {name: new if value is old else value for name, value in arguments.items()}
    return tuple(new if value is old else value for value in arguments)


def step_weight(state) -> float:
    """What an error counts in this step: a wider step carries it further."""
    widths = [abs(here - following) for here, following in pairwise(state.schedule.sigmas)]
    return (widths[state.position.step] / (sum(widths) / len(widths))) ** WIDTH_POWER


def model_state(model) -> dict:
    """All that a pack could change on a model: its options and wrappers, and what each of its modules holds."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    modules = model.get_model_object("diffusion_model").named_modules()
    return {
        **option_leaves({"options": model.model_options, "wrappers": model.wrappers, "callbacks": model.callbacks}),
        **{name: (sorted(vars(module)), *(len(getattr(module, kind)) for kind in hooks)) for name, module in modules},
    }


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """L1 distance, as a share of what it should have been."""
    return float((ours - theirs).abs().sum() / theirs.abs().sum())


def option_leaves(options: object, path: str = "") -> dict[str, int]:
    """Where each object lies in nested options, and which one it is."""
    if isinstance(options, dict):
        return {
            where: leaf
            for key, value in options.items()
            for where, leaf in option_leaves(value, f"{path}/{key}").items()
        } or {path: 0}
    if isinstance(options, list):
        return {
            where: leaf
            for index, value in enumerate(options)
            for where, leaf in option_leaves(value, f"{path}/{index}").items()
        } or {path: 0}
    return {path: id(options)}
