"""TinyWan's file: fp16 tensors under bare Wan 2.1 keys, as ComfyUI's diffusion-model loader accepts them."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..wan import TinyWan, TinyWanConfig

DEFAULT_PATH = Path(__file__).with_name("tinywan.safetensors")


def save_checkpoint(model: TinyWan, path: Path, metadata: dict[str, str]) -> None:
    """Writes the weights in fp16 with string metadata saying where they come from."""
    tensors = {key: value.detach().half().cpu().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, path, metadata=metadata)


def load_checkpoint(path: Path = DEFAULT_PATH, device: str = "cpu", dtype: torch.dtype = torch.float32) -> TinyWan:
    """The model of a file in evaluation mode; fp16 weights are converted to dtype, as ComfyUI does on a CPU."""
    state_dict = load_file(path)
    model = TinyWan(TinyWanConfig.from_state_dict(state_dict))
    model.load_state_dict(state_dict)
    return model.to(device, dtype).requires_grad_(False).eval()


def read_provenance(path: Path = DEFAULT_PATH) -> dict[str, str]:
    """The metadata of a file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}
