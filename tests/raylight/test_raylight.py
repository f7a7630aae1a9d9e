"""The cache in two workers of Ray that share the tokens of one video, attached as on Raylight's actors."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from bwcache_pack.bwcache_core.report import RunReport, RunStats, StepReport
from bwcache_pack.devtools.pack import ROOT
from bwcache_pack.nodes.attach import attach
from bwcache_pack.nodes.ray_worker import config_of
from bwcache_pack.zoo.wan import TinyWan

ray = pytest.importorskip("ray", reason="no Ray: requirements-dev.txt has it on Linux up to Python 3.13")

pytestmark = pytest.mark.slow
WORKERS = 2
STEPS, CFG, SEED = 12, 4.0, 3
PARALLEL = {"global_world_size": WORKERS, "is_xdit": True, "ulysses_degree": WORKERS, "ring_degree": 1, "dp_degree": 1}
PATHS = [str(Path(__file__).parent / "workers"), str(ROOT / "devtools")]
MODES = {
    "uncached": {"mode": "paper", "threshold": 0.0},
    "paper": {"mode": "paper", "threshold": 0.03, "reuse_interval": 2},
    "per block": {"mode": "per block", "threshold": 0.03, "reuse_interval": 2},
    "forecast": {"mode": "forecast", "speedup": 2.0, "corrector": False},  # which knows the samplers of one module only
}


@pytest.fixture(scope="module")
def standin():
    """The module of the workers, as this process sees it."""
    sys.path[:0] = PATHS
    yield importlib.import_module("raylight_standin")
    for path in PATHS:
        sys.path.remove(path)


@pytest.fixture(scope="module")
def actors(standin, tmp_path_factory) -> dict:
    """RAY_ACTORS: what Raylight's nodes hand on."""
    paths = os.pathsep.join(PATHS)
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # a test tells nobody
        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment})
    parallel = {**PARALLEL, "init_method": f"file://{tmp_path_factory.mktemp('group') / 'store'}"}
    worker = ray.remote(standin.RayWorker)
    yield {"workers": [worker.remote(rank, 0, parallel) for rank in range(WORKERS)]}
    ray.shutdown()


@pytest.fixture(scope="module")
def prompts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(1, 7, 4096, generator=generator) for _ in range(2)]


def load(actors: dict, name: str = "wan") -> None:
    ray.get([worker.load_unet.remote(name, {}) for worker in actors["workers"]])


def sample(actors: dict, prompts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Latents of every worker, sampled as Raylight's sampler node asks for them."""
    settings = (SEED, STEPS, CFG, "euler", "simple", *prompts, None)
    return [out["samples"] for (out,) in ray.get([w.common_ksampler.remote(*settings) for w in actors["workers"]])]


def ray_actors():
    """Imported here: without Ray it cannot be."""
    return importlib.import_module("bwcache_pack.nodes.ray_actors")


def attached(actors: dict, **settings) -> RunStats:
    return ray_actors().attach_everywhere(actors, config_of({"mode": "paper", **settings}))


def alone(standin, prompts, **settings) -> tuple[RunReport, torch.Tensor]:
    """The same run in one process that has all tokens."""
    stats = RunStats()
    model = attach(standin.made(TinyWan), config_of(settings), stats)
    latents = standin.sample(model, SEED, STEPS, CFG, *prompts)
    return stats.runs[-1], latents


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
def test_workers_reuse_what_one_process_would(actors, standin, prompts, settings):
    load(actors)
    stats = attached(actors, **settings)
    first, second = sample(actors, prompts)
    report, latents = alone(standin, prompts, **settings)
    torch.testing.assert_close(first, latents, rtol=1e-4, atol=1e-4)
    assert torch.equal(first, second)
    [merged] = stats.runs
    assert [step.action for step in merged.steps] == [step.action for step in report.steps]
    assert (report.work_ratio > 1.0) == (settings != MODES["uncached"])
    for ours, theirs in zip(merged.steps, report.steps, strict=True):
        assert (ours.blocks_run, ours.reused_blocks) == (theirs.blocks_run, theirs.reused_blocks)
        assert (ours.calls_run, ours.reason) == (theirs.calls_run, theirs.reason)
        assert ours.conditions == pytest.approx(theirs.conditions, rel=1e-4)
    assert merged.finished and merged.warnings == report.warnings and not merged.faults
    assert stats.to_json().startswith("[")


def test_where_blocks_cannot_be_hooked_the_workers_say_so(actors):
    load(actors, "ltxv")
    with pytest.raises(ValueError, match=r"Raylight's forward of LTXVModel has no block hooks that work.*mode forecast"):
        attached(actors, **MODES["paper"])


def test_the_forecast_needs_no_hooks_and_no_known_class(actors, prompts):
    load(actors, "ltxv")
    stats = attached(actors, mode="forecast", plan="0-1 4 7 9 11/12", threshold=10.0)
    first, second = sample(actors, prompts)
    assert torch.equal(first, second)
    [run] = stats.runs
    assert [step.evaluation for step in run.steps if step.action == "compute"] == run.planned == [0, 1, 4, 7, 9, 11]


def test_a_model_that_is_not_supported_is_named(actors):
    ray.get([worker.model_function_runner.remote(nothing_known) for worker in actors["workers"]])
    with pytest.raises(ValueError, match="do not support Identity"):
        attached(actors)


def test_pipefusion_is_refused(actors):
    parallel = ray.get(actors["workers"][0].get_parallel_dict.remote())
    ray.get(actors["workers"][0].set_parallel_dict.remote({**parallel, "pipefusion_enabled": True}))
    try:
        with pytest.raises(ValueError, match="does not support PipeFusion"):
            attached(actors)
    finally:
        ray.get(actors["workers"][0].set_parallel_dict.remote(parallel))


@pytest.mark.parametrize("mode", ["paper", "forecast"])
def test_attaching_again_replaces_and_a_run_that_fails_leaves_nothing(actors, prompts, mode):
    load(actors)
    replaced = attached(actors, **MODES["uncached"])
    stats = attached(actors, **MODES[mode])
    whole = sample(actors, prompts)
    ray.get([worker.model_function_runner.remote(failing, 7) for worker in actors["workers"]])
    with pytest.raises(ray.exceptions.RayTaskError, match="evaluation 7 with 1 run"):
        sample(actors, prompts)
    held = [worker.model_function_runner_get_values.remote(states) for worker in actors["workers"]]
    assert ray.get(held) == [0] * WORKERS
    ray.get([worker.model_function_runner.remote(failing, -1) for worker in actors["workers"]])
    again = sample(actors, prompts)
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    load(actors)  # Wan 2.2: the other expert comes to the same workers, and the reports are read after it
    before, broken, after = stats.runs
    assert [run.finished for run in (before, broken, after)] == [True, False, True]
    assert [step.action for step in before.steps] == [step.action for step in after.steps]
    assert broken.evaluations == 6  # the seventh raised
    assert replaced.runs == []


def test_what_is_sent_to_a_worker_needs_no_module_of_ours():
    """Raylight's workers cannot import a custom node by the name that ComfyUI gave it."""
    function = ray_actors().worker_function()
    program = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).__name__)"
    sent = ray.cloudpickle.dumps(function)
    out = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True).stdout
    assert out.strip() == b"attach_in_worker"
    with pytest.raises(ValueError, match="no BWCache at /nowhere"):
        pickle.loads(sent)(None, "/nowhere", {}, {}, None, 0)


def step(action: str, seconds: float, held: int) -> StepReport:
    return StepReport(0, 0, 1.0, action, "why", seconds=seconds, cache_bytes=held)


def test_a_merged_report_has_the_slowest_time_and_the_most_bytes():
    runs = [
        RunReport("paper", 0.1, [1.0, 0.5, 0.0], finished=True, warnings=["few steps"],
                  steps=[step("compute", 1.0, 10), step("reuse", 0.5, 30)]),
        RunReport("paper", 0.1, [1.0, 0.5, 0.0], finished=True, warnings=["few steps", "late"],
                  steps=[step("compute", 3.0, 20), step("reuse", 0.2, 20)]),
    ]  # fmt: skip
    merged = ray_actors().merge(runs)
    assert [(s.action, s.seconds, s.cache_bytes) for s in merged.steps] == [("compute", 3.0, 20), ("reuse", 0.5, 30)]
    assert merged.warnings == ["few steps", "late"] and merged.finished
    runs[1].steps[1].action, runs[1].finished = "compute", False
    apart = ray_actors().merge(runs)
    assert not apart.finished
    assert apart.warnings[-1].startswith("The workers did not reuse the same steps.")


def test_workers_that_sample_different_latents_have_a_report_each(actors):
    """Two replicas of one worker each: their runs are told apart, and each is in the stats."""
    collector = ray_actors().new_collector()
    for rank, held in ((0, 10), (1, 20), (0, 30), (1, 40)):
        run = RunReport("paper", 0.1, [1.0, 0.0], steps=[step("compute", 1.0, held)])
        ray.get(collector.add.remote(rank, asdict(run)))
    apart, together = (ray_actors().GatheredStats(collector, replicas) for replicas in ([0, 1], [0, 0]))
    assert [run.cache_bytes for run in apart.runs] == [10, 20, 30, 40]
    assert [run.cache_bytes for run in together.runs] == [20, 40]


def kill(actor) -> None:
    """End an actor, and wait until it has: Ray only asks it to, and it may answer a few more calls."""
    ray.kill(actor)
    deadline = time.monotonic() + 60
    with pytest.raises(ray.exceptions.RayActorError):
        while time.monotonic() < deadline:
            ray.get(actor.all.remote())


def test_reports_that_were_read_stay_when_ray_ends(actors, monkeypatch, caplog):
    collector = ray_actors().new_collector()
    ray.get(collector.add.remote(0, asdict(RunReport("paper", 0.1, [1.0, 0.0]))))
    stats = ray_actors().GatheredStats(collector, [0])
    assert len(stats.runs) == 1
    kill(collector)
    assert len(stats.runs) == 1
    assert "ended with their cluster" in caplog.text
    caplog.clear()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert len(stats.runs) == 1
    assert not caplog.text


def nothing_known(model):
    """Sent to a worker: a model of a class that is not supported."""
    from bwcache_pack.hosts.embedded import TinyPatcher

    return TinyPatcher(torch.nn.Identity())


def failing(model, evaluation: int):
    """Sent to a worker: the model raises at that evaluation of each run."""
    count = [0]

    def begin(executor, *args, **kwargs):
        count[0] = 0
        return executor(*args, **kwargs)

    def predict(executor, *args, **kwargs):
        count[0] += 1
        if count[0] == evaluation:
            raise RuntimeError(f"evaluation {evaluation} with {states(None)} run")
        return executor(*args, **kwargs)

    for point, wrapper in (("outer_sample", begin), ("predict_noise", predict)):
        model.remove_wrappers_with_key(point, "failing")
        model.add_wrapper_with_key(point, "failing", wrapper)
    return model


def states(model) -> int:
    """Sent to a worker: how many states of a run there are in it."""
    import gc

    gc.collect()
    return sum(type(thing).__name__ in ("BlockRun", "ForecastRun") and hasattr(thing, "report") for thing in gc.get_objects())
