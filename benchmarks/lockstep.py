"""Runs that take turns, one evaluation each, so that whatever else the machine does slows all of them alike.

Each run has a thread, but only the one whose turn it is moves; time is the CPU time of that thread. Right with one torch
thread, where a thread does all of its own work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

KEY = "turns"


class Turns:
    """Whose turn it is, among `count`."""

    def __init__(self, count: int) -> None:
        self._waiting = list(range(count))
        self._condition = threading.Condition()

    def take(self, who: int) -> None:
        """Wait for the turn of `who`."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting[0] == who)

    def pass_on(self, who: int) -> None:
        """Let all others move once, then go on."""
        with self._condition:
            self._waiting.append(self._waiting.pop(0))
            self._condition.notify_all()
        self.take(who)

    def leave(self) -> None:
        """The run whose turn it is has ended."""
        with self._condition:
            self._waiting.pop(0)
            self._condition.notify_all()


def taking_turns(model, turns: Turns, who: int):
    """`model` that lets the others move before each of its evaluations."""

    def predict_noise(executor, *args, **kwargs):
        turns.pass_on(who)
        return executor(*args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key("predict_noise", KEY, predict_noise)
    return model


def cpu_seconds(models: Sequence, sample: Callable) -> list[float]:
    """CPU time of sample(model) for each model, evaluation by evaluation in turn. Raises what a run raised.

    Each must be loaded by itself: a ComfyUI run that ends takes the model apart that its clones share.
    """
    turns, seconds, errors = Turns(len(models)), [0.0] * len(models), []

    def run(who: int, model) -> None:
        turns.take(who)
        began = time.thread_time()
        try:
            sample(taking_turns(model, turns, who))
        except BaseException as error:  # the others would wait for ever
            errors.append(error)
        finally:
            seconds[who] = time.thread_time() - began
            turns.leave()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(models)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return seconds
