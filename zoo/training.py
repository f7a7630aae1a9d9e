"""Trains a model on scenes: rectified flow as ComfyUI samples it, then, if asked for, guidance into its embedding.

x_sigma = (1 - sigma) clean + sigma noise, the network predicts noise - clean, timestep = 1000 sigma. Rates follow the
share of the time that is used, so wall time is bounded. Shapes: B = clips in a batch, latents (B, 16, F, H, W).
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from .checkpoints import save_checkpoint
from .hunyuan import SmallHunyuan, SmallHunyuanConfig
from .muon import BatchedMuon
from .pictures import Pictures, load_pictures
from .sampling import TIMESTEPS, shift_sigma
from .scenes import POOLED, Renderer, Scenes, Words
from .wan import TinyWan, TinyWanConfig

WARMUP_STEPS = 100
GRAD_CLIP = 1.0
EMA_DECAY = 0.999
SAVE_EVERY = 45.0  # seconds
SPLIT = {"qkv": 3, "linear1": 7}  # matrices that hold several, one above the other
NOT_TURNED = ("_mod.", ".modulation.", "adaLN")  # conditioning matrices: AdamW


@dataclass(frozen=True)
class Recipe:
    """How one model is made.

    network: sizes, as in the configuration of its class. shift: of the times drawn. dropout: share of clips with the
    empty prompt. distil: share of the time spent on guidance (0: none). strengths: of guidance, lowest and highest.
    """

    name: str
    family: str
    guidance: str
    shown_shift: float
    scale: float
    network: dict = field(default_factory=dict)
    batch: int = 128
    lr: float = 2e-3
    muon_lr: float = 0.02
    shift: float = 5.0
    dropout: float = 0.12
    distil: float = 0.0
    strengths: tuple[float, float] = (1.0, 8.0)
    seed: int = 0

    def describe(self, scenes: Scenes) -> dict:
        """The model.json of the model."""
        side = scenes.side // 2
        return {
            "name": self.name, "family": self.family, "guidance": self.guidance, "shift": self.shown_shift,
            "scale": self.scale, "latent_shape": [16, scenes.frames, side, side], "language": scenes.to_dict(),
        }  # fmt: skip


def build_network(recipe: Recipe) -> nn.Module:
    """An untrained network: blocks start as the identity with open gates, the prediction at zero."""
    torch.manual_seed(recipe.seed)
    if recipe.family == "wan":
        model = TinyWan(TinyWanConfig(**recipe.network))
        initialise_wan(model)
    else:
        model = SmallHunyuan(SmallHunyuanConfig(**recipe.network))
        initialise_hunyuan(model)
    return model


def zero(*layers: nn.Module) -> None:
    """Sets weights and biases to zero."""
    for parameter in (parameter for layer in layers for parameter in layer.parameters()):
        nn.init.zeros_(parameter)


def initialise_wan(model: TinyWan) -> None:
    """See `build_network`."""
    zero(model.time_projection, model.head.head)
    nn.init.normal_(model.text_embedding[0].weight, std=1 / 16)
    for block in model.blocks:
        zero(block.self_attn.o, block.cross_attn.o, block.ffn[2])
        with torch.no_grad():
            block.modulation[:, [2, 5]] = 1.0


def initialise_hunyuan(model: SmallHunyuan) -> None:
    """See `build_network`."""
    zero(model.final_layer)
    for block in model.double_blocks:
        zero(block.img_mod, block.txt_mod, block.img_attn.proj, block.txt_attn.proj, block.img_mlp[2], block.txt_mlp[2])
        open_gates(block.img_mod.lin.bias, 6, (2, 5))
        open_gates(block.txt_mod.lin.bias, 6, (2, 5))
    for block in model.single_blocks:
        zero(block.modulation, block.linear2)
        open_gates(block.modulation.lin.bias, 3, (2,))
    for block in model.txt_in.individual_token_refiner.blocks:
        zero(block.adaLN_modulation)
        open_gates(block.adaLN_modulation[1].bias, 2, (0, 1))


@torch.no_grad()
def open_gates(bias: torch.Tensor, parts: int, gates: tuple[int, ...]) -> None:
    """Sets the gates among the parts of a modulation's bias to 1."""
    bias.view(parts, -1)[list(gates)] = 1.0


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; each group remembers its peak rate."""
    named = dict(model.named_parameters())
    turned = {name for name, p in named.items() if p.ndim == 2 and "blocks." in name}
    turned -= {name for name in turned if any(part in name for part in NOT_TURNED)}
    text = {name for name in named if name == "text_embedding.0.weight"}
    rest = [p for name, p in named.items() if name not in turned | text]
    groups = [{"params": rest, "lr": recipe.lr}]
    if text:  # thousands of channels of a word move together
        groups.append({"params": [named[name] for name in text], "lr": recipe.lr / 128})
    parts = {name: next((n for key, n in SPLIT.items() if key in name), 1) for name in turned}
    matrices = [{"params": [named[n] for n in sorted(turned) if parts[n] == k], "parts": k} for k in sorted(set(parts.values()))]
    optimizers = [
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, foreach=True),
        BatchedMuon(matrices, lr=recipe.muon_lr),
    ]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def rate_factor(step: int, progress: float) -> float:
    """Share of the peak rate: linear warm-up over updates, then a cosine over progress (0 to 1) down to 1 %."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / WARMUP_STEPS) * cosine


class Batches:
    """Endless training batches, drawn on the device."""

    def __init__(self, scenes: Scenes, recipe: Recipe, pictures: Pictures, device: str):
        self.scenes, self.recipe, self.device = scenes, recipe, device
        self.generator = torch.Generator(device).manual_seed(recipe.seed + 1)
        self.renderer = Renderer(scenes, pictures, device, self.generator)
        words = len(scenes.vocabulary)
        self.table = scenes.words.table(words).to(device)
        self.pooled = Words("gaussian", scenes.words.seed + 1, POOLED, 1.0).table(words).to(device)
        self.tokens = torch.tensor([scenes.tokens(prompt) for prompt in scenes.prompts()], device=device)

    def random(self, *shape: int) -> torch.Tensor:
        """Uniform numbers in [0, 1)."""
        return torch.rand(shape, device=self.device, generator=self.generator)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, device=self.device, generator=self.generator)

    def times(self, count: int) -> torch.Tensor:
        """Noise levels (B,) moved towards noise: one half logit-normal, one half uniform before the shift."""
        flat, bell = self.random(count), torch.sigmoid(self.normal(count))
        return shift_sigma(torch.where(self.random(count) < 0.5, flat, bell), self.recipe.shift)

    def clips(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels (B, 3) and clean latents (B, 16, F, H, W)."""
        labels = self.renderer.random_labels(count)
        return labels, self.scenes.pack(self.renderer.draw(labels))

    def words(self, labels: torch.Tensor, drop: float | torch.Tensor = 0.0) -> dict[str, torch.Tensor]:
        """The network's context and y for labels (B, 3), with a share `drop` of empty prompts."""
        _, places, motions = self.scenes.sizes
        tokens = self.tokens[(labels[:, 0] * places + labels[:, 1]) * motions + labels[:, 2]]
        tokens = tokens.masked_fill(self.random(len(labels), 1) < drop, len(self.table) - 1)
        words = {"context": self.table[tokens]}
        return {**words, "y": self.pooled[tokens].mean(1)} if self.recipe.family == "hunyuan" else words


def expand(sigma: torch.Tensor) -> torch.Tensor:
    """(B,) to (B, 1, 1, 1, 1)."""
    return sigma.view(-1, 1, 1, 1, 1)


class Pupils:
    """Clips on their way from noise to picture, under the pupil's own guided steps: what it will meet when it samples."""

    def __init__(self, batches: Batches, count: int):
        labels, clean = batches.clips(count)
        self.batches = batches
        self.labels, self.x = labels, batches.normal(*clean.shape)
        self.strength = self.draw_strengths(count)
        self.time = batches.random(count) * 0.9 + 0.1  # before the shift; 1 is noise
        self.stride = self.draw_strides(count)

    def draw_strengths(self, count: int) -> torch.Tensor:
        """Strengths of guidance (B,), uniform."""
        low, high = self.batches.recipe.strengths
        return low + (high - low) * self.batches.random(count)

    def draw_strides(self, count: int) -> torch.Tensor:
        """Length of a step (B,), before the shift: 12 to 40 steps a clip."""
        return 1 / (12 + 28 * self.batches.random(count))

    @property
    def sigma(self) -> torch.Tensor:
        """Noise levels (B,) at the shift that the model is shown with."""
        return shift_sigma(self.time, self.batches.recipe.shown_shift)

    @torch.no_grad()
    def advance(self, velocity: torch.Tensor) -> None:
        """One Euler step each; finished clips start anew from noise, with another prompt and strength."""
        following = shift_sigma((self.time - self.stride).clamp(min=0), self.batches.recipe.shown_shift)
        self.x = self.x + expand(following - self.sigma) * velocity
        self.time = self.time - self.stride
        done, count = self.time < 0.5 * self.stride, len(self.time)
        self.time = torch.where(done, 1.0, self.time)
        self.x = torch.where(expand(done), self.batches.normal(*self.x.shape), self.x)
        self.labels = torch.where(done[:, None], self.batches.renderer.random_labels(count), self.labels)
        self.strength = torch.where(done, self.draw_strengths(count), self.strength)
        self.stride = torch.where(done, self.draw_strides(count), self.stride)


class Trainer:
    """Network, averaged copy, optimizers and clock of one training run."""

    def __init__(self, scenes: Scenes, recipe: Recipe, pictures: Pictures, device: str = "cpu"):
        self.scenes, self.recipe, self.device = scenes, recipe, device
        self.model = build_network(recipe).to(device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizers = build_optimizers(self.model, recipe)
        self.batches = Batches(scenes, recipe, pictures, device)
        self.teacher: nn.Module | None = None
        self.pupils: Pupils | None = None
        self.step, self.clips, self.stage_step, self.elapsed = 0, 0, 0, 0.0
        self.curve: list[dict] = []
        if device != "cpu":
            compile_blocks(self.model)

    def run(self, seconds: float, save: Callable[[Trainer], None]) -> None:
        """Trains for `seconds` in all, earlier runs included, and saves now and then and at the end.

        The first update, which compiles, is not counted. Each loss is read from the device once in 50 updates.
        """
        self.update(0.0)
        last, saved, losses = time.monotonic(), self.elapsed, []
        while self.elapsed < seconds:
            losses.append(self.update(self.elapsed / seconds))
            if len(losses) == 50:
                self.record(losses)
                losses = []
            now = time.monotonic()
            self.elapsed, last = self.elapsed + now - last, now
            if self.elapsed - saved > SAVE_EVERY:
                save(self)
                saved = self.elapsed
        save(self)

    def record(self, losses: list[torch.Tensor]) -> None:
        """Adds a point to the curve; waits for the device."""
        loss = round(float(torch.stack(losses).mean()), 5)
        self.curve.append({"seconds": round(self.elapsed, 1), "clips": self.clips, "loss": loss})
        if self.step % 200 < 50:
            sys.stdout.write(f"{self.recipe.name} {self.step} {self.curve[-1]}\n")
            sys.stdout.flush()

    def update(self, progress: float) -> torch.Tensor:
        """One optimizer update; returns the loss (0-dim tensor, not yet synchronised)."""
        first = 1 - self.recipe.distil
        if progress >= first and self.recipe.distil:
            self.begin_distilling()
            factor = 0.5 * rate_factor(self.stage_step, (progress - first) / self.recipe.distil)
        else:
            factor = rate_factor(self.stage_step, progress / first)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak_lr"] * factor
        with torch.autocast(self.device, dtype=torch.bfloat16):
            loss = self.flow_loss() if self.teacher is None else self.guidance_loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), GRAD_CLIP)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average()
        self.step, self.stage_step, self.clips = self.step + 1, self.stage_step + 1, self.clips + self.recipe.batch
        return loss.detach()

    def flow_loss(self) -> torch.Tensor:
        """Mean squared error of the velocity."""
        labels, clean = self.batches.clips(self.recipe.batch)
        sigma, noise = self.batches.times(len(labels)), self.batches.normal(*clean.shape)
        words = self.batches.words(labels, self.recipe.dropout)
        predicted = self.model(torch.lerp(clean, noise, expand(sigma)), sigma * TIMESTEPS, **words, **self.strength(1.0))
        return (predicted.float() - (noise - clean)).square().mean()

    def strength(self, value: float | torch.Tensor) -> dict[str, torch.Tensor]:
        """The guidance input (B,) of a network that has one."""
        if self.recipe.guidance != "embedded":
            return {}
        return {"guidance": torch.as_tensor(value, device=self.device).float().expand(self.recipe.batch)}

    def begin_distilling(self) -> None:
        """Once: the averaged network becomes the teacher and the start of the pupil; rates warm up again."""
        if self.teacher is not None:
            return
        self.teacher = copy.deepcopy(self.ema).eval()
        self.model.load_state_dict(self.ema.state_dict())
        self.pupils = Pupils(self.batches, self.recipe.batch // 2)
        self.stage_step = 0
        if self.device != "cpu":
            compile_blocks(self.teacher)

    def guidance_loss(self) -> torch.Tensor:
        """Squared error against the teacher's guided velocity: half on noisy clips, half where the pupil gets by itself."""
        pupils, batches = self.pupils, self.batches
        labels, clean = batches.clips(self.recipe.batch - len(pupils.labels))
        sigma = batches.times(len(labels))
        x = torch.cat([torch.lerp(clean, batches.normal(*clean.shape), expand(sigma)), pupils.x])
        timestep = torch.cat([sigma, pupils.sigma]) * TIMESTEPS
        strength = torch.cat([pupils.draw_strengths(len(labels)), pupils.strength])
        labels = torch.cat([labels, pupils.labels])
        words = batches.words(labels)
        target = self.taught(x, timestep, words, batches.words(labels, 1.0), strength)
        predicted = self.model(x, timestep, **words, **self.strength(strength)).float()
        pupils.advance(predicted[-len(pupils.labels) :].detach())
        return ((predicted - target).square().mean((1, 2, 3, 4)) / strength).mean()

    @torch.no_grad()
    def taught(self, x: torch.Tensor, timestep: torch.Tensor, words: dict, empty: dict, strength: torch.Tensor):
        """The teacher's velocity under classifier-free guidance of a strength (B,)."""
        cond = self.teacher(x, timestep, **words, **self.strength(1.0)).float()
        uncond = self.teacher(x, timestep, **empty, **self.strength(1.0)).float()
        return uncond + expand(strength) * (cond - uncond)

    @torch.no_grad()
    def average(self) -> None:
        """Moves the averaged weights towards the network's; the average is short while training is young."""
        decay = min(EMA_DECAY, (1 + self.stage_step) / (10 + self.stage_step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)

    def state(self) -> dict:
        """What `restore` needs. Clips on their way are not kept: they start anew."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "teacher": self.teacher and self.teacher.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.batches.generator.get_state(),
            "clock": (self.step, self.clips, self.stage_step, self.elapsed, self.curve),
        }

    def restore(self, state: dict) -> None:
        """Goes on where `state` was taken."""
        if state["teacher"]:
            self.begin_distilling()
            self.teacher.load_state_dict(state["teacher"])
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.batches.generator.set_state(state["generator"].cpu())
        self.step, self.clips, self.stage_step, self.elapsed, self.curve = state["clock"]

    def provenance(self) -> dict[str, str]:
        """Metadata of the checkpoint: what made it and how much it has seen."""
        where = torch.cuda.get_device_name() if self.device != "cpu" else "CPU"
        return {
            "title": self.recipe.name,
            "source": "trained from scratch by zoo/training.py on clips drawn from photographs (zoo/scenes.py)",
            "objective": f"rectified flow, times at shift {self.recipe.shift:g}, averaged weights",
            "clips": str(self.clips),
            "updates": str(self.step),
            "minutes": f"{self.elapsed / 60:.2f}",
            "device": where,
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "seed": str(self.recipe.seed),
            "torch": torch.__version__,
            "curve": json.dumps(self.curve[:: max(1, len(self.curve) // 60)]),
        }


def compile_blocks(model: nn.Module) -> None:
    """Compiles every block by itself: one compilation serves all blocks of a kind."""
    blocks = getattr(model, "blocks", None) or [*model.double_blocks, *model.single_blocks]
    for block in blocks:
        block.compile(dynamic=False)


def train(scenes: Scenes, recipe: Recipe, arguments: list[str] | None = None) -> Trainer:
    """The command line of a training: python devtools/pack.py zoo.NAME.train --pictures DIR --out DIR --seconds 300"""
    parser = argparse.ArgumentParser(prog=f"zoo.{recipe.name}.train")
    parser.add_argument("--pictures", type=Path, required=True, help="folder that zoo.pictures wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.json and model.safetensors")
    parser.add_argument("--seconds", type=float, default=300.0, help="training time in all, earlier runs included")
    parser.add_argument("--state", type=Path, help="file to go on from, and to keep the state in")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=recipe.batch)
    args = parser.parse_args(arguments)
    recipe = Recipe(**{**vars(recipe), "batch": args.batch})
    trainer = Trainer(scenes, recipe, load_pictures(args.pictures), args.device)
    if args.state and args.state.is_file():
        trainer.restore(torch.load(args.state, map_location=args.device, weights_only=True))
    args.out.mkdir(parents=True, exist_ok=True)
    described = json.dumps(recipe.describe(scenes), indent=1)
    (args.out / "model.json").write_text(described + "\n", encoding="utf-8")
    trainer.run(args.seconds, lambda trainer: keep(trainer, args.out / "model.safetensors", args.state))
    return trainer


def keep(trainer: Trainer, checkpoint: Path, state: Path | None) -> None:
    """Writes the averaged weights in fp16 and, where asked for, the resumable state."""
    partial = checkpoint.with_suffix(".partial")
    save_checkpoint(trainer.ema, partial, trainer.provenance())
    partial.replace(checkpoint)
    if state:
        partial = state.with_suffix(".partial")
        torch.save(trainer.state(), partial)
        partial.replace(state)
