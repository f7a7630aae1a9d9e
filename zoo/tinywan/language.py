"""TinyWan's prompts, words and pixels behind the interface of the zoo."""

from __future__ import annotations

import torch

from .data import all_labels, prompt_of, unpack
from .words import encode


class Coloured:
    """One coloured shape over grey: 72 prompts."""

    def prompts(self) -> list[str]:
        """Every colour, shape and direction once."""
        return [prompt_of(label) for label in all_labels()]

    def encode(self, prompt: str) -> torch.Tensor:
        """Context (1, words, 4096); "" is the single word "null"."""
        return encode(prompt)

    def pooled(self, prompt: str) -> None:
        """Wan takes no pooled vector."""

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, 16, F, H/2, W/2) to clips (B, F, 3, H, W) in [0, 1]."""
        return (unpack(latents) + 1) / 2
