"""The features of a batch of rows: one matrix of numbers, coded texts, and the list of invalid values.

Feature indexes of `invalid` count numeric names first, categorical names after them and vectors last, as `Observations` does.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from itertools import chain, starmap
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from driftline.streams.ingest.decoder import ModelRows
from driftline.streams.ingest.mapping import Invalid, name_values
from driftline.streams.ingest.plan import FeaturePlan, RowPlan
from driftline.streams.ingest.values import number, numbers, texts
from driftline.streams.observation import Coded
from driftline.streams.task import Record

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
_NO_NUMBERS: Final = frozenset({bool, str, bytes, bytearray, memoryview})


@dataclass(slots=True)
class FeatureColumns:
    """Features of a batch.

    Attributes
    ----------
    vectors : shape (n, length) each; a row is NaN where it has none.
    invalid : (row, feature) pairs.
    maps : the features by row where they are not declared, as sent: those that are no columns, and what is sensitive.
    dropped : values of features that are no columns, as their model has too many.
    """

    numeric_names: list[str]
    numeric: Float64
    categorical: dict[str, Coded]
    invalid: list[tuple[int, int]] = field(default_factory=list)
    vectors: dict[str, Float32] = field(default_factory=dict)
    maps: list[dict[str, Any]] | None = None
    dropped: int = 0

    def index(self) -> dict[str, int]:
        return {name: i for i, name in reversed(list(enumerate((*self.numeric_names, *self.categorical, *self.vectors))))}


def read_features(group: ModelRows) -> FeatureColumns:
    """The features of a model's rows."""
    plan, rows, records, faults = group.plan, group.rows, group.records, group.faults
    features = plan.features
    if group.numbers is not None:
        out = FeatureColumns(features.numeric, group.numbers, {})
    elif features.mode == "object":
        out = _object(plan, rows)
    elif features.mode == "vector":
        out = _vector(plan, rows, records)
    else:
        return _dynamic(group)
    _apart(features, rows, records, out)
    _lists(features, rows, records, out)
    _faults(features, faults, out)
    for name in plan.hiding.features:
        if name in out.categorical:
            out.categorical[name] = plan.hiding.column(out.categorical[name])
    out.invalid = sorted(set(out.invalid))
    return out


def _object(plan: RowPlan, rows: list[Any]) -> FeatureColumns:
    features = plan.features
    n = len(rows)
    parents = rows
    if features.node is not None and features.node.attr:
        parents = list(map(attrgetter(features.node.attr), rows))
    numeric = [name for name in features.numeric if name in features.leaves]
    matrix = np.full((n, len(features.numeric)), math.nan)
    out = FeatureColumns(features.numeric, matrix, {name: Coded(np.full(n, -1, np.int32), []) for name in features.categorical})
    if numeric:
        block = _matrix(parents, [features.leaves[name].name for name in numeric])
        if len(numeric) == len(features.numeric):
            out.numeric = block
        else:
            matrix[:, [features.numeric.index(name) for name in numeric]] = block
        for name in numeric:
            if features.leaves[name].kind != "number":
                _mark_texts(list(map(attrgetter(features.leaves[name].name), parents)), features.numeric.index(name), out)
    for name in features.categorical:
        if name in features.leaves:
            out.categorical[name] = texts(list(map(attrgetter(features.leaves[name].name), parents)))
    return out


def _matrix(parents: list[Any], names: list[str]) -> Float64:
    """The fastest way found from rows to a matrix: packing each row takes 0.7 of the time of `np.fromiter` over all values."""
    get = attrgetter(*names)
    n, width = len(parents), len(names)
    if width == 1:
        return numbers(list(map(get, parents))).reshape(n, 1)
    try:
        packed = bytearray().join(starmap(struct.Struct(f"={width}d").pack, map(get, parents)))
        flat = np.frombuffer(packed, np.float64)
    except (struct.error, OverflowError):
        flat = numbers([v if not isinstance(v, str) else None for v in chain.from_iterable(map(get, parents))])
    return flat.reshape(n, width)


def _mark_texts(values: list[Any], feature: int, out: FeatureColumns) -> None:
    """A leaf that is shared with a text takes any scalar: texts are then invalid numbers."""
    for row, value in enumerate(values):
        if isinstance(value, str | dict | list):
            out.numeric[row, feature] = math.nan
            out.invalid.append((row, feature))


def _vector(plan: RowPlan, rows: list[Any], records: list[Record]) -> FeatureColumns:
    features = plan.features
    assert features.slot is not None
    vectors = features.slot.column(rows, records)
    width, n = len(features.vector), len(rows)
    out = FeatureColumns(features.numeric, np.full((n, len(features.numeric)), math.nan), {})
    if features.numeric == features.vector and all(v is not None and len(v) == width for v in vectors):
        try:
            out.numeric = np.fromiter(chain.from_iterable(vectors), np.float64, n * width).reshape(n, width)
            return out
        except (TypeError, ValueError, OverflowError):
            pass
    # A vector of another length than its names says nothing about where the gap is: names beyond its end are missing.
    padded = [[*(v or ())[:width], *[None] * (width - len(v or ()))] for v in vectors]
    for name in features.numeric:
        if name in features.vector:
            _number_column([v[features.vector.index(name)] for v in padded], features.numeric.index(name), out)
    for name in features.categorical:
        column = [v[features.vector.index(name)] for v in padded] if name in features.vector else [None] * n
        _text_column(column, name, len(features.numeric) + features.categorical.index(name), out)
    return out


def _apart(features: FeaturePlan, rows: list[Any], records: list[Record], out: FeatureColumns) -> None:
    for name, slot in features.apart.items():
        values = slot.column(rows, records)
        if name in features.numeric:
            if slot.leaf is None:
                values = [_header_number(v) for v in values]
            _number_column(values, features.numeric.index(name), out)
        else:
            _text_column(values, name, len(features.numeric) + features.categorical.index(name), out)
    out.categorical = {name: out.categorical[name] for name in features.categorical}


def _lists(features: FeaturePlan, rows: list[Any], records: list[Record], out: FeatureColumns) -> None:
    """Vectors, shape (n, length) each: a row whose list is missing is NaN, and so is one of another length or with something else in it."""
    first = len(features.numeric) + len(features.categorical)
    for place, (name, (slot, length)) in enumerate(features.vectors.items(), first):
        values = slot.column(rows, records)
        out.vectors[name] = found = np.full((len(rows), length), math.nan, np.float32)
        for row, value in enumerate(values):
            if value is None:
                continue
            numbers_ = _list_of_numbers(value, length)
            if numbers_ is None:
                out.invalid.append((row, place))
            else:
                found[row] = numbers_


def _list_of_numbers(value: Any, length: int) -> Float32 | None:
    # numpy takes booleans, and texts and bytes that look like numbers, for numbers.
    if not isinstance(value, list) or len(value) != length or not _NO_NUMBERS.isdisjoint(map(type, value)):
        return None
    try:
        found = np.fromiter(value, np.float64, length)
    except (TypeError, ValueError, OverflowError):
        return None
    with np.errstate(over="ignore"):
        single: Float32 = found.astype(np.float32)
    return single if np.isfinite(single).all() else None


def _header_number(text: str | None) -> Any:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _number_column(values: list[Any], feature: int, out: FeatureColumns) -> None:
    out.numeric[:, feature] = numbers([v if not isinstance(v, str) else None for v in values])
    out.invalid += [(row, feature) for row, v in enumerate(values) if v is not None and number(v) is None]


def _text_column(values: list[Any], name: str, feature: int, out: FeatureColumns) -> None:
    out.categorical[name] = texts(values)
    out.invalid += [(row, feature) for row, v in enumerate(values) if v is Invalid or isinstance(v, dict | list)]


def _faults(features: FeaturePlan, faults: list[tuple[int, int]], out: FeatureColumns) -> None:
    if not faults:
        return
    index = out.index()
    of_leaf: dict[int, list[int]] = {}
    for name, leaf in features.leaves.items():
        of_leaf.setdefault(leaf.index, []).append(index[name])
    for name, slot in features.apart.items():
        if slot.leaf is not None:
            of_leaf.setdefault(slot.leaf.index, []).append(index[name])
    for name, (slot, _) in features.vectors.items():
        if slot.leaf is not None:
            of_leaf.setdefault(slot.leaf.index, []).append(index[name])
    if features.slot is not None and features.slot.leaf is not None:
        of_leaf[features.slot.leaf.index] = [index[name] for name in features.vector if name in index]
    out.invalid += [(row, feature) for row, leaf in faults for feature in of_leaf.get(leaf, ())]


def _dynamic(group: ModelRows) -> FeatureColumns:
    """Undeclared features, by whatever names they have."""
    features = group.plan.features
    if features.slot is None:
        sent = [_top_level(features, found) for found in group.tops]
    else:
        sent = [m if isinstance(m, dict) else name_values(m) if m else {} for m in features.slot.column(group.rows, group.records)]
    maps = group.learned.admit(sent)
    out = _columns_of(group.plan.hiding.in_maps(maps))
    out.maps = sent
    out.dropped = 0 if maps is sent else sum(map(len, sent)) - sum(map(len, maps))
    return out


def _columns_of(maps: list[dict[str, Any]]) -> FeatureColumns:
    """The names of this batch, sorted, so that the same rows in another cut have the same names."""
    names = sorted(set(chain.from_iterable(maps)))
    n = len(maps)
    if names and all(len(m) == len(names) for m in maps):
        ordered = [list(map(m.__getitem__, names)) for m in maps]
        if not {type(v) for values in ordered for v in values} - {float, int, bool}:
            return FeatureColumns(names, numbers(list(chain.from_iterable(ordered))).reshape(n, len(names)), {})
    columns = {name: [m.get(name) for m in maps] for name in names}
    kinds = {name: set(map(type, column)) for name, column in columns.items()}
    categorical = [name for name in names if str in kinds[name]]
    numeric = [name for name in names if kinds[name] & {float, int, bool} or name not in categorical]
    out = FeatureColumns(numeric, np.full((n, len(numeric)), math.nan), {})
    for i, name in enumerate(numeric):
        out.numeric[:, i] = numbers([v if not isinstance(v, str) else None for v in columns[name]])
    for name in categorical:
        out.categorical[name] = texts([v if isinstance(v, str) else None for v in columns[name]])
    index = out.index()
    out.invalid = sorted((row, index[name]) for name, column in columns.items() for row, v in enumerate(column) if v is Invalid)
    return out


def _top_level(features: FeaturePlan, found: dict[str, Any]) -> dict[str, Any]:
    """The scalars at the top of an event that nothing else reads; objects and lists there are no features."""
    return {k: v for k, v in found.items() if k not in features.mapped and not isinstance(v, dict | list)}
