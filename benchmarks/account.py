"""One evaluation after another through the pack's real wrappers and hooks, its time told apart: the blocks', the rest of
the model's, and the cache's own.

Wrappers and hooks that only take the time lie on both sides of the cache's. The cache's own time is what passes between
them, plus the beginning and the end of an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..bwcache_core.config import BWCacheConfig
from ..bwcache_core.report import RunStats
from ..bwcache_core.session import Session
from ..hosts.embedded import TinyPatcher, wrapped
from ..nodes.attach import DIFFUSION_MODEL, KEY, attach
from ..nodes.families import BlockLayout, block_layout
from .clocks import Clock
from .shapes import HUNYUAN, POOLED, Shape, inputs

STEPS = 60  # of the schedule; more than is ever evaluated


@dataclass(frozen=True)
class Evaluation:
    """Seconds of one evaluation. total = blocks + rest + own."""

    action: str
    total: float
    blocks: float
    rest: float
    own: float


@dataclass
class Spans:
    """Pairs of marks by what they enclose, in one evaluation."""

    clock: Clock
    pairs: dict[str, list[tuple]] = field(default_factory=dict)

    def around(self, name: str, call: Callable):
        start = self.clock.mark()
        result = call()
        self.pairs.setdefault(name, []).append((start, self.clock.mark()))
        return result

    def seconds(self, name: str) -> float:
        return sum(self.clock.seconds(start, end) for start, end in self.pairs.get(name, ()))


class Account:
    """A model with a cache attached, evaluated step by step. config None: without one."""

    def __init__(self, module: torch.nn.Module, shape: Shape, clock: Clock, config: BWCacheConfig | None) -> None:
        self.module, self.shape, self.clock = module, shape, clock
        self.layout: BlockLayout = block_layout(module)
        last = list(module.parameters())[-1]  # Wan's first is float32
        self.dtype, self.device = last.dtype, last.device
        self.session = None
        self.count = 0
        self.spans = Spans(clock)
        cache: dict = {}
        if config:
            sigmas = [1.0 - step / STEPS for step in range(STEPS + 1)]
            self.session = Session(config, self.layout.block_count, sigmas, self.layout.model)
            cache = attach(TinyPatcher(module), config, RunStats()).wrappers[DIFFUSION_MODEL]
        self.wrappers = {"outside": [self._outside], **cache, "inside": [self._inside]}

    @torch.inference_mode()
    def evaluate(self) -> Evaluation:
        """The next step of the run."""
        x, timestep, text = inputs(self.shape, self.dtype, self.device, self.count)
        sigma = torch.tensor([1.0 - self.count / STEPS], device=self.device)
        self.count += 1
        self.spans = Spans(self.clock)
        self.clock.settle()
        self.spans.around("total", lambda: self._evaluate(x, timestep, text, sigma))
        self.clock.settle()
        return self._told_apart()

    @property
    def bytes_held(self) -> int:
        return sum(stream.nbytes for stream in self.session.streams.values()) if self.session else 0

    def _evaluate(self, x: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, sigma: torch.Tensor) -> None:
        options = {"wrappers": {DIFFUSION_MODEL: self.wrappers}, "cond_or_uncond": [0], "uuids": ["prompt"]}
        options["patches_replace"] = {"dit": dict.fromkeys(self.layout.keys, self._plain_hook)}
        if self.session:
            options[KEY] = self.session
            self.spans.around("edge", lambda: self.session.begin_evaluation(sigma))
        if self.layout.model == "TinyWan":
            wrapped(DIFFUSION_MODEL, self.module, self.module, options)(x, timestep, text, None, None, options)
        else:
            pooled = {"y": text[:, 0, :POOLED]} if self.shape.kind == HUNYUAN else {}
            self.module(x, timestep, text, **pooled, transformer_options=options)
        if self.session:
            self.spans.around("edge", self.session.end_evaluation)

    def _outside(self, executor, *args, **kwargs):
        return self.spans.around("pass", lambda: executor(*args, **kwargs))

    def _inside(self, executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or next(a for a in reversed(args) if isinstance(a, dict))
        hooks = options["patches_replace"]["dit"]
        timed = {**options, "patches_replace": {"dit": {key: self._timed(hook) for key, hook in hooks.items()}}}
        args = [timed if a is options else a for a in args]
        kwargs = {name: timed if value is options else value for name, value in kwargs.items()}
        return self.spans.around("model", lambda: executor(*args, **kwargs))

    def _timed(self, hook: Callable) -> Callable:
        return lambda args, extra: self.spans.around("hook", lambda: hook(args, extra))

    def _plain_hook(self, args: dict, extra: dict) -> dict:
        return self.spans.around("block", lambda: extra["original_block"](args))

    def _told_apart(self) -> Evaluation:
        seconds = self.spans.seconds
        in_hooks = seconds("hook") - seconds("block")
        own = seconds("edge") + (seconds("pass") - seconds("model")) + in_hooks
        blocks, total = seconds("block"), seconds("total")
        if not self.session:
            return Evaluation("plain", total, blocks, total - blocks, 0.0)
        action = "compute" if blocks else "reuse"
        return Evaluation(action, total, blocks, total - blocks - own, own)
