"""One pass of the diffusion model over a batch of conditions: every block, or the whole, is computed or reused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from .corrector import SamplerStep, Served, correction, weighted
from .measurement import CachedSums, DeviceSums, cached_sums, device_sums
from .policy import Decision, Position
from .similarity import sample_output, sample_tokens, token_sample
from .stream import BlockSample, Stream

Features = dict  # the host's block arguments or results by name; "img" holds the hidden states, (rows, L, D)
Compute = Callable[[Features], Features]

HIDDEN = "img"
FEATURE_NAMES = ("img", "txt")  # what blocks of the supported families return


def leave_to_python(function: Callable) -> Callable:
    """Keeps torch.compile out of `function`, not of what it calls: decisions change from step to step and would freeze,
    while a compiled model has to stay compiled."""
    return torch.compiler.disable(function, recursive=False)


@dataclass(frozen=True)
class PassSettings:
    """The constants of every pass of a run.

    keeps_residuals: blocks are reused one by one, not as a stack. caches_output: the model's output is kept and
    forecast instead of the last block's features. token_index: indices of the sampled tokens by token count and
    device, made once in a run: each is a copy from the host.
    """

    block_count: int
    monitored: frozenset[int]
    tokens: int
    keeps_residuals: bool
    caches_output: bool
    token_index: dict[tuple[int, torch.device], torch.Tensor] = field(default_factory=dict)


class ModelPass:
    """Runs the blocks of one model call, batched over `streams` (equal numbers of rows each, in batch order).

    sampler: what the sampler does at each evaluation; computed outputs make up for the reused ones before them where it is
    known. Tensors handed in are never kept and never
    written; tensors handed out are fresh or the caller's own.
    """

    def __init__(
        self,
        settings: PassSettings,
        position: Position,
        decision: Decision,
        streams: Sequence[Stream],
        sampler: Sequence[SamplerStep] = (),
    ) -> None:
        self.sampler = sampler
        self.settings = settings
        self.position = position
        self.decision = decision
        self.streams = streams
        self.reused: frozenset[int] | None = None  # settled at the first block, where the token count is known
        self._samples: dict[int, torch.Tensor] = {}
        self._cached: list[CachedSums] = []
        self._passing_through = False  # blocks were skipped, and the forecast that stands for them is still to come

    @property
    def needs_hooks(self) -> bool:
        """False where no block is watched or reused, so that the model may run as if nothing was attached."""
        return bool(self.settings.monitored) or not self.settings.caches_output

    @leave_to_python
    def run_model(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Output of the whole model call, (rows, C, ...): computed, or the forecast where outputs are cached."""
        if not self.settings.caches_output:
            output = compute()
            return self._again(compute) if self._passing_through else output
        recalled = self._recall_output()
        return self._keep_output(compute()) if recalled is None else recalled

    @torch.compiler.disable
    def _recall_output(self) -> torch.Tensor | None:
        if self.decision.reuse and all(self._is_recent(stream) for stream in self.streams):
            self.reused = self.decision.reuse
            return self._forecast()
        self.reused = frozenset()
        return None

    @torch.compiler.disable
    def _keep_output(self, output: torch.Tensor) -> torch.Tensor:
        result = self._correct(output) if self.sampler else output
        self._keep(output, sample_output(output, self._index(output.flatten(2).shape[2], output.device)))
        return result

    def _again(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Output computed after all: another hook lies over the last block's, and what it saw was never computed."""
        self.decision = Decision()
        self.reused = None
        self._passing_through = False
        return compute()

    def run_block(self, block: int, args: Features, compute: Compute) -> Features:
        """Result of block `block` for `args`: computed by `compute`, or reused. Same keys as the block returns."""
        if self.reused is None:
            self._settle(args)
        if block not in self.reused:
            return self._compute(block, args, compute)
        if self.decision.whole_stack:
            return self._replay(block, args)
        return self._add_residual(block, args)

    def finish(self) -> list[DeviceSums]:
        """Commit what was computed; call it only when the whole model call went through. Returns the unread sums."""
        for stream in self.streams:
            stream.evaluation = self.position.evaluation
            stream.served = [*stream.served, self._served()] if self.reused else []
        if not self._cached:
            return []
        chunked = {block: tokens.chunk(len(self.streams)) for block, tokens in self._samples.items()}
        sums = []
        for j, stream in enumerate(self.streams):
            current = {block: BlockSample(self.position.step, chunks[j]) for block, chunks in chunked.items()}
            sums.append(device_sums(stream.label, current, stream.samples, self._cached[j]))
            kept = stream.samples
            stream.samples = {**kept, **{b: s for b, s in current.items() if b not in kept or kept[b].step != s.step}}
        return sums

    def _correct(self, output: torch.Tensor) -> torch.Tensor:
        """`output` with what the conditions' reused evaluations lack added. The caller's tensor where nothing does."""
        if not any(stream.served or stream.carried for stream in self.streams):
            return output
        chunks = output.chunk(len(self.streams))
        return joined([self._correct_stream(s, rows) for s, rows in zip(self.streams, chunks, strict=True)])

    def _correct_stream(self, stream: Stream, output: torch.Tensor) -> torch.Tensor:
        if not self._is_recent(stream):
            stream.carried.clear()
            return output
        nodes, earlier = zip(*stream.history.nodes(len(stream.history)), strict=True)
        tensors = [*(buffer.get() for buffer in stream.carried), *earlier, output]
        damping, count = stream.history.damping, len(stream.carried)
        weights = correction(self.sampler, self.position.evaluation, stream.served, nodes, damping, count)
        stream.carry([weighted(tensors, each) for each in weights.carried])
        return output + weighted(tensors, weights.added)

    def _served(self) -> Served:
        return Served(self.position.evaluation, self.position.coordinate, self.decision.order)

    def _settle(self, args: Features) -> None:
        fits = all(self._fits(stream, args) for stream in self.streams)
        self.reused = self.decision.reuse if fits else frozenset()
        if not self.reused:
            for stream in self.streams:
                if stream.entry != self._shapes(args, stream.entry):
                    stream.forget()
                stream.entry = {}

    def _fits(self, stream: Stream, args: Features) -> bool:
        """What the stream holds is recent and has the shape that this call needs."""
        if not stream.entry or stream.entry != self._shapes(args, stream.entry):
            return False
        if self.decision.whole_stack:
            return self._is_recent(stream)
        return stream.evaluation == self.position.evaluation - 1 and self.decision.reuse <= stream.residuals.keys()

    def _is_recent(self, stream: Stream) -> bool:
        """The stream took part in the evaluation just before, and holds something to forecast from."""
        return stream.evaluation == self.position.evaluation - 1 and len(stream.history) > 0

    def _compute(self, block: int, args: Features, compute: Compute) -> Features:
        before = self._copies(args) if self.settings.keeps_residuals else {}
        out = compute(args)
        hidden = out[HIDDEN]
        for stream in self.streams:
            stream.entry = stream.entry or self._shapes(args, [name for name in FEATURE_NAMES if name in out])
        if block in self.settings.monitored:
            self._samples[block] = self._sample(hidden)
        if self.settings.keeps_residuals:
            self._keep_residuals(block, before, out)
        if block == self.settings.block_count - 1 and not self.settings.caches_output:
            self._keep(hidden, self._samples[block])  # the last block is always monitored
        return out

    def _shapes(self, args: Features, names: Iterable[str]) -> dict[str, tuple]:
        """Shape of one row, type and device of the features that enter the block stack."""
        return {name: (args[name].shape[1:], args[name].dtype, args[name].device) for name in names}

    def _keep(self, features: torch.Tensor, sample: torch.Tensor) -> None:
        """Judge the forecasts that could have been, then keep the features themselves where they may be replayed."""
        count, coordinate = len(self.streams), self.position.coordinate
        chunks = zip(self.streams, features.chunk(count), sample.chunk(count), strict=True)
        for stream, rows, sample_rows in chunks:
            differences = stream.history.judge(coordinate, sample_rows)
            self._cached.append(cached_sums(rows, sample_rows, differences))
            if not self.settings.keeps_residuals:
                stream.history.store(coordinate, rows, sample_rows)

    def _keep_residuals(self, block: int, before: Features, out: Features) -> None:
        count = len(self.streams)
        names = [name for name in before if torch.is_tensor(out.get(name))]  # SD3's last block drops its text
        chunked = {name: (out[name].chunk(count), before[name].chunk(count)) for name in names}
        for j, stream in enumerate(self.streams):
            for name, (after, rows) in chunked.items():
                stream.keep_residual(block, name, after[j], rows[j])

    def _copies(self, args: Features) -> Features:
        """Block inputs as they are now: HunyuanVideo's blocks write into them."""
        return {name: args[name].clone() for name in FEATURE_NAMES if torch.is_tensor(args.get(name))}

    def _replay(self, block: int, args: Features) -> Features:
        """Reuse of the whole stack: blocks pass their input through, the last one returns the forecast."""
        self._passing_through = block != self.settings.block_count - 1
        if block == 0 and self._passing_through:
            return {**args, HIDDEN: args[HIDDEN].clone()}  # VACE adds into it, and reads what entered again after
        if self._passing_through:
            return args
        return {**args, HIDDEN: self._forecast()}

    def _forecast(self) -> torch.Tensor:
        """Fresh tensor of all conditions' forecasts, in batch order."""
        coordinate, order = self.position.coordinate, self.decision.order
        forecasts = [stream.history.forecast(coordinate, order) for stream in self.streams]
        return joined(forecasts)

    def _add_residual(self, block: int, args: Features) -> Features:
        """Reuse of one block: its input plus the residual it had when it last ran."""
        out = dict(args)
        for name in self.streams[0].residuals[block]:
            out[name] = args[name] + joined([stream.residuals[block][name].get() for stream in self.streams])
        if block == self.settings.block_count - 1 and self._samples:
            self._keep(out[HIDDEN], self._sample(out[HIDDEN]))  # the blocks that ran are judged all the same
        return out

    def _sample(self, hidden: torch.Tensor) -> torch.Tensor:
        return sample_tokens(hidden, self._index(hidden.flatten(1, -2).shape[1], hidden.device))

    def _index(self, length: int, device: torch.device) -> torch.Tensor:
        known = self.settings.token_index
        if (length, device) not in known:
            sample = token_sample(length, self.settings.tokens)
            known[length, device] = torch.tensor(sample, dtype=torch.long, device=device)  # of no token at all, too
        return known[length, device]


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """All conditions in batch order. One alone is handed on as it is: torch.cat would copy it."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
