"""The trained models of this folder behind one interface, for ComfyUI and for plain torch.

    model = open_model("tinywan")                  # or the path of a folder that holds model.json and model.safetensors
    prompts = model.prompts(8, seed=0)
    positive, negative = model.conditioning(prompts[0])    # as ComfyUI's samplers want them
    clips = model.pixels(latents)                          # latents in the model's own scale
    plain = load_plain(model)
    latents = plain.sample(noise, prompts, scale=5.0)      # a batch, without ComfyUI

ComfyUI's samplers return latents in the scale of its VAEs: hand `pixels` what `process_latent_in` makes of them.
Shapes: B = clips, F = frames, H x W = pixels; latents are (B, 16, F, H/2, W/2), contexts (B, words, text width).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from .checkpoints import load_checkpoint
from .sampling import TIMESTEPS, schedule

ROOM = Path(__file__).parent
COMMITTED = ("tinywan", "postcards", "market")
CFG, EMBEDDED = "cfg", "embedded"


class Language(Protocol):
    """What a model was trained on: prompts, their vectors, and how its latents hold pixels."""

    def prompts(self) -> list[str]:
        """Every prompt the model knows, in a fixed order."""

    def encode(self, prompt: str) -> torch.Tensor:
        """Context (1, words, text width) of a prompt; "" is the empty prompt."""

    def pooled(self, prompt: str) -> torch.Tensor | None:
        """Pooled vector (1, 768) for families that take one."""

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, 16, F, H/2, W/2) in the model's scale to clips (B, F, 3, H, W) in [0, 1]."""


@dataclass(frozen=True)
class ZooModel:
    """One trained model.

    family: "wan" or "hunyuan". guidance: "cfg" (two passes a step) or "embedded" (one pass, its strength an input).
    shift: ComfyUI's default for the family. scale: usual strength of guidance. latent_shape: (16, F, H/2, W/2).
    """

    name: str
    checkpoint: Path
    family: str
    guidance: str
    shift: float
    scale: float
    latent_shape: tuple[int, int, int, int]
    language: Language

    def prompts(self, count: int, seed: int = 0) -> list[str]:
        """`count` prompts drawn by the seed; all differ until every one was drawn."""
        known = self.language.prompts()
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).tolist()
        return [known[order[place % len(known)]] for place in range(count)]

    def noise(self, seeds: list[int]) -> torch.Tensor:
        """Standard normal latents (len(seeds), 16, F, H/2, W/2): each clip from its own seed, as ComfyUI draws them."""
        shape = (1, *self.latent_shape)
        return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def conditioning(self, prompt: str, scale: float | None = None) -> tuple[list, list]:
        """Positive and negative conditioning in ComfyUI's form; scale is the strength of embedded guidance."""
        strength = self.scale if scale is None else scale
        extras = {"guidance": strength} if self.guidance == EMBEDDED else {}
        return self._conditioning(prompt, extras), self._conditioning("", extras)

    def _conditioning(self, prompt: str, extras: dict) -> list:
        pooled = self.language.pooled(prompt)
        extras = dict(extras) if pooled is None else {**extras, "pooled_output": pooled}
        return [[self.language.encode(prompt), extras]]

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, 16, F, H/2, W/2) in the model's scale to clips (B, F, 3, H, W) in [0, 1]."""
        return self.language.pixels(latents.float()).clamp(0, 1)


class PlainModel:
    """A zoo model without ComfyUI: any number of clips at once, differentiable, on any device."""

    def __init__(self, model: ZooModel, module: nn.Module) -> None:
        self.model = model
        self.module = module

    def velocities(self, x: torch.Tensor, sigma: float, prompts: list[str], scale: float) -> list[torch.Tensor]:
        """What the network returns for noisy latents x (B, 16, F, H/2, W/2) at a noise level in [0, 1].

        One velocity (noise - clean) for each pass that ComfyUI would make: with the prompt, then, under cfg other than
        1, with the empty prompt.
        """
        timestep = x.new_full((len(x),), TIMESTEPS * float(sigma))
        passes = [prompts] if self.model.guidance == EMBEDDED or scale == 1.0 else [prompts, [""] * len(prompts)]
        return [self.module(x, timestep, **self._inputs(texts, scale, x)) for texts in passes]

    def _inputs(self, prompts: list[str], scale: float, x: torch.Tensor) -> dict:
        language = self.model.language
        inputs = {"context": torch.cat([language.encode(prompt) for prompt in prompts]).to(x)}
        if self.model.family == "hunyuan":
            inputs["y"] = torch.cat([language.pooled(prompt) for prompt in prompts]).to(x)
        if self.model.guidance == EMBEDDED:
            inputs["guidance"] = x.new_full((len(x),), scale)
        return inputs

    def velocity(self, x: torch.Tensor, sigma: float, prompts: list[str], scale: float) -> torch.Tensor:
        """The guided velocity: uncond + scale (cond - uncond) under cfg."""
        cond, *rest = self.velocities(x, sigma, prompts, scale)
        return cond if not rest else rest[0] + scale * (cond - rest[0])

    @torch.no_grad()
    def sample(
        self,
        noise: torch.Tensor,
        prompts: list[str],
        scale: float | None = None,
        steps: int = 30,
        shift: float | None = None,
        callback: Callable | None = None,
    ) -> torch.Tensor:
        """Clean latents by Euler steps on ComfyUI's "simple" schedule.

        callback(step, sigma, x, velocity), if given, sees every step before x moves.
        """
        strength = self.model.scale if scale is None else scale
        x, sigmas = noise, schedule(steps, self.model.shift if shift is None else shift).tolist()
        for step, (sigma, following) in enumerate(pairwise(sigmas)):
            velocity = self.velocity(x, sigma, prompts, strength)
            if callback is not None:
                callback(step, sigma, x, velocity)
            x = x + (following - sigma) * velocity
        return x


def open_model(name: str | Path) -> ZooModel:
    """A committed model by its name, or any by the path of its folder. Raises ValueError for neither."""
    folder = ROOM / name if str(name) in COMMITTED else Path(name)
    if str(name) == "tinywan":
        return _tinywan(folder)
    if not (folder / "model.json").is_file():
        raise ValueError(f"{name} is neither one of {', '.join(COMMITTED)} nor a folder with a model.json.")
    return _described(folder)


def load_plain(
    model: ZooModel | str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> PlainModel:
    """The network of a model, its name or its folder, in evaluation mode."""
    model = model if isinstance(model, ZooModel) else open_model(model)
    return PlainModel(model, load_checkpoint(model.checkpoint, model.family, device, dtype))


def _tinywan(folder: Path) -> ZooModel:
    from .tinywan.language import Coloured

    path = folder / "tinywan.safetensors"
    return ZooModel("tinywan", path, "wan", CFG, 8.0, 3.0, (16, 5, 12, 12), Coloured())


def _described(folder: Path) -> ZooModel:
    """A model by its model.json: see `zoo/scenes.py` for the part that describes the language."""
    from .scenes import Scenes

    told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    told["latent_shape"] = tuple(told["latent_shape"])
    language = Scenes.from_dict(told.pop("language"))
    fields = {key: told[key] for key in ("name", "family", "guidance", "shift", "scale", "latent_shape")}
    return ZooModel(checkpoint=folder / "model.safetensors", language=language, **fields)
