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

BLOCKS = 4


def reported(steps: int = 3, **fields) -> RunReport:
    report = RunReport("paper", 0.15, 1, steps, BLOCKS, [1.0, 0.5, 0.2, 0.0], "WanModel")
    for i in range(steps):
        action = "reuse" if i == 1 else "compute"
        report.steps.append(StepReport(i, i, 1.0 - i / 4, action, "why", blocks_total=BLOCKS, **fields))
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


def documented_fields() -> dict[str, str]:
    """Field names of the README's table, each with its type."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## The event", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", section, re.MULTILINE))


def test_the_readme_lists_exactly_the_fields_that_are_sent(serve):
    server = serve(Server())
    report = reported()
    RunEvents("12:7", report)(False)
    RunEvents("12:7", report)(True)
    step, done = (data for _, data, _ in server.sent)
    assert done.keys() == documented_fields().keys()
    assert done.keys() - step.keys() == {"finished", "summary", "history"}


TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "null": type(None), "list": list}


def test_the_readme_names_the_types_of_what_is_sent(serve):
    server = serve(Server())
    RunEvents("12:7", reported(change=0.1, block_changes={0: 0.1}, reused_blocks=[1]))(True)
    [(_, data, _)] = server.sent
    for name, kinds in documented_fields().items():
        allowed = tuple(TYPES[kind.split(" ")[0]] for kind in kinds.split(" or "))
        assert any(isinstance(data[name], kind) for kind in allowed), name


def test_an_event_goes_to_the_client_that_queued_the_prompt_alone(serve):
    server = serve(Server("tab 7"))
    RunEvents("12:7", reported())(False)
    [(event, data, client)] = server.sent
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
    events = RunEvents("1", reported())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            events(False)
    assert len(caplog.records) == 1


def test_a_report_that_cannot_be_told_is_swallowed_too(serve):
    server = serve(Server())
    RunEvents("1", SimpleNamespace(finished=False))(False)
    assert server.sent == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(serve, value):
    server = serve(Server())
    broken = reported(change=value, forecast_errors=[value], judged=value, block_changes={0: value}, seconds=value)
    RunEvents("1", broken)(True)
    [(_, data, _)] = server.sent
    json.dumps(data, allow_nan=False)
    assert data["change"] is data["forecast_error"] is data["judged"] is data["seconds"] is None
    assert data["history"][0]["block_changes"] == [None] * BLOCKS


def test_the_last_evaluation_of_a_finished_run_comes_with_the_end(serve):
    """So that a run of n evaluations sends n events."""
    server = serve(Server())
    report = reported()
    events = RunEvents("1", report)
    report.finished = True
    events(False)
    assert server.sent == []
    events(True)
    [(_, data, _)] = server.sent
    assert (data["done"], data["finished"], data["evaluation"]) == (True, True, 3)
    assert [cell["action"] for cell in data["history"]] == ["compute", "reuse", "compute"]
    assert data["summary"].startswith("BWCache paper: 1 of 3")


def test_a_run_that_ended_before_its_first_evaluation(serve):
    server = serve(Server())
    RunEvents("1", reported(steps=0))(True)
    [(_, data, _)] = server.sent
    assert (data["evaluation"], data["step"], data["finished"], data["history"]) == (0, 0, False, [])


def test_blocks_are_counted_in_ranges():
    assert ranges([]) == []
    assert ranges([0, 1, 2, 5, 7, 8]) == [[0, 2], [5, 5], [7, 8]]


def test_block_changes_keep_their_places_and_four_digits(serve):
    server = serve(Server())
    RunEvents("1", reported(block_changes={1: 0.123456, 3: 12.3456}))(False)
    assert server.sent[0][1]["block_changes"] == [None, 0.1235, None, 12.35]
