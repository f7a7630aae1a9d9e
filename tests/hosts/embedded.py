"""The embedded host, as the contract suite sees it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import torch

from bwcache_pack.hosts import embedded as tiny
from bwcache_pack.zoo.sampling import schedule
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig

from . import recipes


class EmbeddedHost:
    """TinyWan with the weights of a recipe, under tinywan/host.py."""

    name = "embedded"
    version = "embedded"
    families = ("wan21_t2v",)
    Interrupt = KeyboardInterrupt  # what a cancel raises: not an Exception

    def __init__(self, folder: Path) -> None:
        weights = recipes.fill(recipes.RECIPES["wan21_t2v"].shapes())
        module = TinyWan(TinyWanConfig.from_state_dict(weights))
        module.load_state_dict(weights)
        self._patcher = tiny.TinyPatcher(module.eval().requires_grad_(False))

    def model(self, family: str) -> tiny.TinyPatcher:
        return self._patcher.clone()

    def prompt(self, family: str, text: torch.Tensor, frames: int, size: int, **extra) -> torch.Tensor:
        return text

    def guider(self, model, positive, negative, cfg: float) -> tiny.TinyGuider:
        guider = tiny.TinyGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return guider

    def sigmas(self, model, steps: int, sampler: str) -> torch.Tensor:
        return schedule(steps)

    def run(self, guider, noise, sigmas, sampler: str, callback=None, latent=None, mask=None) -> torch.Tensor:
        latent = torch.zeros_like(noise) if latent is None else latent
        return guider.sample(noise, latent, tiny.SAMPLERS[sampler], sigmas, callback=callback)

    @contextmanager
    def one_by_one(self, guider):
        """Cond and uncond in separate model calls."""
        guider.batched, before = False, guider.batched
        try:
            yield
        finally:
            guider.batched = before
