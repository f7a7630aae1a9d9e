"""Mode "paper": BWCache as published. One indicator for the step, and the whole stack of blocks is replayed.

Source: Cui et al., arXiv:2509.13789v3: similarity indicator, periodic recomputation, tail.
"""

from __future__ import annotations

from collections.abc import Sequence

from .block_mode import HIDDEN, BlockMode, ConditionShape, Features, joined
from .rules import Decision, Measured, Position, last_judged, similar, since_fault
from .stream import Stream


class WholeStack(BlockMode):
    """Keeps what the last block returned, and returns it again, frozen, while the indicator is under the threshold."""

    whole_stack = True

    def decide(self, position: Position, measured: Sequence[Measured]) -> Decision:
        """Reuse for R steps after a computed step whose mean change is under the threshold; then compute again."""
        rules = self.rules
        barred = rules.barred(position, measured)
        if barred:
            return Decision(reason=barred)
        source = measured[-1].position
        judged = last_judged(since_fault(measured))
        if judged is None or judged.position.step != source.step:
            return Decision(reason="no earlier step to compare with")
        if not similar(judged.change, rules.threshold):
            reason = f"change {judged.change:.4f} is not under threshold {rules.threshold:g}"
            return Decision(reason=reason, judged=judged.change, limit=rules.threshold)
        if rules.in_tail(position, rules.first_similar((m.position.step, m.change) for m in measured)):
            return Decision(reason="tail")
        if not rules.within_interval(position, source):
            return Decision(reason=f"reuse interval {rules.interval} is over")
        reason = f"change {judged.change:.4f} at step {source.step} is under threshold {rules.threshold:g}"
        return Decision(frozenset(range(rules.blocks)), reason, judged.change, rules.threshold)

    def holds(self, stream: Stream, reuse: frozenset[int]) -> bool:
        """The features of the last block are there."""
        return stream.features is not None

    def before(self, args: Features) -> Features:
        """Nothing: what went in is not needed."""
        return {}

    def keep(self, streams: Sequence[Stream], block: int, before: Features, out: Features) -> None:
        """A copy of the hidden states that the last block returned, (B, L, D) for each condition."""
        if self._is_last(block):
            for stream, rows in zip(streams, out[HIDDEN].chunk(len(streams)), strict=True):
                stream.keep_features(rows)

    def replay(self, streams: Sequence[Stream], block: int, args: Features) -> Features:
        """Blocks pass their input through, the last one returns the features kept: a fresh tensor."""
        if self._is_last(block):
            kept = [stream.features.get() for stream in streams]
            return {**args, HIDDEN: kept[0].clone() if len(kept) == 1 else joined(kept)}
        if block == 0:
            return {**args, HIDDEN: args[HIDDEN].clone()}  # VACE adds into it, and reads what entered again after
        return args

    @staticmethod
    def kept_bytes(shape: ConditionShape) -> list[int]:
        """The hidden states after the last block."""
        return [shape.row * shape.hidden[-1]]

    @staticmethod
    def passing_bytes(shape: ConditionShape) -> int:
        return 0

    def _is_last(self, block: int) -> bool:
        return block == self.rules.blocks - 1
