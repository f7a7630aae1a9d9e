"""Which diffusion models are supported: one row per model class.

A class is listed when its forward asks `patches_replace["dit"]` for every block and calls DIFFUSION_MODEL wrappers.
What controls add between blocks acts on the hidden state of computed steps; of a reused step only what is added after
the last block reaches the head, once, on top of the forecast. Rows that add there say so.
"""

from __future__ import annotations

from dataclasses import dataclass


class UnsupportedModelError(TypeError):
    """The model cannot be cached. The message names its class and what is supported."""


@dataclass(frozen=True)
class Family:
    """One row. kinds: (hook kind, attribute with the blocks), in running order. note: what a user should know."""

    name: str
    kinds: tuple[tuple[str, str], ...]
    note: str = ""


WAN_BLOCKS = (("double_block", "blocks"),)
HUNYUAN_BLOCKS = (("double_block", "double_blocks"), ("single_block", "single_blocks"))

FAMILIES = {
    "WanModel": Family("Wan 2.1 / 2.2", WAN_BLOCKS),
    "VaceWanModel": Family("Wan VACE", WAN_BLOCKS, "VACE blocks add after the last block"),
    "CameraWanModel": Family("Wan Camera", WAN_BLOCKS),
    "WanModel_S2V": Family("Wan S2V", WAN_BLOCKS, "audio is injected after the last block"),
    "HumoWanModel": Family("Wan HuMo", WAN_BLOCKS),
    "SCAILWanModel": Family("Wan SCAIL", WAN_BLOCKS),
    "SCAIL2WanModel": Family("Wan SCAIL 2", WAN_BLOCKS),
    "AnimateWanModel": Family("Wan Animate", WAN_BLOCKS, "the face adapter adds after every fifth block"),
    "WanAnimate2Model": Family("Wan Animate 2", WAN_BLOCKS, "the pose branch runs in reused steps too"),
    "WanDancerModel": Family("Wan Dancer", WAN_BLOCKS, "music is injected after blocks"),
    "CausalWanModel": Family("Wan causal", WAN_BLOCKS, "autoregressive sampling bypasses hooks: it runs uncached"),
    "HunyuanVideo": Family("HunyuanVideo / 1.5", HUNYUAN_BLOCKS, "control adds after the last block"),
    "TinyWan": Family("TinyWan", WAN_BLOCKS),
}


@dataclass(frozen=True)
class BlockLayout:
    """The blocks of one model: its class, and the hook key (kind, index) of each block in running order."""

    model: str
    keys: tuple[tuple[str, int], ...]

    @property
    def block_count(self) -> int:
        return len(self.keys)


def block_layout(diffusion_model: object) -> BlockLayout:
    """Layout of a loaded model. Raises UnsupportedModelError for a class without a row, or a model without blocks."""
    model = getattr(diffusion_model, "_orig_mod", diffusion_model)  # torch.compile wraps the module
    name = type(model).__name__
    family = FAMILIES.get(name)
    if family is None:
        supported = ", ".join(sorted({row.name for row in FAMILIES.values()}))
        raise UnsupportedModelError(
            f"BWCache does not support {name}. Supported: {supported}. Connect one of these, or remove BWCache Apply."
        )
    keys = [(kind, i) for kind, attribute in family.kinds for i in range(len(getattr(model, attribute, ())))]
    if not keys:
        raise UnsupportedModelError(f"{name} has no transformer blocks: was the checkpoint loaded completely?")
    return BlockLayout(name, tuple(keys))
