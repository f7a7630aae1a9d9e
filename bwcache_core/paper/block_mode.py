"""What every block mode has to say: when it reuses, what it keeps of computed blocks, what it returns for reused ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from .rules import Decision, Measured, Position, Rules
from .stream import Stream

Features = dict  # the host's block arguments or results by name; "img" holds the hidden states, (rows, L, D)

HIDDEN = "img"
FEATURE_NAMES = ("img", "txt")  # what blocks of the supported families return


@dataclass(frozen=True)
class ConditionShape:
    """Sizes of one condition's tensors.

    row: bytes of one token of its hidden states, all latents together. hidden: tokens in the hidden states, of each
    block in running order. returned: tokens in all that a block returns. Both are empty where the model does not tell.
    """

    row: int
    hidden: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()


@dataclass(frozen=True)
class BlockMode(ABC):
    """One mode of a run: constants only, what is kept lies in the streams.

    whole_stack: a reused evaluation runs no block, and what its last block returns stands for all of them.
    """

    rules: Rules
    whole_stack: ClassVar[bool]

    @abstractmethod
    def decide(self, position: Position, measured: Sequence[Measured]) -> Decision:
        """Which blocks the evaluation at `position` reuses. measured: every computed evaluation, oldest first."""

    @abstractmethod
    def holds(self, stream: Stream, reuse: frozenset[int]) -> bool:
        """Whether `stream` has what the blocks in `reuse` need."""

    @abstractmethod
    def before(self, args: Features) -> Features:
        """What `keep` needs of a block's input, taken before the block runs."""

    @abstractmethod
    def keep(self, streams: Sequence[Stream], block: int, before: Features, out: Features) -> None:
        """Keep copies of what a later evaluation reuses of a computed block."""

    @abstractmethod
    def replay(self, streams: Sequence[Stream], block: int, args: Features) -> Features:
        """Result of a reused block for `args`: same keys as the block returns."""

    @staticmethod
    @abstractmethod
    def kept_bytes(shape: ConditionShape) -> list[int]:
        """Bytes of each tensor that one condition keeps for replay."""

    @staticmethod
    @abstractmethod
    def passing_bytes(shape: ConditionShape) -> int:
        """Bytes that one condition takes besides, on the model's device, while a block runs."""


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """All conditions in batch order. One alone is handed on as it is: torch.cat would copy it."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
