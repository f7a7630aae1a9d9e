"""The oracle finds the optimum of its own cost, and the simulator is plain sampling where every step computes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from bwcache_pack.benchmarks.oracle import Oracle, inner_products
from bwcache_pack.benchmarks.placement import settings
from bwcache_pack.benchmarks.simulate import SAMPLERS, Batch, Setting, psnr, sample, sampler_steps
from bwcache_pack.bwcache_core.plan import automatic
from bwcache_pack.zoo.models import open_model

STEPS = 7


def random_oracle(longest: int = STEPS) -> Oracle:
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(STEPS, 3, 50, generator=generator).cumsum(0)
    return Oracle(inner_products(list(walk)), [0.1, 0.1, 0.1, 0.2, 0.2, 0.1, 0.2], longest=longest)


def test_the_oracle_is_the_optimum_of_all_plans():
    oracle = random_oracle()
    for count in range(1, STEPS + 1):
        every = [(0, *rest) for rest in combinations(range(1, STEPS), count - 1)]
        best = min(every, key=lambda plan: oracle.cost(plan).mean())
        assert oracle.plan(count) == best


def test_computing_all_costs_nothing_and_long_gaps_are_not_allowed():
    oracle = random_oracle(longest=3)
    assert oracle.cost(range(STEPS)).max() == 0.0
    assert np.isinf(oracle.cost([0, 1, 5])).all()
    assert max(b - a for a, b in zip(oracle.plan(3), [*oracle.plan(3)[1:], STEPS], strict=True)) <= 3


def test_a_straight_line_of_outputs_costs_only_what_the_share_leaves_out():
    line = [torch.full((1, 4), float(step)) for step in range(4)]
    oracle = Oracle(inner_products(line), [1.0] * 4)
    halted = oracle.error((0,), 2)  # one output is repeated: 2 off
    assert halted == pytest.approx([2.0])
    assert (oracle.error((0, 1), 3) < halted).all()


@pytest.mark.slow
def test_every_step_computed_is_plain_sampling_and_a_plan_comes_near():
    model = open_model("tinywan")
    batch, setting = Batch(model, 2), Setting("euler", 10, 8.0, 3.0)
    steps = sampler_steps(setting)
    plain = sample(batch, setting, steps)
    by_itself = batch.plain.sample(batch.noise, batch.prompts, 3.0, 10, 8.0)
    assert torch.allclose(plain, by_itself, atol=1e-3)
    assert torch.equal(sample(batch, setting, steps, range(10)), plain)
    halved = sample(batch, setting, steps, automatic(setting.schedule, 2.0).computes)
    assert 20.0 < min(psnr(model.pixels(halved), model.pixels(plain))) < 100.0


def test_the_design_covers_every_pair_of_sampler_and_scale():
    pairs = {(setting.sampler, setting.scale) for setting in settings()}
    assert len(pairs) == len(SAMPLERS) * 4
    assert len({(setting.steps, setting.shift) for setting in settings()}) == 6
