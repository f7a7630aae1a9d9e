"""The demo from end to end on the embedded host, with a model of random weights and two blocks."""

import json
import sys

import pytest
import torch
from PIL import Image

from bwcache_pack.benchmarks import demo
from bwcache_pack.bwcache_core.config import PAPER, BWCacheConfig
from bwcache_pack.hosts.runs import EmbeddedHost, Job, run
from bwcache_pack.zoo.tinywan.checkpoint import save_checkpoint
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "random.safetensors"
    save_checkpoint(TinyWan(TinyWanConfig(num_layers=2, ffn_dim=128)), path, {})
    return path


@pytest.fixture
def job():
    return Job("red circle moving left", seed=0, steps=10, side=8)


def test_the_demo_writes_its_files_and_a_table_that_adds_up(checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    out = tmp_path / "out"
    options = ["--steps", "10", "--side", "8", "--timing-side", "4", "--repeats", "1", "--threshold", "0.9"]
    monkeypatch.setattr(sys, "argv", ["demo", *options, "--checkpoint", str(checkpoint), "--out", str(out)])
    demo.main()
    folder = out / "embedded-host"
    names = {path.name for path in folder.iterdir()}
    assert names == {"clips.webp", "indicator.png", "reuse-paper.png", "reuse-adaptive.png", "table.md"}
    with Image.open(folder / "clips.webp") as clips:
        assert clips.n_frames == 5 and clips.width == 4 * demo.TILE
    fidelity, times = (folder / "table.md").read_text().split("\n\nAt ")
    rows = [line.split("|")[1:-1] for line in fidelity.splitlines()[4:]]
    by_name = {row[0].strip(): row for row in rows}
    plain, paper = int(by_name["uncached"][2]), int(by_name["paper"][2])
    assert plain == 10 * 2 and paper < plain  # cond and uncond in one batch: a block runs once for both
    assert by_name["paper"][3].strip() == f"{plain / paper:.2f}x"
    assert int(by_name["fewer-steps"][1]) == round(10 * paper / plain)
    assert [line.split("|")[1].strip() for line in times.splitlines()[4:]] == list(by_name)


def test_a_run_is_repeatable_and_plain_where_nothing_is_attached(checkpoint, job):
    host = EmbeddedHost(checkpoint)
    plain, again = run(host, job), run(host, job)
    assert torch.equal(plain.clip, again.clip) and plain.report is None
    assert plain.clip.shape == (5, 3, 16, 16) and plain.clip.min() >= 0 and plain.clip.max() <= 1
    measured = run(host, job, BWCacheConfig(mode=PAPER, threshold=0.0))
    assert torch.equal(measured.clip, plain.clip)
    json.dumps(measured.report.to_dict(), allow_nan=False)
