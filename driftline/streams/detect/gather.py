"""Neighbouring observation batches as one: a call of the detectors costs the same for 10 rows and for 1,000.

At low rates and with many join partitions batches are small; read together they are worked on together. Detectors do
not see cuts, so this changes no output (a test holds it to that).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from driftline.streams.observation import Coded, Observations

ROWS_MAX: Final = 8_192
"""Beyond this nothing is saved, and memory would follow the backlog."""

_ARRAYS: Final = (
    "offset", "source", "time_ms", "record_ms", "score", "confidence", "entropy", "latency_ms", "error", "weight",
    "label", "label_probability", "delay_ms", "label_state", "numeric",
)  # fmt: skip
_TEXTS: Final = ("version", "class_", "label_class")


def gather(batches: Iterable[Observations]) -> Iterator[Observations]:
    """The same rows in the same order in fewer batches; ticks and empty batches keep their place.

    Only batches of one model and kind with equal columns are joined; `source` must already index one table.
    """
    held: list[Observations] = []
    rows = 0
    for batch in batches:
        if held and (rows + len(batch) > ROWS_MAX or _shape(batch) != _shape(held[0])):
            yield _joined(held)
            held, rows = [], 0
        held.append(batch)
        rows += len(batch)
    if held:
        yield _joined(held)


def _shape(batch: Observations) -> tuple[object, ...]:
    """What must be equal for two batches to be one; a batch without rows is equal to none."""
    if not len(batch):
        return (id(batch),)
    columns = tuple(name for name in (*_ARRAYS, *_TEXTS) if getattr(batch, name) is not None)
    about = (batch.kind, batch.model, batch.age_ms, batch.generation)
    return (*about, columns, tuple(batch.numeric_names), tuple(batch.categorical), tuple(batch.segments))


def _joined(held: Sequence[Observations]) -> Observations:
    first = held[0]
    if len(held) == 1:
        return first
    out = Observations(first.kind, first.model, first.task, held[-1].seq, first.sources, first.tick_ms, first.age_ms)
    out.numeric_names, out.generation = first.numeric_names, first.generation
    for name in _ARRAYS:
        if getattr(first, name) is not None:
            setattr(out, name, np.concatenate([getattr(batch, name) for batch in held]))
    for name in _TEXTS:
        if getattr(first, name) is not None:
            setattr(out, name, _texts([getattr(batch, name) for batch in held]))
    out.categorical = {name: _texts([batch.categorical[name] for batch in held]) for name in first.categorical}
    out.segments = {key: _texts([batch.segments[key] for batch in held]) for key in first.segments}
    out.invalid = _invalid(held)
    return out


def _texts(columns: Sequence[Coded]) -> Coded:
    """One column over one dictionary; values keep the order of their first batch."""
    values = columns[0].values
    if all(column.values == values for column in columns):
        return Coded(np.concatenate([column.codes for column in columns]), values)
    place: dict[str, int] = {}
    parts = []
    for column in columns:
        # The entry that -1 (missing) picks comes last, as -1 does.
        moved = [place.setdefault(value, len(place)) for value in column.values]
        parts.append(np.array([*moved, -1], np.int32)[column.codes])
    return Coded(np.concatenate(parts), list(place))


def _invalid(held: Sequence[Observations]) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]] | None:
    parts = []
    start = 0
    for batch in held:
        if batch.invalid is not None and len(batch.invalid):
            parts.append(batch.invalid + np.array([start, 0], np.int32))
        start += len(batch)
    return np.concatenate(parts) if parts else None
