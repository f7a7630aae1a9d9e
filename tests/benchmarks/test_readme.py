"""The numbers in the README are those of the newest result folder."""

from __future__ import annotations

import json

from bwcache_pack.benchmarks.measure import read_points
from bwcache_pack.benchmarks.overhead import costs_table, runs_table
from bwcache_pack.benchmarks.summary import Results, overview
from bwcache_pack.devtools.pack import ROOT

RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def newest(file: str):
    return max(RESULTS.glob(f"*/{file}")).parent


def test_the_readme_shows_every_method_on_every_model():
    folder = newest("runs-*.jsonl")
    results = Results(read_points(sorted(folder.glob("runs-*.jsonl"))))
    for speedup in (2.0, 3.0):
        assert "\n".join(overview(results, speedup)) in README
    assert folder.name in README


def test_the_readme_shows_what_the_cache_costs():
    folder = newest("overhead.json")
    found = json.loads((folder / "overhead.json").read_text(encoding="utf-8"))
    for table in (costs_table(found["costs"]), runs_table(found["whole_runs"])):
        assert "\n".join(table) in README
    assert folder.name in README
