"""A group of processes that share the tokens of toy models: python devtools/pack.py tests.paper.ranks FOLDER 7,4

Each of them plays every scenario in turn and writes what it saw to FOLDER/RANK.json. tests/core/test_group.py compares
that with the same scenarios in one process (group None, all tokens).
Shapes: L = tokens of the whole, split over the processes as the last argument says.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed

from .toys import COND, UNCOND, Condition, Run, ToyModel, condition, falling

SECONDS = 1.0  # that a process waits for one that has raised
STACK = [lambda x: x * 2.0, lambda x: x * 2.0 + 1.0, lambda x: x * 3.0]
MODES = {
    "paper": {"mode": "paper", "threshold": 0.05, "reuse_interval": 2},
    "per block": {"mode": "per block", "threshold": 0.05, "reuse_interval": 2},
}
STEPS = 12


class Share:
    """The tokens of one process: `sizes` of the whole, its own at `rank`. Without a group it is the whole."""

    def __init__(self, rank: int, sizes: Sequence[int], group=None) -> None:
        self.rank = rank
        self.sizes = list(sizes)
        self.group = group

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        return whole.split(self.sizes, dim=1)[self.rank]


def latents(seed: int, i: int, length: int) -> torch.Tensor:
    """Hidden states (1, L, 4) of evaluation i: the first tokens wander far, the last ones hardly, none evenly."""
    start = torch.randn(1, length, 4, generator=torch.Generator().manual_seed(seed)) + 3.0
    pace = torch.linspace(0.05, 0.0, length).view(1, -1, 1)
    return start * (1.0 + pace * (i + seed * math.sin(i)))


def conditions(share: Share, i: int, length: int, inputs: tuple = ()) -> list[Condition]:
    return [condition(c, share.of(latents(c + 1, i, length)), inputs=inputs) for c in (COND, UNCOND)]


def sample(share: Share, group, settings: dict, broken: int = -1) -> dict:
    """A run of STEPS evaluations. broken: the evaluation at which the last token of cond is not a number."""
    run = Run(ToyModel(STACK), falling(STEPS), group=group, **settings)
    length, outputs, held = sum(share.sizes), [], []
    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        given = [condition(c, share.of(spoilt(latents(c + 1, i, length), i == broken))) for c in (COND, UNCOND)]
        outputs.append([output.tolist() for output in run.evaluate(sigma, given)])
        held.append(len(run.block_run.streams))
    return seen(run, outputs, held)


def spoilt(whole: torch.Tensor, broken: bool) -> torch.Tensor:
    if broken:
        whole[:, -1] = math.nan
    return whole


def sample_shorter(share: Share, group, settings: dict) -> dict:
    """One token less in mid-run: some shares keep their length, others do not. The inputs say so to all of them."""
    run = Run(ToyModel(STACK), falling(STEPS), group=group, **settings)
    outputs = []
    for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
        now = share if i < STEPS // 2 else one_less(share)
        given = conditions(now, i, sum(now.sizes), inputs=(sum(now.sizes),))
        outputs.append([output.tolist() for output in run.evaluate(sigma, given)])
    return seen(run, outputs)


def one_less(share: Share) -> Share:
    return Share(share.rank, [share.sizes[0] - 1, *share.sizes[1:]])


def seen(run: Run, outputs: list, held: Sequence[int] = ()) -> dict:
    report = run.block_run.close(True)
    return {
        "actions": run.actions,
        "reasons": [step.reason for step in report.steps],
        "changes": [step.change for step in report.steps],
        "faults": report.faults,
        "held": list(held),
        "left": len(run.block_run.streams),
        "outputs": outputs,
    }


def raise_in_a_block(share: Share) -> dict:
    """The last process raises in its second block; the others find out when they want its sums."""
    raises = share.rank == len(share.sizes) - 1
    impatient = torch.distributed.new_group(timeout=timedelta(seconds=SECONDS))
    run = Run(ToyModel(STACK), falling(STEPS), group=impatient, **{**MODES["paper"], "threshold": 0.0})
    failed = None
    try:
        for i, sigma in enumerate(run.block_run.schedule.sigmas[:-1]):
            if raises and i == 3:
                run.model.blocks = [STACK[0], lambda x: 1 / 0, STACK[2]]
            run.evaluate(sigma, conditions(share, i, sum(share.sizes)))
    except (RuntimeError, ArithmeticError) as error:
        failed = type(error).__name__
    report = run.block_run.close(False)
    return {"failed": failed, "left": len(run.block_run.streams), "evaluations": report.evaluations}


def scenarios(share: Share, group) -> dict:
    """What one process, or the whole in one process, saw in every scenario."""
    results = {mode: sample(share, group, settings) for mode, settings in MODES.items()}
    results["broken"] = sample(share, group, MODES["paper"], broken=5)
    results["shorter"] = sample_shorter(share, group, MODES["paper"])
    return results


def play(folder: Path, rank: int, sizes: Sequence[int]) -> None:
    """One process, from its first scenario to its last."""
    torch.set_num_threads(1)
    address = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=len(sizes))
    share = Share(rank, sizes)
    results = scenarios(share, torch.distributed.group.WORLD)
    results["apart"] = {mode: sample(share, None, MODES[mode]) for mode in MODES}
    results["raised"] = raise_in_a_block(share)
    torch.distributed.barrier()  # whoever raised stays until the others have noticed
    torch.distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(results), encoding="utf-8")


def main() -> None:
    folder, sizes = Path(sys.argv[1]), [int(size) for size in sys.argv[2].split(",")]
    forked = multiprocessing.get_context("fork")  # torch was imported once, and nothing ran in it yet
    processes = [forked.Process(target=play, args=(folder, rank, sizes)) for rank in range(len(sizes))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))


if __name__ == "__main__":
    main()
