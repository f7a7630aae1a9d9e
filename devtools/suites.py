"""What `dev.py test` runs, one suite after the other, and how many tests of each passed, failed and were skipped."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import browser
from .comfyui import checkouts
from .environment import HOST_TOOLS, SetupError, overlay, own_python
from .pack import ROOT

LOGGER = logging.getLogger(__name__)
TESTS = ROOT / "tests"
NEED_COMFYUI = ("hosts", "matrix", "e2e")  # folders that run once per ComfyUI, with that one's Python
NO_COMFYUI = "no ComfyUI"
NOTHING_COLLECTED = 5  # pytest's exit status
MINUTES = 30  # a suite that takes longer hangs
RULE = "=" * 78


@dataclass(frozen=True)
class Outcome:
    """How one suite went. comfyui: the version it ran on, empty for suites that need none."""

    suite: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    comfyui: str = ""
    note: str = ""

    def __str__(self) -> str:
        counts = f"{self.passed:5} passed, {self.failed} failed, {self.skipped} skipped"
        return f"{self.suite:24} {counts:36} {self.seconds:7.1f} s   {self.note}".rstrip()


@dataclass(frozen=True)
class Selection:
    """Options handed on to pytest. may_be_empty: they choose tests, so a suite without any has not failed."""

    options: tuple[str, ...] = ()
    may_be_empty: bool = False


def run_all(selection: Selection) -> list[Outcome]:
    """Lint, the tests that need no ComfyUI, those that do on every ComfyUI found, and the browser code, there too."""
    python = own_python()
    folders = [path for path in sorted(TESTS.glob("*")) if holds_tests(path) and path.name not in NEED_COMFYUI]
    return [
        lint(python),
        run_pytest("without ComfyUI", python, folders, selection),
        *on_every_comfyui(python, selection),
        browser_code(),
        *in_browser(selection),
    ]


def holds_tests(path: Path) -> bool:
    """Whether pytest would find a test file at `path`."""
    return any(path.rglob("test_*.py")) if path.is_dir() else path.match("test_*.py")


def lint(python: Path) -> Outcome:
    """ruff, counted as one test."""
    LOGGER.info("ruff ...")
    start = time.monotonic()
    clean = _run([python, "-m", "ruff", "check", "."]) == 0
    return Outcome("ruff", passed=int(clean), failed=int(not clean), seconds=time.monotonic() - start)


def run_pytest(
    suite: str, python: Path, paths: Sequence[Path], selection: Selection, comfyui: str = "", **variables: str
) -> Outcome:
    """One pytest process, with environment variables. Without its JUnit report it has failed, whatever it printed."""
    if not paths:
        return Outcome(suite, comfyui=comfyui, note="no tests")
    LOGGER.info("pytest, %s ...", suite)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [python, "-m", "pytest", "-q", "-rfEs", f"--junitxml={report}", *selection.options, *paths]
        start = time.monotonic()
        status = _run(command, variables)
        outcome = _counted(suite, report, status, time.monotonic() - start, comfyui)
    if status == NOTHING_COLLECTED and selection.may_be_empty:
        return replace(outcome, failed=0, note="nothing selected")
    return outcome


def on_every_comfyui(python: Path, selection: Selection) -> list[Outcome]:
    """The tests on the real ComfyUI, each with its own Python. Without any, they run to be counted as skipped."""
    paths = [TESTS / name for name in NEED_COMFYUI if holds_tests(TESTS / name)]
    found = checkouts()
    if found:
        return [on_comfyui(checkout, paths, selection) for checkout in found]
    asked = os.environ.get("COMFYUI_PATH")
    outcome = run_pytest(NO_COMFYUI, python, paths, selection)
    return [replace(outcome, failed=outcome.failed + 1, note=f"{asked} is no ComfyUI") if asked else outcome]


def on_comfyui(checkout, paths: Sequence[Path], selection: Selection) -> Outcome:
    """The tests on one ComfyUI, in its own environment. One that is there but runs nothing is a failure, not a skip."""
    suite = f"ComfyUI {checkout.version}"
    try:
        host = overlay(checkout.python, HOST_TOOLS)
    except (SetupError, OSError, subprocess.CalledProcessError) as error:
        return Outcome(suite, failed=1, comfyui=checkout.version, note=str(error))
    variables = {"COMFYUI_PATH": str(checkout.path), "COMFYUI_PYTHON": str(host)}
    outcome = run_pytest(suite, host, paths, selection, checkout.version, **variables)
    if outcome.passed or outcome.failed or outcome.note:
        return outcome
    return replace(outcome, failed=1, note="NOTHING RAN: every test was skipped")


def browser_code() -> Outcome:
    """tests/web with node's own test runner: no npm package is needed."""
    files = sorted((TESTS / "web").glob("*.test.*js"))
    return run_node("web", files) if files else Outcome("web", note="no tests")


def in_browser(selection: Selection) -> list[Outcome]:
    """The tests of what users see: a Chromium on a server of every ComfyUI found. Only where there is all they need."""
    found, files = checkouts(), sorted(browser.FOLDER.glob("*.test.*js"))
    if selection.options or not found:
        return []
    why_not = browser.missing()
    if why_not:
        return [Outcome("browser", skipped=len(files), note=f"{why_not} (counted: files)")]
    outcomes = []
    for checkout in found:
        variables = {"COMFYUI_PATH": str(checkout.path), "COMFYUI_PYTHON": str(checkout.python)}
        shots = ROOT / "out" / "browser" / checkout.version
        variables |= {"CHROMIUM": browser.chromium(), "BWCACHE_SHOTS": str(shots)}
        outcomes.append(run_node(f"browser, ComfyUI {checkout.version}", files, **variables))
    return outcomes


def run_node(suite: str, files: Sequence[Path], **variables: str) -> Outcome:
    """One `node --test` process, with environment variables."""
    node = shutil.which("node")
    if node is None:
        return Outcome(suite, skipped=len(files), note="node NOT FOUND: install node 20 or later (counted: files)")
    LOGGER.info("node --test, %s ...", suite)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        reporters = ["--test-reporter=spec", "--test-reporter-destination=stdout"]
        reporters += ["--test-reporter=junit", f"--test-reporter-destination={report}"]
        start = time.monotonic()
        status = _run([node, "--test", *reporters, *files], variables)
        return _counted(suite, report, status, time.monotonic() - start)


def summary(outcomes: Sequence[Outcome]) -> str:
    """The block at the end of a run. Its last line is the sum: 'N passed, N failed, N skipped'."""
    versions = [outcome.comfyui for outcome in outcomes if outcome.comfyui and outcome.passed]
    if versions:
        hosts = f"Ran on ComfyUI {' and '.join(versions)}"
    elif any(outcome.comfyui for outcome in outcomes):
        hosts = "NO ComfyUI TEST RAN, though a ComfyUI is there"
    else:
        skipped = sum(outcome.skipped for outcome in outcomes if outcome.suite == NO_COMFYUI)
        hosts = f"NO ComfyUI FOUND: {skipped} tests skipped. Set COMFYUI_PATH to a ComfyUI folder to run them"
    sums = [sum(getattr(outcome, field) for outcome in outcomes) for field in ("passed", "failed", "skipped")]
    total = "{} passed, {} failed, {} skipped".format(*sums)
    return "\n".join([RULE, *map(str, outcomes), RULE, hosts, total])


def _counted(suite: str, report: Path, status: int, seconds: float, comfyui: str = "") -> Outcome:
    """Counts of a JUnit report of pytest or node. A bad exit status without a failed test counts as one."""
    passed = failed = skipped = 0
    note = ""
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - the report of our own process
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif case.find("skipped") is not None:
                skipped += 1
            else:
                passed += 1
    if status != 0 and failed == 0:
        failed, note = 1, f"ended with status {status}"
    return Outcome(suite, passed, failed, skipped, seconds, comfyui, note)


def _run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> int:
    """Exit status of a command run in the root of the pack, its output shown as it comes."""
    sys.stdout.flush()
    try:
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, timeout=60 * MINUTES).returncode
    except subprocess.TimeoutExpired:
        LOGGER.error("Stopped after %d minutes", MINUTES)
        return -1
