"""What a run will hold, in bytes, worked out from shapes before it samples.

With S = the bytes of a block's sample (at most 256 of its tokens), one condition holds

    paper        the last block's hidden states and a sample of every monitored block    (B x L x D numbers)
    per block    a residual and a sample of every block                                  (B x L x D, text included)

and "per block" takes copies of one block's inputs besides while that block runs. Memory that torch pins comes in powers of
two. A condition is a prompt in one context window. Exact where every prompt covers the whole latent in every evaluation
and the model adds no tokens of its own; Stream.nbytes is exact once the first evaluation is over.
Shapes: B = latents, L = tokens, D = model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import BlockConfig
from .block_mode import ConditionShape
from .modes import BLOCK_MODES
from .similarity import SAMPLED_TOKENS
from .storage import pinned_bytes

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
CONDITIONS_AT_ONCE = 2  # in one model call, as ComfyUI reckons for its own inference


@dataclass(frozen=True)
class Footprint:
    """Bytes. tensors: features or residuals, wherever they lie. pinned: the same in pinned host memory.
    samples: always on the device, and so is passing: taken only while a block runs.
    """

    tensors: int = 0
    pinned: int = 0
    samples: int = 0
    passing: int = 0

    @property
    def total(self) -> int:
        """All that is held, on the device."""
        return self.tensors + self.samples


def footprint(config: BlockConfig, shapes: Sequence[ConditionShape]) -> Footprint | None:
    """Bytes that a run over these conditions will take. None where that depends on shapes that are not known."""
    if not shapes or not all(shape.hidden for shape in shapes):
        return None
    mode = BLOCK_MODES[config.mode]
    kept = [size for shape in shapes for size in mode.kept_bytes(shape)]
    samples = sum(sampled_bytes(config, shape) for shape in shapes)
    passing = sorted(mode.passing_bytes(shape) for shape in shapes)[-CONDITIONS_AT_ONCE:]
    return Footprint(sum(kept), sum(pinned_bytes(size) for size in kept), samples, sum(passing))


def sampled_bytes(config: BlockConfig, shape: ConditionShape) -> int:
    """Of the samples that one condition keeps."""
    monitored = config.monitored_blocks(len(shape.hidden))
    return sum(shape.row * min(shape.hidden[block], SAMPLED_TOKENS) for block in monitored)


def readable(count: float) -> str:
    """Bytes for people: "335 MiB", "1.3 GiB"."""
    if abs(count) >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / MIB:.0f} MiB" if abs(count) >= MIB else f"{count / KIB:.0f} KiB"
