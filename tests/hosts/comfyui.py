"""A real ComfyUI in this process, as the contract suite sees it."""

from __future__ import annotations

import importlib
import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch

from . import recipes
from .checkouts import Checkout


class ComfyUIHost:
    """The checkout's UNETLoader, CFGGuider and samplers, on the CPU. A process can hold one."""

    name = "comfyui"
    families = tuple(recipes.RECIPES)

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.version = checkout.version
        self.folder = folder
        sys.path.insert(0, str(checkout.path))  # ComfyUI imports its own files by their bare names
        import comfy.cli_args

        comfy.cli_args.args.cpu = True  # read when model_management is imported, so before the rest
        comfy.cli_args.args.use_pytorch_cross_attention = True  # as on a GPU; what a CPU gets by itself is far slower
        import comfy.model_management
        import comfy.samplers
        import folder_paths

        import nodes

        self.nodes, self.samplers = nodes, comfy.samplers
        self.Interrupt = comfy.model_management.InterruptProcessingException
        folder_paths.add_model_folder_path("diffusion_models", str(folder), is_default=True)
        folder_paths.set_temp_directory(str(folder / "temp"))  # previews of nodes go here, not into the checkout
        logging.getLogger().setLevel(logging.INFO)
        self._models: dict[str, object] = {}
        self._loaded: dict[int, object] = {}

    def model(self, family: str):
        if family not in self._models:
            self._models[family] = self.load(family)
        return self._models[family].clone()

    def load(self, family: str):
        """A model of its own, from its checkpoint."""
        recipes.write(family, self.folder)
        return self.nodes.UNETLoader().load_unet(recipes.file_name(family), "default")[0]

    def node(self, module: str, name: str, **inputs):
        """First output of a node of ComfyUI itself."""
        result = getattr(importlib.import_module(f"comfy_extras.{module}"), name).execute(**inputs)
        return result.args[0] if hasattr(result, "args") else result[0]

    def prompt(self, family: str, text: torch.Tensor, frames: int, size: int, **extra) -> list:
        return [[text, {**CONDITIONING.get(family, nothing)(frames, size), **extra}]]

    def guider(self, model, positive, negative, cfg: float):
        self._loaded[id(model.model)] = model  # a loaded clone that dies makes ComfyUI collect garbage at every run
        guider = self.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return guider

    def sigmas(self, model, steps: int, sampler: str) -> torch.Tensor:
        """As the KSampler node makes them: some samplers leave out the sigma before the last."""
        return self.samplers.KSampler(model, steps, "cpu", sampler, "simple", 1.0, {}).sigmas

    def run(self, guider, noise, sigmas, sampler: str, callback=None, latent=None, mask=None) -> torch.Tensor:
        latent = noise * 0.0 if latent is None else latent
        sampler = self.samplers.sampler_object(sampler)
        with torch.inference_mode():
            return guider.sample(noise, latent, sampler, sigmas, mask, callback, disable_pbar=True, seed=1)

    @contextmanager
    def one_by_one(self, guider):
        """Cond and uncond in separate model calls: as if two at once did not fit the memory."""
        model = guider.model_patcher.model
        estimate = model.memory_required

        def required(input_shape, *args, **kwargs):
            return estimate(input_shape, *args, **kwargs) if input_shape[0] <= 1 else float("inf")

        model.memory_required = required
        try:
            yield
        finally:
            del model.memory_required


def nothing(frames: int, size: int) -> dict:
    return {}


def start_image(frames: int, size: int) -> dict:
    """An image in the first frame, as the WanImageToVideo node encodes it."""
    generator = torch.Generator().manual_seed(11)
    mask = torch.ones(1, 1, frames, size, size)
    mask[:, :, :1] = 0.0
    return {"concat_latent_image": torch.randn(1, 16, frames, size, size, generator=generator), "concat_mask": mask}


def start_image_seen(frames: int, size: int) -> dict:
    generator = torch.Generator().manual_seed(12)
    seen = SimpleNamespace(penultimate_hidden_states=torch.randn(1, 257, recipes.CLIP, generator=generator))
    return {**start_image(frames, size), "clip_vision_output": seen}


def control_video(frames: int, size: int) -> dict:
    """Two control videos for VACE, of different strength."""
    generator = torch.Generator().manual_seed(13)
    videos = [torch.randn(1, 32, frames, size, size, generator=generator) for _ in range(2)]
    masks = [torch.ones(1, 64, frames, size, size)] * 2
    return {"vace_frames": videos, "vace_mask": masks, "vace_strength": [1.0, 0.5]}


def pooled_text(frames: int, size: int) -> dict:
    return {"pooled_output": torch.randn(1, recipes.POOLED, generator=torch.Generator().manual_seed(14))}


CONDITIONING = {
    "wan21_i2v": start_image_seen,
    "wan22_i2v": start_image,
    "wan21_vace": control_video,
    "wan21_vace_last": control_video,
    "hunyuan": pooled_text,
    "hunyuan15": pooled_text,
}
