"""Links between documents lead somewhere: files that are there, and headings in them."""

from __future__ import annotations

import re

import pytest

from bwcache_pack.devtools.pack import ROOT

PAGES = sorted(page for folder in ("", "docs", "web/docs") for page in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)")


def anchors(path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_no_picture_is_left_over():
    pages = "".join(page.read_text(encoding="utf-8") for page in (*PAGES, ROOT / "pyproject.toml"))
    assert [path.name for path in (ROOT / "docs" / "images").iterdir() if path.name not in pages] == []
