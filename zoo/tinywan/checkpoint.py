"""TinyWan's file: fp16 tensors under bare Wan 2.1 keys, as ComfyUI's diffusion-model loader accepts them."""

from pathlib import Path

import torch

from .. import checkpoints
from ..checkpoints import read_provenance, save_checkpoint
from ..wan import TinyWan

__all__ = ["DEFAULT_PATH", "load_checkpoint", "read_provenance", "save_checkpoint"]

DEFAULT_PATH = Path(__file__).with_name("tinywan.safetensors")


def load_checkpoint(path: Path = DEFAULT_PATH, device: str = "cpu", dtype: torch.dtype = torch.float32) -> TinyWan:
    """The model of a file in evaluation mode."""
    return checkpoints.load_checkpoint(path, "wan", device, dtype)
