"""Other caches, by what they leave on a model."""

from __future__ import annotations

from functools import partial

import pytest

from bwcache_pack.nodes.rivals import rival_caches


def made(module: str, name: str = "wrapper"):
    """A function that says it comes from `module`."""

    def function():
        """Nothing."""

    function.__module__, function.__qualname__ = module, name
    return function


def wrapped(key: str, function=None) -> dict:
    return {"transformer_options": {"wrappers": {"diffusion_model": {key: [function or made("pack")]}}}}


FOUND = [
    # options of the model, functions, names
    ({}, (), []),
    ({"transformer_options": {"bwcache": object(), "sample_sigmas": None}}, (), []),
    (wrapped("easycache"), (), ["EasyCache"]),
    (wrapped("lazycache"), (), ["LazyCache"]),
    (wrapped("teacache"), (), ["TeaCache"]),  # Raylight's
    (wrapped("x", partial(made("custom_nodes.ComfyUI-MagCache.nodes"), 1)), (), ["MagCache"]),
    ({"model_function_wrapper": made("custom_nodes.ComfyUI-TeaCache.nodes", "outer.unet_wrapper")}, (), ["TeaCache"]),
    ({"transformer_options": {"patches_replace": {"dit": {("double_block", 0): made("wavespeed.fbcache_nodes")}}}}, (),
     ["WaveSpeed's first block cache"]),
    ({}, (made("custom_nodes.cache_dit.hooks", "forward"),), ["CacheDiT"]),
    ({}, (made("custom_nodes.comfyui-fsampler.sampler", "sample_fsampler"),), ["FSampler"]),
    ({}, (made("custom_nodes.spectrum.forecast"),), ["Spectrum"]),
    ({}, (made("custom_nodes.MiniMaxH3-AdaptiveCache.nodes"),), ["an adaptive cache"]),
    ({}, (made("/home/me/teacache_test/ComfyUI/custom_nodes/KJNodes.nodes"),), []),  # the user's own folder
    ({}, (made("p" * 300 + ".custom_nodes." + "q" * 300 + ".easycache"),), ["EasyCache"]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "functions", "names"), FOUND)
def test_a_rival_is_named_by_what_it_leaves(options, functions, names):
    assert rival_caches(options, *functions) == names
