"""Attaching a cache to a model: the only file that knows ComfyUI's hook points.

Four keyed wrappers go on a clone of the ModelPatcher, nothing on the module. OUTER_SAMPLE makes the Session of a run
and drops it, PREPARE_SAMPLING tells ComfyUI what the cache will take, PREDICT_NOISE is one evaluation, DIFFUSION_MODEL
one pass (APPLY_MODEL where the model's forward calls no wrappers). Block hooks are laid at each pass around whatever
hooks are there by then, so other packs' hooks are called and none can replace ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed

from ..bwcache_core.config import ADAPTIVE, BWCacheConfig
from ..bwcache_core.corrector import SamplerStep, carried_tensors
from ..bwcache_core.model_pass import ModelPass, leave_to_python
from ..bwcache_core.report import RunReport, RunStats, StepReport
from ..bwcache_core.session import Session, described
from ..bwcache_core.stream import StreamKey
from .families import BlockLayout, block_layout, require_hooks
from .guard import FAILED, Guard
from .memory import enlarged, plan
from .sampler_response import sampler_response

KEY = "bwcache"
# Values of comfy.patcher_extension.WrappersMP. Spelled out: the embedded host runs this file without ComfyUI.
OUTER_SAMPLE, PREPARE_SAMPLING = "outer_sample", "prepare_sampling"
PREDICT_NOISE, APPLY_MODEL, DIFFUSION_MODEL = "predict_noise", "apply_model", "diffusion_model"
RIVAL_WRAPPERS = {"easycache": "EasyCache", "lazycache": "LazyCache"}
RIVAL_FUNCTIONS = {"teacache": "TeaCache", "magcache": "MagCache"}

logger = logging.getLogger(__name__)


Listener = Callable[[bool], None]  # called after each evaluation, and with True when the run has ended
Watch = Callable[[RunReport], Listener]  # called when a run begins, with the report that will fill


def attach(
    model,
    config: BWCacheConfig,
    stats: RunStats,
    watch: Watch | None = None,
    group: torch.distributed.ProcessGroup | None = None,
):
    """Clone of `model` (a ModelPatcher) that caches. Attaching again replaces the earlier cache.

    stats receives a RunReport per run, watch sees each run from its beginning. group: processes that sample the same
    latent together, each on its share of the tokens. Costs nothing until sampling; the input is untouched.
    Raises UnsupportedModelError.
    """
    layout = block_layout(model.get_model_object("diffusion_model"))
    if not config.caches_output:
        require_hooks(layout)
    clone = model.clone()
    pass_point = DIFFUSION_MODEL if layout.family.wrapped else APPLY_MODEL
    wrappers = {
        OUTER_SAMPLE: _outer_sample(config, layout, stats, watch, group),
        PREPARE_SAMPLING: _prepare_sampling,
        PREDICT_NOISE: _predict_noise,
        pass_point: _model_pass(layout),
    }
    for hook_point, wrapper in wrappers.items():
        clone.remove_wrappers_with_key(hook_point, KEY)
        clone.add_wrapper_with_key(hook_point, KEY, wrapper)
    return clone


def _outer_sample(
    config: BWCacheConfig,
    layout: BlockLayout,
    stats: RunStats,
    watch: Watch | None,
    group: torch.distributed.ProcessGroup | None,
) -> Callable:
    def run_with_session(executor, *args, **kwargs):
        guider = executor.class_obj
        try:
            session = open_session(config, layout, guider, group, *args, **kwargs)
            listener = watch(session.report) if watch else ignore
        except Exception as error:  # ComfyUI calls this otherwise than we know
            session, report = None, uncached_report(config, layout, error)
            logger.warning("BWCache: %s", *report.warnings)
            stats.runs.append(report)
        if session is None:
            result = executor(*args, **kwargs)
            report.finished = True
            return result
        session.on_step = _observer(config, listener)
        plain_options = guider.model_options
        guider.model_options = with_session(plain_options, session)
        finished = False
        try:
            result = executor(*args, **kwargs)
            finished = True
            return result
        finally:  # a cancel is a BaseException
            guider.model_options = plain_options
            stats.runs.append(session.report)
            guard = Guard(session)
            guard.run(session.close, finished)
            guard.run(log_report, session.report)
            guard.run(listener, True)

    return run_with_session


def _prepare_sampling(executor, *args, **kwargs):
    """ComfyUI makes room for weights and inference here: let it count the cache in."""
    session = find_session(kwargs.get("model_options") or {})
    extra = session.report.reserved_bytes if session else 0
    if not extra or len(args) < 2:
        return executor(*args, **kwargs)
    model, noise_shape, *rest = args
    larger = Guard(session).run(enlarged, noise_shape, extra, model)
    return executor(model, noise_shape if larger is FAILED else larger, *rest, **kwargs)


def _predict_noise(executor, *args, **kwargs):
    """One evaluation: all conditions, windows and extra guidance passes inside it share one decision."""
    session = find_session(getattr(executor.class_obj, "model_options", {}))
    if session is None:
        return executor(*args, **kwargs)
    guard = Guard(session)
    begun = guard.run(_begin_evaluation, session, *args, **kwargs)
    if begun is FAILED:  # perhaps over what was measured, and that is dropped: the report should be complete
        begun = guard.run(_begin_evaluation, session, *args, **kwargs)
    result = executor(*args, **kwargs)
    if begun is not FAILED:
        guard.run(session.end_evaluation)
    return result


def _begin_evaluation(session: Session, /, x: torch.Tensor, timestep: torch.Tensor, *rest, **more) -> None:
    session.begin_evaluation(timestep)


def _model_pass(layout: BlockLayout) -> Callable:
    @leave_to_python
    def run_pass(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or next((a for a in reversed(args) if isinstance(a, dict)), {})
        session = options.get(KEY)
        if session is None or session.position is None or "uuids" not in options:
            return executor(*args, **kwargs)
        if not session.stopped:
            guard = Guard(session)
            result = guard.run(_cached_pass, session, layout, guard, options, executor, *args, **kwargs)
            if result is not FAILED:
                return result
        result = executor(*args, **kwargs)
        session.count_plain_pass()
        return result

    return run_pass


@leave_to_python
def _cached_pass(session: Session, layout: BlockLayout, guard: Guard, options: dict, executor, /, *args, **kwargs):
    """Output of one model call, with what `executor` runs marked as the model's own."""
    model_input = kwargs["x"] if "x" in kwargs else args[0]
    inputs = shapes_of([*args, *kwargs.values()]) if session.group is not None else ()
    model_pass = session.begin_pass(stream_keys(options, model_input, executor.class_obj, inputs))
    compute = partial(executor, *args, **kwargs)
    if model_pass.needs_hooks:
        hooked = with_block_hooks(options, layout, model_pass, guard)
        args = [hooked if a is options else a for a in args]
        kwargs = {name: hooked if value is options else value for name, value in kwargs.items()}
        # Hooks are new at every pass: a graph through them never fits.
        compute = torch.compiler.disable(partial(executor, *args, **kwargs))
    compute = partial(guard.crossing, True, compute)
    if layout.family.wrapped:
        result = model_pass.run_model(compute)
    else:
        result = run_denoiser(model_pass, compute, *args[:2])
    session.finish_pass(model_pass)
    return result


@leave_to_python
def run_denoiser(
    model_pass: ModelPass, denoise: Callable[[], torch.Tensor], latent: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """The pass where only the denoised latent can be seen: (latent - denoised) / sigma stands for the model's output.

    What was computed and not corrected is handed on as it came.
    """
    sigma = sigma.reshape(-1, *[1] * (latent.ndim - 1))
    denoised = slope = None

    def compute() -> torch.Tensor:
        nonlocal denoised, slope
        denoised = denoise()
        slope = (latent - denoised) / sigma
        return slope

    output = model_pass.run_model(compute)
    return denoised if output is slope else latent - sigma * output


def open_session(
    config: BWCacheConfig, layout: BlockLayout, guider, group: torch.distributed.ProcessGroup | None,
    /, noise, latent_image, sampler, sigmas, *rest, **more,
) -> Session:
    """The session of a run, from the arguments of OUTER_SAMPLE."""
    schedule = sigmas.tolist()
    steps, warning = known_response(config, guider, sampler, sigmas)
    placement = plan(config, layout, guider, noise, carried_tensors(steps), alone=group is None)
    config = placement.settle(config)
    session = Session(config, layout.block_count, schedule, layout.model, sampler=steps, group=group)
    session.place(placement)
    session.report.warnings += warning + rival_warnings(guider.model_options)
    return session


def known_response(config: BWCacheConfig, guider, sampler, sigmas: torch.Tensor) -> tuple[Sequence[SamplerStep], list[str]]:
    """What the corrector has to know of the sampler, nothing where it is off; and a warning where that failed."""
    if not config.corrector or config.mode != ADAPTIVE or not (config.limit or config.target_speedup):
        return (), []
    try:
        return sampler_response(guider, sampler, sigmas), []
    except Exception as error:  # another version of the sampler
        return (), [f"The corrector is off, as the sampler would not be asked what it does: {described(error)}."]


def uncached_report(config: BWCacheConfig, layout: BlockLayout, error: Exception) -> RunReport:
    """Of a run in which there is nothing to see but why it was not cached."""
    report = RunReport(config.mode, config.limit, 0, 0, layout.block_count, [], layout.model)
    report.warnings.append(f"This run was not cached: {described(error)}.")
    return report


def find_session(model_options: dict) -> Session | None:
    return model_options.get("transformer_options", {}).get(KEY)


def with_session(model_options: dict, session: Session) -> dict:
    """Copy of the run's options that carries the session. ComfyUI copies dicts at every call but shares objects."""
    options = {**model_options.get("transformer_options", {}), KEY: session}
    return {**model_options, "transformer_options": options}


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
    for block, key in enumerate(layout.keys):
        hooks[key] = _block_hook(model_pass, block, hooks.get(key), guard)
    return {**options, "patches_replace": {**replace, "dit": hooks}}


def _block_hook(model_pass: ModelPass, block: int, inner: Callable | None, guard: Guard) -> Callable:
    def hook(args: dict, extra: dict) -> dict:
        original = extra["original_block"]

        def compute(block_args: dict) -> dict:
            return inner(block_args, extra) if inner else original(block_args)

        return model_pass.run_block(block, args, partial(guard.crossing, True, compute))

    return partial(guard.crossing, False, hook)


def rival_warnings(model_options: dict) -> list[str]:
    """A second cache on the same model would reuse what is already reused."""
    wrappers = model_options.get("transformer_options", {}).get("wrappers", {})
    keys = {key for by_key in wrappers.values() for key in by_key}
    found = [name for key, name in RIVAL_WRAPPERS.items() if key in keys]
    function = model_options.get("model_function_wrapper")
    origin = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}".lower()
    found += [name for key, name in RIVAL_FUNCTIONS.items() if key in origin]
    return [f"{name} is on the same model: two caches add up their errors. Remove one of them." for name in found]


def _observer(config: BWCacheConfig, listener: Listener) -> Callable[[StepReport], None]:
    def observe(step: StepReport) -> None:
        if config.verbose:
            logger.info("BWCache step %d: %s (%s)", step.step, step.action, step.reason)
        listener(False)

    return observe


def ignore(done: bool) -> None:
    """The listener of a run that nobody watches."""


def log_report(report: RunReport) -> None:
    logger.info(report.summary())
    for text in report.warnings + report.errors:
        logger.warning("BWCache: %s", text)
