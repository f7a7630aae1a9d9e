"""What users install never executes or unpacks code that came with data, and keeps what comes from outside small."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from bwcache_pack.bwcache_core.config import BlockConfig, ConfigError, ForecastConfig
from bwcache_pack.bwcache_core.report import RunReport, RunStats, StepReport
from bwcache_pack.devtools.archive import archive_files
from bwcache_pack.devtools.pack import ROOT
from bwcache_pack.nodes.events import RunEvents
from bwcache_pack.zoo.tinywan.checkpoint import load_checkpoint

UNPACKERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "yaml"}
STARTERS = {"ctypes", "multiprocessing", "os.system", "pty", "runpy", "socket", "subprocess", "urllib", "webbrowser"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"system", "popen", "exec_module", "run_module", "run_path"}
OWN_FILES = {("nodes/ray_actors.py", "exec_module")}  # a worker of Raylight loads this pack from its folder
SCRIPT_CALLS = ("eval(", "new Function", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write")
EVENT_BYTES = 2_000_000  # of the last event of the longest run


def shipped(suffix: str) -> list[Path]:
    try:
        return [path for path in archive_files() if path.suffix == suffix]
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout: what is shipped is only known there")


def loaders() -> list[Path]:
    """Python that users run: what is shipped, and the small model that a git clone holds beside it."""
    return [*shipped(".py"), *(path.relative_to(ROOT) for path in (ROOT / "zoo").glob("*.py"))]


def test_nothing_unpacks_or_executes_what_it_reads():
    assert len(loaders()) > 30
    for path in loaders():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not {name.split(".")[0] for name in names} & UNPACKERS, path
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") not in BUILTINS, path
                method = getattr(node.func, "attr", "")
                assert method not in METHODS or (path.as_posix(), method) in OWN_FILES, (path, method)
                arguments = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
                assert arguments.get("allow_pickle") is not True, path
                assert ast.unparse(node.func) != "torch.load" or arguments.get("weights_only") is True, path


def test_nothing_shipped_starts_programs_or_reaches_out():
    for path in shipped(".py"):
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not {name.split(".")[0] for name in names} & STARTERS, path


def test_scripts_write_text_and_no_markup():
    scripts = shipped(".js")
    assert scripts
    for path in scripts:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert [call for call in SCRIPT_CALLS if call in text] == [], path


def test_linting_checks_security_in_everything_shipped():
    """ruff's copy of bandit's rules, without an exemption for any shipped folder."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '    "S",' in text.split("[tool.ruff.lint]")[1]
    exempt = text.split("[tool.ruff.lint.per-file-ignores]")[1].split("\n[")[0]
    assert not any(folder in exempt for folder in ("nodes", "bwcache_core", "zoo", '"**'))
    assert not any("noqa: S" in (ROOT / path).read_text(encoding="utf-8") for path in shipped(".py"))


# Sizes


@pytest.mark.parametrize(
    ("name", "shape"),
    [("head.modulation", (0, 2, 2**40)), ("blocks.0.ffn.0.weight", (2**40, 0)), ("time_embedding.0.weight", (0, 2**33)),
     ("head.modulation", (1, 2, 0)), ("head.modulation", (1, 2, 64))],
)
def test_a_file_that_names_sizes_it_does_not_hold_is_refused(tmp_path, name, shape):
    tensors = {
        "head.modulation": torch.zeros(1, 2, 128), "head.head.weight": torch.zeros(64, 128),
        "blocks.0.ffn.0.weight": torch.zeros(384, 128), "patch_embedding.weight": torch.zeros(128, 16, 1, 2, 2),
        "text_embedding.0.weight": torch.zeros(128, 64), "time_embedding.0.weight": torch.zeros(128, 256),
    }
    save_file({**tensors, name: torch.zeros(shape)}, tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match="no TinyWan"):
        load_checkpoint(tmp_path / "file.safetensors")


def test_a_file_of_endless_blocks_is_refused(tmp_path):
    blocks = {f"blocks.{i}.ffn.0.weight": torch.zeros(384, 0) for i in range(8193)}
    rest = {"head.modulation": torch.zeros(1, 2, 128), "head.head.weight": torch.zeros(64, 0),
            "patch_embedding.weight": torch.zeros(0, 16, 1, 2, 2), "text_embedding.0.weight": torch.zeros(0, 64),
            "time_embedding.0.weight": torch.zeros(0, 256)}
    save_file({**blocks, **rest}, tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match="num_layers"):
        load_checkpoint(tmp_path / "file.safetensors")


NUMBERS = [
    *((ForecastConfig, name) for name in ("speedup", "threshold", "start_step", "end_step")),
    *((BlockConfig, name) for name in ("threshold", "reuse_interval", "start_step", "end_step", "monitor_every",
                                       "max_cache_mb")),
]  # fmt: skip


@pytest.mark.parametrize("value", [1e30, -1e30, float("nan"), float("inf"), 10**30])
@pytest.mark.parametrize(("config", "name"), NUMBERS, ids=lambda part: getattr(part, "__name__", part))
def test_no_setting_takes_a_number_without_bounds(config, name, value):
    with pytest.raises(ConfigError, match=name):
        config(**{name: value})


@pytest.mark.parametrize("name", ["mode", "cache_device"])
def test_a_choice_is_one_of_those_offered(name):
    with pytest.raises(ConfigError, match=name):
        BlockConfig(**{name: "__import__('os')"})


def test_a_plan_is_read_up_to_a_bound_and_repeated_shortly():
    for text in ("0 " * 5_000_000, "0-9999999999/9999999999", "9" * 10_000_000):
        with pytest.raises(ConfigError) as caught:
            ForecastConfig(plan=text)
        assert len(str(caught.value)) < 400


def longest_run() -> RunReport:
    """As many steps as a KSampler takes, of a model of many blocks, all broken."""
    report = RunReport("paper", 0.15, [0.0] * 10_001, "WanModel", block_count=60, finished=True)
    for i in range(10_000):
        changes = dict.fromkeys(range(60), 0.123456789)
        step = StepReport(i, i, 0.5, "compute", "why" * 20, change=0.5, block_changes=changes, fault="NaN")
        report.steps.append(step)
    report.planned = list(range(0, 10_000, 2))
    return report


def test_the_events_of_the_longest_run_are_small():
    payload = RunEvents("12:7", longest_run()).payload(done=True)
    assert len(json.dumps(payload)) < EVENT_BYTES
    assert len(payload["history"]) == 1_000
    assert payload["history"][-1]["evaluation"] == 9_999
    assert len(payload["verdict"]) + len(payload["notice"]) < 1_000


@pytest.mark.parametrize("given", ["x" * 201, ["tab"], {"a": 1}, 7, None])
def test_what_a_client_calls_its_workflow_is_not_repeated_if_it_is_no_short_name(monkeypatch, given):
    item = (0, "prompt", {}, {"extra_pnginfo": {"workflow": {"id": given}}}, [])
    server = SimpleNamespace(client_id="browser", prompt_queue=SimpleNamespace(currently_running={0: item}))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    assert RunEvents("7", RunReport("paper", 0.1, [1.0, 0.0])).workflow is None


def test_stats_keep_few_runs_and_are_plain_json():
    stats = RunStats()
    for _ in range(20):
        stats.runs.append(RunReport("paper", 0.1, [1.0, float("nan")]))
    assert len(json.loads(stats.to_json())) == len(stats.runs) == 8
