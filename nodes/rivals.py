"""Other caches on the same model: two caches add up their errors, and neither knows what the other did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

WAVESPEED, FIRST_BLOCK = "WaveSpeed's first block cache", "a first block cache"
H3 = "a cache for MiniMax-H3"
EASY, LAZY = "EasyCache", "LazyCache"  # of ComfyUI itself
HOOKS = ("_forward_hooks", "_forward_pre_hooks")  # of torch.nn.Module
NAMES = {
    "easycache": EASY,
    "lazycache": LAZY,
    "teacache": "TeaCache",
    "magcache": "MagCache",
    "wavespeed": WAVESPEED,
    "fbcache": FIRST_BLOCK,
    "first_block_cache": FIRST_BLOCK,
    "cachedit": "CacheDiT",
    "cache_dit": "CacheDiT",
    "taylorseer": "TaylorSeer",
    "meancache": "MeanCache",
    "fsampler": "FSampler",
    "dicache": "DiCache",
    "seacache": "SeaCache",
    "spectrum": "Spectrum",
    "adaptivecache": "an adaptive cache",
    "minimaxh3cache": H3,
    "minimaxh3blockcache": H3,
}
LONGEST = 200
PACKS = "custom_nodes"  # what lies above it is the user's own folder


def rival_caches(model_options: Mapping, *functions: object) -> list[str]:
    """Names of the caches that are found on a model, in a fixed order.

    model_options: of the guider of a run. functions: what else a cache may have taken the place of: the sampler's function,
    and what `put_on` finds.
    """
    text = " ".join(origins(model_options, functions)).lower().replace("-", "_")
    compact = text.replace("_", "")
    found = dict.fromkeys(name for word, name in NAMES.items() if word in text or word.replace("_", "") in compact)
    if WAVESPEED in found and FIRST_BLOCK in found:
        del found[FIRST_BLOCK]  # its own
    if EASY in found and LAZY in found and "easycache" not in wrapper_keys(model_options):
        del found[EASY]  # LazyCache is made of its parts
    return list(found)


def wrapper_keys(model_options: Mapping) -> set[str]:
    """What wrappers on a model are registered by."""
    by_kind = model_options.get("transformer_options", {}).get("wrappers", {}).values()
    return {str(key) for by_key in by_kind for key in by_key}


def put_on(patcher, module: object) -> list[object]:
    """Functions that were put on a diffusion model, in the place of its own or as hooks, on the model around it, or in the
    ModelPatcher's list of objects to replace."""
    owners = [vars(owner) for owner in (module, getattr(patcher, "model", None)) if hasattr(owner, "__dict__")]
    hooks = [hook for name in HOOKS for hook in getattr(module, name, {}).values()]
    patches = list(getattr(patcher, "object_patches", {}).values())
    values = [value for owner in owners for value in owner.values()]
    return [value for value in [*values, *hooks, *patches] if callable(value) and not hasattr(value, "state_dict")]


def origins(model_options: Mapping, functions: tuple) -> Iterator[str]:
    """Where everything comes from that could be a cache: keys of wrappers and of options, modules and names of functions."""
    options = model_options.get("transformer_options", {})
    yield from (str(key)[:LONGEST] for key in options if isinstance(key, str))
    for by_key in options.get("wrappers", {}).values():
        for key, wrappers in by_key.items():
            yield str(key)[:LONGEST]
            yield from map(origin, wrappers)
    for patches in options.get("patches_replace", {}).values():
        yield from map(origin, patches.values())
    yield origin(model_options.get("model_function_wrapper"))
    yield from map(origin, functions)


def origin(function: object) -> str:
    """Module and name of a function, or of the class of an object that is called like one."""
    if function is None:
        return ""
    function = getattr(function, "func", function)  # functools.partial
    named = function if hasattr(function, "__qualname__") else type(function)
    full = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"
    return full.rpartition(PACKS)[2][-LONGEST:]
