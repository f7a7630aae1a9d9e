"""One server per session with this pack, empty model files for the example workflows, and a TinyWan that samples."""

from __future__ import annotations

import os

import pytest

from bwcache_pack.devtools.wiring import FILES
from bwcache_pack.tests.e2e.server import Server, install, make_base, pretend_raylight, running
from bwcache_pack.tests.hosts.checkouts import Checkout, explain_missing, find_checkouts
from bwcache_pack.zoo.tinywan.checkpoint import save_checkpoint
from bwcache_pack.zoo.wan import TinyWan, TinyWanConfig


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    found = find_checkouts() if os.environ.get("COMFYUI_PATH") else []
    if not found:
        pytest.skip(f"{explain_missing()} `python dev.py test` does so for every ComfyUI it finds.")
    return found[0]


@pytest.fixture(scope="session")
def server(checkout, tmp_path_factory) -> Server:
    base = tmp_path_factory.mktemp("comfyui")
    make_base(base)
    pretend_raylight(base)
    checkpoint = install(base) / "zoo" / "tinywan" / "tinywan.safetensors"
    if not checkpoint.exists():  # a checkout without the trained file: what is tested here holds for any weights
        save_checkpoint(TinyWan(TinyWanConfig(num_layers=3)), checkpoint, {})
    for name, (directory, _) in FILES.items():
        path = base / "models" / directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (base / "input" / "example.png").touch()
    with running(checkout, base) as started:
        yield started


@pytest.fixture(scope="session")
def object_info(server) -> dict:
    return server.get("/object_info")


def version_of(checkout: Checkout) -> tuple[int, ...]:
    return tuple(int(part) for part in checkout.version.split("."))
