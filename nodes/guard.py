"""What happens when the cache's own code fails: it gives up for the rest of the run, and the model runs as if alone.

Only errors of the cache are caught. Those of the model and of other packs' hooks pass untouched, and so does a cancel:
whoever raised them counts on it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Protocol

import torch

FAILED = object()
CANCEL = "InterruptProcessingException"  # ComfyUI's; an Exception before 0.20

logger = logging.getLogger(__name__)


class Guarded(Protocol):
    """The state of a run, of any mode. group: processes that sample together, None where there is one."""

    group: torch.distributed.ProcessGroup | None

    @property
    def stopped(self) -> bool:
        """Nothing is cached from here to the end of the run."""

    def give_up(self, error: Exception) -> None:
        """The cache failed: drop every tensor and stop."""


def leave_to_python(function: Callable) -> Callable:
    """Keeps torch.compile out of `function`, not of what it calls: decisions change from step to step and would freeze,
    while a compiled model has to stay compiled."""
    return torch.compiler.disable(function, recursive=False)


class Guard:
    """Guards one call of a wrapper. in_model: the code that runs now is the model's, so its errors are not ours."""

    def __init__(self, run: Guarded) -> None:
        self.state = run
        self.in_model = False

    @leave_to_python
    def run(self, function: Callable, /, *args, **kwargs):
        """Result of `function`, which is the cache's; FAILED where that raised, and the run has given up."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if self.in_model or type(error).__name__ == CANCEL or self.state.group is not None:
                raise  # of a group no process can go on alone: the others wait for what it would leave out
            if not self.state.stopped:
                logger.info("BWCache failed, sampling goes on without it:\n%s", traceback.format_exc())  # as text: see below
            self.state.give_up(error)
        return FAILED  # outside of the handler: an error in hand would keep the tensors of its frames

    @leave_to_python
    def crossing(self, into_model: bool, function: Callable, /, *args, **kwargs):
        """Result of `function`, called over the border between the cache and the model, one way or the other."""
        self.in_model = into_model
        result = function(*args, **kwargs)
        self.in_model = not into_model  # not in a finally: after an error it still says where that came from
        return result
