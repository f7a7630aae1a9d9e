"""The settings that the bench runs: few, and every pair of values of two axes among them."""

from itertools import combinations

import pytest

from bwcache_pack.benchmarks.design import SAMPLERS, SCALES, SHIFTS, STEPS, chosen, core, design
from bwcache_pack.zoo.models import COMMITTED

AXES = {"sampler": SAMPLERS, "steps": STEPS, "scale": SCALES, "shift": SHIFTS}


def pairs(settings, one, other):
    return {(getattr(setting, one), getattr(setting, other)) for setting in settings}


@pytest.mark.parametrize("model", [*COMMITTED, "another"])
def test_every_pair_of_values_occurs_for_each_model(model):
    settings = design(model)
    assert len(settings) == len(set(settings)) == 15
    for one, other in combinations(AXES, 2):
        assert len(pairs(settings, one, other)) == len(AXES[one]) * len(AXES[other]), (one, other)


def test_every_pair_occurs_in_the_core_too_and_models_are_an_axis_of_it():
    settings = [setting for model in COMMITTED for setting in core(model)]
    assert len(settings) == 15
    for one, other in combinations({**AXES, "model": COMMITTED}, 2):
        counts = [len(COMMITTED) if axis == "model" else len(AXES[axis]) for axis in (one, other)]
        assert len(pairs(settings, one, other)) == counts[0] * counts[1], (one, other)


def test_the_core_comes_first():
    for model in COMMITTED:
        assert design(model)[:5] == core(model)


def test_settings_are_chosen_by_the_first_parts_of_their_names():
    settings = [setting for model in COMMITTED for setting in design(model)]
    assert chosen(settings, "") == settings
    assert {setting.model for setting in chosen(settings, "market")} == {"market"}
    assert {setting.sampler for setting in chosen(settings, "*/heun")} == {"heun"}
    assert len(chosen(settings, "tinywan/euler/20")) == 1
    assert chosen(settings, "tinywan/lcm") == []
