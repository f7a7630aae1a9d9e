"""The README names only tests that exist, and answers every one of the 25 complaints once."""

from __future__ import annotations

import re

import pytest

from bwcache_pack.devtools.pack import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TROUBLESHOOTING = README.split("## Troubleshooting")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", README))))
def test_every_test_it_names_exists(name):
    assert any(f"def {name}(" in path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))


def test_every_complaint_is_answered_once():
    answered: list[int] = []
    for numbers in re.findall(r"\*\* \(([\d, to]+)\)", TROUBLESHOOTING):
        if "to" in numbers:
            first, last = numbers.split(" to ")
            answered += range(int(first), int(last) + 1)
        else:
            answered += [int(number) for number in numbers.split(", ")]
    assert sorted(answered) == list(range(1, 26))
