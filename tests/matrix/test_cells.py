"""Every cell of the matrix, on the ComfyUI of this process. devtools/matrix.py makes docs/matrix.md of these."""

from __future__ import annotations

import json

import pytest

from bwcache_pack.tests.matrix.cells import CELLS, QUICK, Cell
from bwcache_pack.tests.matrix.checkpoints import Absent, detected
from bwcache_pack.tests.matrix.checks import check
from bwcache_pack.tests.matrix.desk import SMALL_MODELS
from bwcache_pack.tests.matrix.rarer import UNSAMPLED
from bwcache_pack.tests.matrix.variants import VARIANTS

pytestmark = pytest.mark.comfyui
PARAMS = [pytest.param(cell, marks=() if name in QUICK else pytest.mark.slow) for name, cell in CELLS.items()]


@pytest.mark.parametrize("cell", PARAMS, ids=CELLS)
def test_cell(bench, cell: Cell, record_property):
    try:
        measured = check(bench, cell)
    except Absent as absent:
        pytest.skip(str(absent))
    record_property("measured", json.dumps(measured))
    record_property("class", bench.class_of(VARIANTS[cell.variant].checkpoint))


def test_the_quick_cells_are_cells():
    assert set(CELLS) >= QUICK


def test_the_table_has_every_sampler_and_scheduler(comfyui):
    from comfy.samplers import KSampler

    from bwcache_pack.tests.matrix.combinations import SAMPLERS, SCHEDULERS

    here = {name for name in KSampler.SAMPLERS if not name.endswith("_gpu")}  # on a CPU these are their namesakes
    assert here <= set(SAMPLERS)
    assert set(KSampler.SCHEDULERS) - {"simple"} <= set(SCHEDULERS)


def test_every_class_has_a_cell_or_is_not_sampled(comfyui):
    import comfy.supported_models

    here = {model.__name__ for model in comfy.supported_models.models}
    checkpoints = {VARIANTS[cell.variant].checkpoint for cell in CELLS.values()}
    sampled = {SMALL_MODELS[name].supported if name in SMALL_MODELS else detected(name) for name in checkpoints}
    assert not sampled & set(UNSAMPLED)
    assert here <= sampled | set(UNSAMPLED), f"without a cell: {sorted(here - sampled - set(UNSAMPLED))}"
