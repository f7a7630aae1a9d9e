"""What a workflow takes in besides a model, made small and from seeds: pixels, sound, what CLIP saw, a VAE.

None of it is a trained model: conditioning nodes run on it as on the real thing, in the shapes that they expect.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch

from bwcache_pack.tests.hosts import recipes

CLIP_TOKENS = 9  # 257 of CLIP and 729 of SigLIP in earnest
RANK = 4  # of the LoRA
AUDIO_RATE = 50  # feature frames a second, as Whisper and wav2vec give them


def generator(*what: object) -> torch.Generator:
    """The same numbers for the same `what`, others for others."""
    seed = sum(ord(letter) * 31**place % 1_000_003 for place, letter in enumerate(repr(what)))
    return torch.Generator().manual_seed(seed)


def noise(*what: object, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=generator(*what))


def pixels(*what: object, frames: int, size: int) -> torch.Tensor:
    """A clip, (frames, size, size, 3), from 0 to 1."""
    return torch.rand((frames, size, size, 3), generator=generator(*what))


def seen(*what: object, tokens: int = CLIP_TOKENS, width: int = recipes.CLIP) -> SimpleNamespace:
    """What a CLIP vision model makes of an image."""
    states = noise(*what, shape=(1, tokens, width))
    return SimpleNamespace(penultimate_hidden_states=states, last_hidden_state=states)


def heard(*what: object, layers: int, width: int, seconds: float = 2.0) -> dict:
    """What an audio encoder makes of a sound: features of all of its layers, (1, frames, width) each."""
    frames = int(seconds * AUDIO_RATE)
    features = [noise(*what, layer, shape=(1, frames, width)) for layer in range(layers)]
    return {"encoded_audio_all_layers": features, "encoded_audio": features[-1], "audio_samples": int(seconds * 16_000)}


def lora(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A LoRA on the feed-forward layers of blocks: tensor shapes of a model to tensors of a LoRA."""
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith(("ffn.0.weight", "img_mlp.0.weight")):
            layer = f"diffusion_model.{name.removesuffix('.weight')}"
            tensors[f"{layer}.lora_up.weight"] = noise(name, "up", shape=(shape[0], RANK)) * 0.1
            tensors[f"{layer}.lora_down.weight"] = noise(name, "down", shape=(RANK, shape[1])) * 0.1
    return tensors


class VAE:
    """Averages patches of pixels and mixes their colours: latents in the shapes of a video VAE, nothing more."""

    def __init__(self, channels: int = 16, patch: int = 8) -> None:
        self.latent_channels, self.patch = channels, patch
        self.colours = noise("vae", channels, shape=(channels, 3))

    def spacial_compression_encode(self) -> int:
        return self.patch

    def temporal_compression_decode(self) -> int:
        return 4

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """(frames, H, W, 3) to (1, channels, 1 + (frames - 1) // 4, H / patch, W / patch)."""
        video = video.reshape(-1, *video.shape[-3:])
        frames, height, width, _ = video.shape
        small = video.reshape(frames, height // self.patch, self.patch, width // self.patch, self.patch, 3).mean((2, 4))
        starts = range(1, frames - 3, 4)
        averaged = torch.stack([small[0], *(small[start : start + 4].mean(0) for start in starts)])
        return torch.einsum("thwr,cr->cthw", averaged * 2.0 - 1.0, self.colours).unsqueeze(0)
