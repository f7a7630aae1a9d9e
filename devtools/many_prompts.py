"""Memory of a server over many prompts of changing graphs: python devtools/pack.py devtools.many_prompts 200 --cache-lru 10

The first ComfyUI found runs them on the CPU with TinyWan, with the flags that follow the count. Every graph is drawn at
random: mode, speed-up, sampler, steps, size, cfg, with and without the cache and the report, lists of latents, nodes of a
subgraph, calibrations. Prints the server's resident memory after every 20 prompts, and how many prompts failed.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from ..tests.e2e.server import Server, install, make_base, running
from .comfyui import checkouts

EVERY = 20
MEGABYTE = 1e6
WORDS, APPLY, SAMPLER, REPORT, LIST = "1", "3", "7", "8", "9"
BLOCKS = {"mode.threshold": 0.1, "mode.reuse_interval": 1}
MODES = (
    {"mode": "forecast"},
    {"mode": "forecast", "mode.speedup": 3.0},
    {"mode": "paper", **BLOCKS},
    {"mode": "per block", **BLOCKS},
    {"mode": "measure"},
)
CALIBRATIONS = 0.05  # of the prompts: each samples five times
HOST = "12"  # a subgraph's node: those in it run under ids such as 12:3


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def drawn(chance: random.Random) -> dict:
    """A prompt in API format."""
    words = node("BWCacheTinyWan", colour="red", shape="circle", direction=chance.choice(["left", "right"]),
                 size=chance.choice([16, 24, 32]))  # fmt: skip
    graph = calibration(chance) if chance.random() < CALIBRATIONS else sampling(chance)
    return {WORDS: words, **(in_subgraph(graph) if chance.random() < 0.3 else graph)}


def sampling(chance: random.Random) -> dict:
    """A sampler with or without the cache, of one latent or a list of two, with or without the report."""
    cached, listed = chance.random() < 0.85, chance.random() < 0.2
    settings = {
        "seed": chance.randrange(2**32), "steps": chance.choice([4, 8, 12]), "cfg": chance.choice([1.0, 3.0]),
        "sampler_name": chance.choice(["euler", "dpmpp_2m", "heun", "euler_ancestral"]), "scheduler": "simple", "denoise": 1.0,
    }  # fmt: skip
    links = {"positive": [WORDS, 1], "negative": [WORDS, 2], "latent_image": [LIST, 0] if listed else [WORDS, 3]}
    graph = {
        APPLY: node("BWCacheApply", model=[WORDS, 0], **chance.choice(MODES)),
        SAMPLER: node("KSampler", model=[APPLY, 0] if cached else [WORDS, 0], **links, **settings),
        "save": node("SaveLatent", samples=[SAMPLER, 0], filename_prefix="many"),
    }
    if listed:
        graph["twice"] = node("RepeatLatentBatch", samples=[WORDS, 3], amount=2)
        graph[LIST] = node("RebatchLatents", latents=["twice", 0], batch_size=1)
    if chance.random() < 0.6:
        graph[REPORT] = node("BWCacheReport", passthrough=[SAMPLER, 0], stats=[APPLY, 1])
    return graph


def calibration(chance: random.Random) -> dict:
    """BWCache Calibrate, as short as it goes."""
    asked = {"first_seed": chance.randrange(2**32), "seeds": 1, "speedups": "2", "trials": 1, "choose": "2x"}
    links = {"guider": ["guider", 0], "sampler": ["sampler", 0], "sigmas": ["sigmas", 0], "latent_image": [WORDS, 3]}
    return {
        "guider": node("CFGGuider", model=[WORDS, 0], positive=[WORDS, 1], negative=[WORDS, 2], cfg=3.0),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=[WORDS, 0], scheduler="simple", steps=8, denoise=1.0),
        "calibrate": node("BWCacheCalibrate", **links, **asked),
        REPORT: node("BWCacheReport", passthrough=["calibrate", 0], stats=["calibrate", 5]),
    }


def in_subgraph(graph: dict) -> dict:
    """The same nodes under the ids that they have in a subgraph."""
    moved = {name: f"{HOST}:{name}" for name in graph}
    renamed = {}
    for name, each in graph.items():
        inputs = {key: [moved.get(value[0], value[0]), value[1]] if isinstance(value, list) else value
                  for key, value in each["inputs"].items()}  # fmt: skip
        renamed[moved[name]] = {**each, "inputs": inputs}
    return renamed


def resident(server: Server) -> float:
    """Megabytes of the server's process. Linux only."""
    kilobytes = Path(f"/proc/{server.process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
    return int(kilobytes) * 1024 / MEGABYTE


def main() -> None:
    """Says what memory did, and raises SystemExit where a prompt failed."""
    count, flags = int(sys.argv[1]), sys.argv[2:]
    chance, failed = random.Random(0), 0  # noqa: S311 - the same graphs every time
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        make_base(base)
        install(base)
        with running(checkouts()[0], base, *flags) as server:
            for done in range(1, count + 1):
                try:
                    server.run(drawn(chance))
                except RuntimeError as error:
                    failed += 1
                    sys.stdout.write(f"prompt {done}: {error}\n")
                if done % EVERY == 0:
                    sys.stdout.write(f"{done} prompts: {resident(server):.0f} MB\n")
                    sys.stdout.flush()
    if failed:
        raise SystemExit(f"{failed} of {count} prompts failed.")


if __name__ == "__main__":
    main()
