"""At most one row of a unit and window is watched: a card that pays forty times in an hour is one piece of evidence, not forty.

Tests that run for ever count rows as independent. Rows of one card, user or booking are not: a burst of them looks like a
change that it is not. So a row is watched where none of its unit was for `unit_window` of event time; a row that does not
say what it is of always is. Which rows are watched depends on units and times alone, never on values, so rows that are
independent between units stay so (SEMANTICS 6.7).

Who comes often stands at the front of a stream: the first rows of as many units are not those of a later hour. So the
first window only learns who is there, and no row of it is watched.

Bounded and a function of the log alone: two generations, the older dropped when the newer has `GENERATION` rows, so at
least that many watched rows back are remembered. More units than that in a window come in again earlier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.detectors.kernels.jit import inlined, kernel
from driftline.schemas.config import Model
from driftline.streams.bounded import Count, Signed64
from driftline.streams.observation import NO_UNIT, Observations
from driftline.streams.task import RingWrite

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

RECORD: Final = np.dtype([("unit", "<i8"), ("time_ms", "<i8")])
GENERATION: Final = 1 << 16
_SLOTS_MIN: Final = 1 << 8


def watched_rows(model: Model, units: Units | None, batch: Observations) -> Int64 | None:
    """The rows of a batch that panels see, ascending; None = all.

    Parameters
    ----------
    units : of the batch's ledger, where the model has a unit.
    """
    rows = None if units is None else units.watched(batch.unit, batch.time_ms)
    if not model.expected:
        return rows
    said = np.zeros(len(batch), np.bool_)
    for span in model.expected:
        said |= (batch.time_ms >= span.from_) & (batch.time_ms < span.to)
    if not said.any():
        return rows
    return np.flatnonzero(~said) if rows is None else rows[~said[rows]]


class HeldUnits(msgspec.Struct):
    """The small state; the rows are a ring.

    Attributes
    ----------
    of : the unit and the window that the rows were remembered for.
    """

    of: tuple[str, Count]
    first_ms: Signed64 | None
    sizes: tuple[Count, Count]
    head: Count


@dataclass(slots=True)
class _Table:
    """Unit to the time of its last watched row: open addressing, at most half full; slots of `NO_UNIT` are free."""

    units: Int64
    times: Int64
    rows: int = 0

    @classmethod
    def empty(cls) -> _Table:
        return cls(np.full(_SLOTS_MIN, NO_UNIT), np.zeros(_SLOTS_MIN, np.int64))

    def make_room(self, rows: int) -> None:
        slots = len(self.units)
        while slots < 2 * (self.rows + rows):
            slots *= 2
        if slots > len(self.units):
            units, times = np.full(slots, NO_UNIT), np.zeros(slots, np.int64)
            _move(self.units, self.times, units, times)
            self.units, self.times = units, times


class Units:
    """The units of one ledger: a model's predictions, or its outcomes at one age.

    Parameters
    ----------
    model : with a `unit`.
    """

    def __init__(self, model: Model, generation: int = GENERATION) -> None:
        self._of = (model.unit or "", model.unit_window)
        self._generation = generation
        self._window_ms = model.unit_window
        self._older, self._newer = _Table.empty(), _Table.empty()
        self._first_ms: int | None = None
        self._head = self._saved = 0
        self._unsaved: list[npt.NDArray[np.void]] = []

    def watched(self, units: Int64 | None, time_ms: Int64) -> Int64:
        """The rows that are watched, ascending.

        Parameters
        ----------
        units : shape (n,); None = written before ingest, or the join, knew of the unit. Until one that knew of it has written, nothing
            is watched: a reference of rows that were not thinned out is none for those that are.
        time_ms : shape (n,), event times, in any order.
        """
        n = len(time_ms)
        if n and self._first_ms is None and units is not None:
            self._first_ms = int(time_ms[0])
        if self._first_ms is None:
            return np.empty(0, np.int64)
        found = np.ones(n, np.bool_)
        start = 0
        while units is not None and start < n:
            room = self._generation - self._newer.rows
            self._newer.make_room(min(room, n - start))
            older, newer = self._older, self._newer
            stop = _find(units, time_ms, self._window_ms, start, room, older.units, older.times, newer.units, newer.times, found)
            self._remember(units[start:stop], time_ms[start:stop], found[start:stop])
            start = stop
        return np.flatnonzero(found & (time_ms >= self._first_ms + self._window_ms))

    def export(self) -> dict[str, Any]:
        """The small state, as JSON."""
        return {"of": self._of, "first_ms": self._first_ms, "sizes": (self._older.rows, self._newer.rows), "head": self._head}

    def ring(self, name: str) -> RingWrite | None:
        """The rows since the last call."""
        if not self._unsaved:
            return None
        rows, self._unsaved = np.concatenate(self._unsaved), []
        window = 2 * self._generation
        full = len(rows) >= window or not self._saved
        self._saved = self._head
        return RingWrite(name, RECORD.itemsize, window, self._head, rows[-window:].tobytes(), full)

    @classmethod
    def restore(cls, model: Model, held: HeldUnits, rows: bytes, generation: int = GENERATION) -> Units:
        """Go on from a checkpoint; of another unit or window nothing is remembered.

        Raises
        ------
        ValueError : there are fewer rows than there should be.
        """
        units = cls(model, generation)
        if held.of != units._of:
            return units
        older, newer = held.sizes
        if len(rows) % RECORD.itemsize or older + newer > len(rows) // RECORD.itemsize or max(older, newer) > generation:
            raise ValueError(f"the units have {len(rows)} bytes of rows, expected {older} and {newer} records of {RECORD.itemsize} bytes")
        kept = np.frombuffer(rows, RECORD)
        for table, part in ((units._older, kept[len(kept) - newer - older : len(kept) - newer]), (units._newer, kept[len(kept) - newer :])):
            table.make_room(len(part))
            table.rows = len(part)
            _put(np.ascontiguousarray(part["unit"]), np.ascontiguousarray(part["time_ms"]), table.units, table.times)
        units._first_ms = held.first_ms
        units._head = units._saved = held.head
        return units

    def _remember(self, units: Int64, time_ms: Int64, found: Bool) -> None:
        new = found & (units != NO_UNIT)
        rows = np.empty(int(np.count_nonzero(new)), RECORD)
        rows["unit"], rows["time_ms"] = units[new], time_ms[new]
        if not len(rows):
            return
        self._unsaved.append(rows)
        self._head += len(rows)
        self._newer.rows += len(rows)
        if self._newer.rows >= self._generation:
            self._older, self._newer = self._newer, _Table.empty()


@inlined
def _slot(units: Int64, unit: np.int64) -> int:
    """Where a unit stands, or would; units are hashes already."""
    mask = units.shape[0] - 1
    at = int(unit & mask)
    while units[at] != unit and units[at] != NO_UNIT:
        at = (at + 1) & mask
    return at


@kernel
def _find(
    units: Int64, time_ms: Int64, window_ms: int, start: int, room: int, older: Int64, older_ms: Int64, newer: Int64, newer_ms: Int64,
    found: Bool,
) -> int:  # fmt: skip
    """Mark rows of units that were watched within the window; the row before which the newer generation is full."""
    row = start
    while row < units.shape[0] and room > 0:
        unit = units[row]
        if unit != NO_UNIT:
            at, before = _slot(newer, unit), _slot(older, unit)
            known = newer[at] == unit
            # A row that comes late is of a time from which its unit may be watched already.
            if (known and time_ms[row] - newer_ms[at] < window_ms) or (
                not known and older[before] == unit and time_ms[row] - older_ms[before] < window_ms
            ):
                found[row] = False
            else:
                newer[at] = unit
                newer_ms[at] = time_ms[row]
                room -= 1
        row += 1
    return row


@kernel
def _put(units: Int64, time_ms: Int64, to: Int64, to_ms: Int64) -> None:
    """Rows in their order: a later one of a unit takes the place of an earlier one."""
    for row in range(units.shape[0]):
        at = _slot(to, units[row])
        to[at] = units[row]
        to_ms[at] = time_ms[row]


@kernel
def _move(units: Int64, time_ms: Int64, to: Int64, to_ms: Int64) -> None:
    for row in range(units.shape[0]):
        if units[row] != NO_UNIT:
            at = _slot(to, units[row])
            to[at] = units[row]
            to_ms[at] = time_ms[row]
