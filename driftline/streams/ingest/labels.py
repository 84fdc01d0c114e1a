"""Label records to columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.schemas.config import LabelSource
from driftline.streams.columns import Ids
from driftline.streams.ingest.decoder import Places, Refused, decode_all, read_loosely
from driftline.streams.ingest.mapping import Kind, Mapped, parse_path, repair
from driftline.streams.ingest.plan import Slot
from driftline.streams.ingest.predictions import digests
from driftline.streams.ingest.times import RecordTimes
from driftline.streams.ingest.values import NO_TIME, canonical_id, number, numbers, texts, times_ms, wrong_value
from driftline.streams.observation import Coded
from driftline.streams.task import Record

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class LabelRows:
    """Labels of one source partition in offset order; `value` is NaN where the label is a text.

    `seen_ms` is the running maximum of the source partition's times, ticks included: what the join takes as their time.
    """

    ids: Ids
    offset: Int64
    record_ms: Int64
    seen_ms: Int64
    time_ms: Int64
    value: Float64
    text: Coded | None
    model: Coded | None

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(slots=True)
class _Rows:
    """Decoded labels, their records, and where they stand in the batch."""

    rows: list[Any]
    records: list[Record]
    at: Places

    def keep(self, places: list[int]) -> _Rows:
        return _Rows([self.rows[i] for i in places], [self.records[i] for i in places], self.at[places])


class LabelDecoder:
    """Decodes one label topic; compiled once."""

    def __init__(self, source: LabelSource) -> None:
        self._fields = source.fields
        self._unit = source.fields.time_unit
        self._mapped = Mapped()
        self._slots: dict[str, Slot] = {}
        kinds: dict[str, Kind] = {"id": "any", "time": "any", "model": "any", "value": "any"}
        for name, kind in kinds.items():
            text = getattr(source.fields, name)
            if text is not None:
                path = parse_path(text)
                self._slots[name] = Slot(path, self._mapped.leaf(path.parts, kind) if path.origin == "json" else None)
        kind_of_row = self._mapped.build("LabelRow")
        for slot in self._slots.values():
            slot.bind()
        self._decode = msgspec.json.Decoder(kind_of_row).decode

    def decode(self, records: Sequence[Record], times: RecordTimes) -> tuple[LabelRows | None, list[Refused]]:
        """Every record is a row or refused; a label without a value is refused too, for nothing can be joined."""
        refused: list[Refused] = []
        decoded = decode_all(self._decode, [record.value() for record in records])
        found = _Rows(decoded, list(records), np.arange(len(records)))
        if type(None) in set(map(type, decoded)):
            found = found.keep(self._repaired(found, refused))
        rows = self._columns(found, refused, times)
        refused.sort(key=lambda item: item.record.offset())
        return rows, refused

    def _repaired(self, found: _Rows, refused: list[Refused]) -> list[int]:
        """Fill in what the fast pass did not take; the places of all that are rows."""
        rows: list[int] = []
        for place, (row, record) in enumerate(zip(found.rows, found.records, strict=True)):
            if row is None:
                value = record.value()
                if not value:
                    refused.append(Refused(record, "empty", "a tombstone" if value is None else "an empty value"))
                    continue
                loose, why = read_loosely(record, value)
                if why is not None:
                    refused.append(why)
                    continue
                found.rows[place] = repair(self._mapped.root, loose, [])
            rows.append(place)
        return rows

    def _columns(self, found: _Rows, refused: list[Refused], times: RecordTimes) -> LabelRows | None:
        columns = {name: slot.column(found.rows, found.records) for name, slot in self._slots.items()}
        ids = columns["id"]
        canonical: list[str | None] = ids if set(map(type, ids)) == {str} and all(ids) else [canonical_id(v) for v in ids]
        at = found.at
        record_ms = times.record_ms[at]
        stated = times_ms(columns["time"], self._unit) if "time" in columns and found.rows else np.full(len(ids), NO_TIME, np.int64)
        bad = self._bad(found, columns, canonical, record_ms, stated, refused)
        if bad:
            return self._columns(found.keep([i for i in range(len(ids)) if i not in bad]), refused, times)
        if not ids:
            return None
        recorded = np.where(record_ms < 0, stated, record_ms)
        time_ms = np.where(stated == NO_TIME, recorded, stated)
        values = columns["value"]
        texts_only = [v if isinstance(v, str) else None for v in values] if str in set(map(type, values)) else None
        model = columns.get("model")
        return LabelRows(
            ids=digests([text for text in canonical if text is not None]),
            offset=times.offset[at],
            record_ms=recorded,
            seen_ms=np.maximum(times.seen_ms[at], recorded),
            time_ms=time_ms,
            value=numbers(values if texts_only is None else [None if isinstance(v, str) else v for v in values]),
            text=None if texts_only is None else texts(texts_only),
            model=None if model is None or model.count(None) == len(model) else texts(model),
        )

    def _bad(
        self, found: _Rows, columns: dict[str, list[Any]], ids: list[str | None], record_ms: Int64, stated: Int64,
        refused: list[Refused],
    ) -> set[int]:  # fmt: skip
        """Rows that cannot be joined: without id, value, or any time."""
        values = columns["value"]
        typical = None not in ids and set(map(type, values)) <= {float, int, bool} and bool((record_ms >= 0).all())
        if typical and np.isfinite(numbers(values)).all() and _encodable(ids):
            return set()
        bad: set[int] = set()
        for i, record in enumerate(found.records):
            text = canonical_id(columns["id"][i])
            if text is None:
                refused.append(Refused(record, "id", wrong_value(self._fields.id, "a text or a number", columns["id"][i])))
            elif not _usable(values[i]):
                refused.append(Refused(record, "label", wrong_value(self._fields.value, "a number, boolean or text", values[i])))
            elif record_ms[i] < 0 and stated[i] == NO_TIME:
                refused.append(Refused(record, "time", f'neither a record time nor a time at "{self._fields.time}"'))
            else:
                continue
            bad.add(i)
        return bad


def _usable(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= 256 and value.isprintable()
    found = number(value)
    return found is not None and math.isfinite(found)


def _encodable(ids: list[str | None]) -> bool:
    return max(map(len, filter(None, ids)), default=0) <= 1_024

