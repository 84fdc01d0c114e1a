"""How far source partitions have come, told by the ticks in one of our logs (PROTOCOL 16)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from driftline.streams.bounded import Count, Signed64
from driftline.streams.task import FINAL_MS, PartitionId

NEVER_MS = -1
NO_END_MS = -(1 << 62)
# What an end is told of may be written a moment after it: both in the last commit of a run, to two topics, whose brokers'
# clocks may differ a little. Another run takes longer than this to begin.
_END_GRACE_MS = 3_000


class SourceTick(msgspec.Struct, frozen=True, array_like=True):
    """How far one source partition has come, as a checkpoint holds it."""

    topic: str
    partition: Count
    tick_ms: Signed64
    ended: int
    last_end_ms: Signed64 = NO_END_MS


class SourceClock:
    """The last tick of each source partition.

    The end of an input (`FINAL_MS`) counts as the latest time there is until more of it comes; it is no time itself, so
    labels that are published after a finished run are not late for ever. Nor does it say anything about predictions of
    a later run, whose labels are still to come: `minimum_for` takes an end only for what was written before it.
    """

    def __init__(self, sources: Iterable[PartitionId]) -> None:
        self._sources = frozenset(sources)
        self._ticks: dict[PartitionId, int] = {}
        self._ended: set[PartitionId] = set()
        self._ends: dict[PartitionId, int] = {}
        self._minimum: int | None = None

    def advance(self, source: PartitionId, tick_ms: int, written_ms: int = NEVER_MS) -> None:
        """Take a tick; `written_ms` is the broker's time of the record it came in."""
        if tick_ms >= FINAL_MS:
            self._ended.add(source)
            self._ends[source] = max(self._ends.get(source, NEVER_MS), written_ms)
        else:
            self._ended.discard(source)
            self._ticks[source] = max(self._ticks.get(source, NEVER_MS), tick_ms)
        self._minimum = None

    def minimum(self) -> int:
        """The time that every source partition has reached; `NEVER_MS` while one has not been heard of."""
        if self._minimum is None:
            self._minimum = min((FINAL_MS if s in self._ended else self._ticks.get(s, NEVER_MS) for s in self._sources), default=FINAL_MS)
        return self._minimum

    def minimum_for(self, written_ms: int) -> int:
        """The time that every source partition has reached as far as a record is concerned that was written then."""
        if not self._ends:
            return self.minimum()
        return min((self._reached(source, written_ms) for source in self._sources), default=FINAL_MS)

    def _reached(self, source: PartitionId, written_ms: int) -> int:
        if written_ms <= self._ends.get(source, NO_END_MS) + _END_GRACE_MS:
            return FINAL_MS
        return self._ticks.get(source, NEVER_MS)

    def reached(self) -> int:
        """The time that every source partition has reached, ends aside: an end is no time, and more may come."""
        return min((self._ticks.get(source, NEVER_MS) for source in self._sources), default=FINAL_MS)

    def ended(self) -> bool:
        """Whether every source partition has ended, and nothing came since."""
        return self._ended >= self._sources

    def maximum(self) -> int:
        """The latest tick of any source, ends aside: no label that has come is later."""
        return max(self._ticks.values(), default=NEVER_MS)

    def export(self) -> list[list[str | int]]:
        """Rows for a checkpoint, with the fields of `SourceTick`."""
        known = sorted({*self._ticks, *self._ends})
        return [[*s, self._ticks.get(s, NEVER_MS), int(s in self._ended), self._ends.get(s, NO_END_MS)] for s in known]

    def restore(self, rows: Iterable[SourceTick]) -> None:
        self._ticks.clear()
        self._ended.clear()
        self._ends.clear()
        for row in rows:
            source = (row.topic, row.partition)
            self._ticks[source] = row.tick_ms
            if row.ended:
                self._ended.add(source)
            if row.last_end_ms != NO_END_MS:
                self._ends[source] = row.last_end_ms
        self._minimum = None
