"""What the cache is compared with: ComfyUI's own EasyCache, and the signals of TeaCache and MagCache.

Their packs do not load on ComfyUI 0.8 and later, so the signals are written here, over one residual cache: where a signal
says so, all blocks are skipped and what they added in the last computed evaluation is added again. Both signals follow
from one plain run on another prompt, and so does the threshold at which as many evaluations compute as are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import torch

KEY = "bench"
STREAMS = ("img", "txt")
HALVINGS = 40  # of the threshold's range
MOST_SKIPS = 4  # in a row, of MagCache
WARM_UP = 5  # MagCache computes the first fifth


def easycache(threshold: float) -> Callable:
    """A model patch: ComfyUI's EasyCache with its default window, its input protected.

    It adds to its input in place; in float32 that input is the sampler's own latent, so it gets a copy.
    """

    def patch(model):
        from comfy_extras.nodes_easycache import EasyCacheNode

        clone = model.clone()
        clone.add_wrapper_with_key("diffusion_model", KEY, lambda executor, x, *a, **k: executor(x.clone(), *a, **k))
        return EasyCacheNode.execute(clone, threshold, 0.15, 0.95, False).args[0]

    return patch


@dataclass
class Residuals:
    """One run over a model's stacks of blocks (HunyuanVideo has two). calls: of the model in this evaluation so far.

    entries, added: by stack and call, tensors by stream. modulations, magnitudes: of each evaluation, for the signals.
    """

    evaluation: int = -1
    calls: int = 0
    entries: dict[tuple, dict] = field(default_factory=dict)
    added: dict[tuple, dict] = field(default_factory=dict)
    modulations: list[torch.Tensor] = field(default_factory=list)
    magnitudes: list[float] = field(default_factory=list)


def residual_cache(computes: Collection[int] | None = None) -> Callable:
    """A model patch: blocks run in the evaluations of `computes`, None for all. patch.state holds what they showed."""
    state = Residuals()

    def patch(model):
        clone = model.clone()
        clone.add_wrapper_with_key("outer_sample", KEY, partial(restart, state))
        clone.add_wrapper_with_key("predict_noise", KEY, partial(evaluate, state))
        module = clone.get_model_object("diffusion_model")
        stacks = {"double_block": getattr(module, "blocks", None) or module.double_blocks}
        stacks["single_block"] = getattr(module, "single_blocks", ())
        for kind, blocks in stacks.items():
            for place in range(len(blocks)):
                hook = partial(run_block, state, computes, kind, place, len(blocks))
                clone.set_model_patch_replace(hook, "dit", kind, place)
        return clone

    patch.state = state
    return patch


def restart(state: Residuals, executor, *args, **kwargs):
    """OUTER_SAMPLE wrapper that forgets the last run."""
    vars(state).update(vars(Residuals()))
    return executor(*args, **kwargs)


def evaluate(state: Residuals, executor, *args, **kwargs):
    """PREDICT_NOISE wrapper: conditions may come in one model call or in several."""
    state.evaluation += 1
    state.calls = 0
    return executor(*args, **kwargs)


def run_block(
    state: Residuals, computes: Collection[int] | None, kind: str, place: int, count: int, args: dict, extra: dict
) -> dict:
    """The hook of the `place`-th of `count` blocks of a stack."""
    if place == 0:
        begin_stack(state, kind, args)
    key = kind, state.calls
    skips = computes is not None and state.evaluation not in computes
    if not skips:
        out = extra["original_block"](args)
        if place == count - 1:
            end_stack(state, key, out)
        return out
    if place < count - 1:
        return args
    return {name: state.entries[key][name] + added for name, added in state.added[key].items()}


def begin_stack(state: Residuals, kind: str, args: dict) -> None:
    if kind == "double_block":  # the first stack of every family
        state.calls += 1
        if state.calls == 1:
            state.modulations.append(args["vec"].detach().clone())
            state.magnitudes.append(0.0)
    # blocks may write into their input
    state.entries[kind, state.calls] = {name: args[name].clone() for name in STREAMS if name in args}


def end_stack(state: Residuals, key: tuple, out: dict) -> None:
    entries = state.entries[key]
    state.added[key] = {name: out[name] - entry for name, entry in entries.items() if name in out}
    state.magnitudes[-1] += float(state.added[key]["img"].abs().mean())


# --- the signals: numbers of a plain run to the evaluations that compute ---


def teacache(modulations: Sequence[torch.Tensor], threshold: float) -> list[int]:
    """Change of the time modulation, summed until it passes the threshold. Source: Liu et al., arXiv:2411.19108.

    Without the fitted polynomial of each model: ours have none.
    """
    changes = [float((now - before).abs().mean() / before.abs().mean()) for before, now in pairwise(modulations)]
    computes, total = [0], 0.0
    for evaluation, change in enumerate(changes, start=1):
        total += change
        if total >= threshold:
            computes.append(evaluation)
            total = 0.0
    return computes


def magcache(magnitudes: Sequence[float], threshold: float) -> list[int]:
    """What the ratio of residual magnitudes between evaluations is off 1, summed. Source: Ma et al., arXiv:2506.09045.

    At most 4 skips in a row; the first fifth of the run computes.
    """
    first = max(len(magnitudes) // WARM_UP, 1)
    computes, total = list(range(first)), 0.0
    for evaluation in range(first, len(magnitudes)):
        total += abs(1.0 - magnitudes[evaluation] / magnitudes[evaluation - 1])
        if total >= threshold or evaluation - computes[-1] > MOST_SKIPS:
            computes.append(evaluation)
            total = 0.0
    return computes


def tuned(signal: Callable[[float], list[int]], count: int) -> list[int]:
    """The signal's evaluations at the lowest threshold that computes `count` or fewer, or what comes nearest."""
    low, high = 0.0, 1.0
    while len(signal(high)) > count and high < 1e6:
        high *= 2.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if len(signal(middle)) > count else (low, middle)
    return signal(high)
