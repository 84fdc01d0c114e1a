"""From the configuration's paths to typed rows: one `msgspec.Struct` per model, nested as the events are.

A *leaf* is one JSON value that something needs; leaves with the same path are shared. Values of the wrong type fail
the typed decoder, and `repair` then takes the record apart slowly and says which leaf it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from driftline.streams.ingest.values import number, scalar_text

Kind = Literal["number", "any", "raw", "score", "numbers", "scalars", "dynamic"]
Origin = Literal["json", "header", "key", "topic", "const"]

_ANY = str | int | float | bool | None
_NUMBER = float | bool | None


class NameValue(msgspec.Struct, gc=False):
    """An entry of a ``[{name, value}]`` list of features."""

    name: str
    value: str | float | bool | None = None


_TYPES: Final[Mapping[str, Any]] = {
    "number": _NUMBER,
    "any": _ANY,
    "raw": Any,
    "score": _NUMBER | dict[str, _NUMBER] | list[_NUMBER],
    "numbers": list[_NUMBER] | None,
    "scalars": list[_ANY] | None,
    "dynamic": dict[str, _ANY] | list[NameValue] | None,
}


@dataclass(frozen=True, slots=True)
class Path:
    """Where a value stands: keys from the top of the event, or a header, the key, the topic's name, a constant."""

    origin: Origin
    parts: tuple[str, ...] = ()
    text: str = ""


def parse_path(text: str) -> Path:
    """The path of a configured text; an empty text is the top of the event."""
    for origin in ("header", "const"):
        if text.startswith(origin + ":"):
            return Path("header" if origin == "header" else "const", text=text[len(origin) + 1 :])
    if text in ("key", "topic"):
        return Path("key" if text == "key" else "topic")
    return Path("json", tuple(text.split(".")) if text else ())


@dataclass(slots=True)
class Leaf:
    """One JSON value; `attr` is its dotted attribute path in the row."""

    index: int
    key: str
    kind: Kind
    name: str
    attr: str = ""


@dataclass(slots=True)
class Node:
    """One JSON object; `name_values`: may also come as a ``[{name, value}]`` list."""

    children: dict[str, Node | Leaf] = field(default_factory=dict)
    name_values: bool = False
    attr: str = ""
    type: Any = None


class Mapped:
    """The leaves of one model's events and the type of its rows.

    Raises
    ------
    ValueError : a path is both a value and an object that holds another path.
    """

    def __init__(self) -> None:
        self.root = Node()
        self.leaves: list[Leaf] = []

    def leaf(self, parts: tuple[str, ...], kind: Kind) -> Leaf:
        """The leaf at a path; wanted with two kinds it takes any scalar."""
        node = self.node(parts[:-1])
        found = node.children.get(parts[-1])
        if isinstance(found, Node):
            raise ValueError(f'path "{".".join(parts)}": expected a value, but another path goes through it')
        if found is None:
            index = len(self.leaves)
            found = Leaf(index, parts[-1], kind, f"v{index}")
            self.leaves.append(found)
            node.children[parts[-1]] = found
        elif found.kind != kind:
            found.kind = "any" if {found.kind, kind} <= {"number", "any"} else "raw"
        return found

    def node(self, parts: tuple[str, ...]) -> Node:
        """The object at a path."""
        node = self.root
        for part in parts:
            child = node.children.setdefault(part, Node())
            if isinstance(child, Leaf):
                raise ValueError(f'path "{".".join(parts)}": "{part}" is read as a value by another path')
            node = child
        return node

    def build(self, name: str, *, tag_field: str | None = None, tag: str | None = None) -> type[msgspec.Struct]:
        """The type of the rows; attribute paths of leaves and nodes are set."""
        return self._define(self.root, name, "", tag_field, tag, None)

    def build_without(self, node: Node, name: str, *, tag_field: str | None = None, tag: str | None = None) -> type[msgspec.Struct]:
        """The type of rows that do not read one object; their other attribute paths are those of `build`."""
        return self._define(self.root, name, "", tag_field, tag, node)

    def _define(
        self, node: Node, name: str, prefix: str, tag_field: str | None, tag: str | None, omitted: Node | None
    ) -> type[msgspec.Struct]:
        fields: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        for position, (key, child) in enumerate(node.children.items()):
            if child is omitted:
                continue
            if isinstance(child, Leaf):
                child.attr = prefix + child.name
                fields.append((child.name, _TYPES[child.kind], math.nan if child.kind == "number" else None))
                rename[child.name] = key
                continue
            attr = f"n{position}"
            child.attr = prefix + attr
            inner = self._define(child, f"{name}_{position}", child.attr + ".", None, None, omitted)
            outer: Any = inner | list[NameValue] if child.name_values else inner
            fields.append((attr, outer, msgspec.field(default_factory=inner)))
            rename[attr] = key
        made: type[msgspec.Struct] = msgspec.defstruct(name, fields, rename=rename, gc=False, tag_field=tag_field, tag=tag)
        if omitted is None:
            node.type = made
        return made


def scannable(name: str) -> bool:
    """Whether a key can stand in an event as it is: printable ASCII without a quote or a backslash."""
    return bool(name) and name.isascii() and name.isprintable() and '"' not in name and "\\" not in name


def repair(node: Node, found: object, invalid: list[int]) -> Any:
    """A row (or its part) of a loosely decoded object; leaves of the wrong type are missing and their indexes in `invalid`."""
    row = node.type()
    if node.name_values and isinstance(found, list):
        found = name_values(found)
    if found is None:
        return row
    if not isinstance(found, dict):
        _all_leaves(node, invalid)
        return row
    for key, child in node.children.items():
        if key not in found:
            continue
        value = found[key]
        if isinstance(child, Node):
            setattr(row, child.attr.rpartition(".")[2], repair(child, value, invalid))
        elif value is not None:
            good, taken = _take(child.kind, value)
            if good:
                setattr(row, child.name, taken)
            else:
                invalid.append(child.index)
    return row


def name_values(entries: list[Any]) -> dict[str, Any]:
    """The object of a ``[{name, value}]`` list; entries without a name are passed over, the last of a name wins."""
    out: dict[str, Any] = {}
    for entry in entries:
        if isinstance(entry, NameValue):
            out[entry.name] = entry.value
        elif isinstance(entry, dict) and isinstance(entry.get("name"), str):
            out[entry["name"]] = entry.get("value")
    return out


def _all_leaves(node: Node, invalid: list[int]) -> None:
    for child in node.children.values():
        if isinstance(child, Leaf):
            invalid.append(child.index)
        else:
            _all_leaves(child, invalid)


def _take(kind: Kind, value: Any) -> tuple[bool, Any]:
    """Whether a value is of a kind, and the value as the typed decoder would give it."""
    if kind == "raw":
        return True, value
    if kind == "number":
        taken = number(value)
        return taken is not None, taken
    if kind == "any":
        # A NaN literal is a missing value, as in a number; it has no text.
        return (True, value) if isinstance(value, str | bool | int | float) else (False, None)
    if kind == "score" and isinstance(value, dict):
        return True, {str(k): number(v) for k, v in value.items()}
    if kind in ("score", "numbers") and isinstance(value, list):
        return True, [number(v) if not isinstance(v, str | dict | list) else Invalid for v in value]
    if kind == "score":
        taken = number(value)
        return taken is not None, taken
    if kind == "scalars" and isinstance(value, list):
        return True, [v if v is None or isinstance(v, str | int | float | bool) else Invalid for v in value]
    if kind == "dynamic" and isinstance(value, list):
        value = name_values(value)
    if kind == "dynamic" and isinstance(value, dict):
        return True, {k: v if v is None or isinstance(v, str | int | float | bool) else Invalid for k, v in value.items()}
    return False, None


class _InvalidType:
    """Stands for a value of the wrong type inside a list or a map of features."""


Invalid: Final = _InvalidType()


def wire_text(raw: object) -> str | None:
    """The text of a record key or header value; None when it is not UTF-8."""
    if isinstance(raw, bytes):
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return None
    return scalar_text(raw)
