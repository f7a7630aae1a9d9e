"""How much a model's output changes from step to step while it samples."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from .models import PlainModel


def changes(plain: PlainModel, prompts: list[str], noise: torch.Tensor, scale: float, steps: int = 30) -> torch.Tensor:
    """Relative L1 change of the (guided) velocity from each step to the next, mean over clips: (steps - 1,).

    noise: (len(prompts), 16, F, H/2, W/2). Euler at the model's own shift. 0 is no change.
    """
    seen: list[torch.Tensor] = []
    plain.sample(noise, prompts, scale, steps, callback=lambda step, sigma, x, velocity: seen.append(velocity))
    moved = [(b - a).abs().mean((1, 2, 3, 4)) / a.abs().mean((1, 2, 3, 4)) for a, b in pairwise(seen)]
    return torch.stack(moved).mean(1).cpu()


def residual_ratios(plain: PlainModel, prompts: list[str], noise: torch.Tensor, scale: float, steps: int = 30):
    """Ratio of the size of what all blocks add, from each step to the next: (steps - 1,), of the pass with the prompt.

    mean over tokens of |r_t| / |r_(t-1)|, r = tokens after all blocks - tokens before: MagCache's measure.
    """
    tokens: dict[str, torch.Tensor] = {}
    residuals: list[torch.Tensor] = []
    first, last = ends(plain.module)

    def enter(module: nn.Module, args: tuple, out: torch.Tensor) -> None:
        tokens.setdefault("before", as_tokens(out))  # of a step's passes, the one with the prompt comes first

    def leave(module: nn.Module, args: tuple) -> None:
        tokens.setdefault("after", args[0])

    def keep(step: int, sigma: float, x: torch.Tensor, velocity: torch.Tensor) -> None:
        residuals.append((tokens["after"] - tokens["before"]).norm(dim=-1))
        tokens.clear()

    hooks = [first.register_forward_hook(enter), last.register_forward_pre_hook(leave)]
    plain.sample(noise, prompts, scale, steps, callback=keep)
    for hook in hooks:
        hook.remove()
    return torch.stack([(b / a).mean() for a, b in pairwise(residuals)])


def ends(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The layers before the first block and after the last."""
    if hasattr(module, "blocks"):
        return module.patch_embedding, module.head
    return module.img_in, module.final_layer


def as_tokens(embedded: torch.Tensor) -> torch.Tensor:
    """Tokens (B, L, D) of what a patch embedding returns."""
    return embedded if embedded.ndim == 3 else embedded.flatten(2).transpose(1, 2)
