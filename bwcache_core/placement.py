"""Where a run keeps what it reuses: a pure decision on bytes. No tensor, no device.

Weights that ComfyUI has to evict are streamed back at every step, which costs more than the cache gains. So `auto` takes
the device only while there is room to spare, then caches less (the output instead of the features), then the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .config import ADAPTIVE, AUTO, CPU, FEATURES, GPU, OUTPUT, PER_BLOCK, BWCacheConfig
from .memory import MIB, Footprint, readable

SMALL = 64 * MIB  # what ComfyUI's own estimates are off by: too little to move anything for
SHARE_OF_HOST = 0.5  # of the free host memory: the rest is for weights that ComfyUI keeps there
CACHED = {FEATURES: "features", OUTPUT: "the output", PER_BLOCK: "residuals of all blocks"}


@dataclass(frozen=True)
class Room:
    """Free memory in bytes; None where it is not known.

    spare: on the model's device, beside weights and inference. host: of the processor. devices: the places there are:
    one where the model runs on the processor, or shares its memory.
    """

    spare: int | None = None
    host: int | None = None
    devices: tuple[str, ...] = (GPU, CPU)


@dataclass(frozen=True)
class Placement:
    """The decision. point: FEATURES or OUTPUT. device: GPU (the model's) or CPU (the host); "" caches nothing.

    size: bytes to be held, None if not known. reserved: those of them on the model's device. reason: why it is not what
    was asked for; empty where it is.
    """

    point: str
    device: str
    size: Footprint | None = None
    reserved: int = 0
    reason: str = ""

    def settle(self, config: BWCacheConfig) -> BWCacheConfig:
        """`config` with this decision in the place of "auto"."""
        if not self.device:
            return config
        return replace(config, cache_point=self.point, cache_device=self.device)


def cache_points(config: BWCacheConfig) -> tuple[str, ...]:
    """What may be cached, best first. Adaptive forecasts the output about as well as the features."""
    if config.mode == ADAPTIVE and not config.caches_output:
        return (FEATURES, OUTPUT)
    return (OUTPUT,) if config.caches_output else (FEATURES,)


def place(config: BWCacheConfig, sizes: Mapping[str, Footprint | None], room: Room) -> Placement:
    """The first place that has room. sizes: bytes by cache point, for all of cache_points."""
    refusals: list[str] = []
    for device in devices(config, room):
        for point in cache_points(config):
            refusal = refused(config, device, point, sizes[point], room)
            if not refusal:
                reserved = reserved_bytes(sizes[point], offloaded=device == CPU and GPU in room.devices)
                reason = explained(refusals, config, point, device)
                return Placement(point, device, sizes[point], reserved, reason)
            refusals.append(refusal)
    return Placement(cache_points(config)[0], "", reason=", ".join(refusals))


def devices(config: BWCacheConfig, room: Room) -> tuple[str, ...]:
    """Where tensors may lie, best first."""
    return (config.cache_device,) if config.cache_device in room.devices else room.devices


def reserved_bytes(size: Footprint | None, offloaded: bool) -> int:
    """Bytes that the model's device will hold."""
    if size is None:
        return 0
    return size.samples if offloaded else size.total


def refused(config: BWCacheConfig, device: str, point: str, size: Footprint | None, room: Room) -> str:
    """Why there is no room for `size` bytes. Empty where there is, or where it is not known."""
    if size is None:
        return ""
    if config.budget and size.total > config.budget:
        return f"{named(config, point)} would take {readable(size.total)}, over max_cache_mb {config.max_cache_mb}"
    needed = size.tensors if device == CPU else size.total
    limit = spare_bytes(config, device, room)
    if limit is None or needed <= max(limit, SMALL):
        return ""
    where = "on a GPU" if device == GPU else "in host memory"
    return f"{named(config, point)} would take {readable(needed)} {where} with {readable(max(limit, 0))} to spare"


def spare_bytes(config: BWCacheConfig, device: str, room: Room) -> int | None:
    """Bytes that "auto" may take there. None is no limit: a device that the user chose is not questioned."""
    if config.cache_device != AUTO:
        return None
    if device == GPU:
        return room.spare
    return None if config.budget or room.host is None else int(SHARE_OF_HOST * room.host)


def explained(refusals: Sequence[str], config: BWCacheConfig, point: str, device: str) -> str:
    """Why it came to be kept there, where that was not the first choice."""
    if not refusals:
        return ""
    verb, where = "is" if point == OUTPUT else "are", " in host memory" if device == CPU else ""
    return f"{', '.join(refusals)}: {named(config, point)} {verb} cached{where} instead"


def named(config: BWCacheConfig, point: str) -> str:
    return CACHED[PER_BLOCK if config.mode == PER_BLOCK else point]
