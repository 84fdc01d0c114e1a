"""The stream itself as a series: did it stop, did its volume collapse or explode.

Both are functions of the observations log alone: rows carry record times, ticks carry the time that passed
without rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.schemas.stream_series import FRESHNESS, VOLUME
from driftline.streams.bounded import Count, Signed64
from driftline.streams.detect.sources import present

BUCKET_MS: Final = 60_000
RECENT_BUCKETS: Final = 10
REFERENCE_BUCKETS: Final = 60
VOLUME_LOW: Final = 0.2
VOLUME_HIGH: Final = 5.0
"""Five times up or down against the hour before: a daily cycle moves a ten-minute count by far less within an hour."""
REFERENCE_ROWS_MIN: Final = 200
"""Below this many expected rows a count of ten minutes says nothing (Poisson sd is over 7 %)."""


@dataclass(frozen=True, slots=True)
class HealthSignal:
    """A stream series opened or recovered; `value` is silence in seconds or the ratio of counts."""

    series: str
    opened: bool
    value: float
    threshold: float
    reference: float
    direction: str
    n: int
    time_ms: int


class _Held(msgspec.Struct, forbid_unknown_fields=True):
    last_ms: Signed64
    silent: bool
    volume_open: bool
    bucket: Signed64
    count: Count
    counts: Annotated[list[Count], msgspec.Meta(max_length=RECENT_BUCKETS + REFERENCE_BUCKETS)]
    reached: list[tuple[Count, Signed64]]


@dataclass(slots=True)
class StreamHealth:
    """Freshness and volume of one model.

    Parameters
    ----------
    freshness_ms : silence from which `stream:freshness` opens; None = never.
    """

    freshness_ms: int | None
    last_ms: int = -1
    silent: bool = False
    volume_open: bool = False
    bucket: int = -1
    count: int = 0
    counts: list[int] = field(default_factory=list)
    reached: dict[int, int] = field(default_factory=dict)

    def rows(self, record_ms: npt.NDArray[np.int64], source: npt.NDArray[np.uint16] | None = None) -> Iterator[tuple[int, HealthSignal]]:
        """Take the record times of a batch in log order, with the source partition of each; yields (row, signal)."""
        self._reach(record_ms, source)
        if self.silent and len(record_ms):
            self.silent = False
            yield 0, self._freshness(opened=False, now_ms=int(record_ms[0]))
        start = 0
        # Never back: a row out of order counts in the minute that is open, wherever the batch was cut.
        buckets = np.maximum.accumulate(np.maximum(record_ms // BUCKET_MS, self.bucket))
        for edge in (*(np.flatnonzero(np.diff(buckets) > 0) + 1).tolist(), len(record_ms)):
            if edge > start:
                for signal in self._advance(int(buckets[edge - 1])):
                    yield start, signal
                self.count += edge - start
            start = edge
        if len(record_ms):
            self.last_ms = max(self.last_ms, int(record_ms.max()))

    def tick(self, tick_ms: int, source: int = 0) -> Iterator[HealthSignal]:
        """Let time pass on one source partition without rows.

        The model is silent when its slowest source says so: one that still reads a backlog is not silent, however
        long ago its rows were written.
        """
        self.reached[source] = max(self.reached.get(source, -1), tick_ms)
        if self.freshness_ms is None or self.last_ms < 0 or self.silent:
            return
        now_ms = min(self.reached.values())
        if now_ms - self.last_ms > self.freshness_ms:
            self.silent = True
            # Dated to when the silence was too long, not to the tick that told of it: ticks depend on the stream's cut.
            yield self._freshness(opened=True, now_ms=self.last_ms + self.freshness_ms)

    def _reach(self, record_ms: npt.NDArray[np.int64], source: npt.NDArray[np.uint16] | None) -> None:
        if not len(record_ms):
            return
        for number in [0] if source is None else present(source):
            latest = int(record_ms.max() if source is None else record_ms[source == number].max())
            self.reached[number] = max(self.reached.get(number, -1), latest)

    def export(self) -> dict[str, Any]:
        names = ("last_ms", "silent", "volume_open", "bucket", "count", "counts")
        return {**{name: getattr(self, name) for name in names}, "reached": sorted(self.reached.items())}

    @classmethod
    def restore(cls, freshness_ms: int | None, state: dict[str, Any]) -> StreamHealth:
        held = msgspec.convert(state, _Held)
        return cls(freshness_ms, **{**msgspec.structs.asdict(held), "reached": dict(held.reached)})

    def _freshness(self, *, opened: bool, now_ms: int) -> HealthSignal:
        limit = (self.freshness_ms or 0) / 1000
        silence = (now_ms - self.last_ms) / 1000
        return HealthSignal(FRESHNESS, opened, silence if opened else 0.0, limit, 0.0, "up", 0, now_ms)

    def _advance(self, bucket: int) -> Iterator[HealthSignal]:
        """Close the minutes before `bucket`; a minute without rows counts as zero."""
        if self.bucket < 0:
            self.bucket = bucket
        while self.bucket < bucket:
            self.counts = [*self.counts, self.count][-(RECENT_BUCKETS + REFERENCE_BUCKETS) :]
            self.count = 0
            gap = bucket - self.bucket
            # After a gap longer than all we keep, every kept minute is empty: jump instead of counting years of zeros.
            self.bucket = self.bucket + 1 if gap <= RECENT_BUCKETS + REFERENCE_BUCKETS else bucket - RECENT_BUCKETS - REFERENCE_BUCKETS
            yield from self._judge()

    def _judge(self) -> Iterator[HealthSignal]:
        if len(self.counts) < RECENT_BUCKETS + REFERENCE_BUCKETS:
            return
        expected = sum(self.counts[:REFERENCE_BUCKETS]) * RECENT_BUCKETS / REFERENCE_BUCKETS
        recent = sum(self.counts[REFERENCE_BUCKETS:])
        if expected < REFERENCE_ROWS_MIN:
            return
        ratio = recent / expected
        outside = ratio < VOLUME_LOW or ratio > VOLUME_HIGH
        settled = 2 * VOLUME_LOW < ratio < VOLUME_HIGH / 2
        if outside if not self.volume_open else settled:
            self.volume_open = not self.volume_open
            low = ratio < 1
            threshold = VOLUME_LOW if low else VOLUME_HIGH
            now_ms = self.bucket * BUCKET_MS
            yield HealthSignal(VOLUME, self.volume_open, ratio, threshold, expected, "down" if low else "up", recent, now_ms)
