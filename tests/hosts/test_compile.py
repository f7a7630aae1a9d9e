"""torch.compile of the whole model, as the TorchCompileModel node does it, with the cache attached.

The backend here runs graphs as they are, so results stay bit-identical, and counts what was compiled.
"""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.tests.hosts.lab import FORCED, difference

pytestmark = [pytest.mark.comfyui, pytest.mark.slow, pytest.mark.family("wan21_t2v")]
FORECAST = {"speedup": 2.0}


@pytest.fixture
def graphs():
    """Operations of each graph that torch.compile made."""
    torch._dynamo.reset()
    yield []
    torch._dynamo.reset()


def compiled(model, graphs: list[int]):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    def backend(graph, example_inputs):
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    model = model.clone()
    set_torch_compile_wrapper(model=model, backend=backend)
    return model


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_model_stays_compiled_in_forecast_mode(lab, graphs, order):
    """In one graph, made once, whether the cache was attached before or after."""
    lab.sample(compiled(lab.plain, graphs), steps=2)
    plain, graphs[:] = graphs[:], []
    torch._dynamo.reset()
    if order == "before":
        cached = lab.cached(**FORECAST)
        model = compiled(cached.model, graphs)
    else:
        cached = lab.cached(compiled(lab.plain, graphs), **FORECAST)
        model = cached.model
    out = lab.sample(model)
    assert graphs == plain
    assert cached.report.evaluations_reused > 0
    assert difference(out, lab.sample(lab.cached(**FORECAST).model)) == 0.0


@pytest.mark.parametrize("settings", [FORCED, {**FORCED, "mode": "per block"}], ids=lambda settings: settings["mode"])
def test_decisions_about_blocks_are_not_frozen_into_a_graph(lab, graphs, settings):
    cached = lab.cached(**settings)
    out = lab.sample(compiled(cached.model, graphs))
    assert cached.actions == ["compute"] * 3 + ["reuse"] * 2 + ["compute"] * 3
    assert difference(out, lab.sample(lab.cached(**settings).model)) == 0.0


def test_blocks_compiled_one_by_one_stay_compiled(lab, graphs):
    """As KJNodes compiles Wan. Only this way a cache of block features and a compiled model go together."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    def backend(graph, example_inputs):
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    cached = lab.cached(**FORCED)
    model = cached.model.clone()
    names = [f"diffusion_model.blocks.{index}" for index in range(len(lab.block_keys))]
    set_torch_compile_wrapper(model=model, backend=backend, keys=names)
    out = lab.sample(model)
    assert len(graphs) > 0
    assert cached.actions[3] == "reuse"
    assert difference(out, lab.sample(lab.cached(**FORCED).model)) == 0.0
