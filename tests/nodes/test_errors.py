"""Errors that users see: ComfyUI puts the module in front of the name, and ours is the path of a folder."""

from __future__ import annotations

import pytest

from bwcache_pack.bwcache_core.calibration import CalibrationError
from bwcache_pack.bwcache_core.config import ConfigError
from bwcache_pack.nodes.families import UnsupportedModelError


@pytest.mark.parametrize("error", [CalibrationError, ConfigError, UnsupportedModelError])
def test_it_is_shown_by_its_name_alone(error):
    assert error.__module__ == "builtins"
