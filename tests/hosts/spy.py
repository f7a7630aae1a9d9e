"""Watches a sampling run from below the cache: which blocks ran, what every hook gave back, what reached the head.

Witness watches from above: what the model call gave back, whether the model ran or not.
"""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

KEY = "spy"
FEATURES = ("img", "txt")


@dataclass
class Call:
    """One call of the diffusion model. Tensors are copies, taken before anything can write into them.

    window: frames of a context window. model: which module. ran: blocks that ran. produced: what those made.
    entered, left: features at every block hook, by hook key. head: hidden states that reached the head.
    """

    conditions: list[int]
    uuids: list
    window: tuple[int, ...] | None = None
    model: int = 0
    ran: list[int] = field(default_factory=list)
    entered: dict[tuple, dict[str, torch.Tensor]] = field(default_factory=dict)
    left: dict[tuple, dict[str, torch.Tensor]] = field(default_factory=dict)
    produced: dict[int, torch.Tensor] = field(default_factory=dict)
    head: torch.Tensor | None = None

    def rows(self, tensor: torch.Tensor, condition: int) -> torch.Tensor:
        return tensor.chunk(len(self.conditions))[self.conditions.index(condition)]


@dataclass
class Evaluation:
    """One model evaluation: the calls for all of its conditions."""

    sigma: float
    calls: list[Call] = field(default_factory=list)
    input_written: bool = False

    @property
    def blocks_run(self) -> int:
        return sum(len(call.ran) for call in self.calls)

    @property
    def groups(self) -> list[list[int]]:
        return [call.conditions for call in self.calls]

    def features(self, block: tuple[str, int]) -> dict[tuple, torch.Tensor]:
        """What the hook of `block` gave back, by condition: told apart by everything but the place in the batch."""
        found: dict[tuple, torch.Tensor] = {}
        for call in self.calls:
            rows = call.left[block]["img"].chunk(len(call.conditions))
            for condition, uuid, features in zip(call.conditions, call.uuids, rows, strict=True):
                who = (condition, uuid, call.window, call.model, features.shape)
                found[(*who, sum(other[:5] == who for other in found))] = features
        return found

    def call_of(self, condition: int) -> Call:
        return next(call for call in self.calls if condition in call.conditions)

    def head(self, condition: int) -> torch.Tensor:
        call = self.call_of(condition)
        return call.rows(call.head, condition)


class Spy:
    """`model` is a clone that watches; its wrappers lie inside those already on the model it was made from.

    point: the hook point of a model call.
    """

    def __init__(
        self, model, blocks: list[torch.nn.Module], head: torch.nn.Module | None, point: str = "diffusion_model"
    ) -> None:
        self.model = model.clone()
        self.blocks = blocks
        self.head = head
        self.evaluations: list[Evaluation] = []
        self.run = lambda: None  # a weak reference, once there is one
        self.model.add_wrapper_with_key("predict_noise", KEY, self._predict_noise)
        self.model.add_wrapper_with_key(point, KEY, self._diffusion_model)

    @property
    def call(self) -> Call:
        return self.evaluations[-1].calls[-1]

    @contextmanager
    def watching(self) -> Iterator[Spy]:
        handles = [block.register_forward_hook(self._block_ran(index)) for index, block in enumerate(self.blocks)]
        if self.head is not None:
            handles.append(self.head.register_forward_pre_hook(self._head_reached))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _block_ran(self, index: int):
        def note(module, args, out) -> None:
            self.call.ran.append(index)
            first = next(o for o in out if o is not None) if isinstance(out, tuple) else out
            self.call.produced[index] = first.clone()

        return note

    def _head_reached(self, module, args) -> None:
        self.call.head = args[0].clone()

    def _predict_noise(self, executor, x, timestep, *args, **kwargs):
        self.evaluations.append(Evaluation(float(timestep.flatten()[0])))
        before = x.clone()
        result = executor(x, timestep, *args, **kwargs)
        self.evaluations[-1].input_written = not torch.equal(before, x)
        return result

    def _diffusion_model(self, executor, *args, **kwargs):
        options = options_of(args, kwargs)
        window = options.get("context_window")
        frames = tuple(window.index_list) if window is not None else None
        call = Call(options["cond_or_uncond"], options["uuids"], frames, id(executor.class_obj))
        self.evaluations[-1].calls.append(call)
        if "bwcache" in options:
            self.run = weakref.ref(options["bwcache"])
        hooks = options.get("patches_replace", {}).get("dit", {})
        for key, hook in hooks.items():
            hooks[key] = self._recorded(key, hook)
        return executor(*args, **kwargs)

    def _recorded(self, key: tuple, hook):
        def record(args, extra):
            self.call.entered[key] = copies(args)
            out = hook(args, extra)
            self.call.left[key] = copies(out)
            return out

        return record


class Witness:
    """`model` is a clone that notes each model call's output; attach the cache to it, so that it lies outside.

    key: wrappers of one key lie side by side, so two witnesses around one cache need two. point: where a call is seen;
    around the denoised latent it is turned into the output that made it, (latent - denoised) / sigma.
    """

    def __init__(self, model, key: str = "witness", point: str = "diffusion_model") -> None:
        self.model = model.clone()
        self.point = point
        self.evaluations: list[dict[int, torch.Tensor]] = []
        self.model.add_wrapper_with_key("predict_noise", key, self._predict_noise)
        self.model.add_wrapper_with_key(point, key, self._diffusion_model)

    def _predict_noise(self, executor, *args, **kwargs):
        self.evaluations.append({})
        return executor(*args, **kwargs)

    def _diffusion_model(self, executor, *args, **kwargs):
        conditions = options_of(args, kwargs)["cond_or_uncond"]
        output = executor(*args, **kwargs)
        if self.point == "apply_model":
            seen = (args[0] - output) / args[1].reshape(-1, *[1] * (output.ndim - 1))
        else:
            seen = output.clone()
        rows = seen.chunk(len(conditions))
        self.evaluations[-1].update(zip(conditions, rows, strict=True))
        return output


CORE = "bwcache_pack.bwcache_core"


def held_tensors(run) -> list[weakref.ref]:
    """Weak references to every tensor that the cache's own objects lead to, from the state of a run on."""
    queue, seen, tensors = [run], set(), []
    while queue:
        thing = queue.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if torch.is_tensor(thing):
            tensors.append(weakref.ref(thing))
        elif isinstance(thing, (dict, list, tuple, set, deque)) or type(thing).__module__.startswith(CORE):
            queue += gc.get_referents(thing)
    return tensors


def options_of(args, kwargs) -> dict:
    """transformer_options of a model call: named, or the last dict."""
    return kwargs.get("transformer_options") or next(a for a in reversed(args) if isinstance(a, dict))


def copies(features: dict) -> dict[str, torch.Tensor]:
    return {name: features[name].clone() for name in FEATURES if torch.is_tensor(features.get(name))}
