"""Help pages, translations and search words: complete for every node and input, and nothing left over."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from bwcache_pack.devtools.locales import LOCALES, input_texts, texts_of
from bwcache_pack.tests.e2e.conftest import version_of
from bwcache_pack.tests.e2e.server import NAME, PACK

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
DOCS = PACK / "web" / "docs"
PICTURE = re.compile(r"!\[(.*?)\]\((.+?)\)")
LANGUAGES = ("en", "zh", "ja", "ko")
NODES = (
    "BWCacheApply", "BWCacheApplyRaylight", "BWCacheCalibrate", "BWCacheCompare", "BWCacheReport", "BWCacheTinyWan",
    "BWCacheTinyWanDecode",
)  # fmt: skip


@pytest.fixture(scope="session")
def ours(object_info) -> dict:
    return {name: about for name, about in object_info.items() if about["python_module"] == f"custom_nodes.{NAME}"}


def locale(language: str) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def page(node: str) -> str:
    return (DOCS / f"{node}.md").read_text(encoding="utf-8")


def test_the_server_has_all_nodes_and_they_are_the_ones_checked_here(ours):
    assert sorted(ours) == sorted(NODES)


def test_english_is_what_the_schemas_say(object_info):
    """Run `python devtools/pack.py devtools.locales` after a change of words in a node."""
    assert locale("en") == texts_of(object_info)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_language_has_every_text_and_none_that_is_stale(language):
    english, other = locale("en"), locale(language)
    assert shape(other) == shape(english)
    for path, text in texts(other):
        assert text.strip(), path
    translated = [path for path, text in texts(other) if path[-1] == "tooltip" and text.isascii()]
    assert translated == [], "tooltips left in English"


def shape(node):
    return {key: shape(value) for key, value in node.items()} if isinstance(node, dict) else None


def texts(node, path=()):
    for key, value in node.items():
        yield from texts(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]


def test_the_server_serves_every_language(server):
    served = server.get("/i18n")
    for language in LANGUAGES:
        assert served[language]["nodeDefs"]["BWCacheApply"] == locale(language)["BWCacheApply"]


def inputs_of(about: dict) -> dict:
    """Names of all inputs, those inside of a mode too, with their tooltips."""
    return {text["name"]: text["tooltip"] for _, text in input_texts(about["input"])}


def documented(path) -> set[str]:
    """What the lists of a help page name in their first words: - `speedup`, `plan`: ..."""
    heads = re.findall(r"^- (`[^:\uff1a]+`)[:\uff1a]", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name for head in heads for name in re.findall(r"`(.+?)`", head)}


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_a_help_page_lists_every_input_and_output_and_nothing_that_is_gone(path, ours):
    node = path.stem if path.stem in NODES else path.parent.name
    about = ours[node]
    assert documented(path) == {*inputs_of(about), *about["output_name"]}


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_no_help_page_has_a_table(path):
    """The panel is 282 pixels wide."""
    assert "|--" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("node", NODES)
def test_every_help_page_has_pictures_that_the_server_serves(node, server):
    pictures = PICTURE.findall(page(node))
    assert pictures
    for alt, path in pictures:
        assert alt
        with urllib.request.urlopen(f"{server.url}/extensions/{NAME}/docs/{path}", timeout=30) as answer:
            assert answer.read(8) == b"\x89PNG\r\n\x1a\n"


def test_no_help_page_and_no_picture_is_left_over():
    assert {path.stem for path in DOCS.glob("*.md")} == set(NODES)
    translated = {path.relative_to(DOCS) for path in DOCS.glob("*/*.md")}
    assert {str(path) for path in translated} <= {f"{node}/{language}.md" for node in NODES for language in LANGUAGES[1:]}
    used = {path for node in NODES for _, path in PICTURE.findall(page(node))}
    assert {f"images/{path.name}" for path in (DOCS / "images").iterdir()} == used


@pytest.mark.parametrize("word", ["teacache", "easycache", "cache-dit", "taylorseer", "wavespeed", "speed up", "skip steps", "accelerate", "cache"])
def test_search_finds_apply_under_the_names_of_other_caches(word, ours, checkout):
    if version_of(checkout) < (0, 11):
        pytest.skip("search aliases came with ComfyUI 0.11")
    assert word in ours["BWCacheApply"]["search_aliases"]


def test_every_input_and_output_has_a_tooltip(ours):
    for node, about in ours.items():
        assert all(inputs_of(about).values()), node
        assert all(about["output_tooltips"]), node
