"""Jobs on either host: a zoo model sampled by the embedded host or by a real ComfyUI, with or without a cache.

    host = open_host("postcards")
    outcome = run(host, Job(("...", "..."), (0, 1), steps=20), ForecastConfig(speedup=2.0))

All clips of a job are one batch: one decision of a cache holds for all of them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..bwcache_core.config import BlockConfig, ForecastConfig
from ..bwcache_core.report import RunReport, RunStats
from ..nodes.attach import attach
from ..zoo.checkpoints import load_checkpoint
from ..zoo.models import EMBEDDED, ZooModel, open_model
from ..zoo.sampling import schedule
from .embedded import SAMPLERS, TinyGuider, TinyPatcher


@dataclass(frozen=True)
class Job:
    """What to sample, on the scheduler "simple".

    seeds: of each clip's noise. scale: of guidance (cfg, or the input of a model with embedded guidance); shift: of the
    schedule; None is the model's usual one. side: latent height and width, 0 for those seen in training.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int = 30
    scale: float | None = None
    shift: float | None = None
    sampler: str = "euler"
    side: int = 0


@dataclass(frozen=True)
class Outcome:
    """clips: (B, F, 3, H, W) in [0, 1]. seconds: wall time of the sampling. report: None where nothing was attached."""

    clips: torch.Tensor
    seconds: float
    report: RunReport | None

    @property
    def clip(self) -> torch.Tensor:
        """The first clip (F, 3, H, W)."""
        return self.clips[0]


def noise_of(zoo: ZooModel, job: Job) -> torch.Tensor:
    """Noise (B, 16, F, H, W) of a job, each clip from its own seed, as ComfyUI draws it."""
    channels, frames, height, width = zoo.latent_shape
    shape = (1, channels, frames, job.side or height, job.side or width)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in job.seeds])


def scale_of(zoo: ZooModel, job: Job) -> float:
    return zoo.scale if job.scale is None else job.scale


class EmbeddedHost:
    """The host of this pack: needs torch alone. Models of Wan's format only."""

    name = "embedded host"
    samplers = tuple(SAMPLERS)

    def __init__(self, zoo: ZooModel) -> None:
        if zoo.family != "wan":
            raise ValueError(f"{zoo.name} is no Wan model: the embedded host speaks Wan only. Set COMFYUI_PATH.")
        self.zoo = zoo
        self.model = self.load()

    def load(self) -> TinyPatcher:
        """A model of its own, that shares nothing with others."""
        return TinyPatcher(load_checkpoint(self.zoo.checkpoint, self.zoo.family))

    def sample(self, model: TinyPatcher, job: Job) -> torch.Tensor:
        """Clean latents of a job."""
        guider, encode = TinyGuider(model), self.zoo.language.encode
        guider.set_conds(torch.cat([encode(prompt) for prompt in job.prompts]), encode(""))
        guider.set_cfg(scale_of(self.zoo, job))
        noise = noise_of(self.zoo, job)
        sigmas = schedule(job.steps, self.zoo.shift if job.shift is None else job.shift)
        return guider.sample(noise, torch.zeros_like(noise), SAMPLERS[job.sampler], sigmas)


def enter_comfyui(root: Path) -> str:
    """Make a ComfyUI checkout importable in this process, on the CPU where there is no GPU. Returns its version."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    sys.argv = sys.argv[:1]
    import comfy.options  # noqa: F401 - before comfy.cli_args, which reads the command line of whoever imports it
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    import comfyui_version

    return comfyui_version.__version__


class ComfyHost:
    """A ComfyUI checkout, run in this process: its loader, its samplers, its conditioning."""

    def __init__(self, root: Path, zoo: ZooModel) -> None:
        self.name = f"ComfyUI {enter_comfyui(root)}"
        import comfy.samplers
        import comfy.utils

        comfy.utils.PROGRESS_BAR_ENABLED = False
        self.samplers = tuple(comfy.samplers.KSampler.SAMPLERS)
        self.zoo = zoo
        self.model = self.load()

    def load(self):
        """A model of its own: clones share one, which ComfyUI takes apart when a run of any of them ends."""
        import comfy.sd

        return comfy.sd.load_diffusion_model(str(self.zoo.checkpoint))

    @torch.inference_mode()
    def sample(self, model, job: Job) -> torch.Tensor:
        """Clean latents of a job, as KSampler makes them, in the model's own scale."""
        import comfy.sample

        if job.shift is not None:
            model = self._shifted(model, job.shift)
        positive, negative = batched_conditioning(self.zoo, job)
        noise = noise_of(self.zoo, job)
        cfg = 1.0 if self.zoo.guidance == EMBEDDED else scale_of(self.zoo, job)
        arguments = (noise, job.steps, cfg, job.sampler, "simple", positive, negative, torch.zeros_like(noise))
        latents = comfy.sample.sample(model, *arguments, disable_pbar=True, seed=job.seeds[0])
        return model.model.process_latent_in(latents)

    @staticmethod
    def _shifted(model, shift: float):
        from comfy_extras.nodes_model_advanced import ModelSamplingSD3

        return ModelSamplingSD3().patch(model, shift)[0]


def batched_conditioning(zoo: ZooModel, job: Job) -> tuple[list, list]:
    """Positive and negative conditioning of a batch: tensors hold a row for each prompt."""
    pairs = [zoo.conditioning(prompt, scale_of(zoo, job)) for prompt in job.prompts]
    return stacked([positive[0] for positive, _ in pairs]), pairs[0][1]


def stacked(conditions: Sequence[Sequence]) -> list:
    """One condition of many with equal extras but for their pooled vectors."""
    extras = dict(conditions[0][1])
    if "pooled_output" in extras:
        extras["pooled_output"] = torch.cat([more["pooled_output"] for _, more in conditions])
    return [[torch.cat([words for words, _ in conditions]), extras]]


Host = EmbeddedHost | ComfyHost


def open_host(zoo: ZooModel | str = "tinywan") -> Host:
    """A zoo model on ComfyUI where COMFYUI_PATH names a checkout, else on the embedded host."""
    zoo = zoo if isinstance(zoo, ZooModel) else open_model(zoo)
    root = os.environ.get("COMFYUI_PATH", "")
    return ComfyHost(Path(root), zoo) if root else EmbeddedHost(zoo)


def run(host: Host, job: Job, config: ForecastConfig | BlockConfig | None = None, patch: Callable | None = None) -> Outcome:
    """Sample a job: plain, with BWCache as configured, or with a model changed by `patch`."""
    stats = RunStats()
    model = patch(host.model) if patch else host.model
    if config:
        model = attach(model, config, stats)
    began = time.perf_counter()
    latents = host.sample(model, job)
    seconds = time.perf_counter() - began
    return Outcome(host.zoo.pixels(latents), seconds, stats.runs[-1] if stats.runs else None)
