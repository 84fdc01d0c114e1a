"""Ends the process when the alert app stands still while drift events arrive.

Faust workers are known to stop consuming without dying (faust-streaming#532, #175): nothing fails, nothing is logged,
no alert ever comes again. The watch is kept by a thread and a client of its own, so no state of Faust can silence it.
While the app waits for Kafka or Redis and says so, it has longer: an outage shall end by itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from driftline.streams.errors import AwayError

log = logging.getLogger(__name__)

EndOffsetsOf = Callable[[str, Iterable[int]], Mapping[int, int]]
EXIT_STALLED = 1
STALL_SECONDS = 120
AWAY_SECONDS = 900
"""With Kafka or Redis away that long somebody must look; whoever restarts the process sees it fail at the start."""
WORD_SECONDS = 90
"""How long the app's word that it waits counts: one attempt to deliver takes up to 70 s."""


class Progress:
    """How far the app has come: written by its event loop, read by the watchdog's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._done: dict[int, int] = {}
        self._word: tuple[str, float] | None = None

    def set(self, done: Mapping[int, int]) -> None:
        """The next offset of every owned partition that is not finished yet."""
        with self._lock:
            self._done = dict(done)

    def get(self) -> dict[int, int]:
        with self._lock:
            return dict(self._done)

    def waits(self, reason: str | None) -> None:
        """What the app waits for, said again at every attempt; None when it does not."""
        with self._lock:
            self._word = None if reason is None else (reason, self._clock())

    def reason(self) -> str | None:
        """What it waits for, if it said so lately."""
        with self._lock:
            return self._word[0] if self._word is not None and self._clock() - self._word[1] < WORD_SECONDS else None


class StallDetector:
    """How long partitions have stood still although their log goes on; pure, the time is an argument."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[int, float]] = {}

    def standing(self, now: float, done: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, float]:
        """Seconds without movement of each partition where records wait."""
        self._since = {partition: since for partition, since in self._since.items() if partition in done}
        found = {}
        for partition, position in done.items():
            before = self._since.get(partition)
            if before is None or before[0] != position or ends.get(partition, position) <= position:
                self._since[partition] = (position, now)
            else:
                found[partition] = now - before[1]
        return found


class Watchdog(threading.Thread):
    """Looks at the progress from outside; a stall ends the process with status 1.

    Parameters
    ----------
    make_ends : makes the function that asks for end offsets; called in this thread, which owns its client.
    stall_seconds : how long a partition may stand still with records to read.
    away_seconds : the same while the app says that it waits for Kafka or Redis.
    end : ends the process; `os._exit` because a hung event loop answers to nothing milder.
    """

    def __init__(
        self,
        progress: Progress,
        make_ends: Callable[[], EndOffsetsOf],
        topic: str,
        *,
        stall_seconds: float = STALL_SECONDS,
        away_seconds: float = AWAY_SECONDS,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(name="alert-watchdog", daemon=True)
        self._progress = progress
        self._make_ends = make_ends
        self._topic = topic
        self._stall_seconds = stall_seconds
        self._away_seconds = max(stall_seconds, away_seconds)
        self._end = end
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look four times per stall time until `stop`."""
        detector = StallDetector()
        ends_of = self._make_ends()
        while not self._stopping.wait(self._stall_seconds / 4):
            done = self._progress.get()
            try:
                ends = ends_of(self._topic, done)
            except AwayError as error:
                # What happened meanwhile is not known: whoever comes back from an outage gets the whole time.
                detector = StallDetector()
                log.warning("alert_watchdog_blind reason=%s", error)
                continue
            reason = self._progress.reason()
            limit = self._stall_seconds if reason is None else self._away_seconds
            standing = detector.standing(time.monotonic(), done, ends)
            stalled = {number: seconds for number, seconds in standing.items() if seconds >= limit}
            if stalled and not self._stopping.is_set():
                where = ", ".join(f"partition {number} at {done[number]} of {ends[number]}" for number in sorted(stalled))
                seconds = max(stalled.values())
                log.error("alert_stalled topic=%s seconds=%.0f where=%r reason=%r: the process ends", self._topic, seconds, where, reason)
                logging.shutdown()
                self._end(EXIT_STALLED)
                return

    def stop(self) -> None:
        self._stopping.set()
