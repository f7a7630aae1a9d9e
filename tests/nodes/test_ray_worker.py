"""What a worker of Raylight makes of its settings, without Ray and without a group to sample with."""

from __future__ import annotations

import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
import torch.distributed

from bwcache_pack.bwcache_core.config import BlockConfig, ForecastConfig
from bwcache_pack.hosts import embedded as host
from bwcache_pack.nodes import ray_worker
from bwcache_pack.nodes.attach import attach
from bwcache_pack.nodes.families import FAMILIES, BlockLayout, UnsupportedModelError, block_layout
from bwcache_pack.nodes.ray_worker import RunStats, attach_here, config_of, decision_group, why_no_hooks
from bwcache_pack.zoo.sampling import schedule
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig

SPLIT = {"is_xdit": True, "ulysses_degree": 2, "ring_degree": 1, "cfg_degree": 1}
CFG = {"is_xdit": True, "ulysses_degree": 1, "ring_degree": 1, "cfg_degree": 2}
FSDP = {"is_xdit": False, "is_fsdp": True}


@pytest.mark.parametrize(
    ("model", "parallel", "reason"),
    [
        ("WanModel", SPLIT, ""),
        ("WanModel", {**SPLIT, "ulysses_degree": 1, "ring_degree": 2}, ""),
        ("HunyuanVideo", SPLIT, "Raylight's forward of HunyuanVideo has no block hooks that work"),
        ("HunyuanVideo", {**SPLIT, "ulysses_degree": 1, "ring_degree": 2}, "Raylight's forward of HunyuanVideo"),
        ("HunyuanVideo", FSDP, ""),
        ("HunyuanVideo", {**SPLIT, "ulysses_degree": 1}, ""),
        ("WanModel", CFG, "With a cfg_degree over 1 a worker sees the blocks of one condition only"),
    ],
)
def test_why_blocks_cannot_be_hooked(model, parallel, reason):
    found = why_no_hooks(BlockLayout(model, (("double_block", 0),), FAMILIES[model]), parallel)
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_every_class_that_raylight_splits_with_hooks_is_a_family():
    assert set(FAMILIES) >= ray_worker.SHARED_WITH_HOOKS


def test_sharded_weights_do_not_hide_the_class():
    """torch's fully_shard puts a model whose weights are spread over the workers into a class of another name."""
    model = TinyWan(TinyWanConfig(num_layers=2))
    model.__class__ = type("FSDPTinyWan", (TinyWan,), {})
    assert block_layout(model).model == "TinyWan"


@pytest.mark.parametrize(
    "config", [ForecastConfig(speedup=3.0, plan="0-3/4"), BlockConfig(threshold=0.1), BlockConfig(mode="per block")]
)
def test_settings_arrive_as_they_were(config):
    assert config_of({"mode": config.mode, **asdict(config)}) == config


@pytest.mark.parametrize("mode", ["paper", "per block"])
def test_blocks_that_cannot_be_hooked_are_refused_with_a_way_out(patcher, mode):
    with pytest.raises(UnsupportedModelError, match=r"blocks of one condition only.*Choose mode forecast"):
        attach_here(patcher, {"mode": mode}, CFG, [].append)


@pytest.fixture
def world():
    """A group of this process alone, as the default one."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("parallel", "expected"),
    [
        (SPLIT, "world"),
        ({**SPLIT, "dp_degree": 1, "cfg_degree": 2}, "world"),
        ({**SPLIT, "dp_degree": 2}, "sequence"),
        ({**SPLIT, "dp_degree": 2, "is_fsdp": True}, "world"),
        (FSDP, "world"),
        ({"is_xdit": False, "is_fsdp": False}, None),
    ],
)
def test_workers_that_wait_for_each_other_decide_alike(world, monkeypatch, parallel, expected):
    xfuser = SimpleNamespace(get_sp_group=lambda: SimpleNamespace(device_group="sequence"))
    monkeypatch.setitem(sys.modules, "xfuser.core.distributed", xfuser)
    monkeypatch.setitem(sys.modules, "xfuser.core", SimpleNamespace(distributed=xfuser))
    monkeypatch.setitem(sys.modules, "xfuser", SimpleNamespace(core=sys.modules["xfuser.core"]))
    assert decision_group(parallel) == {"world": world}.get(expected, expected)


def test_a_worker_on_its_own_has_no_group():
    assert decision_group(SPLIT) is None


class OneByOne:
    """Raylight's wrapper for CFG parallelism, as it looks from outside: one condition at a time enters the model."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, executor, x, timestep, context, *rest):
        self.rows.append(len(x))
        parts = [executor(x[i : i + 1], timestep[i : i + 1], context[i : i + 1], *rest) for i in range(len(x))]
        return torch.cat(parts)


def sampled(patcher: host.TinyPatcher) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise, positive, negative = (
        torch.randn(shape, generator=generator) for shape in ((1, 16, 1, 4, 4), *[(1, 3, 4096)] * 2)
    )
    guider = host.TinyGuider(patcher)
    guider.set_conds(positive, negative)
    guider.set_cfg(4.0)
    return guider.sample(noise, torch.zeros_like(noise), host.SAMPLERS["euler"], schedule(8))


@pytest.fixture
def patcher() -> host.TinyPatcher:
    torch.manual_seed(0)
    return host.TinyPatcher(TinyWan(TinyWanConfig(num_layers=2)).eval().requires_grad_(False))


def test_the_forecast_lies_outside_of_cfg_parallelism(patcher):
    """Inside, half of the batch comes with the names of both conditions."""
    settings, stats, pushed = {"speedup": 2.0}, RunStats(), []
    latents = sampled(attach(patcher, ForecastConfig(**settings), stats))
    split = OneByOne()
    patcher.add_wrapper_with_key("diffusion_model", None, split)
    worker = attach_here(patcher, {"mode": "forecast", **settings}, CFG, pushed.append)
    torch.testing.assert_close(sampled(worker), latents, rtol=1e-4, atol=1e-4)
    [report], [expected] = pushed, stats.runs
    assert [step["action"] for step in report["steps"]] == [step.action for step in expected.steps]
    assert expected.evaluations_reused > 0
    assert split.rows == [2] * (8 - expected.evaluations_reused)


def test_a_report_that_cannot_be_sent_costs_no_run(patcher, caplog):
    def push(report: dict) -> None:
        raise RuntimeError("the actor is dead")

    latents = sampled(attach_here(patcher, {"mode": "paper", "threshold": 0.0}, {}, push))
    assert torch.equal(latents, sampled(patcher))
    assert "did not reach ComfyUI" in caplog.text
