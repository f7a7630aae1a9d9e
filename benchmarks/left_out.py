"""Constants that were chosen without each model of the zoo: what the default would be, had that model never been seen.

CHOSEN_WITHOUT: by model, values of module constants ("plan.EARLY": 4.0). A model that is not named is not shown. Chosen is
what lags least behind the oracle on the worst of six other models (NOTES.md, "The worth of first steps once more").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

CHOSEN_WITHOUT: dict[str, dict[str, object]] = {
    "tinywan": {"plan.EARLY": 8.0},
    "postcards": {"plan.EARLY": 8.0},
    "market": {"plan.EARLY": 8.0},
}
CORE = f"{__package__.rpartition('.')[0]}.bwcache_core"


@contextmanager
def constants_without(model: str) -> Iterator[None]:
    """The pack with the constants that were chosen without `model`."""
    before = []
    try:
        for name, value in CHOSEN_WITHOUT.get(model, {}).items():
            module, _, constant = name.rpartition(".")
            owner = import_module(f"{CORE}.{module}")
            before.append((owner, constant, getattr(owner, constant)))
            setattr(owner, constant, value)
        yield
    finally:
        for owner, constant, value in before:
            setattr(owner, constant, value)
