"""The demo from end to end on the embedded host, with a model of random weights and two blocks."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from bwcache_pack.benchmarks import demo
from bwcache_pack.bwcache_core.config import BlockConfig, ForecastConfig
from bwcache_pack.hosts.runs import EmbeddedHost, Job, open_host, run
from bwcache_pack.zoo.checkpoints import save_checkpoint
from bwcache_pack.zoo.models import open_model
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig


@pytest.fixture
def host(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "random.safetensors"
    save_checkpoint(TinyWan(TinyWanConfig(num_layers=2, ffn_dim=128)), path, {})
    return EmbeddedHost(replace(open_model("tinywan"), checkpoint=path, latent_shape=(16, 5, 8, 8)))


@pytest.fixture
def job():
    return Job(("red circle moving left",), (0,), steps=10)


def test_the_demo_writes_its_files_and_a_table_that_adds_up(host, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "open_host", lambda name: host)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["demo", "--steps", "10", "--repeats", "1", "--threshold", "0.9", "--out", str(out)])
    demo.main()
    folder = out / "embedded-host"
    names = {path.name for path in folder.iterdir()}
    drawn = {f"{kind}-{mode}.png" for kind in ("steps", "errors") for mode in ("forecast", "paper")}
    assert names == {"clips.webp", "table.md", *drawn}
    with Image.open(folder / "clips.webp") as clips:
        assert clips.n_frames == 5 and clips.width == 4 * demo.TILE
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (folder / "table.md").read_text().splitlines()[4:]]
    assert [row[:3] for row in rows[:2]] == [["uncached", "10", "1.00x"], ["forecast", "10", "2.00x"]]
    assert rows[3][:3] == ["fewer-steps", "5", "2.00x"]
    assert all(float(row[4]) > 0 for row in rows[1:])


def test_a_run_is_repeatable_and_plain_where_nothing_is_attached(host, job):
    plain, again = run(host, job), run(host, job)
    assert torch.equal(plain.clip, again.clip) and plain.report is None
    assert plain.clip.shape == (5, 3, 16, 16) and plain.clip.min() >= 0 and plain.clip.max() <= 1
    measured = run(host, job, BlockConfig(threshold=0.0))
    assert torch.equal(measured.clip, plain.clip)
    json.dumps(measured.report.to_dict(), allow_nan=False)


def test_clips_of_a_batch_are_those_of_single_jobs(host, job):
    both = Job(("red circle moving left", "blue square moving up"), (0, 1), steps=10)
    outcome = run(host, both, ForecastConfig())
    assert outcome.clips.shape[0] == 2
    assert torch.allclose(run(host, both).clips[0], run(host, job).clip, atol=1e-4)


def test_guidance_shift_and_size_are_those_of_the_job(host, job):
    plain = run(host, job).clip
    for other in (replace(job, scale=1.0), replace(job, shift=3.0), replace(job, seeds=(1,))):
        assert not torch.allclose(run(host, other).clip, plain, atol=1e-3), other
    assert run(host, replace(job, side=4)).clip.shape == (5, 3, 8, 8)


def test_a_model_of_another_family_asks_for_comfyui(monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    with pytest.raises(ValueError, match="COMFYUI_PATH"):
        open_host("market")
