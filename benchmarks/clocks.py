"""Marks in time: on the host, or on a CUDA device's own time line, where the host runs ahead of the work."""

from __future__ import annotations

import time

import torch


class HostClock:
    """Marks are CPU seconds of this thread: all of the work on the CPU with one torch thread, and none of what other
    processes do meanwhile."""

    name = "CPU time of one thread"

    def mark(self) -> float:
        return time.thread_time()

    def settle(self) -> None:
        """Nothing is on its way."""

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaClock:
    """Marks are events of the current stream. What lies between two of them includes waiting for the host."""

    name = "CUDA events"

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def settle(self) -> None:
        """Wait until all marks are reached. Before reading seconds, and never inside what is timed."""
        torch.cuda.synchronize()

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return start.elapsed_time(end) / 1000.0


Clock = HostClock | CudaClock


def clock_for(device: torch.device) -> Clock:
    return CudaClock() if device.type == "cuda" else HostClock()
