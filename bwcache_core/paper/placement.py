"""Where a run keeps what it reuses: a pure decision on bytes. No tensor, no device.

Weights that ComfyUI has to evict are streamed back at every step, which costs more than the cache gains. So `auto` takes
the device only while there is room to spare, then the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config import AUTO, CPU, GPU, PAPER, PER_BLOCK, BlockConfig
from .memory import MIB, Footprint, readable

SMALL = 64 * MIB  # what ComfyUI's own estimates are off by: too little to move anything for
SHARE_OF_HOST = 0.5  # of the free host memory: the rest is for weights that ComfyUI keeps there
CACHED = {PAPER: "features", PER_BLOCK: "residuals of all blocks"}


@dataclass(frozen=True)
class Room:
    """Free memory in bytes; None where it is not known.

    spare: on the model's device, beside weights and inference. host: of the processor. devices: the places there are:
    one where the model runs on the processor, or shares its memory. rounded: pinned memory comes in powers of two.
    """

    spare: int | None = None
    host: int | None = None
    devices: tuple[str, ...] = (GPU, CPU)
    rounded: bool = True


@dataclass(frozen=True)
class Placement:
    """The decision. device: GPU (the model's) or CPU (the host); "" caches nothing.

    held: bytes that will be kept, None if not known. reserved: what the model's device has to give, for good and while
    a block runs. reason: why it is not what was asked for; empty where it is.
    """

    device: str
    held: int | None = None
    reserved: int = 0
    reason: str = ""

    def put_into(self, config: BlockConfig) -> BlockConfig:
        """`config` with this decision in the place of "auto"."""
        return replace(config, cache_device=self.device) if self.device else config


def place(config: BlockConfig, size: Footprint | None, room: Room) -> Placement:
    """The first device that has room for `size`."""
    refusals: list[str] = []
    for device in devices(config, room):
        offloaded = device == CPU and GPU in room.devices
        refusal = refused(config, device, size, offloaded, room)
        if not refusal:
            held = tensor_bytes(size, offloaded, room) + size.samples if size else None
            reserved = on_device(size, offloaded) if size else 0
            return Placement(device, held, reserved, explained(refusals, config, device))
        refusals.append(refusal)
    return Placement("", reason=", ".join(dict.fromkeys(refusals)))


def devices(config: BlockConfig, room: Room) -> tuple[str, ...]:
    """Where tensors may lie, best first."""
    return (config.cache_device,) if config.cache_device in room.devices else room.devices


def tensor_bytes(size: Footprint, offloaded: bool, room: Room) -> int:
    """Bytes of features or residuals. offloaded: in host memory, of a model that runs on a GPU."""
    return size.pinned if offloaded and room.rounded else size.tensors


def on_device(size: Footprint, offloaded: bool) -> int:
    """Bytes that the model's device has to give."""
    return size.passing + (size.samples if offloaded else size.total)


def refused(config: BlockConfig, device: str, size: Footprint | None, offloaded: bool, room: Room) -> str:
    """Why there is no room for `size` bytes. Empty where there is, or where it is not known."""
    if size is None:
        return ""
    tensors, what = tensor_bytes(size, offloaded, room), CACHED[config.mode]
    held = tensors + size.samples
    if config.budget and held > config.budget:
        return f"{what} would take {readable(held)}, over max_cache_mb {config.max_cache_mb}"
    needed = tensors if device == CPU else on_device(size, offloaded)
    limit = spare_bytes(config, device, room)
    if limit is None or needed <= max(limit, SMALL):
        return ""
    where = "on a GPU" if device == GPU else "in host memory"
    return f"{what} would take {readable(needed)} {where} with {readable(max(limit, 0))} to spare"


def spare_bytes(config: BlockConfig, device: str, room: Room) -> int | None:
    """Bytes that "auto" may take there. None is no limit: a device that the user chose is not questioned."""
    if config.cache_device != AUTO:
        return None
    if device == GPU:
        return room.spare
    return None if config.budget or room.host is None else int(SHARE_OF_HOST * room.host)


def explained(refusals: Sequence[str], config: BlockConfig, device: str) -> str:
    """Why it came to be kept there, where that was not the first choice."""
    if not refusals:
        return ""
    return f"{', '.join(refusals)}: {CACHED[config.mode]} are cached{' in host memory' if device == CPU else ''} instead"
