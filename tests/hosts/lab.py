"""One model family on one host, and short ways to sample it with and without the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from bwcache_pack.bwcache_core.config import FORECAST, BlockConfig, ForecastConfig
from bwcache_pack.bwcache_core.report import RunReport, RunStats
from bwcache_pack.nodes.attach import attach
from bwcache_pack.nodes.attach_blocks import attach_blocks
from bwcache_pack.nodes.families import block_layout

from . import recipes
from .spy import Spy

STEPS = 8
FRAMES, SIZE = 5, 4  # of the latents
FORCED = {"mode": "paper", "threshold": 1.0, "reuse_interval": 2, "start_step": 3, "end_step": 4}  # reuses steps 3, 4


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference; 0.0 means bit-identical."""
    return float((a - b).abs().max())


class Cached:
    """A model with the cache attached, and what its runs reported."""

    def __init__(self, model, stats: RunStats) -> None:
        self.model = model
        self.stats = stats

    @property
    def report(self) -> RunReport:
        return self.stats.runs[-1]

    @property
    def actions(self) -> list[str]:
        return [step.action for step in self.report.steps]


class Lab:
    """kept: latents of plain runs and thresholds, by host and family, so that tests make them once."""

    kept: ClassVar[dict[tuple, object]] = {}

    def __init__(self, host, family: str) -> None:
        self.host = host
        self.family = family
        self.recipe = recipes.RECIPES[family]

    @property
    def plain(self):
        return self.host.model(self.family)

    def cached(self, model=None, mode: str = FORECAST, **settings) -> Cached:
        """The model, plain if none is given, with a cache of that mode and the settings of its config."""
        model, stats = model or self.plain, RunStats()
        if mode == FORECAST:
            return Cached(attach(model, ForecastConfig(**settings), stats), stats)
        return Cached(attach_blocks(model, BlockConfig(mode=mode, **settings), stats), stats)

    def module(self, model=None) -> torch.nn.Module:
        return (model or self.plain).get_model_object("diffusion_model")

    @property
    def block_keys(self) -> tuple[tuple[str, int], ...]:
        """Hook keys of all blocks, in running order."""
        return block_layout(self.module()).keys

    def spy(self, model) -> Spy:
        module = self.module(model)
        blocks = [block for name in self.recipe.attributes for block in getattr(module, name)]
        return Spy(model, blocks, getattr(module, self.recipe.head))

    def prompts(self, tokens: int = 7, frames: int = FRAMES, size: int = SIZE, **extra) -> tuple:
        """Positive and negative conditioning, of different numbers."""
        generator = torch.Generator().manual_seed(5)
        texts = [torch.randn(1, tokens, self.recipe.text, generator=generator) for _ in range(2)]
        return tuple(self.host.prompt(self.family, text, frames, size, **extra) for text in texts)

    def noise(self, seed: int = 1, batch: int = 1, frames: int = FRAMES, size: int = SIZE) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, self.recipe.channels, frames, size, size, generator=generator)

    def mask(self, noise: torch.Tensor) -> torch.Tensor | None:
        """5B keeps a start image in the first frame of its latents: each frame has its own timestep then."""
        if self.family != "wan22_5b":
            return None
        mask = torch.ones(1, 1, *noise.shape[2:])
        mask[:, :, :1] = 0.0
        return mask

    def guider(self, model, prompts=None, cfg: float = 4.0):
        return self.host.guider(model, *(prompts or self.prompts()), cfg)

    def sigmas(self, model=None, steps: int = STEPS, sampler: str = "euler") -> torch.Tensor:
        return self.host.sigmas(model or self.plain, steps, sampler)

    def sample(self, model, *, noise=None, prompts=None, cfg: float = 4.0, steps: int = STEPS, sampler: str = "euler",
               first: int = 0, last: int | None = None, one_by_one: Callable[[int], bool] | None = None,
               callback: Callable | None = None) -> torch.Tensor:
        """Latents. one_by_one(evaluation): whether cond and uncond are separate model calls in that evaluation."""
        noise = self.noise() if noise is None else noise
        if prompts is None:
            prompts = self.prompts(frames=noise.shape[2], size=noise.shape[3])
        if one_by_one:
            model = self._splitting(model, one_by_one)
        sigmas = self.sigmas(model, steps, sampler)[first : None if last is None else last + 1]
        guider = self.guider(model, prompts, cfg)
        return self.host.run(guider, noise, sigmas, sampler, callback, mask=self.mask(noise))

    def uncached(self, sampler: str = "euler") -> torch.Tensor:
        """Latents of the plain model."""
        return self.once("uncached", sampler, make=lambda: self.sample(self.plain, sampler=sampler))

    def once(self, *what, make: Callable):
        """What `make` returns, made once for this host and family."""
        key = (self.host.version, self.family, *what)
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def watch(self, model, **request) -> tuple[Spy, torch.Tensor]:
        spy = self.spy(model)
        with spy.watching():
            return spy, self.sample(spy.model, **request)

    def _splitting(self, model, one_by_one: Callable[[int], bool]):
        model, count = model.clone(), iter(range(10_000))

        def predict_noise(executor, *args, **kwargs):
            if not one_by_one(next(count)):
                return executor(*args, **kwargs)
            with self.host.one_by_one(executor.class_obj):
                return executor(*args, **kwargs)

        model.add_wrapper_with_key("predict_noise", "splitting", predict_noise)
        return model
