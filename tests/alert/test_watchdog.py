"""When the watchdog ends the process, and when it must not."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from driftline.streams.alert.watchdog import Progress, StallDetector, Watchdog
from driftline.streams.errors import AwayError


def test_partition_that_stands_still_with_records_waiting_is_stalled_after_the_limit() -> None:
    detector = StallDetector(10)
    assert detector.stalled(0, {0: 5}, {0: 9}) == []
    assert detector.stalled(9.9, {0: 5}, {0: 12}) == []
    assert detector.stalled(10, {0: 5}, {0: 12}) == [0]


def test_partition_at_its_end_never_stalls() -> None:
    detector = StallDetector(10)
    for now in range(0, 1000, 5):
        assert detector.stalled(now, {0: 9}, {0: 9}) == []


def test_records_that_come_after_a_long_quiet_time_get_the_whole_limit() -> None:
    detector = StallDetector(10)
    detector.stalled(0, {0: 9}, {0: 9})
    detector.stalled(500, {0: 9}, {0: 9})
    assert detector.stalled(505, {0: 9}, {0: 10}) == []
    assert detector.stalled(510, {0: 9}, {0: 10}) == [0]


def test_slow_progress_is_progress_forward_or_back() -> None:
    detector = StallDetector(10)
    for now, position in ((0, 5), (9, 6), (18, 7), (27, 3)):
        assert detector.stalled(now, {0: position}, {0: 1000}) == []


def test_one_silent_partition_is_found_among_busy_ones() -> None:
    detector = StallDetector(10)
    detector.stalled(0, {0: 1, 1: 1}, {0: 50, 1: 50})
    assert detector.stalled(10, {0: 30, 1: 1}, {0: 50, 1: 50}) == [1]


def test_partition_that_went_away_and_came_back_starts_anew() -> None:
    detector = StallDetector(10)
    detector.stalled(0, {0: 1}, {0: 5})
    detector.stalled(8, {}, {})
    assert detector.stalled(12, {0: 1}, {0: 5}) == []


def watch(progress: Progress, ends: Mapping[int, int] | None, ended: threading.Event, seconds: float) -> list[int]:
    codes: list[int] = []

    def ends_of(_topic: str, _partitions: Iterable[int]) -> Mapping[int, int]:
        if ends is None:
            raise AwayError("no broker")
        return ends

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    watchdog = Watchdog(progress, lambda: ends_of, "driftline.drift", stall_seconds=0.05, end=end)
    watchdog.start()
    ended.wait(seconds)
    watchdog.stop()
    watchdog.join(5)
    return codes


def test_stall_ends_the_process_with_status_one() -> None:
    progress = Progress()
    progress.set({0: 5})
    assert watch(progress, {0: 9}, threading.Event(), 60) == [1]


def test_broker_that_does_not_answer_is_no_stall() -> None:
    progress = Progress()
    progress.set({0: 5})
    assert watch(progress, None, threading.Event(), 1) == []
