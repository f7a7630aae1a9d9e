"""Writes locales/en/nodeDefs.json from the schemas: python devtools/pack.py devtools.locales

The other languages are written by hand; tests/e2e/test_help.py says what they lack. Options stay as they are: the browser
translates none, and texts refer to them by name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from .pack import ROOT
from .workflows import object_info

LOCALES = ROOT / "locales"


def main() -> None:
    path = LOCALES / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(texts_of(object_info()), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")


def texts_of(info: dict) -> dict:
    """nodeDefs.json of our nodes in the words of their schemas."""
    ours = {name: about for name, about in sorted(info.items()) if name.startswith("BWCache")}
    return {name.replace(".", "_"): node_texts(about) for name, about in ours.items()}


def node_texts(about: dict) -> dict:
    outputs = zip(about["output_name"], about["output_tooltips"], strict=True)
    return {
        "display_name": about["display_name"],
        "description": about["description"],
        "inputs": dict(input_texts(about["input"])),
        "outputs": {str(slot): {"name": name, "tooltip": tip} for slot, (name, tip) in enumerate(outputs)},
    }


def input_texts(inputs: dict, prefix: str = "") -> Iterator[tuple[str, dict]]:
    """Name and tooltip by key, `mode_speedup` for one inside of `mode`. One of two modes has the same text in both."""
    for group in ("required", "optional"):
        for name, (_, *rest) in inputs.get(group, {}).items():
            about = rest[0] if rest else {}
            key = f"{prefix}{name.replace('.', '_')}"
            yield key, {"name": name, "tooltip": about["tooltip"]}
            for option in about.get("options") or ():
                if isinstance(option, dict):
                    yield from input_texts(option["inputs"], f"{key}_")


if __name__ == "__main__":
    main()
