"""Mode "per block": every block is judged by its own change; interval, window and tail as in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .block_mode import FEATURE_NAMES, BlockMode, ConditionShape, Features, joined
from .rules import Decision, Measured, Position, similar, since_fault
from .stream import Stream


class PerBlock(BlockMode):
    """Keeps what each block added to its input, and adds it again to what enters a reused block."""

    whole_stack = False

    def decide(self, position: Position, measured: Sequence[Measured]) -> Decision:
        """Reuse the blocks whose own last change is under the threshold and recent enough; the others run."""
        rules = self.rules
        barred = rules.barred(position, measured)
        if barred:
            return Decision(reason=barred)
        first = rules.first_similar((m.position.step, min(m.changes.values(), default=None)) for m in measured)
        if first is None:
            reason = f"no block's change is under threshold {rules.threshold:g}"
            return Decision(reason=reason, judged=measured[-1].change, limit=rules.threshold)
        if rules.in_tail(position, first):
            return Decision(reason="tail")
        unbroken = since_fault(measured)
        reuse = frozenset(block for block in range(rules.blocks) if self._reusable(block, position, unbroken))
        reason = f"{len(reuse)} of {rules.blocks} blocks are similar and recent"
        return Decision(reuse, reason, measured[-1].change, rules.threshold)

    def holds(self, stream: Stream, reuse: frozenset[int]) -> bool:
        """Every block to be reused has a residual."""
        return reuse <= stream.residuals.keys()

    def before(self, args: Features) -> Features:
        """Copies of the block's inputs: HunyuanVideo's blocks write into them."""
        return {name: args[name].clone() for name in FEATURE_NAMES if torch.is_tensor(args.get(name))}

    def keep(self, streams: Sequence[Stream], block: int, before: Features, out: Features) -> None:
        """What the block added to each feature, (B, L, D) for each condition."""
        count = len(streams)
        names = [name for name in before if torch.is_tensor(out.get(name))]  # SD3's last block drops its text
        chunked = {name: (out[name].chunk(count), before[name].chunk(count)) for name in names}
        for j, stream in enumerate(streams):
            for name, (after, rows) in chunked.items():
                stream.keep_residual(block, name, after[j], rows[j])

    def replay(self, streams: Sequence[Stream], block: int, args: Features) -> Features:
        """The block's input plus the residual it had when it last ran."""
        out = dict(args)
        for name in streams[0].residuals[block]:
            out[name] = args[name] + joined([stream.residuals[block][name].get() for stream in streams])
        return out

    @staticmethod
    def kept_bytes(shape: ConditionShape) -> list[int]:
        """A residual of every feature of every block: of the hidden states, and of the text that is returned apart."""
        texts = [all_ - hidden for all_, hidden in zip(shape.returned, shape.hidden, strict=True) if all_ > hidden]
        return [shape.row * tokens for tokens in (*shape.hidden, *texts)]

    @staticmethod
    def passing_bytes(shape: ConditionShape) -> int:
        """The copies of one block's inputs."""
        return shape.row * max(shape.returned)

    def _reusable(self, block: int, position: Position, measured: Sequence[Measured]) -> bool:
        judged = next((m for m in reversed(measured) if block in m.changes), None)
        if judged is None or not similar(judged.changes[block], self.rules.threshold):
            return False
        return self.rules.within_interval(position, judged.position)
