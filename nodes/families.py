"""Which diffusion models are supported: one row per model class.

A class is listed when its forward asks `patches_replace["dit"]` for every block and calls DIFFUSION_MODEL wrappers, or
lacks one of the two and its row says so: without wrappers in its forward, those around the denoised latent serve;
without block hooks that work, only the model's output can be cached. What controls add between blocks acts on the
hidden state of computed steps; of a reused step only what is added after the last block reaches the head, once, on top
of the forecast. Rows that add there say so.
"""

from __future__ import annotations

from dataclasses import dataclass


class UnsupportedModelError(TypeError):
    """The model cannot be cached. The message names its class and what is supported."""


@dataclass(frozen=True)
class Family:
    """One row.

    kinds: (hook kind, attribute with the blocks), in running order. note: what a user should know.
    hooked: the forward asks for block hooks, and they work. wrapped: it calls DIFFUSION_MODEL wrappers.
    """

    name: str
    kinds: tuple[tuple[str, str], ...]
    note: str = ""
    hooked: bool = True
    wrapped: bool = True


BLOCKS = (("double_block", "blocks"),)
TRANSFORMER_BLOCKS = (("double_block", "transformer_blocks"),)
DOUBLE_AND_SINGLE = (("double_block", "double_blocks"), ("single_block", "single_blocks"))
# What the paper says of image models (arXiv:2509.13789); the presets here were measured on video.
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
    "AsymmDiTJoint": Family("Mochi", BLOCKS, wrapped=False),
    "Kandinsky5": Family(
        "Kandinsky 5", (("", "visual_transformer_blocks"),), "its hooks cannot call the block: no argument x", hooked=False
    ),
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
    "NextDiT": Family("Lumina 2 / Z-Image", (("", "layers"),), IMAGE, hooked=False),
    "MiniTrainDIT": Family("Cosmos Predict 2", (("", "blocks"),), hooked=False),
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


def require_hooks(layout: BlockLayout) -> None:
    """Raises UnsupportedModelError where block features are to be cached and the model asks for no block hooks."""
    if not layout.family.hooked:
        raise UnsupportedModelError(
            f"{layout.model} ({layout.family.name}) has no block hooks that work, so only its output can be cached. "
            "Set mode to adaptive and cache_point to auto or output, or remove BWCache Apply."
        )


def block_layout(diffusion_model: object) -> BlockLayout:
    """Layout of a loaded model. Raises UnsupportedModelError for a class without a row, or a model without blocks."""
    model = getattr(diffusion_model, "_orig_mod", diffusion_model)  # torch.compile wraps the module
    name = type(model).__name__.removeprefix("FSDP")  # which torch's fully_shard puts before it
    family = FAMILIES.get(name)
    if family is None:
        supported = ", ".join(sorted({row.name for row in FAMILIES.values()}))
        raise UnsupportedModelError(
            f"BWCache does not support {name}. Supported: {supported}. Connect one of these, or remove BWCache Apply."
        )
    keys = [(kind, i) for kind, attribute in family.kinds for i in range(len(getattr(model, attribute, ())))]
    if not keys:
        raise UnsupportedModelError(f"{name} has no transformer blocks: was the checkpoint loaded completely?")
    return BlockLayout(name, tuple(keys), family)
