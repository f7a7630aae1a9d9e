"""The one ComfyUI of this process, as tests/hosts has it, with the models that the cells share."""

from __future__ import annotations

import gc
import logging

import pytest

from bwcache_pack.tests.hosts.conftest import checkpoints, comfyui  # noqa: F401 - fixtures
from bwcache_pack.tests.matrix.desk import Bench


@pytest.fixture(scope="session")
def bench(comfyui, record_testsuite_property):  # noqa: F811
    record_testsuite_property("comfyui", comfyui.version)
    import comfy.model_management
    import comfy.utils

    loaded = comfy.model_management.current_loaded_models
    loaded[:] = [model for model in loaded if not model.is_dead()]  # clones of other tests: Uni3C loads all anew in mid-run
    bars, level = comfy.utils.PROGRESS_BAR_ENABLED, logging.getLogger().level
    comfy.utils.PROGRESS_BAR_ENABLED = False
    logging.getLogger().setLevel(logging.ERROR)
    yield Bench(comfyui)
    comfy.utils.PROGRESS_BAR_ENABLED = bars
    logging.getLogger().setLevel(level)
    gc.unfreeze()
