"""Events over real runs: one per evaluation, the end told whatever happened, and the video the same with or without."""

from __future__ import annotations

import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.config import FORECAST, BlockConfig, ForecastConfig
from bwcache_pack.bwcache_core.report import RunStats
from bwcache_pack.nodes.attach import attach
from bwcache_pack.nodes.events import RunEvents
from bwcache_pack.tests.hosts.lab import FORCED, STEPS

pytestmark = pytest.mark.family("wan21_t2v")


@pytest.fixture
def sent(monkeypatch):
    """What a browser would receive."""
    events: list[dict] = []
    server = SimpleNamespace(client_id="browser", send_sync=lambda event, data, client: events.append(data))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    return events


def watched(lab, mode: str = FORECAST, **settings):
    config = ForecastConfig(**settings) if mode == FORECAST else BlockConfig(mode=mode, **settings)
    return attach(lab.plain, config, RunStats(), partial(RunEvents, "12:7"))


@pytest.mark.parametrize("mode", ["forecast", "paper"])
@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", STEPS), ("heun", 2 * STEPS - 1)])
def test_one_event_at_the_beginning_and_one_for_each_evaluation(lab, sent, mode, sampler, evaluations):
    lab.sample(watched(lab, mode), sampler=sampler)
    begun, *rest = sent
    assert begun["evaluation"] is None
    assert [event["evaluation"]["evaluation"] for event in rest] == list(range(evaluations))
    assert [event["done"] for event in sent] == [False] * evaluations + [True]
    assert len({event["run"] for event in sent}) == 1
    assert all(event["total_steps"] == STEPS for event in sent)
    json.dumps(sent, allow_nan=False)


def test_the_plan_comes_before_the_first_step_and_is_what_runs(lab, sent):
    lab.sample(watched(lab, speedup=2.0, threshold=10.0))
    planned = {step for first, last in sent[0]["planned"] for step in range(first, last + 1)}
    assert 0 < len(planned) < STEPS
    computed = {cell["step"] for cell in sent[-1]["history"] if cell["action"] == "compute"}
    assert computed == planned
    assert all(event["plan"] == sent[0]["plan"] for event in sent)


@pytest.mark.parametrize("mode", ["forecast", "paper", "per block"])
def test_the_end_of_a_run_repeats_what_its_events_said(lab, sent, mode):
    lab.sample(watched(lab, mode, threshold=0.9))
    end = sent[-1]
    assert end["history"] == [event["evaluation"] for event in sent[1:]]
    assert any(cell["action"] != "compute" for cell in end["history"])
    assert end["finished"] and f"of {STEPS} steps were computed" in end["verdict"]


def test_a_cancelled_run_tells_its_end(lab, sent):
    def cancel(*args):
        if len(sent) == 4:
            raise lab.host.Interrupt

    with pytest.raises(lab.host.Interrupt):
        lab.sample(watched(lab, **FORCED), callback=cancel)
    assert [event["done"] for event in sent] == [False] * 4 + [True]
    assert sent[-1]["finished"] is False


def test_events_change_nothing_and_cannot_break_a_run(lab, sent, monkeypatch):
    plain = lab.sample(lab.cached(**FORCED).model)
    assert torch.equal(lab.sample(watched(lab, **FORCED)), plain)
    assert sent
    instance = sys.modules["server"].PromptServer.instance
    monkeypatch.setattr(instance, "send_sync", lambda *args: 1 / 0)
    assert torch.equal(lab.sample(watched(lab, **FORCED)), plain)
