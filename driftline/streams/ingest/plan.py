"""What is read of one model's predictions: compiled once from the field mapping and the model's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

import msgspec

from driftline.schemas.config import Fields, Model
from driftline.schemas.places import PUBLISHED_SEGMENTS, prefix_of
from driftline.streams.ingest.hiding import Hiding
from driftline.streams.ingest.mapping import Kind, Leaf, Mapped, Node, Path, parse_path, repair, scannable, wire_text
from driftline.streams.task import Record

Light = type[msgspec.Struct]
FeatureMode = Literal["object", "vector", "dynamic", "root"]


@dataclass(slots=True)
class Slot:
    """One thing to read: a leaf of the row, or something of the record beside its value."""

    path: Path
    leaf: Leaf | None = None
    get: attrgetter[Any] | None = None

    def bind(self) -> None:
        """Attribute paths are known only when the type of the rows is built."""
        if self.leaf is not None:
            self.get = attrgetter(self.leaf.attr)

    def column(self, rows: Sequence[Any], records: Sequence[Record]) -> list[Any]:
        """The slot's value of each row, as decoded."""
        if self.get is not None:
            return list(map(self.get, rows))
        return [from_record(self.path, record) for record in records]


@dataclass(slots=True)
class FeaturePlan:
    """Where the features are: all under one object (`names` by attribute), a vector, a map, or paths of their own."""

    mode: FeatureMode
    node: Node | None = None
    slot: Slot | None = None
    numeric: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    vector: list[str] = field(default_factory=list)
    leaves: dict[str, Leaf] = field(default_factory=dict)
    """By feature, in "object" mode."""
    apart: dict[str, Slot] = field(default_factory=dict)
    """By feature with a path of its own."""
    vectors: dict[str, tuple[Slot, int]] = field(default_factory=dict)
    """Features that are lists of numbers, and how many each has."""
    mapped: frozenset[str] = frozenset()
    """Top-level keys that are no features, in "root" mode."""


@dataclass(slots=True)
class RowPlan:
    """One model as one source sends it."""

    name: str
    model: Model
    fields: Fields
    mapped: Mapped
    slots: dict[str, Slot]
    segments: dict[str, Slot | str]
    """By segment key: a slot, or the name of the declared feature it is."""
    published: dict[str, Slot]
    """By segment key without a path: where the publisher sends it, under ``segments``; read where there is nothing else."""
    unit: Slot | str | None
    """Where the unit of a row is, as a segment key's value."""
    features: FeaturePlan
    hiding: Hiding
    type: type[msgspec.Struct]
    light: Light | None = None
    """The rows without their features, where a scanner reads those: an object of numbers that nothing else looks into."""

    def scanned(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """(path of the object, names of its numbers) for a scanner; None where the features are not that plain."""
        features = self.features
        plain = features.mode == "object" and features.node is not None and features.node.attr and not features.apart
        if not plain or features.categorical or set(features.node.children) != set(features.numeric):  # type: ignore[union-attr]
            return None
        slots = [*self.slots.values(), *self.published.values(), *(s for s in (*self.segments.values(), self.unit) if isinstance(s, Slot))]
        elsewhere = {slot.leaf.index for slot in slots if slot.leaf is not None}
        if any(leaf.kind != "number" or leaf.index in elsewhere for leaf in features.leaves.values()):
            return None
        path = parse_path(self.fields.features).parts
        return (path, tuple(features.numeric)) if all(map(scannable, (*path, *features.numeric))) else None

    def repair(self, found: object, invalid: list[int]) -> Any:
        """The row of a loosely decoded event."""
        return repair(self.mapped.root, found, invalid)


_SLOTS: tuple[tuple[str, Kind], ...] = (
    ("id", "any"), ("time", "any"), ("version", "any"), ("score", "number"), ("class_", "any"),
    ("latency_ms", "number"), ("error", "raw"), ("weight", "number"),
)  # fmt: skip


def compile_plan(name: str, model: Model, fields: Fields, *, tag_field: str | None, hash_key: bytes) -> RowPlan:
    """The plan of a model under a field mapping.

    Raises
    ------
    ValueError : paths contradict each other.
    """
    mapped = Mapped()
    slots: dict[str, Slot] = {}
    for slot_name, kind in _SLOTS:
        text = getattr(fields, slot_name)
        if text is not None:
            slots[slot_name] = _slot(mapped, text, "score" if slot_name == "score" and model.task == "multiclass" else kind)
    features = _features(mapped, model, fields)
    segments: dict[str, Slot | str] = {}
    declared = (*features.numeric, *features.categorical)
    for key, segment in model.segments.items():
        if segment.path is None and key in declared:
            segments[key] = key
        else:
            segments[key] = _slot(mapped, segment.path or key, "any")
    unit = None if model.unit is None else model.unit if model.unit in declared else _slot(mapped, model.unit, "any")
    named = [key for key, where in segments.items() if isinstance(where, Slot) and model.segments[key].path is None]
    published = _published(mapped, [*named, model.unit] if model.unit is not None and isinstance(unit, Slot) else named)
    if features.mode == "root":
        features.mapped = frozenset(mapped.root.children) | ({tag_field} if tag_field else set()) | _top_key(fields.model)
    tag = name if tag_field else None
    kind_of_row = mapped.build("Row", tag_field=tag_field, tag=tag)
    plan = RowPlan(name, model, fields, mapped, slots, segments, published, unit, features, Hiding(model, fields, hash_key), kind_of_row)
    if plan.scanned() is not None:
        assert features.node is not None
        plan.light = mapped.build_without(features.node, "LightRow", tag_field=tag_field, tag=tag)
    _bind(plan)
    return plan


def from_record(path: Path, record: Record) -> str | None:
    """What a path outside the value names: a header (the last of its name), the key, the topic, a constant."""
    if path.origin == "const":
        return path.text
    if path.origin == "topic":
        return record.topic()
    if path.origin == "key":
        return wire_text(record.key())
    for name, value in reversed(record.headers() or ()):
        if name == path.text:
            return wire_text(value)
    return None


def _top_key(text: str) -> frozenset[str]:
    path = parse_path(text)
    return frozenset(path.parts[:1])


def _published(mapped: Mapped, keys: Sequence[str]) -> dict[str, Slot]:
    out: dict[str, Slot] = {}
    for key in keys:
        try:
            out[key] = Slot(Path("json", (PUBLISHED_SEGMENTS, key)), mapped.leaf((PUBLISHED_SEGMENTS, key), "any"))
        except ValueError:
            # Somebody's own "segments" is a value, or holds an object of this name.
            continue
    return out


def _slot(mapped: Mapped, text: str, kind: Kind) -> Slot:
    path = parse_path(text)
    return Slot(path, mapped.leaf(path.parts, kind) if path.origin == "json" else None)


def _features(mapped: Mapped, model: Model, fields: Fields) -> FeaturePlan:
    path = parse_path(fields.features)
    if path.origin != "json":
        raise ValueError(f'features: expected a path into the event, got "{fields.features}"')
    if model.features is None and fields.feature_names is None:
        if not path.parts:
            return FeaturePlan("root")
        return FeaturePlan("dynamic", slot=Slot(path, mapped.leaf(path.parts, "dynamic")))
    kinds = {n: f.kind for n, f in model.features.items()} if model.features is not None else {}
    for name in fields.feature_names or () if model.features is None else ():
        kinds[name] = "numeric"
    plan = FeaturePlan("object")
    plan.numeric = [n for n, kind in kinds.items() if kind == "numeric"]
    plan.categorical = [n for n, kind in kinds.items() if kind == "categorical"]
    declared = (model.features or {}).items()
    own = {n: f.path for n, f in declared if f.path is not None and f.kind != "vector"}
    prefix = prefix_of(fields)
    plan.vectors = {n: (_slot(mapped, f.path or prefix + n, "numbers"), f.length) for n, f in declared if f.length is not None}
    for name, text in own.items():
        plan.apart[name] = _slot(mapped, text, _leaf_kind(kinds[name]))
    if fields.feature_names is not None:
        plan.mode, plan.vector = "vector", fields.feature_names
        vector_kind: Kind = "scalars" if plan.categorical else "numbers"
        plan.slot = Slot(path, mapped.leaf(path.parts, vector_kind))
        return plan
    under = [n for n in (*plan.numeric, *plan.categorical) if n not in own]
    if under:
        plan.node = mapped.node(path.parts)
        plan.node.name_values = bool(path.parts)
        plan.leaves = {n: mapped.leaf((*path.parts, n), _leaf_kind(kinds[n])) for n in under}
    return plan


def _leaf_kind(kind: str) -> Kind:
    return "number" if kind == "numeric" else "any"


def _bind(plan: RowPlan) -> None:
    slots = [*plan.slots.values(), *plan.published.values(), *plan.features.apart.values()]
    slots += [slot for slot, _ in plan.features.vectors.values()]
    slots += [s for s in (*plan.segments.values(), plan.unit) if isinstance(s, Slot)]
    if plan.features.slot is not None:
        slots.append(plan.features.slot)
    for slot in slots:
        slot.bind()

