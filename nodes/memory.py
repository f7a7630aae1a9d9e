"""What ComfyUI knows about memory and shapes before a run, in the terms of bwcache_core: where the cache will lie.

Reads the objects that a run is started with, and loads nothing. What cannot be found out is left open: then the cache
lies where the settings say, and the report has the exact bytes from the first evaluation on.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..bwcache_core.config import CPU, GPU, BWCacheConfig
from ..bwcache_core.memory import ConditionShape, footprint
from ..bwcache_core.placement import SHARE_OF_HOST, Placement, Room, cache_points, place
from .families import BlockLayout

WIDTHS = ("dim", "hidden_size", "inner_dim")  # what diffusion models call the width of their hidden states
JOINT = "single_block"  # kind of a block whose hidden states are text and image
SAMPLER_ITEMSIZE = torch.float32.itemsize  # what samplers compute in
RETURNS_TEXT = "double_blocks"  # models that keep blocks under this name return text beside the image

logger = logging.getLogger(__name__)


def plan(
    config: BWCacheConfig, layout: BlockLayout, guider, noise: torch.Tensor, carried: int = 0, alone: bool = True
) -> Placement:
    """Where a run from `noise` (B, C, ...) under `guider` keeps what it reuses.

    carried: tensors that the corrector keeps for each condition. alone: False where other processes run the same
    sampling: free memory is not looked at, as all must decide alike.
    """
    sizes, room = dict.fromkeys(cache_points(config)), Room()
    try:
        shapes = condition_shapes(layout, guider, noise.shape)
        sizes = {point: footprint(replace(config, cache_point=point), shapes, carried) for point in sizes}
        room = room_beside(guider.model_patcher, noise.shape) if alone else room
    except Exception as error:  # another version of ComfyUI, another guider: sampling goes on
        logger.warning("BWCache cannot tell how much memory is free, and does not look: %r", error)
    return place(config, sizes, room)


def condition_shapes(layout: BlockLayout, guider, noise_shape: Sequence[int]) -> list[ConditionShape]:
    """Shapes of every condition of an evaluation: each prompt, in each context window."""
    patcher = guider.model_patcher
    module = patcher.get_model_object("diffusion_model")
    module = getattr(module, "_orig_mod", module)  # torch.compile wraps it
    rows, channels, *_ = noise_shape
    size = itemsize(patcher, module)
    of_output = size if layout.family.wrapped else SAMPLER_ITEMSIZE
    shapes = []
    for extent in windows(guider, noise_shape):
        common = ConditionShape(rows, channels, math.prod(extent), size, of_output)
        shapes += [with_blocks(common, layout, module, extent, text) for text in text_lengths(guider)]
    return shapes


def with_blocks(
    shape: ConditionShape, layout: BlockLayout, module: torch.nn.Module, extent: Sequence[int], text: int
) -> ConditionShape:
    """`shape` with the token counts of every block, where the model tells its width and patch size."""
    width = next((size for name in WIDTHS if isinstance(size := getattr(module, name, None), int)), 0)
    patch = getattr(module, "patch_size", None)
    if not width or not patch:
        return shape
    patch = [patch] * len(extent) if isinstance(patch, int) else patch[-len(extent) :]
    image = math.prod(math.ceil(size / step) for size, step in zip(extent, patch, strict=True))
    both = image + text
    hidden = [both if kind == JOINT else image for kind, _ in layout.keys]
    returned = [both] * len(hidden) if hasattr(module, RETURNS_TEXT) else hidden
    return replace(shape, width=width, hidden=tuple(hidden), returned=tuple(returned))


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


def room_beside(patcher, noise_shape: Sequence[int]) -> Room:
    """What is free beside the model's weights and its inference, once ComfyUI has unloaded all other models."""
    management = sys.modules.get("comfy.model_management")
    device = getattr(patcher, "load_device", None)
    if management is None or device is None:  # the embedded host, which loads nothing
        return Room(devices=(CPU,))
    host = management.get_free_memory(torch.device("cpu"))
    if device.type == "cpu":
        return Room(host=host, devices=(CPU,))
    if device.type == "mps":
        return Room(spare=int(SHARE_OF_HOST * host), devices=(GPU,))
    return Room(spare_on(device, management, patcher, noise_shape), host)


def spare_on(device: torch.device, management, patcher, noise_shape: Sequence[int]) -> int:
    """Bytes of `device` that neither weights nor inference (two conditions at once) will need. Negative if short."""
    free = getattr(patcher, "get_free_memory", management.get_free_memory)(device)  # with weights that can be evicted
    others = [loaded for loaded in management.current_loaded_models if loaded.device == device]
    loaded = sum(other.model_loaded_memory() for other in others if not is_dynamic(other.model))
    inference = patcher.model.memory_required([2 * noise_shape[0], *noise_shape[1:]])
    inference = max(inference + management.extra_reserved_memory(), management.minimum_inference_memory())
    needed = patcher.model_size() + inference
    return int(free + loaded - needed)


def is_dynamic(patcher) -> bool:
    """Whether ComfyUI streams this model's weights on demand; what is loaded of them counts as free already."""
    return bool(getattr(patcher, "is_dynamic", bool)())


def enlarged(noise_shape: Sequence[int], extra: int, patcher) -> list:
    """A noise shape for which ComfyUI reserves `extra` bytes more: its estimate is proportional to the batch."""
    plain = patcher.model.memory_required(list(noise_shape))
    return [noise_shape[0] * (1.0 + extra / plain), *noise_shape[1:]] if plain else list(noise_shape)
