"""From ComfyUI to the workers of Raylight and back: attaching on all of them, and one report of what they did.

Needs Ray, so it is imported only when a node runs. Raylight keeps the workers in RAY_ACTORS, {"workers": [handles]}.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import ray

from ..bwcache_core.config import BlockConfig, ForecastConfig
from ..bwcache_core.report import KEPT_RUNS, RunReport, RunStats, StepReport

logger = logging.getLogger(__name__)
PACK = Path(__file__).resolve().parent.parent


def attach_everywhere(ray_actors: dict, config: ForecastConfig | BlockConfig) -> RunStats:
    """Attach on every worker's model, and wait until it is done. Returns the stats that their runs fill.

    Each worker keeps the cache until its model is loaded anew; attaching again replaces it. Raises ValueError with the
    worker's message where it refuses.
    """
    workers = ray_actors["workers"]
    parallel = ray.get(workers[0].get_parallel_dict.remote())
    if parallel.get("pipefusion_enabled"):
        raise ValueError(
            "BWCache does not support PipeFusion: its workers run different blocks. Remove one of the two."
        )
    collector = new_collector()
    arguments = (str(PACK), {"mode": config.mode, **asdict(config)}, parallel)
    function = worker_function()
    futures = [
        worker.model_function_runner.remote(function, *arguments, collector, rank)
        for rank, worker in enumerate(workers)
    ]
    try:
        ray.get(futures)
    except ray.exceptions.RayTaskError as error:
        raise ValueError(str(error.cause)) from error
    replicas = [info["dp_rank"] for info in ray.get([worker.get_exec_group_info.remote() for worker in workers])]
    return GatheredStats(collector, replicas)


def worker_function() -> Callable:
    """What runs in a worker. Ray sends a nested function as it stands; the worker has no module of this name."""

    def attach_in_worker(model, folder: str, settings: dict, parallel: dict, collector, rank: int):
        import importlib.util
        import sys
        from pathlib import Path

        import ray

        name = "bwcache_in_worker"
        if name not in sys.modules:
            if not Path(folder, "__init__.py").is_file():
                raise ValueError(
                    f"A worker of Raylight has no BWCache at {folder}. Install it there, at the same path."
                )
            spec = importlib.util.spec_from_file_location(
                name, Path(folder, "__init__.py"), submodule_search_locations=[folder]
            )
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        attach_here = importlib.import_module(f"{name}.nodes.ray_worker").attach_here

        def push(report: dict) -> None:
            ray.get(collector.add.remote(rank, report))

        try:
            return attach_here(model, settings, parallel, push)
        except (TypeError, ValueError) as error:  # ComfyUI's process could not read our own kinds of error
            raise ValueError(str(error)) from None

    return attach_in_worker


def new_collector():
    """A Ray actor that keeps the workers' reports. It outlives their models, and ends with the stats that read it."""

    class Collector:
        def __init__(self, kept: int) -> None:
            self.runs = defaultdict(lambda: deque(maxlen=kept))

        def add(self, rank: int, report: dict) -> None:
            self.runs[rank].append(report)

        def all(self) -> dict[int, list[dict]]:
            return {rank: list(runs) for rank, runs in self.runs.items()}

    return ray.remote(num_cpus=0)(Collector).remote(KEPT_RUNS)


class GatheredStats(RunStats):
    """The runs of all workers, read when asked for. replicas: by worker, which latent it samples (its dp_rank)."""

    def __init__(self, collector, replicas: Sequence[int]) -> None:
        self.collector = collector
        self.replicas = replicas
        self.plain: dict[int, list[dict]] = {}

    @property
    def runs(self) -> list[RunReport]:
        """One report for each run and latent, oldest first. Where Ray was shut down, those that were read before."""
        try:
            if ray.is_initialized():  # a call would start it again
                self.plain = ray.get(self.collector.all.remote())
        except Exception:  # Ray has nothing narrower for an actor of a cluster that ended
            logger.warning("BWCache: the workers' reports ended with their cluster", exc_info=True)
        by_replica = defaultdict(list)
        for rank, replica in enumerate(self.replicas):
            by_replica[replica].append([report_of(run) for run in self.plain.get(rank, [])])
        merged = [[merge(reports) for reports in zip(*ranks, strict=False)] for ranks in by_replica.values()]
        return [run for runs in zip(*merged, strict=False) for run in runs]


def report_of(plain: dict) -> RunReport:
    """Undo dataclasses.asdict."""
    return RunReport(**{**plain, "steps": [StepReport(**step) for step in plain["steps"]]})


def merge(reports: Sequence[RunReport]) -> RunReport:
    """One report of the workers that sampled one latent: they agree on all but time and bytes, of which the most counts."""
    first = reports[0]
    steps = [
        replace(step, seconds=max(s.seconds for s in same), cache_bytes=max(s.cache_bytes for s in same))
        for step, same in zip(first.steps, zip(*(report.steps for report in reports), strict=False), strict=False)
    ]
    warnings = list(dict.fromkeys(warning for report in reports for warning in report.warnings))
    if len({tuple(step.action for step in report.steps) for report in reports}) > 1:
        warnings.append(
            "The workers did not reuse the same steps. Please report this: their outputs do not belong together."
        )
    return replace(first, steps=steps, warnings=warnings, finished=all(report.finished for report in reports))
