"""What a run will hold, in bytes, worked out from shapes before it samples.

With T = the bytes of one condition's cached tensor, S = the bytes of its sample (at most `tokens` of its places) and
p = the order of the forecast (0 in "paper"), c = the tensors that the corrector carries (corrector.py: at most 4,
0 before a step was reused), one condition holds

    output cached     (p + 1) (T + S) + c T                                      T = B x C x frames x H x W numbers
    features cached   (p + 1) (T + S) + a sample of every other measured block   T = B x L x D
    per block         a residual and a sample of every block                     T = B x L x D, text included

A condition is a prompt in one context window. Exact where every prompt covers the whole latent in every evaluation and
the model adds no tokens of its own; a sampler that evaluates a step twice holds one more sample of the last block.
Once the first evaluation is over, Stream.expected_bytes is exact for what it saw.
Shapes: B = latents, C = latent channels, L = tokens, D = model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .config import PER_BLOCK, BWCacheConfig

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class ConditionShape:
    """Sizes of one condition's tensors.

    rows: B. channels, places: C, and frames x H x W of the latent. itemsize: bytes of a number, output_itemsize: of one
    in the output. width: D. hidden: tokens in the hidden states, of each block in running order. returned: tokens in
    all that a block returns. Width and both lists are empty where the model does not tell them.
    """

    rows: int
    channels: int
    places: int
    itemsize: int
    output_itemsize: int
    width: int = 0
    hidden: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()


@dataclass(frozen=True)
class Footprint:
    """Bytes held. tensors: features, outputs or residuals, which may lie on the host. samples: always on the device."""

    tensors: int = 0
    samples: int = 0

    @property
    def total(self) -> int:
        return self.tensors + self.samples

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.tensors + other.tensors, self.samples + other.samples)


def footprint(config: BWCacheConfig, shapes: Sequence[ConditionShape], carried: int = 0) -> Footprint | None:
    """Bytes that a run over these conditions will hold. None where that depends on shapes that are not known.

    carried: tensors that the corrector keeps for each of them.
    """
    if not shapes or not (config.caches_output or all(shape.width and shape.hidden for shape in shapes)):
        return None
    return sum((_of_condition(config, shape, carried) for shape in shapes), Footprint())


def _of_condition(config: BWCacheConfig, shape: ConditionShape, carried: int) -> Footprint:
    kept = config.forecast_order + 1
    if config.caches_output:
        row = shape.rows * shape.channels * shape.output_itemsize
        return Footprint((kept + carried) * row * shape.places, kept * row * min(shape.places, config.tokens))
    row = shape.rows * shape.width * shape.itemsize
    samples = {b: row * min(shape.hidden[b], config.tokens) for b in config.monitored_blocks(len(shape.hidden))}
    if config.mode == PER_BLOCK:
        return Footprint(row * sum(shape.returned), sum(samples.values()))
    last = len(shape.hidden) - 1  # its newest sample is also the newest of the history
    return Footprint(kept * row * shape.hidden[last], sum(samples.values()) + (kept - 1) * samples[last])


def readable(count: float) -> str:
    """Bytes for people: "335 MiB", "1.3 GiB"."""
    if abs(count) >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / MIB:.0f} MiB" if abs(count) >= MIB else f"{count / KIB:.0f} KiB"
