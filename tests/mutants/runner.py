"""Runs tests of copies of the pack, each copy in a process of its own that finds torch and pytest already loaded.

Reads one job per line from standard input, {"folder": ..., "tests": [...]}, and answers each with one line,
{"status": pytest's exit status, "output": what it printed}. Loading torch takes longer than the tests do.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

SLOW_TO_LOAD = ("hypothesis", "pytest", "safetensors.torch", "torch._dynamo")
OPTIONS = ("-q", "-x", "-p", "no:cacheprovider", "--tb=line", "--no-header")


def main() -> None:
    for name in SLOW_TO_LOAD:
        __import__(name)
    for line in sys.stdin:
        job = json.loads(line)
        sys.__stdout__.write(json.dumps(run(job["folder"], job["tests"])) + "\n")
        sys.__stdout__.flush()


def run(folder: str, tests: list[str]) -> dict:
    """Status and output of pytest in `folder`, in a forked process."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.chdir(folder)
            import pytest

            status = pytest.main([*OPTIONS, *tests])
            sys.stdout.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return {"status": os.waitstatus_to_exitcode(status), "output": output.read()}


if __name__ == "__main__":
    main()
