"""Decoded rows of one model to columns: observation batches and waiting rows are cut from these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from driftline.streams.columns import ID_TYPE, Ids
from driftline.streams.ingest.decoder import ModelRows, Refused
from driftline.streams.ingest.features import FeatureColumns, read_features
from driftline.streams.ingest.plan import RowPlan, Slot
from driftline.streams.ingest.scores import read_scores
from driftline.streams.ingest.times import RecordTimes
from driftline.streams.ingest.values import NO_TIME, canonical_id, numbers, scalar_text, texts, times_ms, wrong_value
from driftline.streams.observation import NO_UNIT, Coded

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Predictions:
    """Rows of one model from one source partition, in offset order.

    Attributes
    ----------
    seen_ms : shape (n,), the running maximum of the source partition's times, ticks included.
    replaced : rows whose event time was implausible or unreadable, so that record time stands in its place, and rows
        whose record time was set back.
    classes, probabilities : multi-class score vectors, shape (n, len(classes)); NaN where a row has none.
    classes_dropped : probabilities of classes that are no columns, as the model has too many.
    unit : shape (n,), hashes of what the rows are of; `NO_UNIT` where a row does not say.
    """

    plan: RowPlan
    ids: Ids
    offset: Int64
    record_ms: Int64
    seen_ms: Int64
    time_ms: Int64
    replaced: int
    features: FeatureColumns
    segments: dict[str, Coded]
    version: Coded | None
    class_: Coded | None
    score: Float64 | None
    confidence: Float64 | None
    entropy: Float64 | None
    classes: list[str]
    probabilities: Float64 | None
    classes_dropped: int
    latency_ms: Float64 | None
    error: npt.NDArray[np.int8] | None
    weight: Float64 | None
    unit: Int64 | None
    invalid_fields: int

    def __len__(self) -> int:
        return len(self.offset)


def read_predictions(group: ModelRows, refused: list[Refused], times: RecordTimes, *, max_age: int, max_skew: int) -> Predictions | None:
    """The columns of a model's rows; rows without a usable id or any time go to `refused`."""
    plan = group.plan
    group, ids = _with_ids(group, refused)
    if not group.rows:
        return None
    rows, records, at = group.rows, group.records, group.at
    record_ms = times.record_ms[at]
    time_slot = plan.slots.get("time")
    stated = record_ms if time_slot is None else times_ms(time_slot.column(rows, records), plan.fields.time_unit)
    timeless = (record_ms < 0) & (stated == NO_TIME)
    if timeless.any():
        why = f'neither a record time nor an event time at "{plan.fields.time}"'
        refused += [Refused(records[i], "time", why) for i in np.flatnonzero(timeless)]
        kept = group.keep((~timeless).tolist())
        return read_predictions(kept, refused, times, max_age=max_age, max_skew=max_skew)
    record_ms = np.where(record_ms < 0, stated, record_ms)
    plausible = (stated >= record_ms - max_age) & (stated <= record_ms + max_skew)
    time_ms = np.where(plausible, stated, record_ms)
    features = read_features(group)
    scores = read_scores(plan, _column(plan, "score", group), _column(plan, "class_", group), group.classes)
    feature_leaves = {leaf.index for leaf in plan.features.leaves.values()}
    feature_leaves |= {slot.leaf.index for slot, _ in plan.features.vectors.values() if slot.leaf is not None}
    return Predictions(
        plan=plan, ids=ids, offset=times.offset[at], record_ms=record_ms, seen_ms=np.maximum(times.seen_ms[at], record_ms),
        time_ms=time_ms, replaced=int(np.count_nonzero(~plausible | times.replaced[at])),
        features=features, segments=_segments(plan, group, features), version=_text(plan, "version", group),
        class_=scores.class_, score=scores.score, confidence=scores.confidence, entropy=scores.entropy,
        classes=scores.classes, probabilities=scores.probabilities, classes_dropped=scores.dropped,
        latency_ms=_number(plan, "latency_ms", group), error=_errors(plan, group), weight=_number(plan, "weight", group),
        unit=_units(plan, group, features),
        invalid_fields=sum(leaf not in feature_leaves for _, leaf in group.faults),
    )  # fmt: skip


def digests(texts_: list[str]) -> Ids:
    """The 16-byte hashes ids are joined and partitioned by, shape (n,)."""
    return np.frombuffer(b"".join(map(xxhash.xxh3_128_digest, map(str.encode, texts_))), ID_TYPE)


def _with_ids(group: ModelRows, refused: list[Refused]) -> tuple[ModelRows, Ids]:
    """The rows that have an id, and those."""
    found = group.plan.slots["id"].column(group.rows, group.records)
    if set(map(type, found)) == {str} and all(found):
        try:
            if max(map(len, found)) <= 1_024:
                return group, digests(found)
        except UnicodeEncodeError:
            pass
    ids = [canonical_id(value) for value in found]
    bad = [i for i, text in enumerate(ids) if text is None]
    if bad:
        refused += [Refused(group.records[i], "id", wrong_value(group.plan.fields.id, "a text or a number", found[i])) for i in bad]
        group = group.keep([text is not None for text in ids])
    return group, digests([text for text in ids if text is not None])


def _column(plan: RowPlan, name: str, group: ModelRows) -> list[Any] | None:
    slot = plan.slots.get(name)
    return None if slot is None else slot.column(group.rows, group.records)


def _text(plan: RowPlan, name: str, group: ModelRows) -> Coded | None:
    values = _column(plan, name, group)
    return None if values is None or values.count(None) == len(values) else texts(values)


def _number(plan: RowPlan, name: str, group: ModelRows) -> Float64 | None:
    values = _column(plan, name, group)
    if values is None or values.count(None) == len(values):
        return None
    column = numbers([_plain(v) for v in values] if str in set(map(type, values)) else values)
    return None if np.isnan(column).all() else column


def _plain(value: Any) -> Any:
    """The number a header's text spells."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return None


def _errors(plan: RowPlan, group: ModelRows) -> npt.NDArray[np.int8] | None:
    """1 where the field is true or non-empty; producers that send it only on failure send it nowhere in most batches."""
    values = _column(plan, "error", group)
    if values is None:
        return None
    if values.count(None) == len(values):
        return np.zeros(len(values), np.int8)
    return np.fromiter(map(bool, values), np.int8, len(values))


def _segments(plan: RowPlan, group: ModelRows, features: FeatureColumns) -> dict[str, Coded]:
    out: dict[str, Coded] = {}
    for key, where in plan.segments.items():
        out[key] = _values_at(plan, group, features, key, where, anywhere=plan.model.segments[key].path is None)
        if isinstance(where, Slot) and key in plan.hiding.segments:
            out[key] = plan.hiding.column(out[key])
    return out


def _values_at(plan: RowPlan, group: ModelRows, features: FeatureColumns, key: str, where: Slot | str, *, anywhere: bool) -> Coded:
    """A segment key or a unit as texts.

    Parameters
    ----------
    where : a slot, or the name of the declared feature it is.
    anywhere : it has no path of its own, so it may also be an undeclared feature, or stand where `driftline.publish` sends it.
    """
    if isinstance(where, Slot):
        values = where.column(group.rows, group.records)
        if anywhere and features.maps is not None:
            values = [m[key] if m.get(key) is not None else v for m, v in zip(features.maps, values, strict=True)]
        if (published := plan.published.get(key)) is not None and None in values:
            sent = published.column(group.rows, group.records)
            values = [s if v is None else v for v, s in zip(values, sent, strict=True)]
        return texts(values)
    if where in features.categorical:
        return features.categorical[where]
    column = features.numeric[:, features.numeric_names.index(where)].tolist()
    return texts([None if math.isnan(v) else scalar_text(v) for v in column])


def _units(plan: RowPlan, group: ModelRows, features: FeatureColumns) -> Int64 | None:
    """Hashes, keyed where anything is sensitive: the value itself leaves ingest nowhere.

    A guest's empty card number is nobody's: rows that have none are not of one unit.
    """
    if plan.unit is None or plan.model.unit is None:
        return None
    column = _values_at(plan, group, features, plan.model.unit, plan.unit, anywhere=True)
    hashes = [plan.hiding.number(text) for text in column.values]
    return np.array([*hashes, NO_UNIT], np.int64)[column.codes]
