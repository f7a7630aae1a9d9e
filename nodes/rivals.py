"""Other caches on the same model: two caches add up their errors, and neither knows what the other did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

NAMES = {
    "easycache": "EasyCache",
    "lazycache": "LazyCache",
    "teacache": "TeaCache",
    "magcache": "MagCache",
    "fbcache": "WaveSpeed's first block cache",
    "wavespeed": "WaveSpeed's first block cache",
    "cachedit": "CacheDiT",
    "cache_dit": "CacheDiT",
    "taylorseer": "TaylorSeer",
    "meancache": "MeanCache",
    "fsampler": "FSampler",
    "dicache": "DiCache",
    "seacache": "SeaCache",
    "spectrum": "Spectrum",
    "adaptivecache": "an adaptive cache",
}
LONGEST = 200
PACKS = "custom_nodes"  # what lies above it is the user's own folder


def rival_caches(model_options: Mapping, *functions: object) -> list[str]:
    """Names of the caches that are found on a model, in a fixed order.

    model_options: of the guider of a run. functions: what else a cache may have taken the place of: the sampler's function,
    the forward of the model.
    """
    text = " ".join(origins(model_options, functions)).lower().replace("-", "_")
    compact = text.replace("_", "")
    found = [name for word, name in NAMES.items() if word in text or word.replace("_", "") in compact]
    return list(dict.fromkeys(found))


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
