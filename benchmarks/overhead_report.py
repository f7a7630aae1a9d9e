"""README.md and overhead.json of a result folder of the overhead bench."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path

NAME = "overhead.json"
WALK_NOTE = (
    "Unevenness of a walk: standard deviation, over the video, of the logarithm of how far a token moves. Where motion is",
    "very uneven a sample of 256 misses more; `tokens` on the node samples more.",
)
DEFAULT_TOKENS = 256
README_SHARES = ("own_share", "reused_share", "reused_own_share")
METHODS = {"output": "adaptive", "features": "adaptive, features", "per block": ""}  # in whole_run.py


def write_report(folder: Path, found: dict) -> None:
    """found: conditions, cases, counts, indicator and whole_runs, as overhead.py measures them."""
    (folder / NAME).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    parts = [
        [f"# What the cache costs, {datetime.date.today()}"],
        about(found["conditions"]),
        ["## Targets", "", *targets_table(found)],
        ["## A step, by shape and mode", "", *cases_table(found["cases"])],
        ["## Added to one evaluation of 40 blocks, one condition", "", *counts_table(found["counts"])],
        ["## The sampled indicator against the full one", "", *indicator_table(found["indicator"])],
        ["## Whole runs", "", *runs_table(found["whole_runs"], found["conditions"])],
    ]
    text = "\n\n".join("\n".join(lines) for lines in parts)
    (folder / "README.md").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(f"Written to {folder}\n")


def readme_lines(found: dict) -> list[str]:
    """For the project's README: the worst of all shapes by mode, and the indicator's accuracy."""
    rows = [
        "| what is cached | cache's part of a computed step | a reused step, of a computed one | of that the cache's "
        "| reads by the host, a step | whole run: achieved over ideal |",
        "|---|---|---|---|---|---|",
    ]
    for mode, method in METHODS.items():
        cases = [case for case in found["cases"] if case["mode"] == mode]
        own, reused, added = (max(case[name] for case in cases) for name in README_SHARES)
        shares = [line["share"] for line in found["whole_runs"] if line["method"] == method]
        achieved = f"{min(shares):.3f}" if shares else "-"
        reads = max(count["host_reads"] for count in found["counts"] if count["mode"] == mode)
        rows.append(f"| {mode} | {own:.2%} | {reused:.2%} | {added:.2%} | {reads} | {achieved} |")
    accuracy = "; ".join(f"{line['source']} {line['p95']:.1%}" for line in found["indicator"][:3])
    note = "Unevenness: standard deviation, over the video, of the logarithm of how far a token moves."
    return [*rows, "", f"Sampled change against that of all tokens, 95th percentile: {accuracy}. {note}"]


def targets_table(found: dict) -> list[str]:
    """Each target against the worst that was measured, and where."""
    cases = [(f"{case['shape']}, {case['mode']}", case) for case in found["cases"]]
    own, reused = (max((case[name], where) for where, case in cases) for name in ("own_share", "reused_share"))
    reads = max((count["host_reads"], f"{count['mode']}, {count['action']}") for count in found["counts"])
    p95 = max((line["p95"], line["source"]) for line in found["indicator"] if line["sampled"] <= DEFAULT_TOKENS)
    rows = ["| target | worst | where | |", "|---|---|---|---|"]

    def add(target: str, shown: str, where: str, met: bool) -> None:
        rows.append(f"| {target} | {shown} | {where} | {'met' if met else '**missed**'} |")

    add("cache's part of a computed step under 2 %", f"{own[0]:.2%}", own[1], own[0] < 0.02)
    add("reused step under 2 % of a computed one", f"{reused[0]:.2%}", reused[1], reused[0] < 0.02)
    add("one read by the host per evaluation", str(reads[0]), reads[1], reads[0] <= 1)
    add("sampled change within 3 % at the 95th percentile", f"{p95[0]:.1%}", p95[1], p95[0] <= 0.03)
    if found["whole_runs"]:
        share = min((line["share"], f"{line['method']}, {line['host']}") for line in found["whole_runs"])
        add("achieved over ideal speed-up at least 0.95", f"{share[0]:.3f}", share[1], share[0] >= 0.95)
    return rows


def about(c: dict) -> list[str]:
    """Conditions, and how to read the tables."""
    lines = [
        f"- Host: {c['host']}, torch {c['torch']}, Python {c['python']}. Machine: {c['machine']}; {c['threads']} thread(s).",
        f"- Real block shapes in bfloat16 with random weights (seed 0), {c['blocks']} blocks of one set of weights "
        "(HunyuanVideo: 1 double, 2 single). "
        + ("Latents are scaled down to the tokens in the table. " if c["scaled"] else "")
        + "One condition in a call.",
        f"- Clock: {c['clock']}, medians of {c['computed']} computed and {c['reused']} reused evaluations, the modes in turn. "
        "The cache's part is counted between wrappers and hooks on both of its sides, not as a difference of two runs.",
        "- Full depth is calculated: blocks times the time of one, and the cache's part as if all of it were paid for each "
        "block. Most of it is not, and at the real token counts the sample is as small and a block far longer: both "
        "make the shares here larger than they are.",
    ]
    if not c["keeps_memory"]:
        lines.append("- glibc hands freed memory back (dev.py tells it not to): page faults are in these numbers.")
    if c["quick"]:
        lines.append("- QUICK: an eighth of the width and short runs. These shares mean nothing.")
    return lines


def cases_table(cases: list[dict]) -> list[str]:
    rows = [
        "| shape | mode | tokens, of | block, ms | cache in a computed step, ms | share at full depth | reused step, ms: "
        "the model's own | the cache's | model's share at full depth | cache's share | both | MiB held |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in cases:
        tokens = f"{c['tokens']:,} of {c['real_tokens']:,}"
        computed = f"{1e3 * c['block']:.0f} | {1e3 * c['own']:.2f} | {c['own_share']:.3%}"
        reused = f"{1e3 * (c['reused'] - c['reused_own']):.1f} | {1e3 * c['reused_own']:.2f}"
        shares = f"{c['reused_model_share']:.3%} | {c['reused_own_share']:.3%} | {c['reused_share']:.3%}"
        held = f"{c['bytes'] / 2**20:.1f}"
        rows.append(f"| {c['shape']} | {c['mode']} | {tokens} | {computed} | {reused} | {shares} | {held} |")
    return [
        *rows,
        "",
        "Where features are cached, a reused step is nearly all the model's own, which runs whatever the cache does: embeddings,",
        "text refiner and head. The refiner takes as long for few tokens of video as for many, so here, where a block has a",
        "20th to a 100th of its tokens, it weighs more than it really does. Shares of `per block` are the most overstated: a",
        "few milliseconds that are paid once a step count for each block.",
    ]


def counts_table(counts: list[dict]) -> list[str]:
    """A reused step's operators are all that run, those of the model's embeddings and head among them."""
    rows = ["| mode | step | reads by the host | operators |", "|---|---|---|---|"]
    rows += [f"| {c['mode']} | {c['action']} | {c['host_reads']} | {c['operators']} |" for c in counts]
    return [*rows, "", "Operators of a reused step are all that run, with those of the model's embeddings and head."]


def indicator_table(lines: list[dict]) -> list[str]:
    rows = [
        "| source | tokens | sampled | comparisons | deviation, median | 95th percentile | largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for a in lines:
        numbers = f"{a['median']:.2%} | {a['p95']:.2%} | {a['largest']:.2%}"
        rows.append(f"| {a['source']} | {a['tokens']:,} | {a['sampled']:,} | {a['comparisons']} | {numbers} |")
    return [*rows, "", *WALK_NOTE]


def runs_table(lines: list[dict], c: dict) -> list[str]:
    rows = [
        f"TinyWan at {c['side']}x{c['side']} latents, 5 frames, {c['steps']} steps of euler, cfg 3, float32; "
        "plain and cached runs in turn at every evaluation, CPU time, medians over seeds 0 and up.",
        "",
        "| host | method | seeds | steps / computed steps | achieved | achieved over ideal |",
        "|---|---|---|---|---|---|",
    ]
    for a in lines:
        numbers = f"{a['seeds']} | {a['ideal']:.3f}x | {a['achieved']:.3f}x | {a['share']:.3f}"
        rows.append(f"| {a['host']} | {a['method']} | {numbers} |")
    return rows
