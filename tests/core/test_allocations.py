"""What the cache's own code allocates in an evaluation once all of its places are there.

Kept features, outputs and residuals are written over in place. Made anew each time: samples and their differences, a few
numbers, and what is handed out, since models write into it. Places of their own for samples and differences would add a
sample or two of every block to what is held all the time, where now they are given back when the evaluation ends.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .toys import COND, UNCOND, Run, ToyModel, condition, falling

TOKENS, WIDTH, SAMPLED = 24, 24, 6
BLOCKS, STEPS = 3, 20
T, S = TOKENS * WIDTH * 4, SAMPLED * WIDTH * 4  # bytes of one condition's features, and of its sample
KINDS = {T: "T", 2 * T: "TT", S: "S", 2 * S: "SS"}  # two where both conditions are one tensor
FEW = 128  # bytes: sums and what decisions are made of


class Fresh(TorchDispatchMode):
    """Bytes of every tensor that was made in storage of its own, outside of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self._counts = True

    @contextmanager
    def turned(self, on: bool):
        before, self._counts = self._counts, on
        try:
            yield
        finally:
            self._counts = before

    def around(self, on: bool, call):
        def inner(*args):
            with self.turned(on):
                return call(*args)

        return inner

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {place(t) for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if torch.is_tensor(t) and place(t) not in given]
        self.sizes += [t.nbytes for t in made] if self._counts else []
        return out


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def moving(which: int, evaluation: int):
    start, drift = torch.randn(2, 1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(which))
    return condition(which, start + 0.01 * evaluation * drift)


def evaluate(run: Run, evaluation: int) -> list[int]:
    """Bytes of each tensor that the cache made in one evaluation of both conditions, batched."""
    conditions = [moving(which, evaluation) for which in (COND, UNCOND)]
    batch, timestep = torch.cat([c.img for c in conditions]), torch.full((1,), float(STEPS - evaluation))
    with Fresh() as fresh:
        run.session.begin_evaluation(timestep)
        model_pass = run.session.begin_pass([c.key for c in conditions])

        def hook(block, args, compute):
            return model_pass.run_block(block, args, fresh.around(False, compute))

        model_pass.run_model(fresh.around(False, lambda: run.model(batch, fresh.around(True, hook))))
        run.session.finish_pass(model_pass)
        run.session.end_evaluation()
    return fresh.sizes


def made(**settings) -> dict[str, set[str]]:
    """By action, what the evaluations of the second half of a run made: "3 S, 1 TT"."""
    run = Run(ToyModel([lambda x: x * 1.01] * BLOCKS), falling(STEPS), tokens=SAMPLED, **settings)
    sizes = [evaluate(run, i) for i in range(STEPS)]
    found: dict[str, set[str]] = {}
    for step, tensors in list(zip(run.session.close(True).steps, sizes, strict=True))[STEPS // 2 :]:
        large = Counter(KINDS.get(size, f"{size} bytes") for size in tensors if size > FEW)
        found.setdefault(step.action, set()).add(", ".join(f"{large[kind]} {kind}" for kind in sorted(large)))
    return found


# SS: the sample of both conditions of each measured block (of the output: one). S: of each condition, what each judged
# order missed (one order for each kept feature), and the change of each measured block. Reused, T and TT: forecasts by
# condition, and joined; features also copy what enters the blocks. Per block, TT: a copy of what enters each block that
# runs, and, where reused, both conditions' residuals joined and added.
MADE = [
    ({"mode": "adaptive", "cache_point": "output", "order": 1}, "4 S, 1 SS", "2 T, 1 TT"),
    ({"mode": "adaptive", "cache_point": "features", "order": 1}, "10 S, 3 SS", "2 T, 2 TT"),
    ({"mode": "paper", "reuse_interval": 2}, "8 S, 3 SS", "2 T, 2 TT"),
    ({"mode": "per block", "reuse_interval": 2}, "6 S, 3 SS, 3 TT", "6 TT"),
]


@pytest.mark.parametrize(("settings", "computed", "reused"), MADE, ids=["output", "features", "paper", "per block"])
def test_what_is_made_anew_in_each_evaluation(settings, computed, reused):
    assert made(**settings) == {"compute": {computed}, "reuse": {reused}}
