"""The numbers in README and docs are those of the newest result folder."""

from __future__ import annotations

import json
from statistics import mean

from bwcache_pack.benchmarks.measure import read_points
from bwcache_pack.benchmarks.overhead import costs_table, runs_table
from bwcache_pack.benchmarks.summary import FEWER_STEPS, FORECAST, Results, overview
from bwcache_pack.devtools.pack import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def newest(file: str):
    return max(RESULTS.glob(f"*/{file}")).parent


def test_every_method_is_shown_on_every_model():
    folder, page = newest("runs-*.jsonl"), read("docs/numbers.md")
    results = Results(read_points(sorted(folder.glob("runs-*.jsonl"))))
    for speedup in (2.0, 3.0):
        assert "\n".join(overview(results, speedup)) in page
    assert folder.name in page


def test_the_readme_shows_rows_of_the_same_table():
    measured, shown = rows_at_2x(read("docs/numbers.md")), rows_at_2x(read("README.md"))
    assert len(shown) > 3
    assert set(shown) <= set(measured)


def test_the_first_sentence_has_the_means_of_that_table():
    results = Results(read_points(sorted(newest("runs-*.jsonl").glob("runs-*.jsonl"))))
    settings = [setting for model in results.models for setting in results.compared(model)]
    ours, plain = (mean(results.psnr(s, method, 2.0) for s in settings) for method in (FORECAST, FEWER_STEPS))
    sentence = " ".join(read("README.md").split("\n\n")[1].split())
    for told in (
        f"at 2x, clips stay at {ours:.0f} dB",
        f"mean of {len(settings)} settings",
        f"half as many steps gives {plain:.0f} dB",
    ):
        assert told in sentence


def rows_at_2x(page: str) -> list[str]:
    """Of the table whose corner says so, with its models."""
    return page.split("| at 2x", 1)[1].split("\n\n", 1)[0].splitlines()


def test_what_the_cache_costs_is_shown():
    folder, page = newest("overhead.json"), read("docs/cost.md")
    found = json.loads((folder / "overhead.json").read_text(encoding="utf-8"))
    for rows in (costs_table(found["costs"]), runs_table(found["whole_runs"])):
        assert "\n".join(rows) in page
    assert folder.name in page
