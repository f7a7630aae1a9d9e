"""Which settings the bench runs: 15 for each model, and among those of all models 15 that every method runs.

The full product of 5 samplers, 3 numbers of steps, 3 strengths of guidance and 3 shifts has 135 settings a model. Here
sampler i runs with step count k, guidance k + i and shift k + 2 i, counted modulo 3, k = 0 to 2: for three samplers that is
an orthogonal array (each pair of values of two axes once), and each further sampler meets every value of the other axes,
too. `core` picks one k for each model and sampler so that every pair of values is still there, the models' included.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..zoo.models import COMMITTED

SAMPLERS = ("euler", "res_multistep", "uni_pc", "dpmpp_2m", "heun")
STEPS = (30, 20, 50)
SCALES = (1.0, 3.5, 7.0)  # cfg, or the input of a model with embedded guidance
SHIFTS = (5.0, 8.0, 12.0)
SPEEDUPS = (1.5, 2.0, 2.5, 3.0)
CORE = (0, 2, 0, 1, 0)  # of each sampler, added to the model's number


@dataclass(frozen=True)
class Setting:
    """One model under one sampler."""

    model: str
    sampler: str
    steps: int
    scale: float
    shift: float

    @property
    def name(self) -> str:
        return f"{self.model}/{self.sampler}/{self.steps}/{self.scale:g}/{self.shift:g}"


def design(model: str) -> list[Setting]:
    """The settings of one model, those of `core` first."""
    every = [(i, k) for i in range(len(SAMPLERS)) for k in range(3)]
    return [setting_of(model, *place) for place in sorted(every, key=lambda place: place[1] != core_place(model, place[0]))]


def setting_of(model: str, i: int, k: int) -> Setting:
    return Setting(model, SAMPLERS[i], STEPS[k], SCALES[(k + i) % 3], SHIFTS[(k + 2 * i) % 3])


def core_place(model: str, i: int) -> int:
    """k of the setting that sampler i has in `core`."""
    number = COMMITTED.index(model) if model in COMMITTED else sum(model.encode())
    return (number + CORE[i]) % 3


def core(model: str) -> list[Setting]:
    """The settings that every method runs, one for each sampler; over the three models of the zoo they hold every pair."""
    return [setting_of(model, i, core_place(model, i)) for i in range(len(SAMPLERS))]


def quick(model: str) -> list[Setting]:
    """One setting of 20 steps, at guidance that is used."""
    return [Setting(model, "euler", 20, 3.5, 8.0)]


def chosen(settings: list[Setting], pattern: str) -> list[Setting]:
    """Those whose model/sampler/steps/scale/shift begin with the parts of the pattern; * or nothing stands for all."""
    parts = pattern.split("/") if pattern else []
    return [
        setting
        for setting in settings
        if all(part in ("", "*", own) for part, own in zip(parts, setting.name.split("/"), strict=False))
    ]
