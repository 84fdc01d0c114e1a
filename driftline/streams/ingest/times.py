"""Record times as everything after ingest may trust them: none far ahead of the wall, and no lone jump.

Time moves by the running maximum of a source partition's record times, so one wrong time would hold for good. A time
ahead of the known wall time is set back to it. Where no wall time is known, and in a backlog, a record that is more than
`skew_ms` ahead of the running maximum is a candidate: it is taken at its word when the partition's next record is no
more than `skew_ms` behind it, else it gets the running maximum as its time. Daily rows confirm each other; one record
from 2099 does not. The rule sees one record and the next, wherever batches are cut: an undecided last record is held.
The very first time of a partition has nothing to be compared with and stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import methodcaller

import numpy as np
import numpy.typing as npt

from driftline.streams.task import Record

Int64 = npt.NDArray[np.int64]

_timestamp: Callable[[Record], tuple[int, int]] = methodcaller("timestamp")
_offset: Callable[[Record], int] = methodcaller("offset")


@dataclass(frozen=True, slots=True)
class RecordTimes:
    """Times of the records that are decided, in offset order.

    Attributes
    ----------
    record_ms : shape (n,), -1 where the broker gave none.
    seen_ms : shape (n,), the running maximum of the partition, the record itself included.
    replaced : shape (n,), whether `record_ms` is not what the record says.
    """

    offset: Int64
    record_ms: Int64
    seen_ms: Int64
    replaced: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offset)


def judge(records: Sequence[Record], reached_ms: int, *, skew_ms: int, clip_ms: int | None, last_stands: bool) -> RecordTimes:
    """The times of records; one fewer than there are records when the next one must decide the last.

    Parameters
    ----------
    reached_ms : the running maximum before them, ticks included; negative = none yet.
    skew_ms : a record further ahead than this needs the next to confirm it.
    clip_ms : the latest believable time; None = no wall clock is known.
    last_stands : no next record is awaited.
    """
    stated = np.array([time_ms for _, time_ms in map(_timestamp, records)], np.int64)
    times = stated if clip_ms is None else np.minimum(stated, clip_ms)
    reached = np.maximum.accumulate(np.concatenate(([reached_ms], times)))
    jumps = (reached[:-1] >= 0) & (times > reached[:-1] + skew_ms)
    n = len(records)
    if jumps.any():
        times, n = _settle(times.tolist(), int(np.argmax(jumps)), reached.tolist(), skew_ms, last_stands=last_stands)
        reached = np.maximum.accumulate(np.concatenate(([reached_ms], times)))
    offset = np.fromiter(map(_offset, records[:n]), np.int64, n)
    return RecordTimes(offset, times[:n], reached[1 : n + 1], times[:n] != stated[:n])


def _settle(times: list[int], first: int, reached: list[int], skew_ms: int, *, last_stands: bool) -> tuple[Int64, int]:
    """Times with lone jumps set back, from the first candidate on, and how many are decided."""
    n = len(times)
    top = reached[first]
    for i in range(first, n):
        if 0 <= top < times[i] - skew_ms:
            if i + 1 == n:
                n -= not last_stands
            elif times[i + 1] < times[i] - skew_ms:
                times[i] = top
        top = max(top, times[i])
    return np.array(times, np.int64), n
