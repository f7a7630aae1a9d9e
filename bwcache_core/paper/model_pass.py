"""One pass of the diffusion model over a batch of conditions: every block is computed or reused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from .block_mode import FEATURE_NAMES, HIDDEN, BlockMode, Features
from .measurement import DeviceSums, KeptSums, device_sums, kept_sums
from .rules import Decision, Position
from .similarity import SAMPLED_TOKENS, sample_tokens, token_sample
from .stream import BlockSample, Stream

Compute = Callable[[Features], Features]


@dataclass(frozen=True)
class PassSettings:
    """The constants of every pass of a run.

    token_index: indices of the sampled tokens by token count and device, made once in a run: each is a copy from the
    host.
    """

    block_count: int
    monitored: frozenset[int]
    mode: BlockMode
    token_index: dict[tuple[int, torch.device], torch.Tensor] = field(default_factory=dict)


class ModelPass:
    """Runs the blocks of one model call, batched over `streams` (equal numbers of rows each, in batch order).

    Tensors handed in are never kept and never written; tensors handed out are fresh or the caller's own.
    reused: the blocks that are; None until the first block, where the token count is known.
    in_training: gradients go through the model, so nothing may be kept or reused.
    """

    def __init__(
        self, settings: PassSettings, position: Position, decision: Decision, streams: Sequence[Stream]
    ) -> None:
        self.settings = settings
        self.position = position
        self.decision = decision
        self.streams = streams
        self.reused: frozenset[int] | None = None
        self.in_training = False
        self._samples: dict[int, torch.Tensor] = {}
        self._kept: list[KeptSums] = []
        self._passing_through = False  # blocks were skipped, and what stands for them is still to come

    @torch.compiler.disable
    def run_model(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Output of the whole model call, (rows, C, ...), whose blocks come by run_block."""
        output = compute()
        if has_gradients(output):
            self.in_training = True
        if self._passing_through or (self.in_training and self.reused):
            return self._again(compute)
        return output

    def _again(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Output computed after all: another hook lies over the last block's, and what it saw was never computed."""
        self.decision = Decision()
        self.reused = None
        self._passing_through = False
        return compute()

    def run_block(self, block: int, args: Features, compute: Compute) -> Features:
        """Result of block `block` for `args`: computed by `compute`, or reused. Same keys as the block returns."""
        if self.reused is None:
            self._choose(args)
        return self._reuse(block, args) if block in self.reused else self._compute(block, args, compute)

    def finish(self) -> list[DeviceSums]:
        """Commit what was computed; call it only when the whole model call went through. Returns the unread sums."""
        for stream in self.streams:
            stream.evaluation = self.position.evaluation
        if not self._kept or self.in_training:
            return []
        chunked = {block: tokens.chunk(len(self.streams)) for block, tokens in self._samples.items()}
        sums = []
        for j, stream in enumerate(self.streams):
            current = {block: BlockSample(self.position.step, chunks[j]) for block, chunks in chunked.items()}
            sums.append(device_sums(stream.label, current, stream.samples, self._kept[j]))
            kept = stream.samples
            stream.samples = {**kept, **{b: s for b, s in current.items() if b not in kept or kept[b].step != s.step}}
        return sums

    def _choose(self, args: Features) -> None:
        """Reuse what was decided if every condition holds what fits, else nothing."""
        fits = all(self._fits(stream, args) for stream in self.streams)
        self.reused = self.decision.reuse if fits else frozenset()
        if not self.reused:
            for stream in self.streams:
                if stream.entry != self._shapes(args, stream.entry):
                    stream.forget()
                stream.entry = {}

    def _fits(self, stream: Stream, args: Features) -> bool:
        """The stream took part in the evaluation just before, and holds what this call needs, in its shape."""
        if not stream.entry or stream.entry != self._shapes(args, stream.entry):
            return False
        recent = stream.evaluation == self.position.evaluation - 1
        return recent and self.settings.mode.holds(stream, self.decision.reuse)

    def _compute(self, block: int, args: Features, compute: Compute) -> Features:
        before = self.settings.mode.before(args)
        out = compute(args)
        hidden = out[HIDDEN]
        if self.in_training or has_gradients(hidden):
            self.in_training = True
            return out
        for stream in self.streams:
            stream.entry = stream.entry or self._shapes(args, [name for name in FEATURE_NAMES if name in out])
        if block in self.settings.monitored:
            self._samples[block] = self._sample(hidden)
        if self._is_last(block):
            self._measure(hidden, self._samples[block])  # the last block is always monitored
        self.settings.mode.keep(self.streams, block, before, out)
        return out

    def _reuse(self, block: int, args: Features) -> Features:
        mode, last = self.settings.mode, self._is_last(block)
        self._passing_through = mode.whole_stack and not last
        out = mode.replay(self.streams, block, args)
        if last and self._samples:
            self._measure(out[HIDDEN], self._sample(out[HIDDEN]))  # the blocks that ran are judged all the same
        return out

    def _is_last(self, block: int) -> bool:
        return block == self.settings.block_count - 1

    def _shapes(self, args: Features, names: Iterable[str]) -> dict[str, tuple]:
        """Shape of one row, type and device of the features that enter the block stack."""
        return {name: (args[name].shape[1:], args[name].dtype, args[name].device) for name in names}

    def _measure(self, features: torch.Tensor, sample: torch.Tensor) -> None:
        """Sums that tell whether the features of the last block are broken, by condition."""
        count = len(self.streams)
        chunks = zip(features.chunk(count), sample.chunk(count), strict=True)
        self._kept = [kept_sums(rows, sample_rows) for rows, sample_rows in chunks]

    def _sample(self, hidden: torch.Tensor) -> torch.Tensor:
        return sample_tokens(hidden, self._index(hidden.flatten(1, -2).shape[1], hidden.device))

    def _index(self, length: int, device: torch.device) -> torch.Tensor:
        known = self.settings.token_index
        if (length, device) not in known:
            sample = token_sample(length, SAMPLED_TOKENS)
            known[length, device] = torch.tensor(sample, dtype=torch.long, device=device)  # of no token at all, too
        return known[length, device]


def has_gradients(tensor: torch.Tensor | Sequence[torch.Tensor]) -> bool:
    """Whether gradients will be asked for through `tensor`, or through one of several: picture and sound."""
    tensors = [tensor] if isinstance(tensor, torch.Tensor) else tensor
    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
