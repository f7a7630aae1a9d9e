"""Verdicts: the reason is the right one, and the advice would work."""

from __future__ import annotations

import pytest

from bwcache_pack.bwcache_core.policy import similar
from bwcache_pack.nodes.verdict import verdict
from bwcache_pack.tests.nodes.reports import report, step


def computed(count: int, **fields):
    return [step(place, **fields) for place in range(count)]


def reused(computed_steps: int, reused_steps: int):
    return computed(computed_steps) + [step(computed_steps + i, "reuse") for i in range(reused_steps)]


def test_a_good_run_says_how_much_and_how_fast_and_advises_nothing():
    text = verdict(report(*reused(5, 5)))
    assert text == "5 of 10 steps were reused: 2.0x faster, measured."  # 9 / (4 + 5 * 0.1)


def test_evaluations_are_not_called_steps_where_a_step_has_two():
    assert "5 of 10 model evaluations" in verdict(report(*reused(5, 5), steps_total=5))


def test_partly_reused_steps_are_counted_apart():
    assert "1 of 4 steps were reused and 2 in part" in verdict(
        report(step(0), step(1, "partial"), step(2, "partial"), step(3, "reuse"))
    )


def test_nothing_reused_for_a_low_threshold_names_one_that_reuses():
    changes = [0.3, 0.2, 0.25, 0.4]
    run = report(step(0), *[step(i + 1, change=change) for i, change in enumerate(changes)])
    text = verdict(run)
    assert "because no step stayed under threshold 0.1" in text
    assert "smallest change was 0.2" in text
    advised = float(text.split("Try a threshold of ")[1].split(":")[0])
    assert sum(similar(change, advised) for change in changes) >= len(changes) / 2


def test_per_block_advice_comes_from_the_blocks():
    run = report(step(0), step(1, change=0.5, block_changes={0: 0.3, 1: 0.7}), mode="per block")
    assert "smallest change was 0.3" in verdict(run)


def test_adaptive_advice_is_a_preset_over_the_errors_seen():
    run = report(*computed(12, judged=0.04), mode="adaptive", threshold=0.03)
    assert "smallest predicted error was 0.04. Try preset fast" in verdict(run)
    hopeless = report(*computed(12, judged=0.4), mode="adaptive", threshold=0.05)
    assert "preset custom with a tolerance over 0.4" in verdict(hopeless)


@pytest.mark.parametrize("mode", ["paper", "per block", "adaptive"])
def test_limit_zero_says_that_it_only_measures(mode):
    text = verdict(report(*computed(9, change=0.2, block_changes={0: 0.2}, judged=None), mode=mode, threshold=0.0))
    name = "tolerance" if mode == "adaptive" else "threshold"
    assert f"because {name} is 0" in text
    assert "Try" in text


def test_a_run_too_short_for_adaptive_says_so():
    text = verdict(report(*computed(4), mode="adaptive", threshold=0.05))
    assert "the first 2 steps and the last 2 always compute, and this run has 4" in text


def test_other_reasons_are_passed_on():
    run = report(*computed(9, change=0.01, reason="before start_step 20"))
    assert "before start_step 20" in verdict(run)


def test_little_reuse_gets_advice_and_much_gets_a_warning():
    assert "That is little. Try" in verdict(report(*computed(19, change=0.2), step(19, "reuse")))
    assert "BWCache Compare" in verdict(report(*reused(3, 7)))


def test_blocks_saved_without_time_saved_is_explained():
    slow = [step(i) for i in range(5)] + [step(5 + i, "reuse", seconds=0.9) for i in range(5)]
    assert "work that a cache cannot skip" in verdict(report(*slow))


def test_broken_numbers_come_first():
    text = verdict(report(*computed(9), step(9, error="the features hold NaN")))
    assert "hold NaN" in text
    assert "Try" not in text


def test_a_run_that_stopped_says_so():
    assert verdict(report(*reused(3, 1), finished=False)).startswith("The run stopped before its end; until then 1 of 4")


def test_an_empty_run_and_warnings():
    assert "nothing to report" in verdict(report(warnings=["Two caches."]))
    assert verdict(report(warnings=["Two caches."])).endswith("Two caches.")


def test_a_run_that_bypassed_the_cache_is_not_blamed_on_a_setting():
    text = verdict(report(*computed(6, blocks_run=0, blocks_total=0)))
    assert "past the cache" in text
    assert "Leave BWCache Apply out" in text
    assert "threshold" not in text


def test_a_cache_that_had_to_make_way_says_why():
    why = "features would take 1.3 GiB on a GPU with 900 MiB to spare: the output is cached instead"
    assert verdict(report(*reused(5, 5), placement=why)).endswith(f"Memory: {why}.")
    assert "Memory" not in verdict(report(*reused(5, 5)))


def test_a_run_without_room_is_not_told_to_check_its_steps():
    """The warning says why and what to change; advice on thresholds would be beside the point."""
    warning = "This run is not cached: it would hold 3 GiB, over max_cache_mb 2. Raise max_cache_mb."
    text = verdict(report(*computed(9, change=0.9), stopped="it would hold 3 GiB", warnings=[warning]))
    assert text.endswith(warning)
    assert "Nothing was reused" not in text
