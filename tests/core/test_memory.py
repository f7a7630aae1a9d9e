"""The formula for what a run holds, by hand, and the decision where it lies."""

from __future__ import annotations

import pytest
import torch

from bwcache_pack.bwcache_core import forecast, stream
from bwcache_pack.bwcache_core.config import AUTO, CPU, FEATURES, GPU, OUTPUT, BWCacheConfig, ConfigError
from bwcache_pack.bwcache_core.memory import GIB, MIB, ConditionShape, Footprint, footprint, readable
from bwcache_pack.bwcache_core.placement import Placement, Room, cache_points, place
from bwcache_pack.bwcache_core.storage import Buffer

from .toys import COND, UNCOND, Run, ToyModel, condition, falling

WAN = {"rows": 1, "channels": 16, "itemsize": 2, "output_itemsize": 2, "width": 5120}


def wan_14b(frames: int, height: int, width: int, **other) -> ConditionShape:
    """40 blocks over latents of this size, patches of 1 x 2 x 2, bfloat16."""
    tokens = (frames * (height // 2) * (width // 2),) * 40
    return ConditionShape(places=frames * height * width, hidden=tokens, returned=tokens, **{**WAN, **other})


AT_480P, AT_720P = wan_14b(21, 60, 104), wan_14b(21, 90, 160)
SAMPLE = 256 * 5120 * 2  # of one block
ALL_SAMPLES = 40 * SAMPLE
OUTPUT_480P, OUTPUT_SAMPLE = 16 * 21 * 60 * 104 * 2, 16 * 256 * 2


@pytest.mark.parametrize(
    ("settings", "shape", "tensors", "samples"),
    [
        ({"mode": "paper"}, AT_480P, 335_462_400, ALL_SAMPLES),
        ({"mode": "paper"}, AT_720P, 774_144_000, ALL_SAMPLES),
        ({"mode": "paper", "monitor_every": 10}, AT_480P, 335_462_400, 5 * SAMPLE),  # 0, 10, 20, 30 and the last
        ({"cache_point": "features"}, AT_480P, 2 * 335_462_400, ALL_SAMPLES + SAMPLE),
        ({"cache_point": "features", "order": 2}, AT_480P, 3 * 335_462_400, ALL_SAMPLES + 2 * SAMPLE),
        ({"cache_point": "features", "order": 0, "tokens": 9}, AT_480P, 335_462_400, 40 * 9 * 5120 * 2),
        ({"mode": "per block"}, AT_480P, 40 * 335_462_400, ALL_SAMPLES),
        ({}, AT_480P, 2 * OUTPUT_480P, 2 * OUTPUT_SAMPLE),
        ({"order": 0}, AT_480P, OUTPUT_480P, OUTPUT_SAMPLE),
        ({}, wan_14b(21, 60, 104, rows=3, output_itemsize=4), 6 * 2 * OUTPUT_480P, 6 * 2 * OUTPUT_SAMPLE),
    ],
)
def test_bytes_by_hand(settings, shape, tensors, samples):
    assert footprint(BWCacheConfig(**settings), [shape]) == Footprint(tensors, samples)


def test_two_prompts_hold_twice_as_much():
    config = BWCacheConfig(mode="paper")
    assert footprint(config, [AT_480P] * 2).total == 2 * footprint(config, [AT_480P]).total
    assert footprint(config, [AT_480P, AT_720P]) == footprint(config, [AT_480P]) + footprint(config, [AT_720P])


def test_a_cached_output_is_an_80th_of_the_features():
    """64 numbers stand for a token of 5120: 1.25 %."""
    output, features = (footprint(BWCacheConfig(cache_point=point), [AT_480P]) for point in (OUTPUT, FEATURES))
    assert output.tensors / features.tensors == 64 / 5120
    assert features.tensors == 2 * 335_462_400


def test_text_counts_where_a_block_returns_it():
    """Two blocks that return image and text apart, two that hold both: 100 image tokens, 10 of text."""
    shape = ConditionShape(1, 16, 400, 2, 2, 8, hidden=(100, 100, 110, 110), returned=(110,) * 4)
    assert footprint(BWCacheConfig(mode="paper", tokens=105), [shape]) == Footprint(16 * 110, 16 * (100 + 100 + 210))
    assert footprint(BWCacheConfig(mode="per block"), [shape]).tensors == 16 * 440


@pytest.mark.parametrize("shapes", [[], [ConditionShape(1, 16, 400, 2, 2)]])
def test_bytes_that_depend_on_unknown_shapes_are_not_guessed(shapes):
    assert footprint(BWCacheConfig(mode="paper"), shapes) is None
    assert (footprint(BWCacheConfig(), shapes) is None) == (not shapes)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 KiB"), (1536, "2 KiB"), (335_462_400, "320 MiB"), (MIB, "1 MiB"), (1.25 * GIB, "1.2 GiB")],
)
def test_bytes_for_people(count, text):
    assert readable(count) == text


# Where it lies

SIZES = {FEATURES: Footprint(1300 * MIB, 100 * MIB), OUTPUT: Footprint(16 * MIB, 0)}
ROOMY, TIGHT, NONE = Room(8 * GIB, 64 * GIB), Room(900 * MIB, 64 * GIB), Room(-20 * GIB, 2 * GIB)
ONLY_CPU = Room(host=64 * GIB, devices=(CPU,))

PLACED = [
    # settings, room, cache point, device, reserved on the model's device, what the reason says
    ({}, ROOMY, OUTPUT, GPU, 16, ""),
    ({}, NONE, OUTPUT, GPU, 16, ""),  # so little never moves anything
    ({}, Room(), OUTPUT, GPU, 16, ""),
    ({"cache_point": "features"}, ROOMY, FEATURES, GPU, 1400, ""),
    ({"cache_point": "features"}, Room(), FEATURES, GPU, 1400, ""),
    ({"cache_point": "features"}, TIGHT, OUTPUT, GPU, 16,
     "features would take 1.4 GiB on a GPU with 900 MiB to spare: the output is cached instead"),
    ({"cache_point": "features", "cache_device": "gpu"}, TIGHT, FEATURES, GPU, 1400, ""),
    ({"cache_point": "features", "cache_device": "cpu"}, NONE, FEATURES, CPU, 100, ""),
    ({"cache_device": "cpu"}, ROOMY, OUTPUT, CPU, 0, ""),
    ({"mode": "paper"}, ROOMY, FEATURES, GPU, 1400, ""),
    ({"mode": "paper"}, TIGHT, FEATURES, CPU, 100,
     "features would take 1.4 GiB on a GPU with 900 MiB to spare: features are cached in host memory instead"),
    ({"mode": "paper"}, NONE, FEATURES, "", 0,
     "features would take 1.4 GiB on a GPU with 0 KiB to spare, features would take 1.3 GiB in host memory with "
     "1.0 GiB to spare"),
    ({"mode": "paper", "cache_device": "gpu"}, NONE, FEATURES, GPU, 1400, ""),
    ({"mode": "per block"}, TIGHT, FEATURES, CPU, 100,
     "residuals of all blocks would take 1.4 GiB on a GPU with 900 MiB to spare: residuals of all blocks are cached in "
     "host memory instead"),
    ({"mode": "paper", "max_cache_mb": 1400}, ROOMY, FEATURES, GPU, 1400, ""),
    ({"mode": "paper", "max_cache_mb": 1399}, ROOMY, FEATURES, "", 0, "over max_cache_mb 1399"),
    ({"mode": "paper", "max_cache_mb": 1400}, NONE, FEATURES, CPU, 100, "host memory instead"),  # so the user said
    ({"cache_point": "features", "max_cache_mb": 16}, ROOMY, OUTPUT, GPU, 16, "over max_cache_mb 16: the output is"),
    ({"cache_point": "features", "max_cache_mb": 15}, ROOMY, FEATURES, "", 0, "over max_cache_mb 15, the output"),
    ({"cache_point": "features", "max_cache_mb": 16, "cache_device": "cpu"}, ROOMY, OUTPUT, CPU, 0, "over max_cache_mb"),
    ({"cache_point": "features"}, ONLY_CPU, FEATURES, CPU, 1400, ""),  # the processor is the model's device
    ({"cache_point": "features", "cache_device": "gpu"}, ONLY_CPU, FEATURES, CPU, 1400, ""),
    ({"cache_point": "features"}, Room(host=2 * GIB, devices=(CPU,)), OUTPUT, CPU, 16, "the output is cached"),
    ({"cache_point": "features", "cache_device": "cpu"}, Room(2 * GIB, devices=(GPU,)), FEATURES, GPU, 1400, ""),
]


@pytest.mark.parametrize(("settings", "room", "point", "device", "reserved", "reason"), PLACED)
def test_where_the_cache_lies(settings, room, point, device, reserved, reason):
    config = BWCacheConfig(**settings)
    placement = place(config, {p: SIZES[p] for p in cache_points(config)}, room)
    assert (placement.point, placement.device, placement.reserved) == (point, device, reserved * MIB)
    assert placement.reason == reason or (reason and reason in placement.reason)


def test_a_size_that_is_not_known_is_not_in_the_way():
    placement = place(BWCacheConfig(mode="paper"), {FEATURES: None}, NONE)
    assert placement == Placement(FEATURES, GPU)


def test_the_decision_takes_the_place_of_auto():
    config = Placement(OUTPUT, CPU).settle(BWCacheConfig(cache_point="features"))
    assert (config.cache_point, config.cache_device, config.caches_output) == (OUTPUT, CPU, True)
    untouched = Placement(OUTPUT, "").settle(BWCacheConfig(cache_point="features"))
    assert (untouched.cache_point, untouched.cache_device) == (FEATURES, AUTO)


@pytest.mark.parametrize("settings", [{"cache_device": "cuda"}, {"max_cache_mb": -1}])
def test_bad_memory_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        BWCacheConfig(**settings)


# A run


def run_of(settings: dict, dtype: torch.dtype = torch.float32) -> tuple[Run, list]:
    """A run of 10 evaluations of cond and uncond whose size was not known before, and all its outputs."""
    run = Run(ToyModel([lambda x: x * 1.01, lambda x: x * 0.99]), falling(10), **settings)
    config = run.session.config
    run.session.place(place(config, dict.fromkeys(cache_points(config)), Room()))

    def conditions(i: int) -> list:
        return [condition(c, torch.full((1, 6, 4), 1.0 + c + i / 64).to(dtype)) for c in (COND, UNCOND)]

    outputs = run.evaluate_all(falling(10)[:10], conditions)
    run.session.close(True)
    return run, outputs


MODES = [
    {"mode": "paper", "threshold": 0.5, "reuse_interval": 2},
    {"mode": "per block", "threshold": 0.5, "reuse_interval": 2},
    {"mode": "adaptive", "cache_point": "features"},
    {"mode": "adaptive", "order": 2},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", MODES, ids=lambda s: f"{s['mode']} {len(s)}")
def test_host_memory_gives_the_same_bits(monkeypatch, settings, dtype):
    """What comes back from the host is another tensor every time."""
    run, on_device = run_of({**settings, "cache_device": "gpu"}, dtype=dtype)
    fetched = []

    class Elsewhere(Buffer):
        def get(self):
            fetched.append(super().get().clone())
            return fetched[-1]

    for module in (forecast, stream):
        monkeypatch.setattr(module, "stored", stored_in(Elsewhere))
    other, on_host = run_of({**settings, "cache_device": "cpu"}, dtype=dtype)
    assert fetched
    assert run.actions == other.actions
    assert "R" in run.actions or "P" in run.actions
    for before, after in zip(on_device, on_host, strict=True):
        assert all(torch.equal(a, b) and a.dtype == dtype for a, b in zip(before, after, strict=True))


def stored_in(kind: type[Buffer]):
    def stored(buffer, tensor, on_host, minus=None):
        assert on_host
        buffer = buffer or kind(tensor, on_host)
        buffer.put(tensor, minus)
        return buffer

    return stored


@pytest.mark.parametrize("settings", MODES, ids=lambda s: f"{s['mode']} {len(s)}")
def test_the_estimate_is_right_from_the_first_evaluation_on(settings):
    """Before anything but the first tensors is held."""
    run = Run(ToyModel([lambda x: x * 1.01] * 3), falling(10), **settings)
    seen = []
    for i in range(10):
        run.evaluate(10.0 - i, [condition(COND, 1.0 + i / 64)])
        seen.append(run.session.report.estimate_bytes)
    assert set(seen) == {run.session.close(True).cache_bytes}


def test_a_prompt_that_joins_late_raises_the_estimate():
    run = Run(ToyModel([lambda x: x * 1.5]), falling(10), mode="paper", threshold=0.0)
    run.evaluate(10.0, [condition(COND, 1.0)])
    alone = run.session.report.estimate_bytes
    run.evaluate(9.0, [condition(COND, 1.0), condition(UNCOND, 2.0)])
    assert run.session.report.estimate_bytes == 2 * alone
    run.evaluate(8.0, [condition(COND, 1.0)])
    assert run.session.report.estimate_bytes == 2 * alone == run.session.report.cache_bytes


def test_without_room_the_run_stops_caching_before_it_begins():
    run = Run(ToyModel([lambda x: x]), falling(10), mode="paper", max_cache_mb=1)
    run.session.place(place(run.session.config, {FEATURES: Footprint(2 * MIB)}, Room()))
    assert run.session.stopped
    run.session.begin_evaluation(torch.ones(1))
    assert not run.session.decision.reuse
    assert "over max_cache_mb 1" in run.session.decision.reason
    run.session.end_evaluation()
    report = run.session.close(True)
    assert len([w for w in report.warnings if "This run is not cached" in w]) == 1
    assert (report.cache_bytes, report.cache_device) == (0, "")


def test_a_budget_that_the_first_evaluation_breaks_drops_all():
    """2 conditions x (300 + 256) x 600 float32, features and sample, are 2.5 MiB, which nobody knew before."""
    run = Run(ToyModel([lambda x: x * 1.5]), falling(10), mode="paper", max_cache_mb=2)
    large = [condition(c, torch.full((1, 300, 600), 1.0 + c)) for c in (COND, UNCOND)]
    run.evaluate(10.0, large)
    assert run.session.stopped
    assert not run.session.streams
    run.session.begin_evaluation(torch.full((1,), 9.0))
    assert run.session.decision.reason == "it would hold 3 MiB, over max_cache_mb 2"
    run.session.end_evaluation()
    report = run.session.close(True)
    assert [step.cache_bytes for step in report.steps] == [2 * (300 + 256) * 600 * 4, 0]
    assert report.summary().count("This run is not cached") == 1


def test_a_budget_that_is_kept_changes_nothing():
    settings = {"mode": "paper", "threshold": 0.5}
    free, outputs = run_of(settings)
    held, same = run_of({**settings, "max_cache_mb": 1})
    assert free.actions == held.actions
    assert all(torch.equal(a, b) for x, y in zip(outputs, same, strict=True) for a, b in zip(x, y, strict=True))
    assert not held.session.report.stopped
    assert 0 < held.session.report.cache_bytes < MIB
