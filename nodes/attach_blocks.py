"""Attaching the block modes: four hook points, and hooks of the model's blocks.

OUTER_SAMPLE makes the BlockRun of a sampling and drops it, PREPARE_SAMPLING tells ComfyUI what the cache will take,
PREDICT_NOISE is one evaluation, DIFFUSION_MODEL one pass (APPLY_MODEL where the model's forward calls no wrappers). Block
hooks are laid at each pass around whatever hooks are there by then, so other packs' hooks are called and none can
replace ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed

from ..bwcache_core.config import BlockConfig
from ..bwcache_core.paper.model_pass import ModelPass
from ..bwcache_core.paper.run import BlockRun
from ..bwcache_core.paper.stream import StreamKey
from ..bwcache_core.report import RunStats
from .attach import KEY, OUTER_SAMPLE, PREDICT_NOISE, Watch, detached, find_run, inner_module, outer_sample, rivals_of
from .families import BlockLayout, block_layout
from .guard import FAILED, Guard, leave_to_python
from .memory import enlarged, pins, placement_of, worth_telling

# Values of comfy.patcher_extension.WrappersMP, as in attach.py.
PREPARE_SAMPLING, APPLY_MODEL, DIFFUSION_MODEL = "prepare_sampling", "apply_model", "diffusion_model"


def attach_blocks(
    model,
    config: BlockConfig,
    stats: RunStats,
    watch: Watch | None = None,
    group: torch.distributed.ProcessGroup | None = None,
):
    """Clone of `model` (a ModelPatcher) that caches blocks. Attaching again replaces the earlier cache, of any mode.

    stats receives a RunReport per run, watch sees each run from its beginning. group: processes that sample the same
    latent together, each on its share of the tokens. Costs nothing until sampling; the input is untouched.
    Raises UnsupportedModelError.
    """
    layout = block_layout(model.get_model_object("diffusion_model"))
    wrappers = {
        OUTER_SAMPLE: outer_sample(config.mode, partial(open_run, config, layout, group), stats, watch),
        PREPARE_SAMPLING: _prepare_sampling,
        PREDICT_NOISE: _predict_noise,
        DIFFUSION_MODEL if layout.family.wrapped else APPLY_MODEL: _model_pass(layout),
    }
    clone = detached(model)
    for hook_point, wrapper in wrappers.items():
        clone.add_wrapper_with_key(hook_point, KEY, wrapper)
    return clone


def _prepare_sampling(executor, *args, **kwargs):
    """ComfyUI makes room for weights and inference here: let it count the cache in, where that is more than its estimates
    are off by."""
    run = find_run(kwargs.get("model_options") or {})
    extra = run.report.reserved_bytes if run else 0
    if not worth_telling(extra) or len(args) < 2:
        return executor(*args, **kwargs)
    model, noise_shape, *rest = args
    larger = Guard(run).run(enlarged, noise_shape, extra, model)
    return executor(model, noise_shape if larger is FAILED else larger, *rest, **kwargs)


def _predict_noise(executor, *args, **kwargs):
    """One evaluation: all conditions, windows and extra guidance passes inside it share one decision."""
    run = find_run(getattr(executor.class_obj, "model_options", {}))
    if run is None:
        return executor(*args, **kwargs)
    guard = Guard(run)
    begun = guard.run(_begin_evaluation, run, *args, **kwargs)
    if begun is FAILED:  # perhaps over what was measured, and that is dropped: the report should be complete
        begun = guard.run(_begin_evaluation, run, *args, **kwargs)
    result = executor(*args, **kwargs)
    if begun is not FAILED:
        guard.run(run.end_evaluation)
    return result


def _begin_evaluation(run: BlockRun, /, x: torch.Tensor, timestep: torch.Tensor, *rest, **more) -> None:
    run.begin_evaluation(timestep)


def _model_pass(layout: BlockLayout) -> Callable:
    @leave_to_python
    def run_pass(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or next((a for a in reversed(args) if isinstance(a, dict)), {})
        run = options.get(KEY)
        if run is None or run.position is None or "uuids" not in options:
            return executor(*args, **kwargs)
        if not run.stopped:
            guard = Guard(run)
            result = guard.run(_cached_pass, run, layout, guard, options, executor, *args, **kwargs)
            if result is not FAILED:
                return result
        result = executor(*args, **kwargs)
        run.count_plain_pass()
        return result

    return run_pass


@leave_to_python
def _cached_pass(run: BlockRun, layout: BlockLayout, guard: Guard, options: dict, executor, /, *args, **kwargs):
    """Output of one model call, with what `executor` runs marked as the model's own."""
    model_input = kwargs["x"] if "x" in kwargs else args[0]
    if isinstance(model_input, (list, tuple)):  # picture and sound
        model_input = model_input[0]
    inputs = shapes_of([*args, *kwargs.values()]) if run.group is not None else ()
    model_pass = run.begin_pass(stream_keys(options, model_input, executor.class_obj, inputs))
    hooked = with_block_hooks(options, layout, model_pass, guard)
    args = [hooked if a is options else a for a in args]
    kwargs = {name: hooked if value is options else value for name, value in kwargs.items()}
    # Hooks are new at every pass: a graph through them never fits.
    compute = torch.compiler.disable(partial(executor, *args, **kwargs))
    result = model_pass.run_model(partial(guard.crossing, True, compute))
    run.finish_pass(model_pass)
    return result


def open_run(
    config: BlockConfig, layout: BlockLayout, group: torch.distributed.ProcessGroup | None, guider,
    /, noise, latent_image, sampler, sigmas, *rest, **more,
) -> BlockRun:
    """The state of a run, from the arguments of OUTER_SAMPLE. Raises ValueError for a schedule that is none."""
    schedule = sigmas.tolist()
    placement = placement_of(config, layout, guider, noise, alone=group is None)
    run = BlockRun(placement.put_into(config), layout.block_count, schedule, layout.model, group=group, pins=pins())
    run.place(placement)
    run.report.rivals = rivals_of(guider, sampler, inner_module(guider.model_patcher))
    return run


def stream_keys(options: dict, model_input: torch.Tensor, model: object, inputs: tuple = ()) -> list[StreamKey]:
    """Identities of the conditions in one model call, in batch order.

    model_input: (conditions * rows, ...). Areas share a uuid between cond and uncond and windows share all of them,
    so neither the uuid nor the place in the batch is enough. inputs: shapes of everything that enters the call.
    """
    conditions, uuids = options["cond_or_uncond"], options["uuids"]
    if model_input.ndim < 3 or model_input.shape[0] % len(uuids):
        raise ValueError(f"the model input is {tuple(model_input.shape)}, expected rows of {len(uuids)} conditions")
    window = options.get("context_window")
    frames = tuple(window.index_list) if window is not None else None
    shape = (model_input.shape[0] // len(uuids), *model_input.shape[1:])
    device, dtype = str(model_input.device), str(model_input.dtype)
    place = (frames, id(model), device, shape, dtype)
    return [StreamKey(c, u, *place, inputs=inputs) for c, u in zip(conditions, uuids, strict=True)]


def shapes_of(values: Sequence) -> tuple:
    """Shapes of one row of each tensor in `values`, lists included. Every rank of a group sees the same ones."""
    shapes = []
    for value in values:
        if isinstance(value, torch.Tensor):
            shapes.append(tuple(value.shape[1:]))
        elif isinstance(value, (list, tuple)):
            shapes.append(shapes_of(value))
    return tuple(shapes)


def with_block_hooks(options: dict, layout: BlockLayout, model_pass: ModelPass, guard: Guard) -> dict:
    """Copy of transformer_options whose block hooks run `model_pass` around the hooks that are there."""
    replace = options.get("patches_replace", {})
    hooks = dict(replace.get("dit", {}))
    make = _packed_hook if layout.family.packed else _block_hook
    for block, key in enumerate(layout.keys):
        hooks[key] = make(model_pass, block, hooks.get(key), guard)
    return {**options, "patches_replace": {**replace, "dit": hooks}}


def _block_hook(model_pass: ModelPass, block: int, inner: Callable | None, guard: Guard) -> Callable:
    def hook(args: dict, extra: dict) -> dict:
        original = extra["original_block"]

        def compute(block_args: dict) -> dict:
            return inner(block_args, extra) if inner else original(block_args)

        return model_pass.run_block(block, args, partial(guard.crossing, True, compute))

    return partial(guard.crossing, False, hook)


def _packed_hook(model_pass: ModelPass, block: int, inner: Callable | None, guard: Guard) -> Callable:
    """The hook of a block whose hidden states are (L, D): to the cache they are (1, L, D)."""

    def hook(args: dict, extra: dict) -> dict:
        original = extra["original_block"]

        def compute(block_args: dict) -> dict:
            flat = {**block_args, "img": block_args["img"][0]}
            out = inner(flat, extra) if inner else original(flat)
            return {**out, "img": out["img"][None]}

        rows = {**args, "img": args["img"][None]}
        out = model_pass.run_block(block, rows, partial(guard.crossing, True, compute))
        return {**out, "img": out["img"][0]}

    return partial(guard.crossing, False, hook)
