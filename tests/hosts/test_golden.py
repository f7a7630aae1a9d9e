"""The decisions of fixed runs of the block modes, written down: every ComfyUI and the embedded host make the same ones.

After a change that is meant to change decisions: BWCACHE_WRITE_GOLDEN=1 python -m pytest tests/hosts/test_golden.py
with COMFYUI_PATH set to one checkout, then the tests on the others.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).with_name("golden.json")
STEPS = 16
SETTINGS = {
    "paper": {"mode": "paper", "threshold": 0.03, "reuse_interval": 2},
    "per block": {"mode": "per block", "threshold": 0.03, "reuse_interval": 2},
}


def decisions(lab, settings: dict) -> dict:
    """What a run decided, and what it measured to three digits."""
    cached = lab.cached(**settings)
    latents = lab.sample(cached.model, steps=STEPS)
    steps = cached.report.steps
    return {
        "actions": " ".join(step.action for step in steps),
        "reused": [step.reused_blocks for step in steps] if settings["mode"] == "per block" else [],
        "changes": [round(step.change, 5) for step in steps if step.change is not None],
        "mean_size": round(float(latents.abs().mean()), 4),
    }


def write(lab, mode: str, made: dict) -> None:
    known = json.loads(GOLDEN.read_text(encoding="ascii")) if GOLDEN.exists() else {}
    known.setdefault(lab.family, {})[mode] = made
    lines = [
        f"  {json.dumps(family)}: {{\n"
        + ",\n".join(f"    {json.dumps(name)}: {json.dumps(known[family][name])}" for name in sorted(known[family]))
        + "\n  }"
        for family in sorted(known)
    ]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="ascii")


@pytest.mark.parametrize("mode", SETTINGS)
def test_decisions_are_the_same_everywhere(lab, mode):
    made = decisions(lab, SETTINGS[mode])
    if os.environ.get("BWCACHE_WRITE_GOLDEN") and lab.host.name == "comfyui":
        write(lab, mode, made)
    expected = json.loads(GOLDEN.read_text(encoding="ascii"))[lab.family][mode]
    assert made["actions"] == expected["actions"]
    assert made["reused"] == expected["reused"]
    assert made["changes"] == pytest.approx(expected["changes"], rel=0.01, abs=2e-5)
    if lab.host.name == "comfyui":  # ComfyUI scales latents on their way out
        assert made["mean_size"] == pytest.approx(expected["mean_size"], rel=0.01)


def test_the_fixed_runs_hold_every_kind_of_decision():
    known = json.loads(GOLDEN.read_text(encoding="ascii"))
    for family, modes in known.items():
        kinds = {mode: set(run["actions"].split()) for mode, run in modes.items()}
        assert {"compute", "reuse"} <= kinds["paper"], family
    assert sum("partial" in modes["per block"]["actions"] for modes in known.values()) >= len(known) / 2
