"""Where a workflow of the matrix is wired and run: ComfyUI's own nodes, tiny checkpoints, a place for BWCache Apply.

A workflow is a function that takes a Desk, puts the model through `desk.apply` where a user would put BWCache Apply,
and returns latents. The same function runs without the cache, with it, and with one of its inputs changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from bwcache_pack.tests.hosts import instances, recipes

from . import checkpoints, quantised, toys
from .checkpoints import Absent
from .models import MODELS
from .rarer import RARER

STEPS = 8
SMALL_MODELS = {**instances.INSTANCES, **instances.FORECAST_ONLY, **MODELS, **RARER}
Conditioning = list
Wired = tuple[Conditioning, Conditioning, dict]  # positive, negative, latent


class Bench:
    """One ComfyUI, and the models that its workflows share.

    sampled: what was sampled last of each model. ComfyUI collects garbage whenever a loaded clone dies.
    """

    def __init__(self, host) -> None:
        self.host = host
        self.folder: Path = host.folder
        self.sampled: dict[int, object] = {}
        self._models: dict[tuple, object] = {}

    def model(self, name: str, weights: str = "default"):
        """A clone of a checkpoint's model, loaded once by UNETLoader. Raises Absent."""
        return self.once((name, weights), lambda: self._load(name, weights)).clone()

    def class_of(self, name: str) -> str:
        """Class in comfy.supported_models that a checkpoint's model is of."""
        return class_of(self.model(name))

    def twin(self, name: str):
        """A clone of a second model of the same kind, with other weights."""
        return self.once(("twin", name), lambda: self._twin(name)).clone()

    def once(self, what: object, make: Callable):
        """What `make` returns, made once."""
        if what not in self._models:
            self._models[what] = make()
        return self._models[what]

    def lora(self, model, strength: float):
        """The LoraLoaderModelOnly node."""
        loader = self.host.nodes.LoraLoaderModelOnly()
        return loader.load_lora_model_only(model, self._lora_file(model), strength)[0]

    def lora_hook(self, name: str):
        """The CreateHookLoraModelOnly node."""
        node = checkpoints.comfyui_class("comfy_extras.nodes_hooks", "CreateHookLoraModelOnly")()
        return node.create_hook_model_only(self._lora_file(self.model(name)), strength_model=1.0)[0]

    def _lora_file(self, model) -> str:
        import folder_paths

        shapes = {name: tuple(value.shape) for name, value in model.model.diffusion_model.state_dict().items()}
        folder = self.folder / "loras"
        folder.mkdir(exist_ok=True)
        name = f"{type(model.model).__name__}-{len(shapes)}.safetensors"
        if not (folder / name).exists():
            save_file(toys.lora(shapes), folder / name)
            folder_paths.add_model_folder_path("loras", str(folder))
        return name

    def _twin(self, name: str):
        model = self._load(name, "default")
        with torch.no_grad():
            for parameter in model.model.diffusion_model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.05)
        return model

    def _load(self, name: str, weights: str):
        if name in SMALL_MODELS:
            return self._build(name)
        path = checkpoints.write(name, self.folder)
        if weights == "quantised":
            model = quantised.load(path)
        else:
            model = self.host.nodes.UNETLoader().load_unet(path.name, weights)[0]
        found = class_of(model)
        if found != checkpoints.detected(name):
            raise Absent(f"this ComfyUI takes the checkpoint {name} for {found}")
        finish = checkpoints.CHECKPOINTS[name].finish if name in checkpoints.CHECKPOINTS else None
        if finish:
            finish(model.model.diffusion_model)
        return model

    def _build(self, name: str):
        recipe = SMALL_MODELS[name]
        if instances.supported_class(recipe) is None:
            raise Absent(f"this ComfyUI has no {recipe.supported}")
        return instances.build(recipe, self.host.version)


def class_of(model) -> str:
    """Class in comfy.supported_models that a loaded model is of."""
    return type(model.model.model_config).__name__


class Desk:
    """One run of one workflow.

    insert: what stands where the workflow has BWCache Apply. changed: name of the one input that differs, or nothing.
    frames, size: of the latents. length, width: of the videos, where a latent pixel stands for 8.
    """

    def __init__(self, bench: Bench, checkpoint: str, insert: Callable, changed: str = "") -> None:
        self.bench = bench
        self.checkpoint = checkpoint
        self.insert = insert
        self.changed = changed
        self.frames, self.size = 5, 4
        self.small = SMALL_MODELS.get(checkpoint)  # a model of tests/hosts/instances.py
        self.cfg = self.small.cfg if self.small else 4.0

    @property
    def length(self) -> int:
        return 4 * (self.frames - 1) + 1

    @property
    def width(self) -> int:
        return 8 * self.size

    def named(self, name: str) -> tuple[str, ...]:
        """Seed of an input."""
        return (name, "changed") if name == self.changed else (name,)

    def pick(self, name: str, usual, other):
        """`usual`, or `other` where the input `name` is the one that changes."""
        return other if name == self.changed else usual

    def model(self, weights: str = "default"):
        return self.bench.model(self.checkpoint, weights)

    def apply(self, model):
        return self.insert(model)

    def node(self, where: str, **inputs):
        """Outputs of a node of ComfyUI, "module.Class": one as it is, several as a tuple. Raises Absent."""
        module, name = where.split(".")
        module = module if module == "nodes" else f"comfy_extras.{module}"
        node = checkpoints.comfyui_class(module, name)
        run = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
        result = run(**inputs)
        outputs = result.args if hasattr(result, "args") else result
        return outputs[0] if len(outputs) == 1 else outputs

    def prompt(self, name: str, tokens: int = 7) -> Conditioning:
        """What a text encoder makes of a prompt."""
        if self.small:
            return [self._small_prompt(name, tokens)]
        if self.checkpoint.startswith("hunyuan"):
            pooled = toys.noise(*self.named(name), "pooled", shape=(1, recipes.POOLED))
            text = toys.noise(*self.named(name), shape=(1, tokens, recipes.HUNYUAN_TEXT))
            return [[text, {"pooled_output": pooled}]]
        return [[toys.noise(*self.named(name), shape=(1, tokens, recipes.TEXT)), {}]]

    def _small_prompt(self, name: str, tokens: int) -> list:
        named = self.named(name)
        extra = {key: toys.noise(*named, key, shape=(1, *shape)) if shape else torch.ones(1, tokens, dtype=torch.long)
                 for key, shape in self.small.prompt.items()}  # fmt: skip
        return [toys.noise(*named, shape=(1, tokens, self.small.text)), extra]

    def prompts(self) -> tuple[Conditioning, Conditioning]:
        return self.prompt("positive"), self.prompt("negative")

    def image(self, name: str, size: int = 0, frames: int = 1) -> torch.Tensor:
        return toys.pixels(*self.named(name), frames=frames, size=size or self.width)

    def video(self, name: str, frames: int = 0) -> torch.Tensor:
        return self.image(name, frames=frames or self.length)

    def seen(self, name: str, **shape):
        return toys.seen(*self.named(name), **shape)

    def heard(self, name: str, **shape) -> dict:
        return toys.heard(*self.named(name), **shape)

    def latent(self, channels: int = 16) -> dict:
        if self.small:
            return {"samples": self._small_latent()}
        return {"samples": torch.zeros(1, channels, self.frames, self.size, self.size)}

    def _small_latent(self):
        parts = [torch.zeros(1, *shape) for shape in self.small.shapes]
        if len(parts) == 1:
            return parts[0]
        from comfy.nested_tensor import NestedTensor

        return NestedTensor(parts)

    def ksampler(
        self,
        model,
        positive,
        negative,
        latent,
        *,
        cfg: float | None = None,
        steps: int = STEPS,
        seed: int = 1,
        sampler: str = "euler",
        scheduler: str = "simple",
        denoise: float = 1.0,
    ) -> dict:
        """The KSampler node."""
        self.keep(model)
        sample = self.bench.host.nodes.KSampler().sample
        return sample(model, seed, steps, self.cfg if cfg is None else cfg, sampler, scheduler, positive, negative, latent, denoise)[0]

    def ksampler_advanced(
        self,
        model,
        positive,
        negative,
        latent,
        *,
        first: int,
        last: int,
        steps: int = STEPS,
        cfg: float | None = None,
        sampler: str = "euler",
    ) -> dict:
        """The KSampler Advanced node: steps first to last of a schedule that others begin or finish."""
        self.keep(model)
        noise, rest = ("enable" if first == 0 else "disable"), ("enable" if last < steps else "disable")
        sample = self.bench.host.nodes.KSamplerAdvanced().sample
        cfg = self.cfg if cfg is None else cfg
        return sample(model, noise, 1, steps, cfg, sampler, "simple", positive, negative, latent, first, last, rest)[0]

    def sampler_custom(self, guider, sampler, sigmas, latent) -> dict:
        """The SamplerCustomAdvanced node."""
        self.keep(guider.model_patcher)
        noise = self.node("nodes_custom_sampler.RandomNoise", noise_seed=1)
        where = "nodes_custom_sampler.SamplerCustomAdvanced"
        return self.node(where, noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent)[0]

    def euler(self, name: str = "euler"):
        return self.node("nodes_custom_sampler.KSamplerSelect", sampler_name=name)

    def sigmas(self, model, steps: int = STEPS, scheduler: str = "simple", denoise: float = 1.0) -> torch.Tensor:
        where = "nodes_custom_sampler.BasicScheduler"
        return self.node(where, model=model, scheduler=scheduler, steps=steps, denoise=denoise)

    def keep(self, model) -> None:
        self.bench.sampled[id(model.model)] = model


@dataclass(frozen=True)
class Variant:
    """title: as the table shows it. wire: conditioning. changes: the inputs that steer it.

    live: of these, what reaches the head of a reused step too where features are cached, because the model adds it
    after its last block. note: how the cell differs from what a user does, if it does.
    """

    title: str
    checkpoint: str
    wire: Callable[[Desk], Wired]
    changes: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    channels: int = 16
    note: str = ""
