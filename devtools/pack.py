"""Loads this checkout as the package `bwcache_pack`, whatever its folder is called.

The root itself must stay off sys.path: its nodes/ would shadow ComfyUI's nodes.py.
As a script it runs one module of the pack: python devtools/pack.py benchmarks.demo --steps 20
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

ALIAS = "bwcache_pack"
ROOT = Path(__file__).resolve().parent.parent


def load_pack() -> ModuleType:
    """The pack, loaded once. `from bwcache_pack.bwcache_core.config import BWCacheConfig` works afterwards."""
    if ALIAS not in sys.modules:
        init = ROOT / "__init__.py"
        spec = importlib.util.spec_from_file_location(ALIAS, init, submodule_search_locations=[str(ROOT)])
        module = importlib.util.module_from_spec(spec)
        sys.modules[ALIAS] = module
        spec.loader.exec_module(module)
    return sys.modules[ALIAS]


def main() -> None:
    """Run the module named by the first argument; the rest are its own arguments."""
    del sys.path[0]  # devtools/, put there by Python for a script
    del sys.argv[0]
    load_pack()
    runpy.run_module(f"{ALIAS}.{sys.argv[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
