"""From the name of a block mode to its class. A new mode is one class, in a file of its own, and one row here."""

from __future__ import annotations

from ..config import PAPER, PER_BLOCK
from .block_mode import BlockMode
from .per_block import PerBlock
from .whole_stack import WholeStack

BLOCK_MODES: dict[str, type[BlockMode]] = {PAPER: WholeStack, PER_BLOCK: PerBlock}
