"""Does a clip show what its prompt asked for? A small network, trained on drawn clips alone, reads the three words.

    python devtools/pack.py zoo.judge market --pictures DIR

trains it in some minutes on a CPU or seconds on a GPU, says how often it is right on drawn clips that it has not seen, and writes
zoo/market/judge.safetensors. It never sees a sampled clip before it judges one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from .models import open_model
from .pictures import Pictures, load_pictures
from .scenes import Renderer, Scenes

STEPS, BATCH, RATE = 900, 64, 2e-3
HELD_OUT = 1024  # clips for the judge's own accuracy
WIDTHS = (32, 64, 96)
PLAIN = 4  # rows and columns that are left when the words are read
FILE = "judge.safetensors"


class Judge(nn.Module):
    """Frames as channels, three convolutions, one linear map for each word."""

    def __init__(self, scenes: Scenes):
        super().__init__()
        self.sizes = scenes.sizes
        first, middle, last = WIDTHS
        self.layers = nn.Sequential(
            nn.Conv2d(3 * scenes.frames, first, 5, padding=2), nn.BatchNorm2d(first), nn.ReLU(),
            nn.Conv2d(first, middle, 3, stride=2, padding=1), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, last, 3, stride=2, padding=1), nn.BatchNorm2d(last), nn.ReLU(),
            nn.AdaptiveAvgPool2d(PLAIN), nn.Flatten(),
        )  # fmt: skip
        self.words = nn.Linear(last * PLAIN**2, sum(self.sizes))

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Clips (B, F, 3, S, S) in [0, 1] to scores of subjects, places and motions."""
        return self.words(self.layers(clips.flatten(1, 2) - 0.5)).split(self.sizes, dim=1)

    @torch.no_grad()
    def read(self, clips: torch.Tensor) -> torch.Tensor:
        """Labels (B, 3) that clips (B, F, 3, S, S) in [0, 1] show."""
        return torch.stack([scores.argmax(1) for scores in self(clips)], dim=1)


def roughen(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Clips with noise, another contrast and some blur, so that the judge looks at shapes and not at flaws."""
    count = len(clips)
    amount = torch.rand(3, count, 1, 1, 1, 1, generator=generator, device=clips.device)
    blurred = F.avg_pool2d(clips.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(clips)
    clips = torch.lerp(clips, blurred, (amount[0] - 0.4).clamp(min=0))
    clips = (clips - 0.5) * (0.8 + 0.7 * amount[1]) + 0.5
    noise = torch.randn(clips.shape, generator=generator, device=clips.device)
    return (clips + 0.12 * amount[2] * noise).clamp(0, 1)


def train(scenes: Scenes, pictures: Pictures, device: str = "cpu", seed: int = 0) -> Judge:
    """A judge of scenes."""
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    renderer, judge = Renderer(scenes, pictures, device, generator), Judge(scenes).to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), RATE, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        labels = renderer.random_labels(BATCH)
        scores = judge(roughen((renderer.draw(labels) + 1) / 2, generator))
        loss = sum(F.cross_entropy(part, labels[:, place]) for place, part in enumerate(scores))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return judge.cpu().eval()


def accuracy(judge: Judge, scenes: Scenes, pictures: Pictures, seed: int = 1) -> torch.Tensor:
    """How often subject, place, motion and all three are read right on drawn clips of another seed: (4,)."""
    renderer = Renderer(scenes, pictures, "cpu", torch.Generator().manual_seed(seed))
    labels = renderer.random_labels(HELD_OUT)
    clips = torch.cat([(renderer.draw(part) + 1) / 2 for part in labels.split(BATCH)])
    return agreement(judge.read(clips), labels)


def agreement(read: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Share of equal subjects, places, motions and of labels equal in all three: (4,), from labels (B, 3)."""
    right = read == asked
    return torch.cat([right, right.all(1, keepdim=True)], dim=1).float().mean(0)


def load_judge(folder: Path, scenes: Scenes) -> Judge:
    """The judge that `main` wrote beside a model."""
    judge = Judge(scenes)
    judge.load_state_dict({key: value.float() for key, value in load_file(folder / FILE).items()})
    return judge.eval()


def main() -> None:
    """Train the judge of one model and write it beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--pictures", type=Path, required=True, help="folder that zoo.pictures wrote")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    model, pictures = open_model(args.model), load_pictures(args.pictures)
    judge = train(model.language, pictures, args.device)
    own = accuracy(judge, model.language, pictures)
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in judge.state_dict().items()}
    save_file(tensors, model.checkpoint.parent / FILE, {"accuracy": " ".join(f"{share:.3f}" for share in own)})
    sys.stdout.write(f"subject, place, motion, all three: {' '.join(f'{share:.3f}' for share in own)}\n")


if __name__ == "__main__":
    main()
