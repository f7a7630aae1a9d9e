"""Node schemas that load on every supported ComfyUI: a field that one does not know would keep the node from loading."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

CATEGORY = "model/speed"
KNOWN_FIELDS = frozenset(field.name for field in dataclasses.fields(io.Schema))


def schema(**fields) -> io.Schema:
    """io.Schema of the fields this ComfyUI has; search_aliases came with 0.11."""
    return io.Schema(**{name: value for name, value in fields.items() if name in KNOWN_FIELDS})
