#!/usr/bin/env python3
"""One command for everything: python dev.py demo | test | bench | train

Uses the environment it is started in if that has torch, and leaves it as it is; else makes `.venv` with what it needs.
demo, bench and train hand their arguments on: python dev.py demo --help
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

PROGRAMS = {"demo": "benchmarks.demo", "train": "zoo.tinywan.train", "bench": "benchmarks"}
HELP = {
    "demo": "sample the small video model with and without the cache, and compare",
    "train": "train the small video model anew",
    "bench": "measure speed and fidelity, and write a dated result file",
}


# glibc hands large tensors back to the system when they are freed; the page faults of the next ones would be measured.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def main() -> int:
    """Exit status of the chosen command."""
    if sys.version_info < (3, 10):  # noqa: UP036 - says so, where an import below would fail obscurely
        raise SystemExit("dev.py needs Python 3.10 or later: start it with a newer one, or with ComfyUI's Python.")
    from devtools.environment import SetupError

    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads that spin starve whatever shares the cores
    logging.basicConfig(level=logging.INFO, format="dev.py: %(message)s", stream=sys.stderr)
    command, options, rest = parse_arguments(sys.argv[1:])
    try:
        return test(options, rest) if command == "test" else run_program(PROGRAMS[command], rest)
    except SetupError as error:
        logging.error("%s", error)
        return 1
    except KeyboardInterrupt:
        return 130


def parse_arguments(arguments: list[str]) -> tuple[str, argparse.Namespace, list[str]]:
    """The command, its options, and the arguments meant for the program behind it."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__, formatter_class=formatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | test | bench | train")
    for name, text in HELP.items():
        commands.add_parser(name, help=text, add_help=False)
    tests = commands.add_parser("test", help="all tests; those on ComfyUI once for every ComfyUI found")
    tests.add_argument("-k", metavar="EXPRESSION", help="only tests whose names match, as in pytest")
    tests.add_argument("--quick", action="store_true", help="leave out tests marked slow")
    tests.epilog = "Arguments after -- go to pytest: python dev.py test -- -x --lf"
    if arguments and arguments[0] in PROGRAMS:
        return arguments[0], argparse.Namespace(), arguments[1:]
    own, extra = arguments, []
    if "--" in arguments:
        at = arguments.index("--")
        own, extra = arguments[:at], arguments[at + 1 :]
    options = parser.parse_args(own)
    return options.command, options, extra


def run_program(module: str, arguments: list[str]) -> int:
    """Run a module of the pack in an environment that has what it needs; the demo on every kind of host found."""
    from devtools.comfyui import program_environments

    loader = Path(__file__).resolve().parent / "devtools" / "pack.py"
    settings = KEEP_MEMORY if module == PROGRAMS["bench"] else {}
    for python, variables in program_environments(everywhere=module == PROGRAMS["demo"]):
        status = subprocess.run([python, loader, module, *arguments], env={**settings, **variables}).returncode
        if status:
            return status
    return 0


def test(options: argparse.Namespace, extra: list[str]) -> int:
    """Run all suites and end with the sum over them. 0 if nothing failed."""
    from devtools.suites import Selection, run_all, summary

    chosen = [*(["-k", options.k] if options.k else []), *(["-m", "not slow"] if options.quick else []), *extra]
    outcomes = run_all(Selection(tuple(chosen), may_be_empty=bool(chosen)))
    sys.stderr.flush()
    sys.stdout.write(f"\n{summary(outcomes)}\n")
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
