"""Which diffusion models the block modes support: one row per model class.

A class is listed when its forward asks `patches_replace["dit"]` for every block. It calls DIFFUSION_MODEL wrappers too, or
its row says that it does not: then those around the denoised latent serve. What controls add between blocks acts on the
hidden state of computed steps; of a reused step only what is added after the last block reaches the head, once, on top
of what is replayed. Rows that add there say so. Not listed for want of block hooks that work: Kandinsky 5, Lumina 2,
Z-Image, Cosmos Predict 2.
"""

from __future__ import annotations

from dataclasses import dataclass


class UnsupportedModelError(TypeError):
    """The model's blocks cannot be cached. The message names its class and what is supported."""

    __module__ = "builtins"  # ComfyUI shows users the name with its module, and ours is a path


@dataclass(frozen=True)
class Family:
    """One row.

    kinds: (hook kind, attribute with the blocks), in running order. note: what a user should know.
    wrapped: the forward calls DIFFUSION_MODEL wrappers. packed: hidden states are (L, D), of one row alone.
    """

    name: str
    kinds: tuple[tuple[str, str], ...]
    note: str = ""
    wrapped: bool = True
    packed: bool = False


BLOCKS = (("double_block", "blocks"),)
TRANSFORMER_BLOCKS = (("double_block", "transformer_blocks"),)
DOUBLE_AND_SINGLE = (("double_block", "double_blocks"), ("single_block", "single_blocks"))
# What the paper says of image models (arXiv:2509.13789).
IMAGE = "image model: change over the steps is an inverted L, not a U"
IMAGE_CONTROLLED = f"{IMAGE}; control adds after the last block"

FAMILIES = {
    "WanModel": Family("Wan 2.1 / 2.2", BLOCKS),
    "VaceWanModel": Family("Wan VACE", BLOCKS, "VACE blocks add after the last block"),
    "CameraWanModel": Family("Wan Camera", BLOCKS),
    "WanModel_S2V": Family("Wan S2V", BLOCKS, "audio is injected after the last block"),
    "HumoWanModel": Family("Wan HuMo", BLOCKS),
    "SCAILWanModel": Family("Wan SCAIL", BLOCKS),
    "SCAIL2WanModel": Family("Wan SCAIL 2", BLOCKS),
    "AnimateWanModel": Family("Wan Animate", BLOCKS, "the face adapter adds after every fifth block"),
    "WanAnimate2Model": Family("Wan Animate 2", BLOCKS, "the pose branch runs in reused steps too"),
    "WanDancerModel": Family("Wan Dancer", BLOCKS, "music is injected after blocks"),
    "CausalWanModel": Family("Wan causal", BLOCKS, "autoregressive sampling bypasses hooks: it runs uncached"),
    "HunyuanVideo": Family("HunyuanVideo / 1.5", DOUBLE_AND_SINGLE, "control adds after the last block"),
    "TinyWan": Family("TinyWan", BLOCKS),
    "LTXVModel": Family("LTX-Video", TRANSFORMER_BLOCKS, "without sound: LTX-2 makes two latents at once"),
    "MiniMaxH3Model": Family("MiniMax-H3", BLOCKS, "one prompt: with guidance the model itself fails", packed=True),
    "AsymmDiTJoint": Family("Mochi", BLOCKS, wrapped=False),
    "Flux": Family("Flux / Flux 2", DOUBLE_AND_SINGLE, IMAGE_CONTROLLED),
    "Chroma": Family("Chroma", DOUBLE_AND_SINGLE, IMAGE_CONTROLLED),
    "ChromaRadiance": Family("Chroma Radiance", DOUBLE_AND_SINGLE, IMAGE_CONTROLLED),
    "QwenImageTransformer2DModel": Family("Qwen-Image", TRANSFORMER_BLOCKS, IMAGE_CONTROLLED),
    "OpenAISignatureMMDITWrapper": Family(
        "Stable Diffusion 3", (("double_block", "joint_blocks"),), IMAGE_CONTROLLED, wrapped=False
    ),
    "MMDiT": Family("AuraFlow", (("double_block", "double_layers"), ("single_block", "single_layers")), IMAGE),
    "LensTransformer2DModel": Family("Lens", TRANSFORMER_BLOCKS, IMAGE_CONTROLLED),
    "MageFlowTransformer2DModel": Family("Mage-Flow", TRANSFORMER_BLOCKS, IMAGE_CONTROLLED),
    "JoyImageTransformer3DModel": Family("JoyImage", (("double_block", "double_blocks"),), IMAGE),
}


@dataclass(frozen=True)
class BlockLayout:
    """The blocks of one model: its class, and the hook key (kind, index) of each block in running order.

    family: the row of the class.
    """

    model: str
    keys: tuple[tuple[str, int], ...]
    family: Family

    @property
    def block_count(self) -> int:
        return len(self.keys)


def block_layout(diffusion_model: object) -> BlockLayout:
    """Layout of a loaded model. Raises UnsupportedModelError for a class without a row, or a model without blocks."""
    model = getattr(diffusion_model, "_orig_mod", diffusion_model)  # torch.compile wraps the module
    name = type(model).__name__.removeprefix("FSDP")  # which torch's fully_shard puts before it
    family = FAMILIES.get(name)
    if family is None:
        supported = ", ".join(sorted({row.name for row in FAMILIES.values()}))
        raise UnsupportedModelError(
            f"The block modes (paper, per block) do not support {name}. They support {supported}. Mode forecast serves "
            "every model: choose it, or connect one of these."
        )
    keys = [(kind, i) for kind, attribute in family.kinds for i in range(len(getattr(model, attribute, ())))]
    if not keys:
        raise UnsupportedModelError(f"{name} has no transformer blocks: was the checkpoint loaded completely?")
    return BlockLayout(name, tuple(keys), family)
