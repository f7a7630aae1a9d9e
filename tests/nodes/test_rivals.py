"""Other caches, by what they leave on a model."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from bwcache_pack.nodes.rivals import put_on, rival_caches


def made(module: str, name: str = "wrapper"):
    """A function that says it comes from `module`."""

    def function():
        """Nothing."""

    function.__module__, function.__qualname__ = module, name
    return function


def wrapped(key: str, function=None) -> dict:
    return {"transformer_options": {"wrappers": {"diffusion_model": {key: [function or made("pack")]}}}}


def option(key: str) -> dict:
    return {"transformer_options": {key: {}}}


def block_patch(function) -> dict:
    return {"transformer_options": {"patches_replace": {"dit": {("double_block", 0): function}}}}


def packed(folder: str, name: str = "wrapper"):
    """As ComfyUI names modules of custom nodes: by their whole path."""
    return made(f"/srv/ComfyUI/custom_nodes/{folder}", name)


FOUND = [
    # options of the model, functions, names
    ({}, (), []),
    ({"transformer_options": {"bwcache": object(), "sample_sigmas": None}}, (), []),
    (wrapped("easycache"), (), ["EasyCache"]),
    (wrapped("lazycache", made("comfy_extras.nodes_easycache", "easycache_sample_wrapper")), (), ["LazyCache"]),
    ({"transformer_options": {"wrappers": {"a": {"easycache": []}, "b": {"lazycache": []}}}}, (), ["EasyCache", "LazyCache"]),
    (wrapped("teacache"), (), ["TeaCache"]),  # Raylight's
    ({"model_function_wrapper": packed("ComfyUI-TeaCache.nodes", "TeaCache.apply.<locals>.unet_wrapper")}, (), ["TeaCache"]),
    (option("tea_cache_attr"), (), ["TeaCache"]),  # of Patches_ll
    (wrapped("x", partial(packed("ComfyUI-MagCache.nodes"), 1)), (), ["MagCache"]),
    ({"model_function_wrapper": packed("Comfy-WaveSpeed.fbcache_nodes")}, (), ["WaveSpeed's first block cache"]),
    (block_patch(made("wavespeed.fbcache_nodes.first_block_cache")), (), ["WaveSpeed's first block cache"]),
    (option("fb_cache_attr"), (), ["a first block cache"]),  # of Patches_ll
    ({}, (packed("ComfyUI-CacheDiT.nodes_wan", "patch.<locals>.cached_forward"),), ["CacheDiT"]),
    (wrapped("cache_dit_wan"), (), ["CacheDiT"]),
    ({}, (packed("comfyui-fsampler.sampler", "sample_fsampler"),), ["FSampler"]),
    ({"model_function_wrapper": packed("ComfyUI-TaylorSeer.nodes")}, (), ["TaylorSeer"]),
    ({"model_function_wrapper": packed("comfyui-meancache-z.patch.model_patch", "meancache_wrapper_function")}, (), ["MeanCache"]),
    ({"model_function_wrapper": packed("ComfyUI-Spectrum-KSampler.spectrum", "spectrum_wrapper")}, (), ["Spectrum"]),
    ({}, (packed("ComfyUI-Spectrum-WAN-Proper.comfyui_spectrum_wan.wan", "wrapped_forward_orig"),), ["Spectrum"]),
    (wrapped("spectrum_h3"), (), ["Spectrum"]),
    (wrapped("minimax_h3_adaptive_cache_123"), (), ["an adaptive cache"]),
    (block_patch(packed("ComfyUI-MiniMaxH3-AdaptiveCache.adaptive_cache", "BlockInterceptor")), (), ["an adaptive cache"]),
    ({"model_function_wrapper": packed("ComfyUI-MiniMaxH3-TeaCache.teacache", "make_wrapper.<locals>.wrapper")}, (), ["TeaCache"]),
    (wrapped("minimax_h3_first_block_cache_123"), (), ["a first block cache"]),
    (block_patch(packed("h3.nodes", "_MiniMaxH3Cache")), (), ["a cache for MiniMax-H3"]),  # lihaoyun6's
    (block_patch(packed("comfyui-speed-minimaxH3.nodes", "MiniMaxH3CacheController")), (), ["a cache for MiniMax-H3"]),
    (option("minimax_h3_block_cache_t8"), (), ["a cache for MiniMax-H3"]),
    ({}, (made("/home/me/teacache_test/ComfyUI/custom_nodes/KJNodes.nodes"),), []),  # the user's own folder
    ({}, (made("p" * 300 + ".custom_nodes." + "q" * 300 + ".easycache"),), ["EasyCache"]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "functions", "names"), FOUND)
def test_a_rival_is_named_by_what_it_leaves(options, functions, names):
    assert rival_caches(options, *functions) == names


@pytest.mark.parametrize("slot", ["forward", "forward_orig", "hook", "base model", "object patch"])
def test_whatever_is_put_on_a_model_is_looked_at(slot):
    module, cache = torch.nn.Sequential(torch.nn.Identity()), made("custom_nodes.teacache.nodes")
    patcher = SimpleNamespace(model=SimpleNamespace(), object_patches={"diffusion_model": module})
    assert put_on(patcher, module) == []
    if slot in ("forward", "forward_orig"):
        setattr(module, slot, cache)
    elif slot == "hook":
        module.register_forward_hook(cache)
    elif slot == "base model":
        patcher.model.apply_model = cache
    else:
        patcher.object_patches["diffusion_model.forward"] = cache
    assert put_on(patcher, module) == [cache]


def test_a_model_without_a_patchers_lists_has_nothing_on_it():
    assert put_on(SimpleNamespace(), torch.nn.Identity()) == []


def test_several_caches_are_named_in_one_order_wherever_they_are():
    easy, mag = made("easycache"), made("custom_nodes.magcache")
    expected = ["EasyCache", "MagCache"]
    assert rival_caches({"model_function_wrapper": mag}, easy) == rival_caches({"model_function_wrapper": easy}, mag) == expected
