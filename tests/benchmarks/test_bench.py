"""The bench from end to end on the embedded host: two steps' worth of a random model, resumed, reported."""

import sys
from dataclasses import replace

import pytest
import torch

from bwcache_pack.benchmarks import measure as bench
from bwcache_pack.benchmarks.design import Setting
from bwcache_pack.benchmarks.measure import Request, measure, read_points
from bwcache_pack.benchmarks.report import write_report
from bwcache_pack.hosts.runs import EmbeddedHost
from bwcache_pack.zoo.checkpoints import save_checkpoint
from bwcache_pack.zoo.models import open_model
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig

QUICK = Setting("tinywan", "euler", 20, 3.5, 8.0)


@pytest.fixture
def host(tmp_path):
    torch.set_num_threads(1)  # on so small a model more of them only wait for each other
    torch.manual_seed(0)
    path = tmp_path / "random.safetensors"
    save_checkpoint(TinyWan(TinyWanConfig(num_layers=2, ffn_dim=64)), path, {})
    tiny = replace(open_model("tinywan"), checkpoint=path, latent_shape=(16, 2, 4, 4))
    return EmbeddedHost(tiny)


def test_all_methods_run_once_and_are_reported(host, tmp_path):
    told: list[str] = []
    request = Request(tmp_path / "runs-tinywan-euler.jsonl", tmp_path / "kept", prompts=2)
    measure(host, QUICK, request, told.append)
    points = read_points([request.part])
    assert {point.method for point in points} == {
        "forecast", "oracle's plan", "LeMiCa", "MeanCache", "paper", "per block", "TeaCache signal", "MagCache signal",
        "fewer steps", "forecast (model left out)", "forecast (measured plan)",
    }  # fmt: skip
    forecast = next(point for point in points if (point.method, point.point) == ("forecast", "2x"))
    assert forecast.speedup == 2.0 and len(forecast.psnr) == len(forecast.ssim) == 2
    told.clear()
    measure(host, QUICK, request, told.append)  # again: everything is there
    assert told == ["uncached"] and read_points([request.part]) == points
    write_report(tmp_path, host, quick=True)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| tinywan | 2x |" in text and "oracle's plan" in text and "## Each model left out" in text
    assert (tmp_path / "front-tinywan.png").stat().st_size > 1000


def test_only_what_is_asked_for_is_measured(host, tmp_path):
    request = Request(tmp_path / "runs.jsonl", tmp_path / "kept", methods=("fewer steps",), prompts=1)
    measure(host, QUICK, request, lambda text: None)
    assert {point.method for point in read_points([request.part])} == {"fewer steps"}


def test_a_wrong_filter_is_told(monkeypatch):
    from bwcache_pack.benchmarks.__main__ import main

    monkeypatch.setattr(sys, "argv", ["bench", "--only", "tinywan/lcm"])
    with pytest.raises(SystemExit, match="leaves no setting"):
        main()


def test_prompts_that_are_measured_are_not_those_that_are_learned_from(host):
    measured, others = bench.job_of(host, QUICK), bench.other_job(host, QUICK)
    assert not set(measured.prompts) & set(others.prompts) and not set(measured.seeds) & set(others.seeds)
