"""Workflows as the browser saves them, built from what a server says about its nodes (/object_info)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
APPLY = "BWCacheApply"
ONLY_IN_BROWSER = {"MarkdownNote", "Note"}
GAP, ASIDE, ROW = 60, 50, 24  # pixels of the canvas: below a node, beside it, and of one of its rows
WIDTH = 320
SCREEN, LEFT, TOP = (1750, 880), 90, 110  # what a full HD window shows of the canvas, less its bars
LEGIBLE = 0.62  # scale; below 0.6 the canvas draws no text
FRAME, HEADING = 20, 70  # of a group, around its nodes and above them
NEVER = 2  # mode of a muted node
NAMESPACE = uuid.UUID("b6cace00-0000-4000-8000-000000000000")  # makes ids of workflows the same at every run


class Widget(NamedTuple):
    """One entry of widgets_values. name: of the input, "format.codec" inside a dynamic one; empty: the browser's own.

    options: what the server offers; None where any value of the type will do.
    """

    name: str
    kind: str
    default: object
    options: list | None = None
    about: dict | None = None


class Socket(NamedTuple):
    """An input that takes a link. of_widget: the link stands in for a widget, which keeps its place among the values."""

    name: str
    kind: str
    optional: bool
    of_widget: bool = False


class Link(NamedTuple):
    node: Node
    slot: int


@dataclass
class Node:
    """A node in a graph. inputs: links by input name. group: title of the box that it lies in, muted, below the others."""

    id: int
    type: str
    outputs: list[tuple[str, str]]
    sockets: list[Socket]
    values: list
    links: dict[str, Link] = field(default_factory=dict)
    column: int = 0
    title: str = ""
    height: int = 0
    width: int = WIDTH
    models: list[dict] = field(default_factory=list)
    group: str = ""

    def __getitem__(self, name: str) -> Link:
        names = [output for output, _ in self.outputs]
        return Link(self, names.index(name))


def sockets_of(info: dict) -> list[Socket]:
    """Inputs that only a link can fill, in order."""
    found = []
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            if not is_widget(kind, options[0] if options else {}):
                found.append(Socket(name, kind, group == "optional"))
    return found


def widgets_of(info: dict, values: dict) -> list[Widget]:
    """Widgets of a node in the order of widgets_values. values: choices that decide which widgets there are."""
    found: list[Widget] = []
    for group in ("required", "optional"):
        found += _widgets(info["input"].get(group, {}), values, "")
    return found


def _widgets(inputs: dict, values: dict, prefix: str) -> Iterator[Widget]:
    for name, (kind, *rest) in inputs.items():
        options = rest[0] if rest else {}
        if not is_widget(kind, options) or options.get("hidden"):
            continue
        full = prefix + name
        if kind == DYNAMIC:
            choices = {choice["key"]: choice["inputs"] for choice in options["options"]}
            chosen = values.get(full, next(iter(choices)))
            yield Widget(full, kind, next(iter(choices)), list(choices), options)
            for group in choices[chosen].values():
                yield from _widgets(group, values, f"{full}.")
            continue
        offered = kind if isinstance(kind, list) else options.get("options")
        default = options.get("default", offered[0] if offered else "")
        yield Widget(full, "COMBO" if isinstance(kind, list) else kind, default, offered, options)
        if options.get("control_after_generate"):
            yield Widget("", "COMBO", "fixed", ["fixed", "increment", "decrement", "randomize"])
        if options.get("image_upload"):
            yield Widget("", "STRING", "image")


def is_widget(kind, options: dict) -> bool:
    return (isinstance(kind, list) or options.get("widgetType", kind) in WIDGET_TYPES) and not options.get("forceInput")


class Graph:
    """A workflow being built. info: /object_info. files: directory and address of each model file by name.

    lowered: columns that begin lower, so that links to the next one pass above their nodes.
    """

    def __init__(self, name: str, info: dict, files: dict[str, tuple[str, str]]) -> None:
        self.name, self.info, self.files = name, info, files
        self.nodes: list[Node] = []
        self.lowered: dict[int, int] = {}
        self._group = ""

    @contextmanager
    def muted(self, title: str) -> Iterator[None]:
        """What is added lies below the rest in a box with a title, and does not run until it is unmuted."""
        self._group = title
        try:
            yield
        finally:
            self._group = ""

    def add(self, column: int, kind: str, title: str = "", height: int = 0, /, **inputs) -> Node:
        """A node in a column. inputs: links for sockets, values for widgets; widgets left out keep their default."""
        about = self.info[kind]
        links = {name: value for name, value in inputs.items() if isinstance(value, Link)}
        values = {name.replace("__", "."): value for name, value in inputs.items() if name not in links}
        widgets = widgets_of(about, values)
        sockets = sockets_of(about) + [Socket(w.name, w.kind, True, True) for w in widgets if w.name in links]
        unknown = set(values) - {w.name for w in widgets} | set(links) - {s.name for s in sockets}
        missing = {s.name for s in sockets if not s.optional} - set(links)
        if unknown or missing:
            raise ValueError(f"{self.name}, {kind}: unknown {sorted(unknown)}, missing {sorted(missing)}")
        outputs = list(zip(about["output_name"], about["output"], strict=True))
        filled = [values.get(w.name, w.default) if w.name else w.default for w in widgets]
        models = [
            {"name": value, "url": self.files[value][1], "directory": self.files[value][0]}
            for value in filled if isinstance(value, str) and value in self.files
        ]  # fmt: skip
        tall = sum(4 * ROW if (w.about or {}).get("multiline") else ROW + 4 for w in widgets)
        height = height or 50 + ROW * max(len(outputs), sum(not s.of_widget for s in sockets)) + tall
        node = Node(self._id(), kind, outputs, sockets, filled, links, column, title, height, models=models, group=self._group)
        self.nodes.append(node)
        return node

    def note(self, column: int, text: str) -> None:
        text = text.replace("`", "**")  # Nodes 2.0 draws code dark on dark
        title, height = "Note", 60 + 15 * sum(1 + len(line) // 54 for line in text.strip().splitlines())
        node = Node(self._id(), "MarkdownNote", [], [], [text.strip()], {}, column, title, height)
        self.nodes.append(node)

    def to_json(self) -> dict:
        """As the browser saves it, version 0.4."""
        links: list[list] = []
        places = self._places()
        for node in self.nodes:
            for slot, socket in enumerate(node.sockets):
                if socket.name in node.links:
                    source = node.links[socket.name]
                    kind = source.node.outputs[source.slot][1]
                    links.append([len(links) + 1, source.node.id, source.slot, node.id, slot, kind])
        nodes = [self._node(order, node, places[node.id], links) for order, node in enumerate(self.nodes)]
        return {
            "id": str(uuid.uuid5(NAMESPACE, self.name)), "revision": 0, "last_node_id": len(self.nodes),
            "last_link_id": len(links), "nodes": nodes, "links": links, "groups": self._boxes(places), "config": {}, "extra": {"ds": self._view(places)},
            "version": 0.4,
        }  # fmt: skip

    def _node(self, order: int, node: Node, place: tuple[int, int], links: list[list]) -> dict:
        def link_into(slot: int) -> int | None:
            return next((link[0] for link in links if link[3:5] == [node.id, slot]), None)

        def links_from(slot: int) -> list[int]:
            return [link[0] for link in links if link[1:3] == [node.id, slot]]

        properties: dict = {} if node.type in ONLY_IN_BROWSER else {"Node name for S&R": node.type, **origin(node.type)}
        if node.models:
            properties["models"] = node.models
        inputs = [
            {"name": s.name, "type": s.kind, "link": link_into(i), **({"widget": {"name": s.name}} if s.of_widget else {})}
            for i, s in enumerate(node.sockets)
        ]
        outputs = [{"name": n, "type": kind, "links": links_from(i)} for i, (n, kind) in enumerate(node.outputs)]
        saved = {
            "id": node.id, "type": node.type, "pos": list(place), "size": [node.width, node.height], "flags": {},
            "order": order, "mode": NEVER if node.group else 0, "inputs": inputs, "outputs": outputs, "properties": properties,
            "widgets_values": node.values,
        }  # fmt: skip
        colours = {"color": "#432", "bgcolor": "#653"} if node.type in ONLY_IN_BROWSER else {}
        return {**saved, **colours, **({"title": node.title} if node.title else {})}

    def _places(self) -> dict[int, tuple[int, int]]:
        """Columns from left to right, each filled from the top."""
        places, left, lefts = {}, 0, {}
        for column in sorted({node.column for node in self.nodes}):
            members = [node for node in self.nodes if node.column == column]
            lefts[column] = left
            self._stack([node for node in members if not node.group], left, self.lowered.get(column, 0), places)
            left += max(node.width for node in members) + ASIDE
        beside = {node.column for node in self.nodes if node.group}
        bottoms = [places[node.id][1] + node.height for node in self.nodes if node.column in beside and not node.group]
        for column in beside:
            members = [node for node in self.nodes if node.column == column and node.group]
            self._stack(members, lefts[column], max(bottoms) + GAP + HEADING, places)
        return places

    def _stack(self, nodes: list[Node], left: int, top: int, places: dict[int, tuple[int, int]]) -> None:
        for node in sorted(nodes, key=lambda node: node.type != APPLY):  # on top, beside the model that it takes
            places[node.id] = (left, top)
            top += node.height + GAP

    def _view(self, places: dict[int, tuple[int, int]]) -> dict:
        """Scale and offset at which the browser opens the workflow: without what is muted, and large enough to read."""
        shown = [node for node in self.nodes if not node.group]
        width = max(places[node.id][0] + node.width for node in shown)
        height = max(places[node.id][1] + node.height for node in shown)
        scale = round(max(min(SCREEN[0] / width, SCREEN[1] / height, 1.0), LEGIBLE), 2)
        return {"scale": scale, "offset": [round(LEFT / scale), round(TOP / scale)]}

    def _boxes(self, places: dict[int, tuple[int, int]]) -> list[dict]:
        """A box around the nodes of each group, as the browser saves it."""
        boxes = []
        for number, title in enumerate(dict.fromkeys(node.group for node in self.nodes if node.group), start=1):
            members = [node for node in self.nodes if node.group == title]
            x, y = (min(places[node.id][axis] for node in members) for axis in (0, 1))
            right = max(places[node.id][0] + node.width for node in members)
            bottom = max(places[node.id][1] + node.height for node in members)
            bounding = [x - FRAME, y - HEADING, right - x + 2 * FRAME, bottom - y + HEADING + FRAME]
            boxes.append({"id": number, "title": title, "bounding": bounding, "color": "#3f789e", "flags": {}})
        return boxes

    def _id(self) -> int:
        return len(self.nodes) + 1


def origin(type: str) -> dict:
    """Where the Manager finds a missing node."""
    return {"cnr_id": "bwcache" if type.startswith("BWCache") else "comfy-core"}


def to_prompt(workflow: dict, info: dict) -> dict:
    """A saved workflow as the server takes it: what the browser sends when one presses Run. Muted nodes are left out."""
    sources = {link[0]: (str(link[1]), link[2]) for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in ONLY_IN_BROWSER or node["mode"] == NEVER:
            continue
        values = named_values(info[node["type"]], node["widgets_values"])
        links = {i["name"]: list(sources[i["link"]]) for i in node["inputs"] if i["link"] is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": {**values, **links}}
    return prompt


def named_values(info: dict, values: list) -> dict:
    """Widget values by input name. Raises ValueError if there are too many or too few."""
    named: dict = {}
    while True:  # a dynamic choice decides which widgets follow it
        widgets = widgets_of(info, named)
        found = {w.name: value for w, value in zip(widgets, values, strict=False) if w.name}
        if found == named:
            break
        named = found
    if len(widgets) != len(values):
        raise ValueError(f"{len(values)} values for {[w.name for w in widgets]}")
    return named
