"""What ComfyUI knows about memory and shapes before a run, in the terms of bwcache_core: where the cache will lie.

Reads the objects that a run is started with, and loads nothing. What cannot be found out is left open: then the cache
lies where the settings say, and the report has the exact bytes from the first evaluation on.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence

import torch

from ..bwcache_core.config import CPU, GPU, BlockConfig
from ..bwcache_core.paper.block_mode import ConditionShape
from ..bwcache_core.paper.memory import footprint
from ..bwcache_core.paper.placement import SHARE_OF_HOST, SMALL, Placement, Room, place
from .families import BlockLayout

WIDTHS = ("dim", "hidden_size", "inner_dim")  # what diffusion models call the width of their hidden states
JOINT = "single_block"  # kind of a block whose hidden states are text and image
NOWHERE = ("cpu", "meta")  # where weights lie that are still to be loaded
RETURNS_TEXT = "double_blocks"  # models that keep blocks under this name return text beside the image

logger = logging.getLogger(__name__)


def placement_of(config: BlockConfig, layout: BlockLayout, guider, noise: torch.Tensor, alone: bool = True) -> Placement:
    """Where a run from `noise` (B, C, ...) under `guider` keeps what it reuses.

    alone: False where other processes run the same sampling: free memory is not looked at, as all must decide alike.
    """
    size, room = None, Room(rounded=pins() is None)
    try:
        size = footprint(config, condition_shapes(layout, guider, noise.shape))
        room = room_beside(guider, noise.shape) if alone else room
    except Exception as error:  # another version of ComfyUI, another guider: sampling goes on
        logger.warning("BWCache cannot tell how much memory is free, and does not look: %r", error)
    return place(config, size, room)


def condition_shapes(layout: BlockLayout, guider, noise_shape: Sequence[int]) -> list[ConditionShape]:
    """Shapes of every condition of an evaluation: each prompt, in each context window."""
    patcher = guider.model_patcher
    module = patcher.get_model_object("diffusion_model")
    module = getattr(module, "_orig_mod", module)  # torch.compile wraps it
    width = next((size for name in WIDTHS if isinstance(size := getattr(module, name, None), int)), 0)
    row = noise_shape[0] * width * itemsize(patcher, module)
    extents, texts = windows(guider, noise_shape), text_lengths(guider)
    return [block_shape(row, layout, module, extent, text) for extent in extents for text in texts]


def block_shape(
    row: int, layout: BlockLayout, module: torch.nn.Module, extent: Sequence[int], text: int
) -> ConditionShape:
    """The token counts of every block, where the model tells its width and patch size. row: bytes of one token."""
    patch = getattr(module, "patch_size", None)
    if not row or not patch:
        return ConditionShape(row)
    patch = [patch] * len(extent) if isinstance(patch, int) else patch[-len(extent) :]
    image = math.prod(math.ceil(size / step) for size, step in zip(extent, patch, strict=True))
    both = image + text
    hidden = [both if kind == JOINT else image for kind, _ in layout.keys]
    returned = [both] * len(hidden) if hasattr(module, RETURNS_TEXT) else hidden
    return ConditionShape(row, tuple(hidden), tuple(returned))


def windows(guider, noise_shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Extents (frames, height, width) of the latents that a model call sees: one, or those of all context windows."""
    extent = tuple(noise_shape[2:])
    handler = guider.model_options.get("context_handler")
    if handler is None or noise_shape[handler.dim] <= handler.context_length:
        return [extent]
    latent = torch.empty(tuple(noise_shape), device="meta")
    lists = [window.index_list for window in handler.get_context_windows(None, latent, guider.model_options)]
    anchored = getattr(handler, "causal_window_fix", False)  # a frame more, before a window that does not begin at 0
    frames = [len(indices) + int(anchored and indices[0] > 0) for indices in lists]
    axis = handler.dim - 2
    return [(*extent[:axis], count, *extent[axis + 1 :]) for count in frames]


def text_lengths(guider) -> list[int]:
    """Text tokens of each prompt that runs; a guidance of 1 leaves out the negative ones. Two prompts if unknown."""
    guided = getattr(guider, "cfg", None) != 1.0 or guider.model_options.get("disable_cfg1_optimization", False)
    prompts = getattr(guider, "conds", None)
    if not prompts:
        return [0, 0] if guided else [0]
    entries = [entry for name, prompt in prompts.items() if guided or name != "negative" for entry in prompt]
    texts = [entry.get("cross_attn") for entry in entries]
    return [0 if text is None else text.shape[1] for text in texts]


def itemsize(patcher, module: torch.nn.Module) -> int:
    """Bytes of a number in the model's computation, which the weights may be cast to."""
    inference = getattr(getattr(patcher, "model", None), "get_dtype_inference", None)
    dtype = inference() if inference else next(module.parameters()).dtype
    return dtype.itemsize


def room_beside(guider, noise_shape: Sequence[int]) -> Room:
    """What is free beside the weights of all models of a run and its inference, once ComfyUI unloaded all others."""
    management, patcher = sys.modules.get("comfy.model_management"), guider.model_patcher
    device = getattr(patcher, "load_device", None)
    if management is None or device is None:  # the embedded host, which loads nothing
        module = patcher.get_model_object("diffusion_model")
        on_cpu = next(module.parameters()).device.type == "cpu"
        return Room(devices=(CPU,) if on_cpu else (GPU, CPU))
    host = management.get_free_memory(torch.device("cpu"))
    if device.type == "cpu":
        return Room(host=host, devices=(CPU,))
    if device.type == "mps":
        return Room(spare=int(SHARE_OF_HOST * host), devices=(GPU,))
    models, more = models_of(guider)
    inference = patcher.model.memory_required([2 * noise_shape[0], *noise_shape[1:]]) + more
    return Room(spare_on(device, management, models, inference), host, rounded=pins() is None)


def models_of(guider) -> tuple[list, float]:
    """Every ModelPatcher that a run loads, its own first: those of control nets, patches, hooks. And bytes that control nets
    need while they run. Source: prepare_sampling in comfy/sampler_helpers.py, load_models_gpu in model_management.py."""
    helpers, patcher = sys.modules["comfy.sampler_helpers"], guider.model_patcher
    conds = getattr(guider, "conds", None) or {}
    beside, inference = helpers.get_additional_models(conds, patcher.model_dtype())
    beside += helpers.get_additional_models_from_model_options(guider.model_options)
    models = [patcher, *beside, *patcher.get_nested_additional_models()]
    patches = [each for model in models for each in model.model_patches_models()]
    return list(dict.fromkeys([*models, *patches])), inference


def spare_on(device: torch.device, management, models: Sequence, inference: float) -> int:
    """Bytes of `device` that neither the weights of `models`, the run's own first, nor inference (two conditions at once)
    will need. Negative if short."""
    free = getattr(models[0], "get_free_memory", management.get_free_memory)(device)  # with weights that can be evicted
    others = [loaded for loaded in management.current_loaded_models if loaded.device == device]
    loaded = sum(other.model_loaded_memory() for other in others if not is_dynamic(other.model))
    inference = max(inference + management.extra_reserved_memory(), management.minimum_inference_memory())
    needed = sum(weights_on(device, model) for model in models if model.load_device == device)
    return int(free + loaded - needed - inference)


def weights_on(device: torch.device, patcher) -> int:
    """Bytes of a model's weights that belong on `device`: all but those that a pack put on another accelerator for good."""
    module = getattr(patcher, "model", None)
    parameters = module.parameters() if isinstance(module, torch.nn.Module) else ()
    elsewhere = sum(p.nbytes for p in parameters if p.device.type not in (*NOWHERE, device.type) or other_one(p.device, device))
    return patcher.model_size() - elsewhere


def other_one(here: torch.device, device: torch.device) -> bool:
    """Whether these are two accelerators of one kind."""
    return here.type == device.type and None not in (here.index, device.index) and here.index != device.index


def is_dynamic(patcher) -> bool:
    """Whether ComfyUI streams this model's weights on demand; what is loaded of them counts as free already."""
    return bool(getattr(patcher, "is_dynamic", bool)())


def worth_telling(extra: int) -> bool:
    """Whether bytes on the device are more than what ComfyUI's own estimates are off by."""
    return extra > SMALL


def enlarged(noise_shape: Sequence[int], extra: int, patcher) -> list[int]:
    """A noise shape, whole numbers as ever, for which ComfyUI reserves `extra` bytes more, or a column of the latent above
    that: its estimate is proportional to the width."""
    *others, width = noise_shape
    plain = patcher.model.memory_required(list(noise_shape))
    return [*others, math.ceil(width * (1.0 + extra / plain))] if plain else list(noise_shape)


class ComfyPins:
    """ComfyUI's account of pinned memory: what it grants counts in its budget, and it may take weights' pins for it."""

    def __init__(self, management) -> None:
        self._management = management

    def pin(self, tensor: torch.Tensor) -> bool:
        return bool(self._management.pin_memory(tensor))

    def unpin(self, tensor: torch.Tensor) -> None:
        self._management.unpin_memory(tensor)


def pins() -> ComfyPins | None:
    """ComfyUI's account; None without ComfyUI."""
    management = sys.modules.get("comfy.model_management")
    return ComfyPins(management) if hasattr(management, "pin_memory") else None
