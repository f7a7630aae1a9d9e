"""How much a model's output changes from step to step while it samples."""

from __future__ import annotations

import torch

from .models import PlainModel


def changes(plain: PlainModel, prompts: list[str], noise: torch.Tensor, scale: float, steps: int = 30) -> torch.Tensor:
    """Relative L1 change of the (guided) velocity from each step to the next, mean over clips: (steps - 1,).

    noise: (len(prompts), 16, F, H/2, W/2). Euler at the model's own shift. 0 is no change.
    """
    seen: list[torch.Tensor] = []
    plain.sample(noise, prompts, scale, steps, callback=lambda step, sigma, x, velocity: seen.append(velocity))
    moved = [(b - a).abs().mean((1, 2, 3, 4)) / a.abs().mean((1, 2, 3, 4)) for a, b in zip(seen, seen[1:], strict=False)]
    return torch.stack(moved).mean(1).cpu()
