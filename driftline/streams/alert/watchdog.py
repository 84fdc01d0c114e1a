"""Ends the process when the alert app stands still while drift events arrive.

Faust workers are known to stop consuming without dying (faust-streaming#532, #175): nothing fails, nothing is logged,
no alert ever comes again. The watch is kept by a thread and a client of its own, so no state of Faust can silence it.
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


class Progress:
    """How far the app has come: written by its event loop, read by the watchdog's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[int, int] = {}

    def set(self, done: Mapping[int, int]) -> None:
        """The next offset of every owned partition that is not finished yet."""
        with self._lock:
            self._done = dict(done)

    def get(self) -> dict[int, int]:
        with self._lock:
            return dict(self._done)


class StallDetector:
    """Which partitions stand still although their log goes on; pure, the time is an argument.

    Parameters
    ----------
    stall_seconds : how long a partition may stand still with records to read.
    """

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._since: dict[int, tuple[int, float]] = {}

    def stalled(self, now: float, done: Mapping[int, int], ends: Mapping[int, int]) -> list[int]:
        """Partitions whose position did not move for too long while records wait."""
        self._since = {partition: since for partition, since in self._since.items() if partition in done}
        found = []
        for partition, position in done.items():
            before = self._since.get(partition)
            if before is None or before[0] != position or ends.get(partition, position) <= position:
                self._since[partition] = (position, now)
            elif now - before[1] >= self._stall_seconds:
                found.append(partition)
        return found


class Watchdog(threading.Thread):
    """Looks at the progress from outside; a stall ends the process with status 1.

    Parameters
    ----------
    make_ends : makes the function that asks for end offsets; called in this thread, which owns its client.
    end : ends the process; `os._exit` because a hung event loop answers to nothing milder.
    """

    def __init__(
        self,
        progress: Progress,
        make_ends: Callable[[], EndOffsetsOf],
        topic: str,
        *,
        stall_seconds: float,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(name="alert-watchdog", daemon=True)
        self._progress = progress
        self._make_ends = make_ends
        self._topic = topic
        self._stall_seconds = stall_seconds
        self._end = end
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look four times per stall time until `stop`."""
        detector = StallDetector(self._stall_seconds)
        ends_of = self._make_ends()
        while not self._stopping.wait(self._stall_seconds / 4):
            done = self._progress.get()
            try:
                ends = ends_of(self._topic, done)
            except AwayError as error:
                log.warning("alert_watchdog_blind reason=%s", error)
                continue
            stalled = detector.stalled(time.monotonic(), done, ends)
            if stalled and not self._stopping.is_set():
                where = ", ".join(f"partition {number} at {done[number]} of {ends[number]}" for number in stalled)
                log.error("alert_stalled topic=%s seconds=%g where=%s: the process ends", self._topic, self._stall_seconds, where)
                logging.shutdown()
                self._end(EXIT_STALLED)
                return

    def stop(self) -> None:
        self._stopping.set()
