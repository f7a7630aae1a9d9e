"""Words of market: fixed Gaussian vectors, 256 numbers each (ComfyUI reads the width from the file) and 768 pooled."""

from ..scenes import POOLED, Words

WORDS = Words(kind="gaussian", seed=30, width=256, size=1.0, empty="zero")
POOLED_WIDTH = POOLED
