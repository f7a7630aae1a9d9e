"""docs/complaints.md: all 25, each with a test or an answer, and every test and answer that it names exists."""

from __future__ import annotations

import re

import pytest

from bwcache_pack.devtools.pack import ROOT
from bwcache_pack.tests.matrix.cells import CELLS

PAGE = ROOT / "docs" / "complaints.md"
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| \d", line)]  # fmt: skip
TESTS = sorted({test for row in ROWS for test in re.findall(r"`([^`]+::[^`]+)`", row[3])})
LINKS = sorted({link for row in ROWS for link in re.findall(r"\]\((\.\./[^)]+)\)", row[4])})


def test_all_of_them_are_listed_by_number_and_link_to_where_they_were_raised():
    assert [int(row[0]) for row in ROWS] == list(range(1, 26))
    assert all("](https://github.com/" in row[2] for row in ROWS)


def test_each_has_a_test_and_an_answer():
    for row in ROWS:
        assert re.search("`[^`]+::test_", row[3]), row[0]
        assert re.search(r"\]\(\.\./", row[4]), row[0]


@pytest.mark.parametrize("name", TESTS)
def test_every_test_it_names_exists(name):
    path, test = name.split("::")
    function, _, cell = test.partition("[")
    assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")
    if cell:
        assert cell.rstrip("]") in CELLS


@pytest.mark.parametrize("link", LINKS)
def test_every_answer_it_names_exists(link):
    path, anchor = link.split("#")
    text = (PAGE.parent / path).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
