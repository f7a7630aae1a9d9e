"""The formula for what a run holds, by hand, and the decision where it lies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bwcache_pack.bwcache_core.config import AUTO, CPU, GPU, BlockConfig, ConfigError
from bwcache_pack.bwcache_core.paper import stream
from bwcache_pack.bwcache_core.paper.block_mode import ConditionShape
from bwcache_pack.bwcache_core.paper.memory import GIB, MIB, Footprint, footprint, readable
from bwcache_pack.bwcache_core.paper.placement import Placement, Room, place
from bwcache_pack.bwcache_core.paper.storage import Buffer

from .toys import COND, UNCOND, Run, ToyModel, condition, falling


def wan_14b(frames: int, height: int, width: int, rows: int = 1) -> ConditionShape:
    """40 blocks over latents of this size, patches of 1 x 2 x 2, bfloat16, width 5120."""
    tokens = (frames * (height // 2) * (width // 2),) * 40
    return ConditionShape(rows * 5120 * 2, hidden=tokens, returned=tokens)


AT_480P, AT_720P = wan_14b(21, 60, 104), wan_14b(21, 90, 160)
ALL_SAMPLES = 40 * 256 * 5120 * 2


@pytest.mark.parametrize(
    ("settings", "shape", "expected"),
    [
        ({}, AT_480P, Footprint(335_462_400, 2**29, ALL_SAMPLES, 0)),
        ({}, AT_720P, Footprint(774_144_000, 2**30, ALL_SAMPLES, 0)),
        ({"monitor_every": 10}, AT_480P, Footprint(335_462_400, 2**29, ALL_SAMPLES // 8, 0)),  # 0, 10, 20, 30 and the last
        ({}, wan_14b(21, 60, 104, rows=3), Footprint(3 * 335_462_400, 2**30, 3 * ALL_SAMPLES, 0)),
        ({"mode": "per block"}, AT_480P, Footprint(40 * 335_462_400, 40 * 2**29, ALL_SAMPLES, 335_462_400)),
    ],
)
def test_bytes_by_hand(settings, shape, expected):
    assert footprint(BlockConfig(**settings), [shape]) == expected


@pytest.mark.parametrize("mode", ["paper", "per block"])
def test_two_prompts_hold_twice_as_much(mode):
    one, two = (footprint(BlockConfig(mode=mode), [AT_480P] * count) for count in (1, 2))
    assert two == Footprint(2 * one.tensors, 2 * one.pinned, 2 * one.samples, 2 * one.passing)


def test_context_windows_pass_one_after_the_other():
    """Four windows of two prompts are held; two prompts are copied at a time."""
    one, eight = (footprint(BlockConfig(mode="per block"), [AT_480P] * count) for count in (1, 8))
    assert (eight.tensors, eight.passing) == (8 * one.tensors, 2 * one.passing)


def test_text_counts_where_a_block_returns_it():
    """Two blocks that return image and text apart, two that hold both: 300 image tokens, 10 of text, of 16 bytes."""
    shape = ConditionShape(16, hidden=(300, 300, 310, 310), returned=(310,) * 4)
    samples = 4 * 16 * 256
    assert footprint(BlockConfig(), [shape]) == Footprint(16 * 310, 2**13, samples, 0)
    pinned = 4 * 2**13 + 2 * 256  # 4800 and 4960 bytes take 8192, 160 take 256
    assert footprint(BlockConfig(mode="per block"), [shape]) == Footprint(16 * 4 * 310, pinned, samples, 16 * 310)


@pytest.mark.parametrize("shapes", [[], [ConditionShape(0)], [AT_480P, ConditionShape(16)]])
def test_bytes_that_depend_on_unknown_shapes_are_not_guessed(shapes):
    assert footprint(BlockConfig(), shapes) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 KiB"), (1536, "2 KiB"), (335_462_400, "320 MiB"), (MIB, "1 MiB"), (1.25 * GIB, "1.2 GiB")],
)
def test_bytes_for_people(count, text):
    assert readable(count) == text


# Where it lies

SIZE = Footprint(tensors=1300 * MIB, pinned=2048 * MIB, samples=100 * MIB, passing=50 * MIB)
ROOMY, TIGHT, NONE = Room(8 * GIB, 64 * GIB), Room(900 * MIB, 64 * GIB), Room(-20 * GIB, 2 * GIB)
ONLY_CPU = Room(host=64 * GIB, devices=(CPU,))

PLACED = [
    # settings, room, device, held, reserved on the model's device, what the reason says
    ({}, ROOMY, GPU, 1400, 1450, ""),
    ({}, Room(), GPU, 1400, 1450, ""),
    ({}, Room(1450 * MIB), GPU, 1400, 1450, ""),
    ({}, Room(1449 * MIB, 64 * GIB), CPU, 2148, 150, "in host memory instead"),
    ({}, TIGHT, CPU, 2148, 150,
     "features would take 1.4 GiB on a GPU with 900 MiB to spare: features are cached in host memory instead"),
    ({}, NONE, "", None, 0,
     "features would take 1.4 GiB on a GPU with 0 KiB to spare, features would take 2.0 GiB in host memory with "
     "1.0 GiB to spare"),
    ({"cache_device": "gpu"}, NONE, GPU, 1400, 1450, ""),
    ({"cache_device": "cpu"}, NONE, CPU, 2148, 150, ""),
    ({"mode": "per block"}, TIGHT, CPU, 2148, 150,
     "residuals of all blocks would take 1.4 GiB on a GPU with 900 MiB to spare: residuals of all blocks are cached in "
     "host memory instead"),
    ({"max_cache_mb": 1400}, ROOMY, GPU, 1400, 1450, ""),
    ({"max_cache_mb": 1399}, ROOMY, "", None, 0, "features would take 1.4 GiB, over max_cache_mb 1399"),
    ({"max_cache_mb": 2148}, NONE, CPU, 2148, 150, "host memory instead"),  # so the user said
    ({"max_cache_mb": 2147}, NONE, "", None, 0, "over max_cache_mb 2147"),
    ({}, ONLY_CPU, CPU, 1400, 1450, ""),  # the processor is the model's device, and nothing is pinned
    ({"cache_device": "gpu"}, ONLY_CPU, CPU, 1400, 1450, ""),
    ({}, Room(host=2 * GIB, devices=(CPU,)), "", None, 0, "features would take 1.3 GiB in host memory with 1.0 GiB"),
    ({"cache_device": "cpu"}, Room(2 * GIB, devices=(GPU,)), GPU, 1400, 1450, ""),
]


@pytest.mark.parametrize(("settings", "room", "device", "held", "reserved", "reason"), PLACED)
def test_where_the_cache_lies(settings, room, device, held, reserved, reason):
    placement = place(BlockConfig(**settings), SIZE, room)
    assert (placement.device, placement.reserved) == (device, reserved * MIB)
    assert placement.held == (held if held is None else held * MIB)
    assert placement.reason == reason or (reason and reason in placement.reason)


def test_so_little_never_moves_anything():
    assert place(BlockConfig(), Footprint(16 * MIB, 16 * MIB), NONE) == Placement(GPU, 16 * MIB, 16 * MIB)


def test_a_size_that_is_not_known_is_not_in_the_way():
    assert place(BlockConfig(), None, NONE) == Placement(GPU)


def test_the_decision_takes_the_place_of_auto():
    assert Placement(CPU).put_into(BlockConfig()).cache_device == CPU
    assert Placement("").put_into(BlockConfig()).cache_device == AUTO


@pytest.mark.parametrize("settings", [{"cache_device": "cuda"}, {"max_cache_mb": -1}])
def test_bad_memory_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        BlockConfig(**settings)


# A run


def run_of(settings: dict, dtype: torch.dtype = torch.float32) -> tuple[Run, list]:
    """A run of 10 evaluations of cond and uncond whose size was not known before, and all its outputs."""
    run = Run(ToyModel([lambda x: x * 1.01, lambda x: x * 0.99]), falling(10), **settings)
    run.block_run.place(place(run.block_run.config, None, Room()))

    def conditions(i: int) -> list:
        return [condition(c, torch.full((1, 6, 4), 1.0 + c + i / 64).to(dtype)) for c in (COND, UNCOND)]

    outputs = run.evaluate_all(falling(10)[:10], conditions)
    run.block_run.close(True)
    return run, outputs


def test_host_memory_that_is_not_rounded_counts_as_asked_for():
    """As ComfyUI pins it; torch takes powers of two."""
    for rounded, held in ((True, 2048 + 100), (False, 1300 + 100)):
        room = replace(TIGHT, host=64 * GIB, rounded=rounded)
        placement = place(BlockConfig(), SIZE, room)
        assert (placement.device, placement.held) == (CPU, held * MIB)


MODES = [
    {"mode": "paper", "threshold": 0.5, "reuse_interval": 2},
    {"mode": "per block", "threshold": 0.5, "reuse_interval": 2},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", MODES, ids=lambda s: s["mode"])
def test_host_memory_gives_the_same_bits(monkeypatch, settings, dtype):
    """What comes back from the host is another tensor every time."""
    run, on_device = run_of({**settings, "cache_device": "gpu"}, dtype=dtype)
    fetched = []

    class Elsewhere(Buffer):
        def get(self):
            fetched.append(super().get().clone())
            return fetched[-1]

    monkeypatch.setattr(stream, "stored", stored_in(Elsewhere))
    other, on_host = run_of({**settings, "cache_device": "cpu"}, dtype=dtype)
    assert fetched
    assert run.actions == other.actions
    assert "R" in run.actions or "P" in run.actions
    for before, after in zip(on_device, on_host, strict=True):
        assert all(torch.equal(a, b) and a.dtype == dtype for a, b in zip(before, after, strict=True))


def stored_in(kind: type[Buffer]):
    def stored(buffer, tensor, on_host, minus=None, pins=None):
        assert on_host
        buffer = buffer or kind(tensor, on_host)
        buffer.put(tensor, minus)
        return buffer

    return stored


@pytest.mark.parametrize("settings", MODES, ids=lambda s: s["mode"])
def test_the_estimate_is_right_from_the_first_evaluation_on(settings):
    """Before anything but the first tensors is held."""
    run = Run(ToyModel([lambda x: x * 1.01] * 3), falling(10), **settings)
    seen = []
    for i in range(10):
        run.evaluate(10.0 - i, [condition(COND, 1.0 + i / 64)])
        seen.append(run.block_run.report.estimate_bytes)
    assert set(seen) == {run.block_run.close(True).cache_bytes}


def test_a_prompt_that_joins_late_raises_the_estimate():
    run = Run(ToyModel([lambda x: x * 1.5]), falling(10), mode="paper", threshold=0.0)
    run.evaluate(10.0, [condition(COND, 1.0)])
    alone = run.block_run.report.estimate_bytes
    run.evaluate(9.0, [condition(COND, 1.0), condition(UNCOND, 2.0)])
    assert run.block_run.report.estimate_bytes == 2 * alone
    run.evaluate(8.0, [condition(COND, 1.0)])
    assert run.block_run.report.estimate_bytes == 2 * alone == run.block_run.report.cache_bytes


def test_without_room_the_run_stops_caching_before_it_begins():
    run = Run(ToyModel([lambda x: x]), falling(10), mode="paper", max_cache_mb=1)
    run.block_run.place(place(run.block_run.config, Footprint(2 * MIB, 2 * MIB), Room()))
    assert run.block_run.stopped
    run.block_run.begin_evaluation(torch.ones(1))
    assert not run.block_run.decision.reuse
    assert "over max_cache_mb 1" in run.block_run.decision.reason
    run.block_run.end_evaluation()
    report = run.block_run.close(True)
    assert len([w for w in report.warnings if "This run is not cached" in w]) == 1
    assert (report.cache_bytes, report.cache_device) == (0, "")


def test_a_budget_that_the_first_evaluation_breaks_drops_all():
    """2 conditions x (300 + 256) x 600 float32, features and sample, are 2.5 MiB, which nobody knew before."""
    run = Run(ToyModel([lambda x: x * 1.5]), falling(10), mode="paper", max_cache_mb=2)
    large = [condition(c, torch.full((1, 300, 600), 1.0 + c)) for c in (COND, UNCOND)]
    run.evaluate(10.0, large)
    assert run.block_run.stopped
    assert not run.block_run.streams
    run.block_run.begin_evaluation(torch.full((1,), 9.0))
    assert run.block_run.decision.reason == "it would hold 3 MiB, over max_cache_mb 2"
    run.block_run.end_evaluation()
    report = run.block_run.close(True)
    assert [step.cache_bytes for step in report.steps] == [2 * (300 + 256) * 600 * 4, 0]
    assert [warning.split(":")[0] for warning in report.warnings] == ["This run is not cached"]


def test_a_budget_that_is_kept_changes_nothing():
    settings = {"mode": "paper", "threshold": 0.5}
    free, outputs = run_of(settings)
    held, same = run_of({**settings, "max_cache_mb": 1})
    assert free.actions == held.actions
    assert all(torch.equal(a, b) for x, y in zip(outputs, same, strict=True) for a, b in zip(x, y, strict=True))
    assert not held.block_run.report.stopped
    assert 0 < held.block_run.report.cache_bytes < MIB
