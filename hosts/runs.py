"""One job, two hosts: TinyWan sampled by the embedded host or by a real ComfyUI, with or without a cache."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..bwcache_core.config import BlockConfig, ForecastConfig
from ..bwcache_core.report import RunReport, RunStats
from ..nodes.attach import attach
from ..zoo.sampling import null_context
from ..zoo.tinywan.checkpoint import DEFAULT_PATH, load_checkpoint
from ..zoo.tinywan.data import FRAMES, unpack
from ..zoo.tinywan.words import encode_batch
from .embedded import TinyPatcher, sample


@dataclass(frozen=True)
class Job:
    """What to sample. side: latent height and width; pixels are twice that."""

    prompt: str
    seed: int
    steps: int = 30
    cfg: float = 3.0
    sampler: str = "euler"
    side: int = 12

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (1, 16, FRAMES, self.side, self.side)


@dataclass(frozen=True)
class Outcome:
    """clip: (F, 3, H, W) in [0, 1]. seconds: wall time of the sampling. report: None where nothing was attached."""

    clip: torch.Tensor
    seconds: float
    report: RunReport | None


class EmbeddedHost:
    """The host of this pack: needs torch alone."""

    name = "embedded host"
    samplers = ("euler", "heun")

    def __init__(self, checkpoint: Path = DEFAULT_PATH) -> None:
        self._checkpoint = checkpoint
        self.model = self.load()

    def load(self) -> TinyPatcher:
        """A model of its own, that shares nothing with others."""
        return TinyPatcher(load_checkpoint(self._checkpoint))

    def sample(self, model, job: Job) -> torch.Tensor:
        """Clean latents of one job."""
        noise = torch.randn(job.latent_shape, generator=torch.Generator().manual_seed(job.seed))
        cond = encode_batch([job.prompt])
        return sample(model, noise, cond, null_context(cond), job.cfg, job.steps, job.sampler)


def enter_comfyui(root: Path) -> str:
    """Make a ComfyUI checkout importable in this process, on the CPU where there is no GPU. Returns its version."""
    sys.path.insert(0, str(root))
    sys.argv = sys.argv[:1]
    import comfy.options  # noqa: F401 - before comfy.cli_args, which reads the command line of whoever imports it
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    import comfyui_version

    return comfyui_version.__version__


class ComfyHost:
    """A ComfyUI checkout, run in this process: its loader, its samplers, its conditioning."""

    def __init__(self, root: Path, checkpoint: Path = DEFAULT_PATH) -> None:
        version = enter_comfyui(root)
        import comfy.sd
        import comfy.utils

        import nodes

        comfy.utils.PROGRESS_BAR_ENABLED = False
        self.name = f"ComfyUI {version}"
        self._load = lambda: comfy.sd.load_diffusion_model(str(checkpoint))
        self._ksampler = nodes.common_ksampler
        self.model = self.load()

    def load(self):
        """A model of its own: clones share one, which ComfyUI takes apart when a run of any of them ends."""
        return self._load()

    @torch.inference_mode()
    def sample(self, model, job: Job) -> torch.Tensor:
        """Clean latents of one job, as KSampler makes them with the "simple" scheduler, in the model's own scale."""
        cond = encode_batch([job.prompt])
        positive, negative = [[cond, {}]], [[null_context(cond), {}]]
        empty = {"samples": torch.zeros(job.latent_shape)}
        arguments = (job.seed, job.steps, job.cfg, job.sampler, "simple", positive, negative, empty)
        latents = self._ksampler(model, *arguments)[0]["samples"]
        return model.model.process_latent_in(latents)


Host = EmbeddedHost | ComfyHost


def open_host(checkpoint: Path = DEFAULT_PATH) -> Host:
    """ComfyUI where COMFYUI_PATH names a checkout, else the embedded host."""
    root = os.environ.get("COMFYUI_PATH", "")
    return ComfyHost(Path(root), checkpoint) if root else EmbeddedHost(checkpoint)


def run(host: Host, job: Job, config: ForecastConfig | BlockConfig | None = None, patch: Callable | None = None) -> Outcome:
    """Sample one job: plain, with BWCache as configured, or with a model changed by `patch`."""
    stats = RunStats()
    model = patch(host.model) if patch else host.model
    if config:
        model = attach(model, config, stats)
    began = time.perf_counter()
    latents = host.sample(model, job)
    seconds = time.perf_counter() - began
    clip = ((unpack(latents)[0].float() + 1) / 2).clamp(0, 1)
    return Outcome(clip, seconds, stats.runs[-1] if stats.runs else None)
