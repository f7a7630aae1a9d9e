"""A model whose linear layers hold int8 weights and unpack them at each use, as GGUF's loaders have it."""

from __future__ import annotations

from pathlib import Path

import torch


def load(path: Path):
    """The model of a checkpoint, through the entry that GGUF packs use: custom operations."""
    import comfy.sd
    import comfy.utils

    tensors, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    options = {"custom_operations": operations()}
    return comfy.sd.load_diffusion_model_state_dict(tensors, model_options=options, metadata=metadata)


def operations() -> type:
    """comfy.ops with a Linear that packs what it loads."""
    import comfy.ops

    class Packed(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def _load_from_state_dict(self, state, prefix, *args, **kwargs) -> None:
                weight = state[f"{prefix}weight"].float()
                scale = weight.abs().amax(1, keepdim=True) / 127
                self.register_buffer("scale", scale)
                self.weight = torch.nn.Parameter((weight / scale).round().to(torch.int8), requires_grad=False)
                self.bias = (
                    torch.nn.Parameter(state[f"{prefix}bias"], requires_grad=False)
                    if f"{prefix}bias" in state
                    else None
                )

            def forward_comfy_cast_weights(self, x):
                return torch.nn.functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)

            def forward(self, x, *args, **kwargs):
                return self.forward_comfy_cast_weights(x)

    return Packed
