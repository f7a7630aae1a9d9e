"""What the live view costs the sampler: CPU time with a browser's events on against off, interleaved, and taken apart.

python devtools/pack.py benchmarks.live_view [checkpoint]. The events go through an event loop on a thread of its own that
turns them into JSON, as ComfyUI's server does. On against off has the noise of any timing; the share is counted inside
the runs, by the clocks of the two threads, and has hardly any.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from ..bwcache_core.config import BWCacheConfig
from ..bwcache_core.report import RunReport, RunStats, StepReport
from ..hosts.runs import EmbeddedHost, Job
from ..nodes.attach import attach
from ..nodes.events import RunEvents
from ..zoo.tinywan.checkpoint import DEFAULT_PATH

PAIRS = 16
MODES = {"adaptive": {}, "paper, every block measured": {"mode": "paper", "threshold": 0.0}}
WAN_14B = 40  # blocks


class Server:
    """The part of ComfyUI's server that sends: a queue into an event loop on another thread."""

    def __init__(self) -> None:
        self.client_id: str | None = "browser"
        self.seconds = 0.0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def send_sync(self, event: str, data: dict, client: str) -> None:
        self.loop.call_soon_threadsafe(self._serialise, event, data)

    def _serialise(self, event: str, data: dict) -> None:
        began = time.thread_time()
        json.dumps({"type": event, "data": data})
        self.seconds += time.thread_time() - began


class TimedEvents(RunEvents):
    """RunEvents that add up the sampler's time in them."""

    def __call__(self, done: bool = False) -> None:
        began = time.thread_time()
        super().__call__(done)
        self.server.seconds += time.thread_time() - began


def cpu_seconds(host: EmbeddedHost, model, job: Job) -> float:
    began = time.process_time()
    host.sample(model, job)
    return time.process_time() - began


def compare(host: EmbeddedHost, server: Server, settings: dict) -> tuple[list[float], list[float]]:
    """Per pair of runs of the same seed: CPU time with events over that without, and the share spent on events."""
    model = attach(host.model, BWCacheConfig(**settings), RunStats(), partial(TimedEvents, "12:7"))
    found, shares = [], []
    for pair in range(PAIRS + 1):
        taken = {}
        for client in ("browser", None) if pair % 2 else (None, "browser"):
            server.client_id, server.seconds = client, 0.0
            taken[client] = cpu_seconds(host, model, Job("red circle moving left", pair))
            if client:
                shares.append(server.seconds / taken[client])
        found.append(taken["browser"] / taken[None])
    return found[1:], shares[1:]  # the first pair pays for warm-up


def event_seconds(server: Server, calls: int = 2000) -> float:
    """Time that one event of a model with 40 measured blocks holds up the sampler."""
    report = RunReport("paper", 0.15, 1, 50, WAN_14B, [1.0, 0.0])
    changes = {block: 0.0123456 * (block + 1) for block in range(WAN_14B)}
    report.steps = [StepReport(i, i, 0.5, "compute", "why", block_changes=changes, seconds=9.0) for i in range(50)]
    server.client_id = "browser"
    events = RunEvents("12:7", report)
    began = time.process_time()
    for _ in range(calls):
        events.payload(False)
    return (time.process_time() - began) / calls


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    host = EmbeddedHost(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PATH)
    server = Server()
    sys.modules["server"] = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
    lines = [f"TinyWan, 30 steps of euler, {PAIRS} pairs of runs with and without events, one CPU thread"]
    for name, settings in MODES.items():
        found, shares = compare(host, server, settings)
        low, middle, high = (100 * (ratio - 1) for ratio in statistics.quantiles(found, n=4))
        lines.append(f"{name}: {100 * statistics.median(shares):.2f} % of the CPU time is spent on events")
        lines.append(f"    on against off: {middle:+.1f} % (quartiles {low:+.1f} to {high:+.1f} %)")
    lines.append(f"one event of a 40-block model: {1e6 * event_seconds(server):.0f} microseconds of the sampler's time")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
