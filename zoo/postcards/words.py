"""Words of postcards: fixed Gaussian vectors of Wan's text width; the empty prompt is all zeros."""

from ..scenes import Words

WORDS = Words(kind="gaussian", seed=20, width=4096, size=0.25, empty="zero")
