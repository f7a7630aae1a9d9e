"""Attaching a cache to a model: the three hook points of the forecast mode, which every guider of ComfyUI passes.

OUTER_SAMPLE makes the run and drops it, PREDICT_NOISE is one evaluation, CALC_COND_BATCH is where a guider, and every
extra guidance pass, asks for the denoised latents of its conditions. A reused call is not made at all: no model, no
control net. Keyed wrappers go on a clone of the ModelPatcher, nothing on the module.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import torch
import torch.distributed

from ..bwcache_core.advice import log_lines, plan_line
from ..bwcache_core.config import MEASURE, BlockConfig, ForecastConfig, MeasureConfig
from ..bwcache_core.corrector import SamplerStep
from ..bwcache_core.measure import Lesson, MeasureRun, NothingLearned
from ..bwcache_core.planning import Found, Planner
from ..bwcache_core.report import RunReport, RunStats
from ..bwcache_core.run import ForecastRun, described
from ..bwcache_core.schedule import Schedule, schedule_of
from ..bwcache_core.track import Call, Scale
from .guard import FAILED, Guard
from .identity import Setup, setup_of
from .plans import find, remember
from .rivals import put_on, rival_caches
from .sampler_response import is_corrected, sampler_response

KEY = "bwcache"
# Values of comfy.patcher_extension.WrappersMP. Spelled out: the embedded host runs this file without ComfyUI.
OUTER_SAMPLE, PREDICT_NOISE, CALC_COND_BATCH = "outer_sample", "predict_noise", "calc_cond_batch"
CONDITIONS = ("cond", "uncond")  # what ComfyUI's guiders ask for, in this order
# Classes of comfy.model_sampling.
FLOWS = {"CONST"}  # sigma goes from 1 to 0
PICTURE = 5  # dimensions of a latent of frames: (B, C, T, H, W)
SAYS_ALL = {"X0", "IMG_TO_IMG_FLOW"}  # D is the model's output, whatever the latent: measured, the corrector harms there

logger = logging.getLogger(__name__)

Listener = Callable[[bool], None]  # called after each evaluation, and with True when the run has ended
Watch = Callable[[RunReport], Listener]  # called when a run begins, with the report that will fill
Keep = Callable[[Setup, Lesson], int]


def attach(
    model,
    config: ForecastConfig | MeasureConfig | BlockConfig,
    stats: RunStats,
    watch: Watch | None = None,
    group: torch.distributed.ProcessGroup | None = None,
):
    """Clone of `model` (a ModelPatcher) that caches, or measures. Attaching again replaces the earlier cache.

    stats receives a RunReport per run, watch sees each run from its beginning. group: processes that sample the same
    latent together. Costs nothing until sampling; the input is untouched. Raises UnsupportedModelError in block modes.
    """
    if isinstance(config, BlockConfig):
        from .attach_blocks import attach_blocks

        return attach_blocks(model, config, stats, watch, group)
    if isinstance(config, MeasureConfig):
        return attach_measuring(model, stats, watch)
    return attached(model, config.mode, partial(open_run, config, group), stats, watch)


def attach_measuring(
    model, stats: RunStats, watch: Watch | None = None, keep: Keep | None = None, see: Callable[[Setup], None] | None = None
):
    """Clone of `model` that measures. keep: told the Setup and the Lesson of a run that went well; returns how many runs are
    known then, or raises NothingLearned. None adds it to the files of plans. see: told the Setup of each run that begins."""
    return attached(model, MEASURE, partial(open_measuring, keep or remember, see or ignore), stats, watch)


def attached(model, mode: str, opened: Callable, stats: RunStats, watch: Watch | None):
    """Clone of `model` with the three wrappers. opened: as make_run of outer_sample."""
    wrappers = {
        OUTER_SAMPLE: outer_sample(mode, opened, stats, watch),
        PREDICT_NOISE: _predict_noise,
        CALC_COND_BATCH: _calc_cond_batch,
    }
    clone = detached(model)
    for hook_point, wrapper in wrappers.items():
        clone.add_wrapper_with_key(hook_point, KEY, wrapper)
    return clone


def detached(model):
    """Clone of `model` without a cache of ours."""
    clone = model.clone()
    for hook_point in list(clone.wrappers):
        clone.remove_wrappers_with_key(hook_point, KEY)
    return clone


def outer_sample(mode: str, make_run: Callable, stats: RunStats, watch: Watch | None) -> Callable:
    """The wrapper of a whole sampling. make_run: from a guider and the arguments of OUTER_SAMPLE to the state of a run."""

    def sample_with_run(executor, *args, **kwargs):
        guider = executor.class_obj
        if has_no_step(*args, **kwargs):
            return executor(*args, **kwargs)
        try:
            run = make_run(guider, *args, **kwargs)
            listener = watch(run.report) if watch else ignore
        except Exception as error:  # ComfyUI calls this otherwise than we know, or the schedule is broken
            return _sample_plainly(mode, stats, described(error), executor, *args, **kwargs)
        run.on_step = partial(_tell, listener)
        plain_options = guider.model_options
        guider.model_options = with_run(plain_options, run)
        finished = False
        try:
            result = executor(*args, **kwargs)
            finished = True
            return result
        finally:  # a cancel is a BaseException
            guider.model_options = plain_options
            stats.runs.append(run.report)
            guard = Guard(run)
            guard.run(run.close, finished)
            guard.run(log_report, run.report)
            guard.run(listener, True)

    return sample_with_run


def has_no_step(*args, **kwargs) -> bool:
    """Whether OUTER_SAMPLE got a schedule of one sigma."""
    sigmas = kwargs.get("sigmas", args[3] if len(args) > 3 else None)
    return isinstance(sigmas, torch.Tensor) and sigmas.shape == (1,)


def _sample_plainly(mode: str, stats: RunStats, reason: str, executor, /, *args, **kwargs):
    """A run without a cache, and a report that says why."""
    report = RunReport(mode, 0.0, [])
    report.stopped = f"this run was not cached: {reason}"
    report.warnings.append(f"This run was not cached: {reason}.")
    stats.runs.append(report)
    logger.warning("BWCache: %s", report.warnings[0])
    result = executor(*args, **kwargs)
    report.finished = True
    return result


def _predict_noise(executor, *args, **kwargs):
    """One evaluation: all conditions, windows and extra guidance passes inside it share one decision."""
    run = find_run(getattr(executor.class_obj, "model_options", {}))
    if run is None:
        return executor(*args, **kwargs)
    guard = Guard(run)
    begun = guard.run(_begin, run, *args, **kwargs)
    if begun is FAILED:  # now that it gave up, it only counts
        begun = guard.run(_begin, run, *args, **kwargs)
    result = executor(*args, **kwargs)
    if begun is not FAILED:
        guard.run(_end, run, result)
    return result


def _begin(run: ForecastRun, /, x: torch.Tensor, timestep: torch.Tensor, model_options: Mapping | None = None, *rest, **more):
    if not run.report.steps and not run.stopped:
        _follow(run, model_options or {})
    run.begin(timestep, x)


def _end(run: ForecastRun, /, result: object) -> None:
    """Some guiders return one denoised latent for the sampler and others for a use of their own."""
    first = result[0] if isinstance(result, (tuple, list)) and result else result
    if not isinstance(first, torch.Tensor):
        raise TypeError(f"the guider returned {type(result).__name__}, expected a denoised latent")
    run.end(first)


def _follow(run: ForecastRun, model_options: Mapping) -> None:
    """Lay the plan over what the sampler really runs, where that is not the schedule that it was handed."""
    sigmas = model_options.get("transformer_options", {}).get("sample_sigmas")
    if sigmas is None:
        return
    schedule = trimmed(sigmas.tolist(), run.schedule.flow)
    if not same(schedule.sigmas, run.schedule.sigmas):
        run.lay(schedule)


def same(here: Sequence[float], there: Sequence[float]) -> bool:
    return len(here) == len(there) and all(math.isclose(a, b, rel_tol=1e-3, abs_tol=2e-3) for a, b in zip(here, there, strict=True))


def _calc_cond_batch(executor, *args, **kwargs):
    """The denoised latents of a list of conditions, computed by ComfyUI or foretold."""
    options = kwargs.get("model_options") or next((a for a in reversed(args) if isinstance(a, dict)), {})
    run = find_run(options)
    if run is None or run.stopped or not run.is_open:
        return _plain_call(run, executor, *args, **kwargs)
    guard = Guard(run)
    result = guard.run(_cached_call, run, guard, options, executor, *args, **kwargs)
    return _plain_call(run, executor, *args, **kwargs) if result is FAILED else result


def _plain_call(run: ForecastRun | None, executor, /, *args, **kwargs):
    result = executor(*args, **kwargs)
    if run is not None and run.is_open:
        Guard(run).run(_count, run, kwargs.get("conds", args[1] if len(args) > 1 else result))
    return result


def _count(run: ForecastRun, /, asked: Sequence) -> None:
    run.count_plain(sum(condition is not None for condition in asked))


def _cached_call(run, guard, options, executor, /, model, conds, x_in, timestep, model_options=None, **more) -> list:
    rest = () if model_options is None else (model_options,)
    compute = partial(guard.crossing, True, partial(executor, model, conds, x_in, timestep, *rest, **more))
    return run.call(call_of(run, model, conds, x_in, options), timestep, x_in, compute)


def call_of(run: ForecastRun, model, conds: Sequence, x: torch.Tensor, options: Mapping) -> Call:
    """What tells one call of an evaluation from the others, and from the same one where other conditions were active.

    Never a name of a prompt or a place in a batch: those change while a run goes on, the order of a guider's calls and of
    its conditions does not.
    """
    window = options.get("transformer_options", {}).get("context_window")
    frames = None if window is None else tuple(window.index_list)
    active = tuple(None if entries is None else tuple(activity(entry, run.sigma) for entry in entries) for entries in conds)
    part = "" if frames is None else f" frames {frames[0]}-{frames[-1]}"
    names = (CONDITIONS[i] if i < len(CONDITIONS) else f"condition {i + 1}" for i in range(len(active)))
    labels = tuple(name + part if entries and any(entries) else None for name, entries in zip(names, active, strict=True))
    return Call((id(model), frames, tuple(x.shape), x.dtype, str(x.device), active), labels, frames is not None)


def activity(entry: Mapping, sigma: float) -> tuple:
    """What acts at `sigma` of what may begin or end in mid-run; empty for a condition that is off.

    Source: get_area_and_mult in comfy/samplers.py, ControlNet.get_control, HookKeyframeGroup.
    """
    if sigma > entry.get("timestep_start", math.inf) or sigma < entry.get("timestep_end", -math.inf):
        return ()
    controls, control = [], entry.get("control")
    while control is not None:
        first, last = getattr(control, "timestep_range", None) or (math.inf, -math.inf)
        controls.append(last <= sigma <= first)
        control = getattr(control, "previous_controlnet", None)
    hooks = getattr(entry.get("hooks"), "hooks", ())
    frames = (getattr(getattr(hook, "hook_keyframe", None), "keyframes", ()) for hook in hooks)
    begun = tuple(sum(getattr(frame, "start_t", math.inf) >= sigma for frame in keyframes) for keyframes in frames)
    return (True, *controls, *begun)


def open_run(
    config: ForecastConfig, group: torch.distributed.ProcessGroup | None, guider,
    /, noise, latent_image, sampler, sigmas, denoise_mask=None, *rest, latent_shapes=None, **more,
) -> ForecastRun:
    """The state of a run, from the arguments of OUTER_SAMPLE."""
    patcher = guider.model_patcher
    schedule = trimmed(sigmas.tolist(), is_flow(patcher))
    steps, warnings = known_response(config, guider, sampler, sigmas)
    if SAYS_ALL & parametrisation(patcher) or not is_corrected(sampler):
        config = replace(config, corrector=False)
    scale = scale_of(latent_shapes or (), denoise_mask)
    module = inner_module(patcher)
    known = None if group else partial(known_plans, guider, sampler, module)  # ranks may hold parts of the weights
    run = ForecastRun(config, schedule, type(module).__name__, steps, scale, group, known=known)
    run.report.warnings += warnings
    run.report.rivals = rivals_of(guider, sampler, module)
    logger.info("BWCache %s: %s", config.mode, plan_line(run.report))
    return run


def scale_of(latent_shapes: Sequence[Sequence[int]], mask: torch.Tensor | None) -> Scale:
    """Parts of a packed latent, shapes (B, C, ...) each. The one with frames of height and width is the picture, beside
    it is sound; where none has them (points and a camera of TripoSplat) they have no names."""
    if len(latent_shapes) < 2:
        return Scale(mask=mask)
    pictures = [len(shape) == PICTURE for shape in latent_shapes]
    named = [("picture" if here else "sound") if any(pictures) else "part" for here in pictures]
    names = [name if named.count(name) == 1 else f"{name} {i + 1}" for i, name in enumerate(named)]
    return Scale(tuple(math.prod(shape[1:]) for shape in latent_shapes), mask, tuple(names))


def known_plans(guider, sampler, module: torch.nn.Module, schedule: Schedule) -> Found:
    """What was measured for such runs. Whatever a file or a weight holds, the run goes on."""
    try:
        return find(lambda: setup_of(guider, sampler, schedule, module))
    except Exception as error:
        return Found(warnings=(f"Measured plans were not looked for: {described(error)}.",))


def open_measuring(
    keep_lesson: Keep, see: Callable[[Setup], None], guider,
    /, noise, latent_image, sampler, sigmas, denoise_mask=None, *rest, latent_shapes=None, **more,
) -> MeasureRun:
    """The state of a run that measures, from the arguments of OUTER_SAMPLE."""
    patcher = guider.model_patcher
    module = inner_module(patcher)
    try:
        steps = sampler_response(guider, sampler, sigmas)
    except Exception:  # another version of the sampler: its steps then count by their width
        steps = ()
    run = MeasureRun(trimmed(sigmas.tolist(), is_flow(patcher)), type(module).__name__, steps, denoise_mask)
    setup = setup_of(guider, sampler, run.schedule, module)
    see(setup)

    def keep(lesson: Lesson) -> int:
        if run.report.rivals:
            raise NothingLearned(
                f"{run.report.rivals[0]} is on the same model, and its outputs are not all the model's own"
            )
        learned = replace(setup, sigmas=run.schedule.sigmas)
        runs, found = keep_lesson(learned, lesson), find(lambda: learned)
        run.report.planner = Planner(found.knowledge, run.schedule, trials=found.trials) if found.knowledge else None
        return runs

    run.keep = keep
    run.report.rivals = rivals_of(guider, sampler, module)
    return run


def trimmed(sigmas: Sequence[float], flow: bool) -> Schedule:
    """The schedule without the zeros that some samplers put at its ends as flags: falling, or rising as a whole."""
    kept = list(sigmas)
    while len(kept) > 2 and kept[0] <= 0 < max(kept):
        kept.pop(0)
    while len(kept) > 2 and kept[-1] <= 0 and (kept[-2] <= 0 or kept[0] < kept[-2]):
        kept.pop()
    return schedule_of(kept, flow)


def is_flow(patcher) -> bool:
    """Whether noise and signal are mixed, as ComfyUI's model_sampling says; the embedded host has none, and flows only."""
    names = parametrisation(patcher)
    return not names or bool(FLOWS & names)


def parametrisation(patcher) -> set[str]:
    """Names of what the model's model_sampling is made of. Empty where there is none."""
    try:
        return {base.__name__ for base in type(patcher.get_model_object("model_sampling")).__mro__}
    except AttributeError:
        return set()


def known_response(config: ForecastConfig, guider, sampler, sigmas: torch.Tensor) -> tuple[Sequence[SamplerStep], list[str]]:
    """What the sampler does, nothing where that is not known; and a warning where it failed."""
    if not config.reuses:
        return (), []
    try:
        return sampler_response(guider, sampler, sigmas), []
    except Exception as error:  # another version of the sampler
        return (), [f"The corrector is off, as the sampler would not be asked what it does: {described(error)}."]


def inner_module(patcher) -> torch.nn.Module:
    """The diffusion model, whatever torch.compile or a pack put around it."""
    module = patcher.get_model_object("diffusion_model")
    return getattr(module, "_orig_mod", module)


def rivals_of(guider, sampler, module: torch.nn.Module) -> list[str]:
    """Other caches on the same model, in its options, in the sampler, or put on the model. Decides nothing."""
    try:
        return rival_caches(guider.model_options, getattr(sampler, "sampler_function", None), *put_on(guider.model_patcher, module))
    except Exception as error:  # options that are not as ComfyUI's
        logger.info("BWCache did not look for other caches: %s", described(error))
        return []


def rivals_at_rest(guider, sampler) -> list[str]:
    """As rivals_of, before a run: then wrappers lie on the ModelPatcher, not yet in the options."""
    patcher = guider.model_patcher
    attached_to = SimpleNamespace(model_options={"transformer_options": {"wrappers": patcher.wrappers}}, model_patcher=patcher)
    found = [rivals_of(each, sampler, inner_module(patcher)) for each in (guider, attached_to)]
    return list(dict.fromkeys(name for names in found for name in names))


def find_run(model_options: Mapping) -> ForecastRun | None:
    return model_options.get("transformer_options", {}).get(KEY)


def with_run(model_options: Mapping, run: object) -> dict:
    """Copy of the run's options that carries its state. ComfyUI copies dicts at every call but shares objects."""
    options = {**model_options.get("transformer_options", {}), KEY: run}
    return {**model_options, "transformer_options": options}


def _tell(listener: Listener, step: object) -> None:
    listener(False)


def ignore(told: object) -> None:
    """The listener of a run that nobody watches."""


def log_report(report: RunReport) -> None:
    """One line for the run, then one for everything that a user should know."""
    first, *rest = log_lines(report)
    logger.info(first)
    for line in rest:
        logger.warning(line)
