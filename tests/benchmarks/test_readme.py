"""The numbers in the README are those of the result files."""

from __future__ import annotations

from bwcache_pack.benchmarks.front import read_points
from bwcache_pack.benchmarks.summary import marks, overview
from bwcache_pack.devtools.pack import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "2026-11-21-comfyui-0.33.0"


def test_the_readme_shows_the_front_of_the_result_files():
    points = [point for part in sorted(RESULTS.glob("runs-*.jsonl")) for point in read_points(part)]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert overview(marks(points), 30, 5.0) in text
