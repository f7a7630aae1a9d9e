"""Runs every method of a setting on the same prompts and noise, against the uncached run, a line of JSON for each."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from ..bwcache_core.planning import Knowledge, together
from ..hosts.runs import Host, Job, run
from ..nodes.quality import measure as quality
from . import simulate
from .design import Setting, core, quick
from .measured_plans import learn
from .methods import FORECAST, MEASURED, Known, Method, measured, others, ours, plain_and_paper
from .oracle import inner_products
from .rivals import residual_cache
from .simulate import Batch

PROMPTS = 4  # that are measured, seeds 0 to 3; four others, seeds from 100 on, are what oracle and signals learn from
OTHER_SEEDS = 100
TAUGHT = 2  # of the other prompts, that measured plans are made from
RECORD = "bench_record"


@dataclass(frozen=True)
class Point:
    """One method on one setting. speedup: block executions of the uncached run over its own. psnr (dB), ssim: of each
    clip, against the uncached one. plan: the steps that were computed, where a plan says so. seconds: wall time."""

    setting: Setting
    method: str
    point: str
    speedup: float
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    plan: str
    seconds: float

    @property
    def key(self) -> tuple:
        return self.setting, self.method, self.point


@dataclass(frozen=True)
class Reference:
    """The uncached run of a setting. blocks: executed. known: from other prompts."""

    clips: torch.Tensor
    blocks: int
    known: Known


@dataclass(frozen=True)
class Request:
    """part: file of the results. kept: folder of uncached runs. methods: their names, empty for all."""

    part: Path
    kept: Path
    methods: Collection[str] = ()
    prompts: int = PROMPTS


class BlockCounter:
    """Counts block executions, each row of a batch for itself, by hooks on the modules."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.count = 0
        stacks = ("blocks", "double_blocks", "single_blocks")
        self.blocks = [block for name in stacks for block in getattr(module, name, ())]

    @contextmanager
    def counting(self) -> Iterator[BlockCounter]:
        self.count = 0
        handles = [block.register_forward_hook(self._add) for block in self.blocks]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, module, inputs, output) -> None:
        self.count += (output[0] if isinstance(output, tuple) else output).shape[0]


def job_of(host: Host, setting: Setting, count: int = PROMPTS) -> Job:
    """The first `count` prompts of a setting."""
    return _job(setting, host.zoo.prompts(2 * PROMPTS)[:count], range(count))


def other_job(host: Host, setting: Setting) -> Job:
    """Four prompts that are not measured."""
    return _job(setting, host.zoo.prompts(2 * PROMPTS)[PROMPTS:], range(OTHER_SEEDS, OTHER_SEEDS + PROMPTS))


def _job(setting: Setting, prompts: Sequence[str], seeds: Sequence[int]) -> Job:
    return Job(tuple(prompts), tuple(seeds), setting.steps, setting.scale, setting.shift, setting.sampler)


def reference_of(host: Host, setting: Setting, job: Job, kept: Path) -> Reference:
    """Two plain runs: of the job, and of other prompts. From the folder `kept`, or made and put there."""
    weights = zlib.crc32(host.zoo.checkpoint.read_bytes())
    path = kept / f"{setting.name} {host.name} {len(job.prompts)} {weights:08x}.pt".replace("/", "-").replace(" ", "_")
    if path.exists():
        return torch.load(path, weights_only=False)  # our own
    with BlockCounter(host.model.get_model_object("diffusion_model")).counting() as counter:
        clips = run(host, job).clips
    reference = Reference(clips, counter.count, known_of(host, setting))
    kept.mkdir(parents=True, exist_ok=True)
    torch.save(reference, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return reference


def known_of(host: Host, setting: Setting) -> Known:
    recorded: list[tuple[float, torch.Tensor]] = []
    watched = residual_cache()

    def patch(model):
        model = watched(model)
        model.add_wrapper_with_key("predict_noise", RECORD, recording(recorded))
        return model

    run(host, other_job(host, setting), patch=patch)
    outputs = by_step(recorded, setting)
    sigmas = [sigma for sigma, _ in outputs] + [0.0]
    widths = [here - following for here, following in pairwise(sigmas)]
    inner = inner_products([output for _, output in outputs])
    return Known(inner, widths, watched.state.modulations, watched.state.magnitudes)


def recording(recorded: list) -> Callable:
    """PREDICT_NOISE wrapper that keeps sigma and the guided output v = (x - D) / sigma of each evaluation."""

    def wrapper(executor, x, timestep, *args, **kwargs):
        denoised = executor(x, timestep, *args, **kwargs)
        sigma = float(timestep.flatten()[0])
        recorded.append((sigma, (x - denoised) / sigma))
        return denoised

    return wrapper


def by_step(recorded: Sequence[tuple[float, torch.Tensor]], setting: Setting) -> list[tuple[float, torch.Tensor]]:
    """The first evaluation of each step: heun makes two, and the second one shares its sigma with the next step."""
    kept = list(recorded)
    if setting.sampler == "heun":
        kept = kept[::2]
    if len(kept) < setting.steps:
        raise RuntimeError(f"{setting.name} made {len(recorded)} evaluations, expected one or two for each step")
    return kept[: setting.steps]


def methods_of(
    host: Host, setting: Setting, known: Known, everything: bool, names: Collection[str] = ()
) -> list[Method]:
    """everything: also those that only run on the core of the design. names: of methods, empty for all."""
    native = host.name.startswith("ComfyUI")
    more = others(host.zoo.family, native, known) if everything else []
    if everything and (MEASURED in names or not names):
        more += measured(taught(host, setting), simulated(setting).schedule)
    return [*ours(setting, known), *plain_and_paper(setting.steps), *more]


def taught(host: Host, setting: Setting) -> Knowledge | None:
    """What mode measure learns from some of the other prompts, in plain torch. None where the sampler lets nothing be
    learned."""
    job, zoo = other_job(host, setting), replace(host.zoo, scale=setting.scale)
    batch = Batch(zoo, TAUGHT)
    batch.prompts, batch.noise = list(job.prompts[:TAUGHT]), zoo.noise(list(job.seeds[:TAUGHT]))
    runs = learn(batch, simulated(setting))
    return together(runs) if runs else None


def simulated(setting: Setting) -> simulate.Setting:
    return simulate.Setting(setting.sampler, setting.steps, setting.shift, setting.scale)


def measure(host: Host, setting: Setting, request: Request, tell: Callable[[str], None]) -> None:
    """Every method that is asked for and not there yet, appended to the file. tell: of what runs now."""
    done = {point.key for point in read_points([request.part])}
    tell("uncached")
    job = job_of(host, setting, request.prompts)
    reference = reference_of(host, setting, job, request.kept)
    counter = BlockCounter(host.model.get_model_object("diffusion_model"))
    everything = setting in core(setting.model) or setting in quick(setting.model)
    for method in methods_of(host, setting, reference.known, everything, request.methods):
        if (method.name in request.methods or not request.methods) and (setting, *method.key) not in done:
            tell(f"{method.name} {method.setting}")
            append(request.part, point_of(host, setting, job, method, reference, counter))


def point_of(host: Host, setting: Setting, job: Job, method: Method, reference: Reference, counter: BlockCounter) -> Point:
    with counter.counting(), method.around():
        outcome = run(host, method.job(job), method.config, method.patch)
    if method.name == FORECAST and not outcome.report.plan_note.startswith("automatic"):
        raise RuntimeError(f"the plan is {outcome.report.plan_note}: move measured plans of this ComfyUI away")
    found = [quality(clip, plain, 1.0) for clip, plain in zip(outcome.clips, reference.clips, strict=True)]
    fidelity = (tuple(round(q.psnr, 3) for q in found), tuple(round(q.ssim, 5) for q in found))
    plan = outcome.report.plan if outcome.report else ""
    speedup = round(reference.blocks / max(counter.count, 1), 4)
    return Point(setting, *method.key, speedup, *fidelity, plan, round(outcome.seconds, 3))


def append(part: Path, point: Point) -> None:
    with open(part, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(point)) + "\n")


def read_points(parts: Iterable[Path]) -> list[Point]:
    """Points of files, the newest of each method; a last line cut off by an interruption is left out."""
    lines = [line for part in parts if part.exists() for line in part.read_text(encoding="utf-8").splitlines()]
    points = [point_from(json.loads(line)) for line in lines if line.endswith("}")]
    return list({point.key: point for point in points}.values())


def point_from(told: dict) -> Point:
    setting = Setting(**told.pop("setting"))
    return Point(setting, psnr=tuple(told.pop("psnr")), ssim=tuple(told.pop("ssim")), **told)
