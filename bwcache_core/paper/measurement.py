"""From sampled features to plain numbers: sums stay on the device until one transfer reads them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed

from .rules import Measured, Position
from .similarity import l1_norms, mean_change, relative_change
from .stream import BlockSample


@dataclass(frozen=True)
class DeviceSums:
    """Sums of one condition, not yet read.

    blocks: the N compared blocks. rows: B.
    numbers: float32 of N*B differences and N*B references of the blocks, B norms of the last block's features, and one
    checksum of them, which is not finite if any of them is not.
    """

    label: str
    blocks: tuple[int, ...]
    rows: int
    numbers: torch.Tensor


@dataclass(frozen=True)
class StreamChanges:
    """What one condition measured, each the largest over rows: change by block, and their mean.

    fault: what is broken; nothing else counts then.
    """

    label: str
    changes: dict[int, float] = field(default_factory=dict)
    change: float | None = None
    fault: str = ""


@dataclass(frozen=True)
class KeptSums:
    """What was measured on one condition's features after the last block: norms (B,) of their sample, a checksum."""

    norms: torch.Tensor
    checksum: torch.Tensor


def kept_sums(features: torch.Tensor, sample_BSD: torch.Tensor) -> KeptSums:
    """Sums over one condition's features and their sample. No host sync."""
    return KeptSums(l1_norms([sample_BSD])[0], features.sum(dtype=torch.float32))


def device_sums(
    label: str, current: dict[int, BlockSample], previous: dict[int, BlockSample], kept: KeptSums
) -> DeviceSums:
    """Compare every block with its sample from another step. No host sync; a few kernels for all blocks together."""
    blocks = tuple(b for b in sorted(current) if b in previous and comparable(current[b], previous[b]))
    parts = [kept.norms, kept.checksum.reshape(1)]
    if blocks:
        before = [previous[b].tokens for b in blocks]
        differences = torch._foreach_sub([current[b].tokens for b in blocks], before)
        parts.insert(0, l1_norms([*differences, *before]).flatten())
    return DeviceSums(label, blocks, len(kept.norms), torch.cat(parts))


def comparable(current: BlockSample, previous: BlockSample) -> bool:
    """A second evaluation of the same step is not a change between steps; another shape cannot be compared."""
    return current.step != previous.step and current.tokens.shape == previous.tokens.shape


def read_sums(
    timestep: torch.Tensor | None, sums: Sequence[DeviceSums], group: torch.distributed.ProcessGroup | None = None
) -> tuple[float | None, list[StreamChanges]]:
    """Bring sigma and all sums to the host in one transfer: the only host sync of an evaluation.

    group: processes that each hold a share of the tokens. Their sums are added up first, so all of them read the same.
    """
    parts = [s.numbers for s in sums]
    if parts and group is not None:
        parts = [torch.cat([part.to(parts[0].device) for part in parts])]
        torch.distributed.all_reduce(parts[0], group=group)
    if timestep is not None:
        parts.insert(0, timestep.flatten()[:1].float())
    if not parts:
        return None, []
    device = parts[0].device
    numbers = torch.cat([part.to(device) for part in parts]).tolist()
    sigma = numbers.pop(0) if timestep is not None else None
    changes = []
    for s in sums:
        count = s.numbers.numel()
        changes.append(decode(s, numbers[:count]))
        del numbers[:count]
    return sigma, changes


def decode(sums: DeviceSums, numbers: Sequence[float]) -> StreamChanges:
    """Numbers of one condition to changes. Broken features are a fault, never "similar" or "not similar"."""
    differences, references, norms, checksum = split_numbers(sums, numbers)
    if not (math.isfinite(checksum) and all(0.0 < norm < math.inf for norm in norms)):
        return StreamChanges(sums.label, fault=f"the features to reuse ({sums.label}) {broken([checksum, *norms])}")
    per_block = {}
    for block, rows, reference_rows in zip(sums.blocks, differences, references, strict=True):
        changes = [relative_change(d, r) for d, r in zip(rows, reference_rows, strict=True)]
        if None in changes:
            problem = broken([*rows, *reference_rows])
            return StreamChanges(sums.label, fault=f"the features of block {block} ({sums.label}) {problem}")
        per_block[block] = changes
    change = max((mean_change(row) for row in zip(*per_block.values(), strict=True)), default=None)
    return StreamChanges(sums.label, {block: max(changes) for block, changes in per_block.items()}, change)


def split_numbers(sums: DeviceSums, numbers: Sequence[float]) -> tuple:
    """Undo the packing of `device_sums`: two lists of rows per block, rows, and the checksum."""
    rows, count = sums.rows, len(sums.blocks)
    table = [list(numbers[start : start + rows]) for start in range(0, len(numbers) - 1, rows)]
    return table[:count], table[count : 2 * count], table[-1], numbers[-1]


def broken(numbers: Sequence[float]) -> str:
    return "are all zero" if all(math.isfinite(number) for number in numbers) else "hold NaN or infinity"


def combine(position: Position, streams: Sequence[StreamChanges]) -> Measured:
    """One verdict for all conditions of an evaluation: the largest change counts, and any fault stands."""
    fault = next((s.fault for s in streams if s.fault), "")
    if fault or not streams:
        return Measured(position, fault=fault)
    changes: dict[int, float] = {}
    for stream in streams:
        for block, change in stream.changes.items():
            changes[block] = max(change, changes.get(block, 0.0))
    return Measured(position, changes, max((s.change for s in streams if s.change is not None), default=None))
