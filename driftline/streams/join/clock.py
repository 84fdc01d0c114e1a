"""How far source partitions have come, told by the ticks in one of our logs (PROTOCOL 16)."""

from __future__ import annotations

from collections.abc import Iterable

from driftline.streams.task import FINAL_MS, PartitionId

NEVER_MS = -1


class SourceClock:
    """The last tick of each source partition.

    The end of an input (`FINAL_MS`) counts as the latest time there is until more of it comes; it is no time itself, so
    labels that are published after a finished run are not late for ever.
    """

    def __init__(self, sources: Iterable[PartitionId]) -> None:
        self._sources = frozenset(sources)
        self._ticks: dict[PartitionId, int] = {}
        self._ended: set[PartitionId] = set()
        self._minimum: int | None = None

    def advance(self, source: PartitionId, tick_ms: int) -> None:
        """Take a tick."""
        if tick_ms >= FINAL_MS:
            self._ended.add(source)
        else:
            self._ended.discard(source)
            self._ticks[source] = max(self._ticks.get(source, NEVER_MS), tick_ms)
        self._minimum = None

    def minimum(self) -> int:
        """The time that every source partition has reached; `NEVER_MS` while one has not been heard of."""
        if self._minimum is None:
            self._minimum = min((FINAL_MS if s in self._ended else self._ticks.get(s, NEVER_MS) for s in self._sources), default=FINAL_MS)
        return self._minimum

    def maximum(self) -> int:
        """The latest tick of any source, ends aside: no label that has come is later."""
        return max(self._ticks.values(), default=NEVER_MS)

    def export(self) -> list[list[str | int]]:
        """[topic, partition, tick, ended] rows for a checkpoint."""
        known = sorted({*self._ticks, *self._ended})
        return [[topic, p, self._ticks.get((topic, p), NEVER_MS), int((topic, p) in self._ended)] for topic, p in known]

    def restore(self, rows: Iterable[Iterable[str | int]]) -> None:
        self._ticks.clear()
        self._ended.clear()
        for topic, partition, tick, ended in rows:
            source = (str(topic), int(partition))
            self._ticks[source] = int(tick)
            if ended:
                self._ended.add(source)
        self._minimum = None
