"""The time of a ledger of one model, and the pieces its rows are worked in so that an episode ends at its moment.

A ledger is a model's predictions, or its outcomes at one age. Its time is a function of its rows and ticks alone: the
slowest of its source partitions, and never back. What ends because nothing came is dated to the moment at which it was
due and to the last row before it, so that neither the cut of the stream nor the number of ticks shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.detectors.spec import PanelRows
from driftline.schemas.events import Position
from driftline.streams.bounded import Count, Signed64
from driftline.streams.detect.publish import PanelName, RowContext
from driftline.streams.detect.sources import present

Times = npt.NDArray[np.int64]

_NEVER: int = np.iinfo(np.int64).max


class _Held(msgspec.Struct):
    reached: list[tuple[Count, Signed64]]
    now_ms: Signed64
    last: tuple[str, Count, Count, Signed64, Signed64] | None
    rebuilt: bool
    arrived: tuple[str, Signed64] | None = None


@dataclass(slots=True)
class Ledger:
    """How far time has come.

    Attributes
    ----------
    reached : the latest record time, or tick, of each source partition that was heard of.
    last : the last row.
    arrived : the last further version of the model, and the event time of its first row.
    rebuilt : a task that an operator had rebuilt has written to it: rows may have come a second time.
    """

    reached: dict[int, int] = field(default_factory=dict)
    now_ms: int = -1
    last: RowContext | None = None
    rebuilt: bool = False
    arrived: tuple[str, int] | None = None

    def rows(self, record_ms: Times, source: npt.NDArray[np.uint16]) -> Times:
        """Take a batch in its order; the time at each row."""
        new = present(source)
        slowest: Times = np.full(len(record_ms), min((ms for s, ms in self.reached.items() if s not in new), default=_NEVER), np.int64)
        for number in new:
            own = np.where(source == number, record_ms, self.reached.get(number, -1))
            own = np.maximum.accumulate(np.maximum(own, self.reached.get(number, -1)))
            self.reached[number] = int(own[-1])
            slowest = np.minimum(slowest, np.where(own < 0, _NEVER, own))
        clock = np.maximum.accumulate(np.maximum(slowest, self.now_ms))
        self.now_ms = int(clock[-1])
        return clock

    def tick(self, tick_ms: int, source: int) -> int:
        """Let time pass on one source partition; the time then."""
        self.reached[source] = max(self.reached.get(source, -1), tick_ms)
        self.now_ms = max(self.now_ms, min(self.reached.values()))
        return self.now_ms

    def tick_all(self, tick_ms: int) -> int:
        """Let time pass on every source partition; the time then."""
        self.reached = {source: max(ms, tick_ms) for source, ms in self.reached.items()}
        if self.reached:
            self.now_ms = max(self.now_ms, tick_ms)
        return self.now_ms

    def forget(self, sources: Collection[int]) -> None:
        """Source partitions that will not be heard of again, and must not hold up time."""
        self.reached = {source: ms for source, ms in self.reached.items() if source not in sources}

    def export(self) -> dict[str, Any]:
        row = self.last
        last = None if row is None else [row.position.topic, row.position.partition, row.position.offset, row.time_ms, row.record_ms]
        told = {"reached": sorted(self.reached.items()), "now_ms": self.now_ms, "last": last, "rebuilt": self.rebuilt}
        return told if self.arrived is None else {**told, "arrived": self.arrived}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Ledger:
        held = msgspec.convert(state, _Held)
        last = None
        if held.last is not None:
            topic, partition, offset, time_ms, record_ms = held.last
            last = RowContext(Position(topic, partition, offset), time_ms, record_ms)
        return cls(dict(held.reached), held.now_ms, last, held.rebuilt, held.arrived)


@dataclass(frozen=True, slots=True)
class Feed:
    """Rows for one panel; `index` maps them to rows of the batch, None = they are all of them."""

    name: PanelName
    index: npt.NDArray[np.int64] | None
    rows: PanelRows

    def within(self, start: int, stop: int) -> tuple[int, int]:
        """The part of these rows that lies in a piece of the batch."""
        if self.index is None:
            return start, stop
        first, last = np.searchsorted(self.index, [start, stop]).tolist()
        return first, last

    def place(self, row: int) -> int:
        """The row of the batch."""
        return row if self.index is None else int(self.index[row])


def pieces(clock_ms: Times, limit_ms: int | None, due_ms: Callable[[], int | None]) -> Iterator[tuple[int, int]]:
    """Cut rows where something may be due: (first row, row after the last); an empty piece: something is due before its row.

    Within a piece nothing can be: what is open before it is due later, and what opens in it is due a limit after that.

    Parameters
    ----------
    due_ms : asked before each piece, after the one before was worked on; None = nothing is open.
    """
    start = 0
    while start < len(clock_ms):
        if limit_ms is None:
            stop = len(clock_ms)
        else:
            now_ms = int(clock_ms[start])
            due = due_ms()
            if due is not None and due < now_ms:
                yield start, start
                due = due_ms()
            bound = now_ms + limit_ms if due is None else min(due, now_ms + limit_ms)
            stop = int(np.searchsorted(clock_ms, bound, side="right"))
        yield start, stop
        start = stop
