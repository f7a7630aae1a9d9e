"""Published lists as plans by name."""

from __future__ import annotations

import pytest

from bwcache_pack.bwcache_core.config import ConfigError, ForecastConfig
from bwcache_pack.bwcache_core.plan import SHOWN, PlanError, parse, plan_for
from bwcache_pack.bwcache_core.published_plans import LISTS
from bwcache_pack.bwcache_core.schedule import schedule_of
from bwcache_pack.tests.core.test_schedule import flow


def test_every_name_tells_the_computed_steps_and_is_taken_by_the_node():
    names = [known.name for known in LISTS]
    assert len(set(names)) == len(names) >= 30 and max(map(len, names)) <= SHOWN
    for known in LISTS:
        plan = parse(known.name)
        assert known.name.endswith(f", {len(plan.computes)} of {plan.steps}")
        assert plan.note == f"{known.name}, from {known.source}" and plan.computes[-1] == plan.steps - 1
        assert ForecastConfig(plan=known.name).plan_given


def test_a_list_by_its_name():
    plan = parse("Wan 2.1 14B, LeMiCa, 20 of 50")
    assert plan.computes == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 18, 23, 29, 36, 42, 46, 48, 49)
    assert (plan.steps, plan.shift) == (50, 5.0)
    assert parse(" wan 2.1 14b,lemica, 20 OF 50 ") == plan


def test_it_is_mapped_by_noise_level_to_another_run():
    schedule = schedule_of(flow(30, 8.0))
    plan = plan_for(schedule, 2.0, "Wan 2.1 14B, LeMiCa, 25 of 50")
    assert len(plan.computes) == 15 and plan.steps == 30 and plan.computes[-1] == 29
    assert plan.note.endswith("made for 50 steps at shift 5, mapped by noise level") and "inference_wan.py" in plan.note
    same = plan_for(schedule_of(flow(50, 5.0)), 2.0, "Wan 2.1 14B, LeMiCa, 25 of 50")
    assert same.computes == parse("Wan 2.1 14B, LeMiCa, 25 of 50").computes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Wan 2.1 14B, LeMiCa, 21 of 50", "Did you mean the published list Wan 2.1 14B, LeMiCa, "),
        ("qwen image meancache 17 of 50", "Did you mean the published list Qwen-Image, MeanCache, 17 of 50"),
        ("nonsense", "Such as 0-3 5 8 12/20"),
    ],
)
def test_a_name_that_is_not_known_says_which_is(text, words):
    with pytest.raises(PlanError, match="has no '/'") as caught:
        parse(text)
    assert words in str(caught.value)
    with pytest.raises(ConfigError):
        ForecastConfig(plan=text)
