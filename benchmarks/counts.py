"""What the cache adds to an evaluation, counted: reads by the host, each of which waits for the device, and operators,
each of which is one kernel or none. The model's own are counted without the cache and taken off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..bwcache_core.config import BWCacheConfig
from .account import Account
from .clocks import HostClock
from .shapes import Shape

READS = {
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.__float__,
    torch.Tensor.__int__, torch.Tensor.__bool__, torch.Tensor.__index__, torch.Tensor.nonzero, torch.equal,
    torch.allclose,
}  # fmt: skip


class HostReads(TorchFunctionMode):
    """Counts calls that bring values of a tensor to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in READS
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Counts operators that reach a device; views do not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Counts:
    """Added by the cache to one evaluation."""

    mode: str
    action: str
    host_reads: int
    operators: int


def counts_of(module: torch.nn.Module, shape: Shape, modes: dict[str, BWCacheConfig], computed: int) -> list[Counts]:
    """For each mode, one computed evaluation that is the `computed`-th, and the reused one after it."""
    plain = counted(Account(module, shape, HostClock(), None))
    found = []
    for mode, config in modes.items():
        account = Account(module, shape, HostClock(), config)
        for _ in range(computed - 1):
            account.evaluate()
        for base in (plain, None):  # a reused evaluation runs no block, and what is left of the model reads nothing
            action, reads, operators = counted(account)
            found.append(Counts(mode, action, reads - (base[1] if base else 0), operators - (base[2] if base else 0)))
    return found


def counted(account: Account) -> tuple[str, int, int]:
    """Action, host reads and operators of the next evaluation."""
    with HostReads() as reads, Operators() as operators:
        evaluation = account.evaluate()
    return evaluation.action, reads.count, operators.count
