"""Toy models behind the hook contract of ComfyUI's block loops, and a driver for one sampling run.

Toy blocks are plain arithmetic, so that expected numbers can be worked out by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from bwcache_pack.bwcache_core.config import BlockConfig
from bwcache_pack.bwcache_core.paper.run import BlockRun
from bwcache_pack.bwcache_core.paper.stream import StreamKey

COND, UNCOND = 0, 1


class Condition(NamedTuple):
    """One condition of an evaluation: who it is, and the hidden states that enter its blocks, (B, L, D)."""

    key: StreamKey
    img: torch.Tensor


def condition(which: int, img: torch.Tensor | float, uuid: str = "prompt", **key) -> Condition:
    """A condition with these hidden states. A number stands for one row of 6 tokens of width 4, all of that value."""
    if not isinstance(img, torch.Tensor):
        img = torch.full((1, 6, 4), float(img))
    names = {"window": None, "model": 1, "device": "cpu", "shape": (1, 16, 3, 4, 4), "dtype": "float32", **key}
    return Condition(StreamKey(which, uuid, **names), img)


def falling(steps: int) -> list[float]:
    """A schedule whose step i starts at sigma steps - i, and that ends at 0."""
    return [float(steps - i) for i in range(steps + 1)]


class ToyModel:
    """A loop over blocks as in Wan: hidden states in, hidden states out. after: what a control adds after the loop."""

    def __init__(self, blocks: Sequence[Callable], after: Callable | None = None) -> None:
        self.blocks = blocks
        self.after = after
        self.ran: list[int] = []
        self.overlaid: set[int] = set()  # blocks over whose hook another lies, which runs the block itself

    def __call__(self, img: torch.Tensor, run_block: Callable | None = None) -> torch.Tensor:
        hidden = img.clone()  # the patch embedding: the sampler's tensor never reaches a block
        for i, block in enumerate(self.blocks):
            hidden = self._hook(i, {"img": hidden, "vec": "vec"}, lambda args, b=block: {"img": b(args["img"])},
                                run_block)["img"]
        return self.after(hidden) if self.after else hidden

    def _hook(self, block: int, args: dict, original: Callable, run_block: Callable | None) -> dict:
        def compute(block_args: dict) -> dict:
            self.ran.append(block)
            return original(block_args)

        hooked = run_block and block not in self.overlaid
        return run_block(block, args, compute) if hooked else compute(args)


class ToyHunyuan(ToyModel):
    """Double blocks on image and text, then single blocks on both; all write into what they are given."""

    def __init__(self) -> None:
        super().__init__([self.double, self.double, self.single, self.single])

    def __call__(self, img: torch.Tensor, run_block: Callable | None = None) -> torch.Tensor:
        img, txt = img.clone(), img[:, :2].clone() + 10.0
        for i in (0, 1):
            out = self._hook(i, {"img": img, "txt": txt}, self.double, run_block)
            img, txt = out["img"], out["txt"]
        hidden = torch.cat((txt, img), dim=1)
        for i in (2, 3):
            hidden = self._hook(i, {"img": hidden}, self.single, run_block)["img"]
        return hidden[:, txt.shape[1]:]

    @staticmethod
    def double(args: dict) -> dict:
        return {"img": args["img"].mul_(2.0), "txt": args["txt"].add_(1.0)}

    @staticmethod
    def single(args: dict) -> dict:
        return {"img": args["img"].mul_(3.0)}


class Run:
    """Drives a BlockRun the way nodes/attach_blocks.py does: one evaluation after the other."""

    def __init__(self, model: ToyModel, sigmas: Sequence[float], group=None, **settings) -> None:
        self.model = model
        settings = {"mode": "paper", **settings}
        self.block_run = BlockRun(BlockConfig(**settings), len(model.blocks), sigmas, group=group)

    def evaluate(self, sigma: float, *passes: Sequence[Condition]) -> list[torch.Tensor]:
        """Outputs of all conditions, in the order given. The conditions of a pass are batched together."""
        self.block_run.begin_evaluation(torch.full((1,), sigma))
        outputs: list[torch.Tensor] = []
        for conditions in passes:
            outputs += self.run_pass(conditions)
        self.block_run.end_evaluation()
        return outputs

    def run_pass(self, conditions: Sequence[Condition]) -> list[torch.Tensor]:
        model_pass = self.block_run.begin_pass([c.key for c in conditions])
        batch = torch.cat([c.img for c in conditions])
        output = model_pass.run_model(lambda: self.model(batch, model_pass.run_block))
        self.block_run.finish_pass(model_pass)
        return list(output.chunk(len(conditions)))

    def evaluate_all(self, sigmas: Sequence[float], *passes_of: Callable[[int], Sequence[Condition]]) -> list:
        """One evaluation per sigma; passes_of give the conditions of each pass, from the index of the evaluation."""
        return [self.evaluate(sigma, *[of(i) for of in passes_of]) for i, sigma in enumerate(sigmas)]

    @property
    def actions(self) -> str:
        """What the finished run did, a letter per evaluation: Compute, Reuse, Partial."""
        return "".join(step.action[0].upper() for step in self.block_run.report.steps)
