"""200 runs in a row, with cancels and faults among them: neither memory nor objects grow."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from bwcache_pack.bwcache_core.paper.stream import Stream
from bwcache_pack.tests.hosts.lab import FORCED, difference

pytestmark = [pytest.mark.slow, pytest.mark.family("wan21_t2v")]
RUNS, WARM = 200, 40
ALONE = "BWCACHE_MANY_RUNS"  # set in the process that has no other tests
MEBIBYTES = 12  # growth of the process that allocators may cause
KEPT = ("StepReport",)  # the last 8 runs of a model may hold more steps than the 8 before, where those were cancelled
CONTAINERS = ("dict", "list", "tuple", "set", "function", "cell", "frame", "traceback")  # ComfyUI adds others by itself
SETTINGS = [FORCED, {**FORCED, "mode": "per block"}, {"speedup": 2.0}]


def census() -> Counter:
    """Living objects by type. Tensors count each by itself: the pack's own and torch's are what may leak."""
    gc.collect()
    return Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())


def resident() -> float:
    """MiB of memory this process holds, without what the allocator keeps of tests before."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def cancelled(lab, model) -> None:
    def cancel(step, *_) -> None:
        if step == 4:
            raise lab.host.Interrupt("stop")

    with pytest.raises(lab.host.Interrupt):
        lab.sample(model, callback=cancel)


def failing(lab, model, monkeypatch) -> None:
    """Our own store runs out of memory."""

    def fail(*args):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "keep_features", fail)
        patch.setattr(Stream, "keep_residual", fail)
        lab.sample(model)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_two_hundred_runs_grow_nothing(lab, monkeypatch, request):
    """On the same models, as a queue of prompts does; two sizes, and attaching anew now and then.

    In a process of its own: what the allocator does depends on every test before.
    """
    if ALONE not in os.environ:
        command = [sys.executable, "-m", "pytest", "-q", request.node.nodeid]
        told = subprocess.run(
            command, cwd=request.config.rootpath, env={**os.environ, ALONE: "1"}, capture_output=True, text=True
        )
        assert told.returncode == 0 and "1 passed" in told.stdout, told.stdout[-3000:]
        return
    models = [lab.cached(**settings) for settings in SETTINGS]
    first = [lab.sample(cached.model) for cached in models]
    noises = [lab.noise(), lab.noise(seed=2, frames=3, size=6)]
    before, memory = None, 0.0
    for run in range(RUNS):
        cached = models[run % len(models)]
        if run % 7 == 3:
            cancelled(lab, cached.model)
        elif run % 11 == 5:
            failing(lab, cached.model, monkeypatch)
        elif run % 13 == 6:
            lab.sample(lab.cached(cached.model, **SETTINGS[run % len(models)]).model)
        else:
            lab.sample(cached.model, noise=noises[run % 3 == 2])
        if run == WARM:
            before, memory = census(), resident()
    growth = {name: count - before[name] for name, count in census().items() if count > before[name]}
    ours = {name: n for name, n in growth.items() if name.startswith(("bwcache_pack", "torch")) and not name.endswith(KEPT)}
    assert sum(ours.values()) <= 0, ours
    assert sum(growth.get(f"builtins.{name}", 0) for name in CONTAINERS) < RUNS / 10, growth
    assert resident() - memory < MEBIBYTES
    assert [difference(lab.sample(c.model), expected) for c, expected in zip(models, first, strict=True)] == [0.0] * len(models)
    assert all(len(cached.stats.runs) == 8 for cached in models)
