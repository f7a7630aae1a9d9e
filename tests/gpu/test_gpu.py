"""Parts of benchmarks/gpu.py in seconds: on a GPU where there is one, and tiny on the CPU, where they must run just so."""

from __future__ import annotations

import json
import sys
import warnings

import pytest
import torch

from bwcache_pack.benchmarks import gpu
from bwcache_pack.benchmarks.gpu import PARTS, Bench
from bwcache_pack.benchmarks.shapes import SHAPES, Block, untrained

PROTOTYPE = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def bench(request) -> Bench:
    torch.set_num_threads(1)
    return Bench(request.param)


def test_one_host_read_an_evaluation_and_one_more_in_the_first(bench):
    """There the schedule that the sampler really runs is read."""
    found = gpu.host_reads(bench)
    plain, cached = found["plain"]["each_evaluation"], found["forecast"]["each_evaluation"]
    assert set(plain) == {0}
    assert cached[0] <= 2 and set(cached[1:]) == {1}
    assert found["reused"] == found["evaluations"] / 2


@pytest.mark.parametrize("name", SHAPES)
def test_steps_are_timed_by_what_became_of_them(bench, name):
    found = gpu.times_of(bench, SHAPES[name].tiny())
    assert found["ideal"] == 2.0
    assert 0 < found["reused_ms"] < found["computed_ms"]
    assert found["achieved_over_ideal"] == pytest.approx(found["achieved"] / 2.0)


@pytest.mark.parametrize("dtype", gpu.DTYPES)
def test_switched_off_it_is_the_plain_model(bench, dtype):
    assert gpu.equal_when_off(bench, gpu.DTYPES[dtype])


def test_switched_off_with_fp8_weights_and_weights_on_the_host(bench):
    assert gpu.equal_when_off(bench, torch.bfloat16, weights=torch.float8_e4m3fn)
    assert gpu.equal_when_off(bench, torch.bfloat16, offloaded=True)


def test_features_in_host_memory_give_the_same_bits(bench, monkeypatch):
    monkeypatch.setattr(gpu, "wan_model", lambda bench: small_wan(bench))
    found = gpu.host_buffers(bench)
    assert found["equal"] and found["under_pressure"]["finite"]
    assert found["gpu"]["reused"] == found["cpu"]["reused"] > 0


def small_wan(bench: Bench):
    return gpu.wan_of(bench, {"num_layers": 3}, (16, 2, 4, 6))


def test_a_trained_model_decides_on_the_device_as_on_the_cpu(bench):
    found = gpu.zoo_model(bench)
    assert found["same_decisions"]
    assert max(found["psnr"].values()) - min(found["psnr"].values()) < 1.0


def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(gpu, "PARTS", {name: lambda bench, name=name: ran.append(name) or {"found": name} for name in "abc"})
    monkeypatch.setattr(gpu, "page", lambda bench, folder: "")
    for parts in ("ab", "abc"):
        monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--parts", parts, "--out", str(tmp_path)])
        gpu.main()
    assert ran == ["a", "b", "c"]
    assert json.loads((tmp_path / "c.json").read_text())["found"] == "c"
    assert capsys.readouterr().out.count("found") == 5


def test_a_part_that_fails_stops_no_other_and_is_tried_again(tmp_path, monkeypatch, capsys):
    def broken(bench):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu, "PARTS", {"a": broken, "b": lambda bench: {"found": "b"}})
    monkeypatch.setattr(gpu, "page", lambda bench, folder: "")
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--parts", "ab", "--out", str(tmp_path)])
    assert gpu.main() == 1
    assert "no such kernel" in capsys.readouterr().out and not (tmp_path / "a.json").exists()
    monkeypatch.setitem(gpu.PARTS, "a", lambda bench: {"found": "a"})
    assert gpu.main() == 0
    assert (tmp_path / "a.json").exists()


def test_a_compiler_that_fails_says_so_and_the_rest_is_tried(bench, monkeypatch):
    monkeypatch.setattr(gpu, "compilers", lambda bench: {"none": {"backend": "no such backend"}})
    monkeypatch.setattr(gpu, "DTYPES", {"float32": torch.float32})
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    equal = gpu.off_is_plain(bench)["equal"]
    assert "no such backend" in equal["compiled, none"]
    assert equal["float32"] is equal["fp8 weights"] is equal["weights on the host"] is True


def test_only_pytorchs_warnings_of_waits_are_counted(monkeypatch):
    """Its mode warns of itself, too."""
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: warnings.warn(PROTOTYPE, stacklevel=1))
    waits = gpu.Waits(Bench("cuda"))
    with waits.counting():
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        assert waits.count == 1


def test_the_page_has_every_part_and_says_where_it_ran(tmp_path):
    (tmp_path / "a.json").write_text('{"waits": 1}')
    text = gpu.page(Bench("cpu"), tmp_path)
    assert "no number of a GPU" in text and '{"waits": 1}' in text
    assert text.count("not run") == len(PARTS) - 1


def test_large_shapes_are_those_of_the_models():
    """Tokens of 480p, and parameters of one block, without what attends to the text."""
    assert {name: shape.tokens for name, shape in SHAPES.items()} == {"wan": 32760, "minimax": 14985, "hunyuan": 30210}
    for name, count in (("wan", 0.246e9), ("minimax", 0.385e9)):
        with torch.device("meta"):
            block = Block(SHAPES[name])
        assert sum(p.numel() for p in block.parameters()) == pytest.approx(count, rel=0.02)
    assert untrained(SHAPES["wan"].tiny(), 1, torch.float16, "cpu").blocks[0].qkv.weight.dtype == torch.float16
