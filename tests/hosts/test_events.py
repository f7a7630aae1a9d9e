"""Events over real runs: one per evaluation, the end told whatever happened, and the video the same with or without."""

from __future__ import annotations

import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.bwcache_core.config import BWCacheConfig
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


def watched(lab, **settings):
    return attach(lab.plain, BWCacheConfig(**settings), RunStats(), partial(RunEvents, "12:7"))


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", STEPS), ("heun", 2 * STEPS - 1)])
def test_every_evaluation_sends_one_event(lab, sent, sampler, evaluations):
    lab.sample(watched(lab, **FORCED), sampler=sampler)
    assert [event["evaluation"] for event in sent] == list(range(1, evaluations + 1))
    assert [event["done"] for event in sent] == [False] * (evaluations - 1) + [True]
    assert len({event["run"] for event in sent}) == 1
    assert all(event["total_steps"] == STEPS for event in sent)
    json.dumps(sent, allow_nan=False)


@pytest.mark.parametrize("mode", ["adaptive", "paper", "per block"])
def test_the_end_of_a_run_repeats_what_its_events_said(lab, sent, mode):
    lab.sample(watched(lab, mode=mode, threshold=0.9, preset="custom", tolerance=0.9))
    end = sent[-1]
    cells = [{name: event[name] for name in end["history"][0]} for event in sent]
    assert end["history"] == cells
    reused = [event["evaluation"] for event in sent if event["action"] != "compute"]
    assert reused and all(event["reused"] for event in sent if event["action"] == "reuse")
    assert all(event["judged"] is not None for event in sent if event["evaluation"] in reused)
    assert end["finished"] and end["summary"].startswith(f"BWCache {mode}")


def test_a_cancelled_run_tells_its_end(lab, sent):
    def cancel(*args):
        if len(sent) == 3:
            raise lab.host.Interrupt

    with pytest.raises(lab.host.Interrupt):
        lab.sample(watched(lab, **FORCED), callback=cancel)
    assert [event["done"] for event in sent] == [False] * 3 + [True]
    assert sent[-1]["finished"] is False


def test_events_change_nothing_and_cannot_break_a_run(lab, sent, monkeypatch):
    plain = lab.sample(lab.cached(**FORCED).model)
    assert torch.equal(lab.sample(watched(lab, **FORCED)), plain)
    assert sent
    instance = sys.modules["server"].PromptServer.instance
    monkeypatch.setattr(instance, "send_sync", lambda *args: 1 / 0)
    assert torch.equal(lab.sample(watched(lab, **FORCED)), plain)
