"""Places for the tensors that a run keeps. They are written in place: once all are there, a run allocates no more."""

from __future__ import annotations

import weakref
from typing import Protocol

import torch


class Pins(Protocol):
    """Whoever keeps account of pinned host memory."""

    def pin(self, tensor: torch.Tensor) -> bool:
        """Pin the memory of a tensor in host memory, if there is a budget for it. Returns whether it is."""

    def unpin(self, tensor: torch.Tensor) -> None:
        """The memory of a tensor that was pinned is about to go."""


class Buffer:
    """Room for one tensor (any shape), on that tensor's device or in host memory. Holds copies only.

    pins: pins host memory; without one torch does, in powers of two.

    Copies to and from the host are queued on the current stream of the tensor's device, as are the kernels that made
    the tensor and those that will read it: so they run in order, and nobody waits. The host never looks at the bytes.
    """

    def __init__(self, like: torch.Tensor, on_host: bool = False, pins: Pins | None = None) -> None:
        self.home = like.device
        self._rounded = pins is None
        with torch.inference_mode(False):  # else only inference mode may write: ComfyUI's threads are not in it
            if on_host and self.home.type != "cpu":
                pinned = self.home.type == "cuda"
                self._tensor = host_memory(like.shape, like.dtype, pinned=pinned and pins is None)
                if pinned and pins is not None and pins.pin(self._tensor):
                    weakref.finalize(self, let_go, pins, self._tensor, self.home).atexit = False
            else:
                self._tensor = torch.empty_like(like)  # its strides too: HunyuanVideo's image tokens are transposed
        self._asynchronous = self._tensor.is_pinned()  # a copy to other host memory must be waited for

    @property
    def nbytes(self) -> int:
        """What it takes where it lies."""
        return pinned_bytes(self._tensor.nbytes) if self._asynchronous and self._rounded else self._tensor.nbytes

    def fits(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` can be put here."""
        here = (self._tensor.shape, self._tensor.dtype, self.home)
        return here == (tensor.shape, tensor.dtype, tensor.device)

    def put(self, tensor: torch.Tensor, minus: torch.Tensor | None = None) -> None:
        """Copy `tensor`, or what it has over `minus`, here, over what was here. It must fit."""
        if minus is not None and self._tensor.device == self.home:
            torch.sub(tensor, minus, out=self._tensor)
            return
        tensor = tensor if minus is None else tensor - minus
        self._tensor.copy_(tensor, non_blocking=self._asynchronous)

    def get(self) -> torch.Tensor:
        """What is here, on its own device. Only to be read: it may be the place itself, and the next put changes it."""
        return self._tensor.to(self.home, non_blocking=self._asynchronous)


def let_go(pins: Pins, tensor: torch.Tensor, device: torch.device) -> None:
    """Unpin `tensor` once no copy of `device` reads or writes it any more."""
    torch.cuda.synchronize(device)
    pins.unpin(tensor)


def pinned_bytes(count: int) -> int:
    """What torch takes of the host for `count` bytes of pinned memory: a power of two."""
    return 1 << (count - 1).bit_length() if count > 0 else 0


def host_memory(shape: torch.Size, dtype: torch.dtype, pinned: bool) -> torch.Tensor:
    """Uninitialised host memory: pinned if asked for and granted, which the system limits, else pageable."""
    if pinned:
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        except RuntimeError:  # slower copies are better than none
            pass
    return torch.empty(shape, dtype=dtype)


def stored(
    buffer: Buffer | None, tensor: torch.Tensor, on_host: bool, minus: torch.Tensor | None = None, pins: Pins | None = None
) -> Buffer:
    """A buffer that holds a copy of `tensor`, or of `tensor - minus`: `buffer` where that fits, else a new one."""
    if buffer is None or not buffer.fits(tensor):
        buffer = Buffer(tensor, on_host, pins)
    buffer.put(tensor, minus)
    return buffer
