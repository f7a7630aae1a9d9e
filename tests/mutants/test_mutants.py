"""Each rule of the cache, broken once: a test must fail. The same tests pass on the pack as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bwcache_pack.tests.mutants.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("runner.py")
COPIED = ("bwcache_core", "nodes", "tests", "zoo", "hosts", "benchmarks", "__init__.py", "pyproject.toml")
FAILED = 1  # pytest's exit status if tests ran and some failed: not for tests that are missing or cannot be imported
SOME_RULES = 12

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: a process for each mutant would take too long"),
]


class Runner:
    """tests/mutants/runner.py in a process of its own: no module of the pack is loaded there before a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"} | settings
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, RUNNER], cwd=folder, env=environment, **pipes)

    def copy(self, name: str) -> Path:
        """A copy of the pack's code."""
        copy = self.folder / name.replace(" ", "-")
        copy.mkdir()
        for entry in COPIED:
            source = ROOT / entry
            if source.is_dir():
                shutil.copytree(source, copy / entry, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
            else:
                shutil.copy(source, copy)
        return copy

    def run(self, folder: Path, tests) -> tuple[int, str]:
        self.process.stdin.write(json.dumps({"folder": str(folder), "tests": list(tests)}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["status"], answer["output"]


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("mutants"))
    yield runner
    runner.process.stdin.close()
    runner.process.wait(timeout=60)
    runner.process.stdout.close()


def test_every_test_of_the_table_passes_on_the_pack_as_it_is(runner):
    names = sorted({test for mutant in MUTANTS for test in mutant.tests})
    status, output = runner.run(runner.copy("as it is"), names)
    assert status == 0, output


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_noticed(runner, mutant):
    copy = runner.copy(mutant.name)
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, f"{mutant.file} holds this {text.count(mutant.old)} times: {mutant.old!r}"
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    for test in mutant.tests:
        status, output = runner.run(copy, [test])
        assert status == FAILED, f"{test} did not notice: {mutant.rule}\n{output}"
    shutil.rmtree(copy)


def test_the_table_holds_every_rule():
    assert len({mutant.rule for mutant in MUTANTS}) >= SOME_RULES
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
