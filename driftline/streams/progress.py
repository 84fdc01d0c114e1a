"""Which partitions stand still although there is something to do; one silent partition among busy ones shows, too.

The loop of a worker tells where each partition stands about once a second. Whether one has stood still for too long is
asked by others (the HTTP server, the alarm's thread), so that a loop that hangs, and tells nothing, shows all the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final

from driftline.streams.task import PartitionId

_log = logging.getLogger(__name__)

# A commit is due every 0.1 to 0.5 s; a minute without one while records wait is a stall, not a slow batch.
STALL_SECONDS: Final = 60.0
_REPEAT_SECONDS: Final = 300.0
_LOOKS_A_STALL: Final = 4


@dataclass(frozen=True, slots=True)
class Stall:
    """A partition that stands still; `position` is the next offset to commit, None where nothing is read yet."""

    topic: str
    partition: int
    position: int | None
    seconds: float

    def __str__(self) -> str:
        place = "not read yet" if self.position is None else f"nothing committed past offset {self.position}"
        return f"{self.topic}/{self.partition} stands still for {self.seconds:.0f} s: {place}"


@dataclass(slots=True)
class _Place:
    position: int | None
    mark: Hashable
    since: float


class Progress:
    """Where each partition of this worker stands, and since when.

    Parameters
    ----------
    stall_seconds : a partition that stands still for so long, with records to do, is stalled.
    clock : seconds that never go back.
    """

    def __init__(self, *, stall_seconds: float = STALL_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self.stall_seconds = stall_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[PartitionId, _Place] = {}

    def tell(self, key: PartitionId, position: int | None, *, busy: bool, mark: Hashable = None) -> bool:
        """Where a partition stands now; returns whether it moved or has nothing to do.

        Parameters
        ----------
        busy : whether records wait to be read or to be committed.
        mark : what else counts as movement (a replay reads on and commits nothing).
        """
        with self._lock:
            place = self._places.get(key)
            if place is None or not busy or (place.position, place.mark) != (position, mark):
                self._places[key] = _Place(position, mark, self._clock())
                return True
            return False

    def forget(self, keys: Iterable[PartitionId]) -> None:
        """Partitions that went to another worker."""
        with self._lock:
            for key in keys:
                self._places.pop(key, None)

    def stalls(self) -> list[Stall]:
        """The partitions that stand still for too long, the longest first."""
        now = self._clock()
        with self._lock:
            found = [
                Stall(*key, place.position, now - place.since)
                for key, place in self._places.items()
                if now - place.since >= self.stall_seconds
            ]
        return sorted(found, key=lambda stall: (-stall.seconds, stall.topic, stall.partition))


class ProgressAlarm(threading.Thread):
    """Writes a warning when a partition begins to stand still, again every five minutes, and a line when it moves on.

    Parameters
    ----------
    hint_of : what to look at, as the worker knows it at that moment.
    """

    def __init__(self, progress: Progress, hint_of: Callable[[], str], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(name="progress-alarm", daemon=True)
        self._progress = progress
        self._hint_of = hint_of
        self._clock = clock
        self._told: dict[PartitionId, float] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look a few times per stall time until `stop`."""
        while not self._stopping.wait(max(0.1, self._progress.stall_seconds / _LOOKS_A_STALL)):
            self.look()

    def look(self) -> None:
        """Compare with what was told and tell the difference; many partitions in one line."""
        now = self._clock()
        stalls = {(stall.topic, stall.partition): stall for stall in self._progress.stalls()}
        due = [stall for key, stall in stalls.items() if now - self._told.get(key, float("-inf")) >= _REPEAT_SECONDS]
        if due:
            more = f" and {len(due) - 1} more partitions" if len(due) > 1 else ""
            _log.warning("partition_stalled where=%r hint=%r", f"{due[0]}{more}", self._hint_of())
        moved = self._told.keys() - stalls.keys()
        if moved:
            _log.info("partition_moves_again partitions=%s", ",".join(f"{topic}/{number}" for topic, number in sorted(moved)))
        self._told = {key: now if stall in due else self._told[key] for key, stall in stalls.items()}

    def stop(self) -> None:
        """End with the next look."""
        self._stopping.set()
