"""Hosts of the contract suite: the embedded one always, ComfyUI where COMFYUI_PATH names exactly one checkout."""

from __future__ import annotations

import gc
import os

import pytest
import torch

from bwcache_pack.tests.hosts import instances, recipes
from bwcache_pack.tests.hosts.checkouts import explain_missing, find_checkouts
from bwcache_pack.tests.hosts.comfyui import ComfyUIHost
from bwcache_pack.tests.hosts.embedded import EmbeddedHost
from bwcache_pack.tests.hosts.lab import Lab


def pytest_report_header() -> str:
    return f"ComfyUI: {why_not() or find_checkouts()[0].version}"


def why_not() -> str:
    """Why this process has no ComfyUI. Empty when it has one."""
    if os.environ.get("COMFYUI_PATH") and len(find_checkouts()) == 1:
        return ""
    if os.environ.get("COMFYUI_PATH") and not find_checkouts():
        return explain_missing()
    return (
        "NOT TESTED AGAINST COMFYUI IN THIS PROCESS: it needs COMFYUI_PATH to name one checkout, and the python of that "
        "checkout. `python dev.py test` starts one such process for every checkout it finds."
    )


torch.set_num_threads(1)  # tensors this small only lose time to more, and one thread always adds up in one order


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def embedded(checkpoints):
    return EmbeddedHost(checkpoints)


@pytest.fixture(scope="session")
def comfyui(checkpoints):
    if why_not():
        pytest.skip(why_not())
    host = ComfyUIHost(find_checkouts()[0], checkpoints)
    gc.freeze()  # ComfyUI's modules stay: every collection in a test would walk through all of them
    return host


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`lab` runs over every family of every host; marked `family(...)` over those, marked `comfyui` without ours.

    `any_lab` runs over these and, on ComfyUI, over every model of instances.py.
    """
    if "any_lab" in metafunc.fixturenames:
        metafunc.parametrize("any_lab", [pytest.param(case, id="-".join(case)) for case in every_model()], indirect=True)
    if "lab" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("family")
    chosen = marker.args if marker else tuple(recipes.RECIPES)
    cases = [("comfyui", family) for family in chosen]
    if not metafunc.definition.get_closest_marker("comfyui"):
        cases += [("embedded", family) for family in chosen if family in EmbeddedHost.families]
    comfy = pytest.mark.comfyui
    params = [pytest.param(case, id="-".join(case), marks=comfy if case[0] == "comfyui" else ()) for case in cases]
    metafunc.parametrize("lab", params, indirect=True)


def every_model() -> list[tuple[str, str]]:
    cases = [("comfyui", family) for family in (*recipes.RECIPES, *instances.INSTANCES, *instances.FORECAST_ONLY)]
    return [*cases, *(("embedded", family) for family in EmbeddedHost.families)]


@pytest.fixture
def any_lab(request: pytest.FixtureRequest) -> Lab:
    host, family = request.param
    if family in recipes.RECIPES:
        return Lab(request.getfixturevalue(host), family)
    return small_lab(request.getfixturevalue(host), family)


def small_lab(host, family: str) -> Lab:
    """Skips where this ComfyUI has no such model."""
    lab = instances.SmallLab(host, family)
    if instances.supported_class(lab.recipe) is None:
        pytest.skip(f"ComfyUI {host.version} has no {lab.recipe.supported}")
    return lab


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    host, family = request.param
    return Lab(request.getfixturevalue(host), family)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "family(*names): families of tests/hosts/recipes.py that the test runs on")
