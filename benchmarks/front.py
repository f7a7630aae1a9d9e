"""The fidelity-speed front: every method on the same jobs, each against the uncached run of the same seed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from ..hosts.runs import Host, Job, run
from .fidelity import motion_psnr, psnr, ssim
from .methods import Method, fewer_steps, own_methods, rival_methods

PROMPTS = (
    "red circle moving left",
    "green square moving up",
    "blue triangle moving right",
    "yellow circle moving down",
    "magenta square moving right",
    "cyan triangle moving left",
    "red square moving down",
    "blue circle moving up",
)
SEEDS = (0, 1)
SAMPLERS = ("euler", "uni_pc", "dpmpp_2m", "res_multistep", "heun")
STEPS = (30, 20, 50)
CFGS = (5.0, 1.0)


@dataclass(frozen=True)
class Setting:
    """What a chart compares methods under."""

    sampler: str
    steps: int
    cfg: float

    def jobs(self, prompts: Iterable[str], seeds: Iterable[int], side: int) -> list[Job]:
        return [Job(p, seed, self.steps, self.cfg, self.sampler, side) for p in prompts for seed in seeds]


@dataclass(frozen=True)
class Point:
    """One run. speedup: block executions of the uncached run over its own. seconds: wall time, on a shared machine."""

    sampler: str
    steps: int
    cfg: float
    method: str
    setting: str
    prompt: str
    seed: int
    speedup: float
    psnr: float
    ssim: float
    motion_psnr: float
    seconds: float


class BlockCounter:
    """Counts block executions, each row of a batch for itself, by hooks on the modules."""

    def __init__(self, blocks: Iterable) -> None:
        self.count = 0
        self.blocks = list(blocks)

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
        self.count += output.shape[0]


def measure(host: Host, setting: Setting, jobs: list[Job], part: Path, names: Collection[str] = ()) -> None:
    """Run every method (or those of `names`) on every job that `part` does not hold yet, a line in it for each."""
    done = {(p.method, p.setting, p.prompt, p.seed) for p in read_points(part) if setting == setting_of(p)}
    methods = [*fewer_steps(jobs[0]), *own_methods(), *rival_methods(host, jobs[0])]
    methods = [method for method in methods if not names or method.name in names]
    counter = BlockCounter(host.model.get_model_object("diffusion_model").blocks)
    name = f"{setting.sampler} {setting.steps} cfg {setting.cfg:g}"
    with tqdm(total=len(jobs) * len(methods), desc=name, unit="run") as progress:
        for job in jobs:
            missing = [m for m in methods if (m.name, m.setting, job.prompt, job.seed) not in done]
            progress.update(len(methods) - len(missing))
            if not missing:
                continue
            with counter.counting():
                reference, blocks = run(host, job), counter.count
            for method in missing:
                append(part, point_of(host, setting, job, method, reference.clip, blocks, counter))
                progress.update()


def point_of(host: Host, setting: Setting, job: Job, method: Method, reference, blocks: int, counter) -> Point:
    with counter.counting():
        outcome = run(host, method.job(job), method.config, method.patch)
    fidelity = (psnr(outcome.clip, reference), ssim(outcome.clip, reference), motion_psnr(outcome.clip, reference))
    where = (setting.sampler, setting.steps, setting.cfg, method.name, method.setting, job.prompt, job.seed)
    return Point(*where, blocks / max(counter.count, 1), *fidelity, outcome.seconds)


def setting_of(point: Point) -> Setting:
    return Setting(point.sampler, point.steps, point.cfg)


def append(part: Path, point: Point) -> None:
    with open(part, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(point)) + "\n")


def read_points(part: Path) -> list[Point]:
    """Points of one file; a last line cut off by an interruption is left out."""
    if not part.exists():
        return []
    lines = part.read_text(encoding="utf-8").splitlines()
    return [Point(**json.loads(line)) for line in lines if line.endswith("}")]
