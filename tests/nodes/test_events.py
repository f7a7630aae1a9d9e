"""The event to the browser: its fields as documented, who gets it, and that it never gets in the way."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from types import SimpleNamespace

import pytest

from bwcache_pack.bwcache_core.report import RunReport, StepReport
from bwcache_pack.nodes.events import EVENT, RunEvents, ranges
from bwcache_pack.tests.conftest import ROOT
from bwcache_pack.tests.nodes.reports import forecast

BLOCKS = 4


def reported(steps: int = 3, **fields) -> RunReport:
    """A run of mode paper."""
    report = RunReport("paper", 0.15, [1.0, 0.5, 0.2, 0.0], "WanModel", block_count=BLOCKS)
    for i in range(steps):
        action = "reuse" if i == 1 else "compute"
        report.steps.append(
            StepReport(i, i, 1.0 - i / 4, action, "why", blocks_total=BLOCKS, blocks_run=BLOCKS, **fields)
        )
    return report


class Server:
    """The parts of ComfyUI's PromptServer that an event needs."""

    def __init__(self, client: str | None = "browser", fails: bool = False) -> None:
        self.client_id = client
        self.sent: list[tuple] = []
        self.fails = fails
        extra = {"extra_pnginfo": {"workflow": {"id": "tab-1"}}}
        self.prompt_queue = SimpleNamespace(currently_running={0: (0, "prompt", {}, extra, [])})

    def send_sync(self, event: str, data: dict, client: str) -> None:
        if self.fails:
            raise RuntimeError("the socket is gone")
        self.sent.append((event, data, client))


@pytest.fixture
def serve(monkeypatch):
    def install(server: Server) -> Server:
        prompt_server = SimpleNamespace(instance=server)
        monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=prompt_server))
        return server

    return install


def documented_fields(table: int) -> dict[str, str]:
    """Field names of one of the two tables in docs/events.md, each with its type."""
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    section = text.split("An evaluation:")[table]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", section, re.MULTILINE))


def sent_by(serve, report: RunReport, *calls: bool) -> list[dict]:
    """What is sent for a run: at its beginning, then for each call."""
    server = serve(Server())
    events = RunEvents("12:7", report)
    for done in calls:
        events(done)
    return [data for _, data, _ in server.sent]


def test_the_page_lists_exactly_the_fields_that_are_sent(serve):
    _, step, done = sent_by(serve, reported(), False, True)
    assert done.keys() == documented_fields(0).keys()
    assert done.keys() - step.keys() == {"finished", "verdict", "history"}
    assert step["evaluation"].keys() == documented_fields(1).keys()


TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "null": type(None), "list": list, "object": dict}


def test_the_page_names_the_types_of_what_is_sent(serve):
    fields = {"change": 0.1, "block_changes": {0: 0.1}, "reused_blocks": [1]}
    *_, data = sent_by(serve, reported(**fields), True)
    for table, values in enumerate((data, data["evaluation"])):
        for name, kinds in documented_fields(table).items():
            allowed = tuple(TYPES[kind.split(" ")[0]] for kind in kinds.split(" or "))
            assert any(isinstance(values[name], kind) for kind in allowed), name


def test_the_plan_is_told_before_the_first_step(serve):
    report = RunReport("forecast", 0.5, [1.0, 0.5, 0.2, 0.0], plan="0 2/3", planned=[0, 2], plan_note="automatic")
    [data] = sent_by(serve, report)
    assert (data["plan"], data["planned"], data["plan_note"]) == ("0 2/3", [[0, 0], [2, 2]], "automatic")
    assert (data["evaluation"], data["total_steps"], data["done"]) == (None, 3, False)


def test_an_event_goes_to_the_client_that_queued_the_prompt_alone(serve):
    server = serve(Server("tab 7"))
    RunEvents("12:7", reported())(False)
    _, (event, data, client) = server.sent
    assert (event, client) == (EVENT, "tab 7")
    assert (data["node_id"], data["workflow"]) == ("12:7", "tab-1")


def test_nothing_is_sent_without_a_client_or_a_server(serve, monkeypatch):
    server = serve(Server(client=None))  # queued through the API without a client_id; None would mean everybody
    RunEvents("1", reported())(True)
    assert server.sent == []
    monkeypatch.delitem(sys.modules, "server")
    RunEvents("1", reported())(True)


def test_a_queue_that_looks_different_costs_only_the_workflow_id(serve):
    server = serve(Server())
    server.prompt_queue = SimpleNamespace()
    RunEvents("1", reported())(False)
    assert server.sent[0][1]["workflow"] is None


def test_an_error_while_sending_is_logged_once_and_swallowed(serve, caplog):
    serve(Server(fails=True))
    with caplog.at_level(logging.WARNING):
        events = RunEvents("1", reported())
    for _ in range(3):
        events(False)
    assert len(caplog.records) == 1


def test_a_report_that_cannot_be_told_is_swallowed_too(serve):
    server = serve(Server())
    RunEvents("1", SimpleNamespace(finished=False))(False)
    assert server.sent == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(serve, value):
    broken = reported(change=value, error=value, jump=value, judged=value, block_changes={0: value}, seconds=value)
    *_, data = sent_by(serve, broken, True)
    json.dumps(data, allow_nan=False)
    step = data["evaluation"]
    assert step["change"] is step["error"] is step["jump"] is step["judged"] is step["seconds"] is None
    assert data["history"][0]["block_changes"] == [None] * BLOCKS


def test_the_last_evaluation_of_a_finished_run_comes_with_the_end(serve):
    """So that a run of n evaluations sends n events after the first."""
    server = serve(Server())
    report = reported()
    events = RunEvents("1", report)
    report.finished = True
    events(False)
    assert len(server.sent) == 1
    events(True)
    _, (_, data, _) = server.sent
    assert (data["done"], data["finished"], data["evaluation"]["evaluation"]) == (True, True, 2)
    assert [cell["action"] for cell in data["history"]] == ["compute", "reuse", "compute"]
    assert data["verdict"].startswith("2 of 3 steps were computed")


def test_a_run_that_ended_before_its_first_evaluation(serve):
    *_, data = sent_by(serve, reported(steps=0), True)
    assert (data["evaluation"], data["finished"], data["history"]) == (None, False, [])


def test_no_speed_is_told_with_another_cache_on_the_model(serve):
    report = forecast("cr" * 10)
    *_, alone = sent_by(serve, report, True)
    assert alone["speedup"] > 1.5 and alone["seconds_saved"] > 5
    report.rivals = ["EasyCache"]
    *_, stacked = sent_by(serve, report, True)
    assert stacked["speedup"] is stacked["seconds_saved"] is None
    assert stacked["notice"].startswith("EasyCache")


def test_blocks_are_counted_in_ranges():
    assert ranges([]) == []
    assert ranges([0, 1, 2, 5, 7, 8]) == [[0, 2], [5, 5], [7, 8]]


def test_block_changes_keep_their_places_and_four_digits(serve):
    [data] = sent_by(serve, reported(block_changes={1: 0.123456, 3: 12.3456}))
    assert data["evaluation"]["block_changes"] == [None, 0.1235, None, 12.35]
