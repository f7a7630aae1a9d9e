"""docs/matrix.md is made from results: it lists the cells that are declared, and shows none that failed."""

from __future__ import annotations

import re

from bwcache_pack.devtools.matrix import PAGE, what, with_cases
from bwcache_pack.tests.matrix.cells import CELLS
from bwcache_pack.tests.matrix.variants import VARIANTS

TEXT = PAGE.read_text(encoding="utf-8")
AGAIN = "run python devtools/pack.py devtools.matrix"


def test_it_lists_exactly_the_cells_declared():
    assert sorted(re.findall(r"^\| `([^`]+-[^`]+)` \|", TEXT, flags=re.MULTILINE)) == sorted(CELLS), AGAIN


def test_it_says_of_each_what_is_declared():
    for cell in CELLS.values():
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{cell.name}` |"))
        assert f"| {what(cell)} | {', '.join(cell.modes)} |" in row, AGAIN


def test_it_holds_enough_and_no_failure():
    passed = {version: int(count) for version, count in re.findall(r"ComfyUI ([\d.]+): (\d+) cells passed", TEXT)}
    assert len(passed) >= 2
    assert max(passed.values()) >= 120
    assert "FAILED" not in TEXT


def test_it_lists_the_model_classes_that_passed():
    [counts] = re.findall(r"^Classes of `comfy.supported_models` that passed: (.+)\.$", TEXT, flags=re.MULTILINE)
    here = {version: int(count) for count, version in re.findall(r"(\d+) on ([\d.]+\d)", counts)}
    rows = [line.split(" | ") for line in TEXT.splitlines() if re.match(r"^\| `[A-Z]\w+` \|", line)]
    assert here["0.33.0"] == sum(row[3] == "yes" for row in rows) >= 40
    titles = {VARIANTS[cell.variant].title for cell in CELLS.values() if cell.combination == "alone"}
    assert {title for title in titles if not any(title in row[1] for row in rows)} == set(), AGAIN


def test_its_end_is_what_was_written_by_hand():
    assert with_cases(TEXT) == TEXT, "run python devtools/pack.py devtools.matrix --cases"


def test_a_cell_that_did_not_run_has_a_reason():
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and "-" in cells[7:9]:
            assert re.search(r"\d: .+", cells[9]), line
