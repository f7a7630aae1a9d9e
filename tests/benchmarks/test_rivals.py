"""Signals of other caches by hand, and a residual cache that reuses what it says."""

import pytest
import torch

from bwcache_pack.benchmarks.rivals import magcache, residual_cache, teacache, tuned
from bwcache_pack.hosts.embedded import TinyPatcher, sample
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig


def test_teacache_adds_up_changes_of_the_modulation():
    modulations = [torch.tensor([value]) for value in (1.0, 1.2, 1.32, 1.32, 1.98)]  # changes 0.2 0.1 0 0.5
    assert teacache(modulations, 0.25) == [0, 2, 4]
    assert teacache(modulations, 10.0) == [0]


def test_magcache_adds_up_ratios_keeps_its_warm_up_and_bounds_its_skips():
    magnitudes = [1.0] * 10 + [0.9, 0.8]
    assert magcache(magnitudes, 1.0) == [0, 1, 6, 11]  # a fifth of 12, then four skips each
    assert magcache([1.0, 1.0, 1.0, 0.5, 0.5, 0.5], 0.4) == [0, 3]


def test_a_signal_is_tuned_to_a_count():
    modulations = [torch.tensor([1.0 + 0.01 * i]) for i in range(20)]
    for count in (5, 10, 15, 20):
        assert len(tuned(lambda threshold: teacache(modulations, threshold), count)) == pytest.approx(count, abs=2)


def test_a_residual_cache_runs_the_blocks_where_it_should():
    torch.manual_seed(0)
    module = TinyWan(TinyWanConfig(num_layers=2, ffn_dim=64)).requires_grad_(False)
    noise = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    words = [torch.randn(1, 3, 4096, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]

    def clip(patch=None):
        model = TinyPatcher(module)
        return sample(patch(model) if patch else model, noise, *words, steps=6)

    watched = residual_cache()
    assert torch.equal(clip(watched), clip())
    assert len(watched.state.modulations) == len(watched.state.magnitudes) == 6
    assert min(watched.state.magnitudes) > 0

    runs = []
    handle = module.blocks[0].register_forward_hook(lambda *told: runs.append(1))
    clip(residual_cache({0, 3}))
    handle.remove()
    assert len(runs) == 2
