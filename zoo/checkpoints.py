"""Model files: fp16 tensors under the keys that ComfyUI's diffusion-model loader accepts."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from .wan import TinyWan, TinyWanConfig


def save_checkpoint(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Writes the weights in fp16 with string metadata saying where they come from."""
    tensors = {key: value.detach().half().cpu().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, path, metadata=metadata)


def load_checkpoint(
    path: Path, family: str = "wan", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The model of a file in evaluation mode; fp16 weights are converted to dtype, as ComfyUI does on a CPU."""
    state_dict = load_file(path)
    model = build(state_dict, family)
    model.load_state_dict(state_dict)
    return model.to(device, dtype).requires_grad_(False).eval()


def build(state_dict: dict[str, torch.Tensor], family: str) -> nn.Module:
    """An untrained model with the sizes that the tensors of a file show. Raises ValueError for an unknown family."""
    if family == "wan":
        return TinyWan(TinyWanConfig.from_state_dict(state_dict))
    if family == "hunyuan":
        from .hunyuan import SmallHunyuan, SmallHunyuanConfig

        return SmallHunyuan(SmallHunyuanConfig.from_state_dict(state_dict))
    raise ValueError(f"No model family is called {family!r}: wan or hunyuan.")


def read_provenance(path: Path) -> dict[str, str]:
    """The metadata of a file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}
