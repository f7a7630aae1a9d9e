"""What the cache is compared with: ComfyUI's own EasyCache and LazyCache, and the signals of other packs.

TeaCache's and MagCache's packs do not load on ComfyUI 0.8 and later, and WaveSpeed's first-block cache refuses Wan, so
their signals are written here, as policies over one residual cache: where the signal says so, all blocks are skipped
and the residual of the last computed evaluation is added to their input. Decisions are for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

KEY = "bench"


def native_cache(node: str, threshold: float) -> Callable:
    """EasyCache or LazyCache of ComfyUI with its default window, its input protected.

    It adds to its input in place; in float32 that input is the sampler's own latent, so it gets a copy.
    """

    def patch(model):
        import comfy_extras.nodes_easycache as easycache

        nodes = {"EasyCache": easycache.EasyCacheNode, "LazyCache": easycache.LazyCacheNode}
        clone = model.clone()
        clone.add_wrapper_with_key("diffusion_model", KEY, lambda executor, x, *a, **k: executor(x.clone(), *a, **k))
        return nodes[node].execute(clone, threshold, 0.15, 0.95, False).args[0]

    return patch


@dataclass
class ResidualState:
    """One run. entry: what the skipped blocks would get. accumulated: of the signal since the last computed evaluation."""

    evaluation: int = -1
    entry: torch.Tensor | None = None
    skips: bool = False
    previous: torch.Tensor | None = None
    residual: torch.Tensor | None = None
    accumulated: float = 0.0
    skipped: int = 0
    magnitudes: list[float] = field(default_factory=list)


def relative_l1(current: torch.Tensor, previous: torch.Tensor) -> float:
    return float((current - previous).abs().mean() / previous.abs().mean())


class TeaCache:
    """Change of the time modulation, summed until it passes the threshold. Source: Liu et al., arXiv:2411.19108.

    Without the fitted polynomial of each model: TinyWan has none.
    """

    runs_first_block = False

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def skips(self, state: ResidualState, args: dict, out: dict) -> bool:
        modulation = args["vec"]
        if state.previous is not None and state.residual is not None:
            state.accumulated += relative_l1(modulation, state.previous)
        state.previous = modulation
        return state.residual is not None and state.accumulated < self.threshold


class MagCache:
    """Ratio of residual magnitudes between steps, measured once beforehand. Source: Ma et al., arXiv:2506.09045.

    ratios: by evaluation, from `magnitude_ratios`. At most 4 skips in a row; the first fifth of the run computes.
    """

    runs_first_block = False

    def __init__(self, threshold: float, ratios: Sequence[float]) -> None:
        self.threshold = threshold
        self.ratios = ratios

    def skips(self, state: ResidualState, args: dict, out: dict) -> bool:
        if state.residual is None or state.evaluation < len(self.ratios) / 5:
            return False
        state.accumulated += abs(1.0 - self.ratios[min(state.evaluation, len(self.ratios) - 1)])
        return state.accumulated < self.threshold and state.skipped < 4


class FirstBlock:
    """Change of the first block's residual, which always runs. Source: First Block Cache (ParaAttention, WaveSpeed)."""

    runs_first_block = True

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def skips(self, state: ResidualState, args: dict, out: dict) -> bool:
        signal = out["img"] - args["img"]
        if state.residual is not None and relative_l1(signal, state.previous) < self.threshold:
            return True
        state.previous = signal
        return False


def residual_cache(signal: TeaCache | MagCache | FirstBlock) -> Callable:
    """A model patch: skips blocks where `signal` says so, adding their last residual instead."""

    def patch(model):
        clone = model.clone()
        clone.add_wrapper_with_key("outer_sample", KEY, restarting(state))
        count = len(clone.get_model_object("diffusion_model").blocks)
        for i, hook in enumerate([first, *[between] * (count - 2), last]):
            clone.set_model_patch_replace(hook, "dit", "double_block", i)
        return clone

    state = ResidualState()

    def first(args: dict, extra: dict) -> dict:
        state.evaluation += 1
        out = extra["original_block"](args) if signal.runs_first_block else args
        state.entry, state.skips = out["img"], signal.skips(state, args, out)
        state.skipped = state.skipped + 1 if state.skips else 0
        return out if state.skips or signal.runs_first_block else extra["original_block"](args)

    def between(args: dict, extra: dict) -> dict:
        return args if state.skips else extra["original_block"](args)

    def last(args: dict, extra: dict) -> dict:
        if state.skips:
            return {"img": state.entry + state.residual}
        out = extra["original_block"](args)
        state.residual, state.accumulated = out["img"] - state.entry, 0.0
        state.magnitudes.append(float(state.residual.abs().mean()))
        return out

    patch.state = state
    return patch


def restarting(state: ResidualState) -> Callable:
    """OUTER_SAMPLE wrapper that forgets the last run."""

    def wrapper(executor, *args, **kwargs):
        vars(state).update(vars(ResidualState()))
        return executor(*args, **kwargs)

    return wrapper


def magnitude_ratios(state: ResidualState) -> list[float]:
    """Residual magnitude of each evaluation over the one before, from a run that computed everything."""
    magnitudes = state.magnitudes
    return [1.0, *(now / before for before, now in pairwise(magnitudes))]
