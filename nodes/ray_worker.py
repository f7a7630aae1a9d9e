"""Inside a Raylight worker: the cache goes on that worker's model. Imports nothing of ComfyUI's nodes, nor Ray.

Raylight: workers hold one model each and sample together. `parallel` is its parallel_dict: is_xdit with ulysses_degree
and ring_degree (each worker runs the blocks on its slice of the tokens), cfg_degree (each runs one of cond and uncond),
dp_degree (groups of workers that sample different latents), is_fsdp (each holds a share of the weights).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict

import torch.distributed

from ..bwcache_core.config import FORECAST, BlockConfig, ForecastConfig
from ..bwcache_core.report import RunReport, RunStats
from .attach import KEY, Listener, Watch, attach
from .attach_blocks import DIFFUSION_MODEL
from .families import BlockLayout, UnsupportedModelError, block_layout

# Classes whose sequence-parallel forward calls block hooks as ComfyUI's does, read from Raylight 1.5.1 (c0495710).
# HunyuanVideo's calls them and raises KeyError where they call the block; those of the others ask for none.
SHARED_WITH_HOOKS = frozenset({
    "WanModel", "VaceWanModel", "CameraWanModel", "WanModel_S2V", "HumoWanModel", "SCAILWanModel", "AnimateWanModel",
    "WanDancerModel", "Flux", "Chroma", "ChromaRadiance", "QwenImageTransformer2DModel", "LensTransformer2DModel",
})  # fmt: skip

logger = logging.getLogger(__name__)

Push = Callable[[dict], None]  # takes a RunReport as a plain dict when a run has ended


def attach_here(model, settings: dict, parallel: dict, push: Push):
    """Clone of `model` that caches with these settings, for the worker to keep in the place of `model`.

    settings: a mode and the fields of its config. push gets the report of each run. Raises UnsupportedModelError,
    ConfigError.
    """
    config = config_of(settings)
    if isinstance(config, BlockConfig):
        require_hooks(block_layout(model.get_model_object("diffusion_model")), parallel)
    clone = attach(model, config, RunStats(), reporting(push), decision_group(parallel))
    put_first(clone)
    return clone


def config_of(settings: dict) -> ForecastConfig | BlockConfig:
    """Undo {"mode": config.mode, **dataclasses.asdict(config)}."""
    if settings["mode"] != FORECAST:
        return BlockConfig(**settings)
    return ForecastConfig(**{name: value for name, value in settings.items() if name != "mode"})


def require_hooks(layout: BlockLayout, parallel: dict) -> None:
    """Raises UnsupportedModelError where the blocks of this worker's model cannot be cached."""
    why = why_no_hooks(layout, parallel)
    if why:
        raise UnsupportedModelError(f"{why}, so its blocks cannot be cached there. Choose mode forecast.")


def why_no_hooks(layout: BlockLayout, parallel: dict) -> str:
    """Why blocks cannot be cached in this worker. Empty where they can."""
    if not parallel.get("is_xdit"):
        return ""
    if parallel.get("cfg_degree", 1) > 1:
        return "With a cfg_degree over 1 a worker sees the blocks of one condition only"
    shares = parallel.get("ulysses_degree", 1) * parallel.get("ring_degree", 1)
    if shares > 1 and layout.model not in SHARED_WITH_HOOKS:
        return f"Raylight's forward of {layout.model} has no block hooks that work"
    return ""


def decision_group(parallel: dict) -> torch.distributed.ProcessGroup | None:
    """The workers that have to decide alike: those that wait for each other inside a model call."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    if parallel.get("is_fsdp"):  # a block's weights are gathered from all of them, whatever each samples
        return torch.distributed.group.WORLD
    if not parallel.get("is_xdit"):
        return None
    if parallel.get("dp_degree", 1) <= 1:
        return torch.distributed.group.WORLD
    from xfuser.core.distributed import get_sp_group  # Raylight's own dependency, there where it splits tokens

    return get_sp_group().device_group


def put_first(model) -> None:
    """Our wrapper outside Raylight's for CFG parallelism, which hands on one condition of the batch."""
    by_key = model.wrappers.get(DIFFUSION_MODEL, {})
    if KEY in by_key:
        model.wrappers[DIFFUSION_MODEL] = {KEY: by_key.pop(KEY), **by_key}


def reporting(push: Push) -> Watch:
    """Pushes each run's report when the run has ended."""

    def watch(report: RunReport) -> Listener:
        def listener(done: bool) -> None:
            if not done:
                return
            try:
                push(asdict(report))
            except Exception:  # the run is done, whatever becomes of its report
                logger.warning("BWCache: the report of a run did not reach ComfyUI", exc_info=True)

        return listener

    return watch
