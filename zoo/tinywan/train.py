"""Trains TinyWan: python dev.py train --out DIR --minutes 75 [--resume] [--device cuda]

Rectified flow as ComfyUI's WAN21 samples it: x_sigma = (1 - sigma) clean + sigma noise, the network predicts
noise - clean, timestep = 1000 sigma. The learning rate follows the share of --minutes used, so wall time is bounded.
Writes DIR/curve.jsonl, DIR/state.pt (for --resume) and DIR/tinywan.safetensors (averaged weights, fp16).
"""

import argparse
import copy
import json
import logging
import math
import time
from pathlib import Path

import torch
from torch import nn

from ..sampling import TIMESTEPS, shift_sigma
from ..wan import TinyWan, TinyWanConfig
from .checkpoint import save_checkpoint
from .data import FRAMES, pack, prompt_of, random_labels, render
from .judge import evaluate
from .words import NULL, encode_batch, word_vector

LOGGER = logging.getLogger(__name__)
TRAIN_SHIFT = 6.0  # colour and layout are decided at high noise: shift 3 left half of the colours unlearned
WARMUP_STEPS = 200
GRAD_CLIP = 1.0
EMA_DECAY = 0.999
PROMPT_WORDS = 4  # "red circle moving left"
SMALL, MEDIUM, LARGE = 16, 24, 32  # clip sizes in pixels; a small clip costs 0.4 of a medium one
SMALL_SHARE = 0.3  # words, colours and motion are learned on small clips first
LARGE_SHARE, LARGE_EVERY = 0.2, 6  # in the last fifth every sixth update shows a large clip


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, state and curve")
    parser.add_argument("--minutes", type=float, default=75.0, help="training time in all, earlier runs included")
    parser.add_argument("--resume", action="store_true", help="continue from OUT/state.pt")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="clips per update")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--ffn", type=int, default=384)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak rate of AdamW")
    parser.add_argument("--muon-lr", type=float, default=0.02, help="peak rate of Muon on block matrices; 0: AdamW")
    parser.add_argument("--cond-dropout", type=float, default=0.12, help="share of clips trained on the null prompt")
    parser.add_argument("--eval-minutes", type=float, default=5.0, help="minutes between colour evaluations")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def initialise(model: TinyWan, generator: torch.Generator) -> None:
    """Starts every block as the identity and the prediction at zero; gates start open, so blocks learn at once."""
    for parameter in model.time_projection.parameters():
        nn.init.zeros_(parameter)
    nn.init.zeros_(model.head.head.weight)
    nn.init.zeros_(model.head.head.bias)
    # 256 ones per word: std 1 / 16 gives unit hidden states
    nn.init.normal_(model.text_embedding[0].weight, std=1 / 16, generator=generator)
    for block in model.blocks:
        for layer in (block.self_attn.o, block.cross_attn.o, block.ffn[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            block.modulation[:, [2, 5]] = 1.0


def build_optimizers(model: TinyWan, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; each group remembers its peak rate."""
    matrices = [p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    text = model.text_embedding[0].weight
    taken = {id(p) for p in [text, *(matrices if muon_lr else [])]}
    rest = [p for p in model.parameters() if id(p) not in taken]
    # the 256 channels of a word move together, so the word vector moves 256 times as fast as one weight
    groups = [{"params": rest, "lr": lr}, {"params": [text], "lr": lr / 64}]
    optimizers = [torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)]
    if muon_lr:
        optimizers.append(torch.optim.Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.0))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def rate_factor(step: int, progress: float) -> float:
    """Share of the peak rate: linear warm-up over updates, then a cosine over progress (0 to 1) down to 1 %."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    return min(1.0, (step + 1) / WARMUP_STEPS) * cosine


def clip_size(step: int, progress: float) -> int:
    """Height and width in pixels of the clips of one update; progress runs from 0 to 1."""
    if progress < SMALL_SHARE:
        return SMALL
    is_large = progress > 1 - LARGE_SHARE and step % LARGE_EVERY == 0
    return LARGE if is_large else MEDIUM


class Batches:
    """Endless training batches; all randomness comes from one CPU generator."""

    def __init__(self, args: argparse.Namespace, generator: torch.Generator):
        self.args = args
        self.generator = generator
        self.null = word_vector(NULL).expand(PROMPT_WORDS, -1)

    def times(self, count: int) -> torch.Tensor:
        """Logit-normal flow times moved towards noise: (B, 1, 1, 1, 1) in (0, 1)."""
        sigma = torch.sigmoid(torch.randn(count, generator=self.generator))
        return shift_sigma(sigma, TRAIN_SHIFT).view(-1, 1, 1, 1, 1)

    def draw(self, size: int) -> tuple[torch.Tensor, ...]:
        """Noisy latents (B, 16, F, size/2, size/2), timestep (B,), words (B, 4, 4096) and the velocity to predict."""
        count = min(self.args.batch, self.args.batch * MEDIUM**2 // size**2)
        labels = random_labels(count, self.generator)
        clean = pack(render(labels, self.generator, size, size))
        context = encode_batch([prompt_of(label) for label in labels])
        dropped = torch.rand(count, generator=self.generator) < self.args.cond_dropout
        context[dropped] = self.null
        noise = torch.randn(clean.shape, generator=self.generator)
        sigma = self.times(count)
        noisy = torch.lerp(clean, noise, sigma)
        batch = (noisy, sigma.flatten() * TIMESTEPS, context, noise - clean)
        return tuple(tensor.to(self.args.device, non_blocking=True) for tensor in batch)


class Trainer:
    """Model, averaged copy, optimizers and clock of one training run."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.generator = torch.Generator().manual_seed(args.seed)
        torch.manual_seed(args.seed)
        self.model = TinyWan(TinyWanConfig(num_layers=args.layers, ffn_dim=args.ffn))
        initialise(self.model, self.generator)
        self.model.to(args.device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizers = build_optimizers(self.model, args.lr, args.muon_lr)
        if not args.no_compile:
            for block in self.model.blocks:  # one compilation serves all blocks
                block.compile(dynamic=False)
        self.batches = Batches(args, self.generator)
        self.step, self.clips, self.elapsed = 0, 0, 0.0

    @property
    def progress(self) -> float:
        """Share of the training time used so far, 0 to 1."""
        return min(1.0, self.elapsed / (60 * self.args.minutes))

    def update(self) -> torch.Tensor:
        """One optimizer update; returns the mean squared velocity error (0-dim tensor, not yet synchronised)."""
        factor = rate_factor(self.step, self.progress)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak_lr"] * factor
        noisy, timestep, context, velocity = self.batches.draw(clip_size(self.step, self.progress))
        with torch.autocast(self.args.device, dtype=torch.bfloat16):
            predicted = self.model(noisy, timestep, context)
        loss = (predicted.float() - velocity).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), GRAD_CLIP)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average()
        self.step += 1
        self.clips += len(noisy)
        return loss.detach()

    @torch.no_grad()
    def average(self) -> None:
        """Moves the averaged weights towards the model's; the average is short while training is young."""
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)

    def evaluate(self) -> dict[str, float]:
        """Colour and shape accuracy of the averaged weights: 60 prompts, cfg 3, 12 Euler steps, at the current size."""
        side = (SMALL if self.progress < SMALL_SHARE else MEDIUM) // 2
        with torch.autocast(self.args.device, dtype=torch.bfloat16):
            return evaluate(self.ema, prompts=60, cfg=3.0, steps=12, shape=(16, FRAMES, side, side))

    def record(self, **values) -> None:
        """Appends one line to the curve and to the log."""
        entry = {"step": self.step, "clips": self.clips, "seconds": round(self.elapsed, 1), **values}
        LOGGER.info("%s", entry)
        with open(self.args.out / "curve.jsonl", "a") as curve:
            curve.write(json.dumps(entry) + "\n")

    def save(self) -> None:
        """Writes the resumable state and the averaged weights in fp16."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "clock": (self.step, self.clips, self.elapsed),
        }
        partial = self.args.out / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.args.out / "state.pt")
        save_checkpoint(self.ema, self.args.out / "tinywan.safetensors", self.provenance())

    def provenance(self) -> dict[str, str]:
        """Metadata of the checkpoint: what made it and how much it has seen."""
        return {
            "title": "TinyWan",
            "source": "trained from scratch by tinywan/train.py on procedural clips from tinywan/data.py",
            "objective": f"rectified flow, logit-normal and uniform times at shift {TRAIN_SHIFT:g}, averaged weights",
            "clips": str(self.clips),
            "updates": str(self.step),
            "minutes": f"{self.elapsed / 60:.1f}",
            "seed": str(self.args.seed),
            "torch": torch.__version__,
        }

    def load(self) -> None:
        """Restores DIR/state.pt."""
        state = torch.load(self.args.out / "state.pt", map_location=self.args.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"].cpu())
        self.step, self.clips, self.elapsed = state["clock"]

    def run(self) -> None:
        """Trains until --minutes are used up, recording about twice a minute and saving with every evaluation."""
        last, recorded, evaluated = time.monotonic(), self.elapsed, self.elapsed
        losses = []
        while self.elapsed < 60 * self.args.minutes:
            losses.append(self.update())
            now = time.monotonic()
            self.elapsed, last = self.elapsed + now - last, now
            if self.elapsed - recorded > 30:
                self.record(loss=round(float(torch.stack(losses).mean()), 5))
                losses, recorded = [], self.elapsed
            if self.elapsed - evaluated > 60 * self.args.eval_minutes:
                self.record(**self.evaluate())
                self.save()
                evaluated = self.elapsed
        self.record(**self.evaluate())
        self.save()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args)
    if args.resume:
        trainer.load()
    trainer.run()


if __name__ == "__main__":
    main()
