"""Writes docs/matrix.md from a run of tests/matrix on every ComfyUI found: python devtools/pack.py devtools.matrix

Given JUnit reports of such runs as arguments, it reads those instead of running anything: of several from one ComfyUI,
the later ones count where they hold the same cell. Given --cases, it runs nothing either, and brings the end of the page,
which is docs/cases.md, up to date.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..tests.matrix.cells import CELLS, MODES, Cell
from ..tests.matrix.checks import DISTANCE, ERROR
from ..tests.matrix.combinations import COMBINATIONS
from ..tests.matrix.rarer import UNSAMPLED
from ..tests.matrix.variants import VARIANTS
from .comfyui import checkouts
from .environment import HOST_TOOLS, overlay
from .pack import ROOT

PAGE, CASES = ROOT / "docs" / "matrix.md", ROOT / "docs" / "cases.md"
CASES_BEGIN = "<!-- docs/cases.md -->"
TESTS = ROOT / "tests" / "matrix" / "test_cells.py"
HEAD = """# The matrix: variants and combinations

Made by `python devtools/pack.py devtools.matrix` from the test results; tests/matrix/ holds the cells. A cell is one
small workflow: an untrained model of at most a few million weights through ComfyUI's own loader, conditioning and sampling
nodes, 8 steps on a CPU, with the BWCache Apply node in it. It proves that the right thing is reused, not how a large
model looks.

Every cell passes these checks in each of its modes, unless its note says otherwise:

- **a.** With speedup 1 (forecast) or threshold 0, the latents are those of the plain workflow, bit for bit. (Of
  combinations in the first mode.)
- **b.** Something is reused, in every sampling run; the latents are finite and near the plain ones. In forecast mode the
  evaluations that are reported as reused are those of which no call reaches the model. *error* is the largest difference
  between what was reused and the truth: in forecast mode of the model's output for each condition and row, in block modes
  of what the model returns, weighted by the step's width. *distance* is how far the latents end up from the plain ones.
  Both are relative L1, in thresholds, the largest over the modes. Bounds: {bounds}; distance {distance}.
- **c.** Changing an input of the list changes the latents of the cached run; so does guidance that is turned up in
  reused steps alone. (Both in the first mode.) An input in *italics* is added after the last block: in block modes it acts
  in reused steps too, if it changes in those alone.
- **d.** The same run again makes the same decisions and the same latents, bit for bit.
- **e.** Nothing is left: no state of a run, no tensor (weak references), no option, wrapper or hook on the model or its
  modules.

Modes: {modes}.
"""


@dataclass
class Results:
    """One ComfyUI's run. outcomes: by cell, "yes", "FAILED", or why it was skipped. measured: by cell and mode.

    classes: by cell, the class in comfy.supported_models that its model is of.
    """

    version: str
    outcomes: dict[str, str] = field(default_factory=dict)
    measured: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        return sum(outcome == "yes" for outcome in self.outcomes.values())

    @classmethod
    def read(cls, report: Path) -> Results:
        """From a JUnit report of pytest."""
        root = ElementTree.parse(report).getroot()  # noqa: S314 - our own pytest wrote it
        versions = [entry.get("value") for entry in root.iter("property") if entry.get("name") == "comfyui"]
        results = cls(versions[0])
        for case in root.iter("testcase"):
            name = case.get("name")
            if not name.startswith("test_cell["):
                continue
            cell = name[len("test_cell[") : -1]
            results.outcomes[cell] = outcome(case)
            told = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
            if told:
                results.measured[cell], results.classes[cell] = json.loads(told["measured"]), told["class"]
        return results


def outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "FAILED"
    skipped = case.find("skipped")
    return "yes" if skipped is None else skipped.get("message")


def main() -> None:
    if sys.argv[1:] == ["--cases"]:
        PAGE.write_text(with_cases(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    reports = [Path(argument) for argument in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as scratch:
        results = merged([Results.read(report) for report in reports or run_all(Path(scratch))])
    results.sort(key=lambda result: [int(part) for part in result.version.split(".")], reverse=True)
    PAGE.write_text(page(results), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n" + "".join(f"{r.version}: {r.passed} of {len(CELLS)} passed\n" for r in results))


def merged(runs: Iterable[Results]) -> list[Results]:
    """One for each version."""
    by_version: dict[str, Results] = {}
    for run in runs:
        known = by_version.setdefault(run.version, Results(run.version))
        known.outcomes |= run.outcomes
        known.measured |= run.measured
        known.classes |= run.classes
    return list(by_version.values())


def run_all(folder: Path) -> list[Path]:
    """JUnit reports, one for each ComfyUI found."""
    reports = []
    for checkout in checkouts():
        reports.append(folder / f"{checkout.version}.xml")
        variables = {"COMFYUI_PATH": str(checkout.path), "OMP_WAIT_POLICY": "passive"}
        command = [overlay(checkout.python, HOST_TOOLS), "-m", "pytest", "-q", TESTS, f"--junitxml={reports[-1]}"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **variables})
    return reports


def page(results: list[Results]) -> str:
    """The whole of docs/matrix.md."""
    bounds = ", ".join(f"{mode} {bound:g}" for mode, bound in ERROR.items())
    head = HEAD.format(bounds=bounds, distance=f"{DISTANCE:g}", modes=modes_in_words())
    sums = [
        f"- ComfyUI {r.version}: {r.passed} cells passed, {len(r.outcomes) - r.passed} did not run" for r in results
    ]
    tables = [
        ("Variants", [cell for cell in CELLS.values() if cell.combination == "alone"]),
        ("Combinations", [cell for cell in CELLS.values() if not cell.combination.startswith(("sampler_", "scheduler_"))
                          and cell.combination != "alone"]),
        ("Samplers and schedulers", [cell for cell in CELLS.values()
                                     if cell.combination.startswith(("sampler_", "scheduler_"))]),
    ]  # fmt: skip
    parts = [head, "\n".join(sums), models(results), *(f"## {title}\n\n{table(cells, results)}" for title, cells in tables)]
    return "\n\n".join(part.strip() for part in parts) + "\n" + cases()


def models(results: list[Results]) -> str:
    """The table of model classes, each with the cells that sample it alone."""
    newest, versions = results[0], [result.version for result in results]
    cells: dict[str, list[Cell]] = {}
    for name, found in newest.classes.items():
        if CELLS[name].combination == "alone":
            cells.setdefault(found, []).append(CELLS[name])
    titles = ["class", "models", "modes tried", *versions]
    lines = [titles, ["---"] * len(titles), *(class_row(found, cells[found], results) for found in sorted(cells, key=str.lower))]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    passed = [sum("yes" in {r.outcomes.get(c.name) for c in of} for of in cells.values()) for r in results]
    counts = ", ".join(f"{count} on {version}" for count, version in zip(passed, versions, strict=True))
    others = ", ".join(f"`{name}` ({what})" for name, what in UNSAMPLED.items())
    return f"## Models\n\nClasses of `comfy.supported_models` that passed: {counts}. No sampler runs the others: {others}.\n\n{rows}"


def class_row(found: str, cells: list[Cell], results: list[Results]) -> list[str]:
    modes = [mode for mode in MODES if any(mode in cell.modes for cell in cells)]
    marks = []
    for result in results:
        outcomes = {result.outcomes.get(cell.name) for cell in cells}
        marks.append("FAILED" if "FAILED" in outcomes else "yes" if "yes" in outcomes else "-")
    return [f"`{found}`", ", ".join(VARIANTS[cell.variant].title for cell in cells), ", ".join(modes), *marks]


def cases() -> str:
    """What was written by hand of packs and cases tried, to stand at the end of the page. Empty without that file."""
    return f"\n{CASES_BEGIN}\n\n{CASES.read_text(encoding='utf-8').strip()}\n" if CASES.exists() else ""


def with_cases(text: str) -> str:
    """The page with that part as it is now."""
    return text.split(f"\n{CASES_BEGIN}")[0].rstrip() + "\n" + cases()


def modes_in_words() -> str:
    settings = [(mode, {name: value for name, value in of.items() if name != "mode"}) for mode, of in MODES.items()]
    return ", ".join(f"{mode} ({', '.join(f'{name} {value:g}' for name, value in of.items())})" for mode, of in settings)


def table(cells: Iterable[Cell], results: list[Results]) -> str:
    versions = [result.version for result in results]
    titles = ["cell", "what", "modes", "inputs", "reused", "error", "distance", *versions, "note"]
    lines = [titles, ["---"] * len(titles), *(row(cell, results) for cell in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def row(cell: Cell, results: list[Results]) -> list[str]:
    measured = next((r.measured[cell.name].values() for r in results if cell.name in r.measured), [])
    marks = ["yes" if r.outcomes.get(cell.name) == "yes" else failed(r, cell) for r in results]
    return [
        f"`{cell.name}`",
        what(cell),
        ", ".join(cell.modes),
        ", ".join(f"*{name}*" if name in cell.live else name for name in cell.changes),
        "none" if nothing_reused(cell) else share(measured),
        largest(measured, "error") if cell.judged and not nothing_reused(cell) else "-",
        largest(measured, "distance"),
        *marks,
        note(cell, results),
    ]


def what(cell: Cell) -> str:
    variant, combination = VARIANTS[cell.variant].title, COMBINATIONS[cell.combination].title
    return variant if cell.combination == "alone" else f"{combination}: {variant}"


def failed(result: Results, cell: Cell) -> str:
    return "FAILED" if result.outcomes.get(cell.name) == "FAILED" else "-"


def nothing_reused(cell: Cell) -> bool:
    return set(cell.modes) <= set(cell.unreused)


def share(measured: Iterable[dict[str, float]]) -> str:
    shares = [round(100 * numbers["reused"]) for numbers in measured]
    if not shares:
        return "-"
    return f"{min(shares)} %" if len(set(shares)) == 1 else f"{min(shares)} to {max(shares)} %"


def largest(measured: Iterable[dict[str, float]], name: str) -> str:
    return f"{max((numbers[name] for numbers in measured), default=0.0):.2f}"


def note(cell: Cell, results: list[Results]) -> str:
    """Why a cell is uncached, looser or not run."""
    notes = [VARIANTS[cell.variant].note] if VARIANTS[cell.variant].note and cell.combination == "alone" else []
    if cell.uncached:
        where = "" if nothing_reused(cell) else f"in {', '.join(cell.unreused)} "
        notes.append(f"{where}computes every step: {cell.uncached}")
    factors = [f"threshold {value:g} in {mode}" for mode, value in cell.thresholds.items() if mode in cell.modes]
    factors += [f"{name} x{factor:g}" for name, factor in (("error", cell.error), ("distance", cell.distance)) if factor != 1.0]
    if factors:
        notes.append(", ".join(factors) + (f": {cell.why}" if cell.why else ""))
    if not cell.judged:
        notes.append("error not measured: that takes a second model call, which would be compiled too")
    reasons = {r.version: r.outcomes.get(cell.name, "not run") for r in results}
    notes += [f"{version}: {reason}" for version, reason in reasons.items() if reason not in ("yes", "FAILED")]
    return "; ".join(notes)


if __name__ == "__main__":
    main()
