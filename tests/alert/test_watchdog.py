"""When the watchdog ends the process, and when it must not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from driftline.streams.alert.watchdog import WORD_SECONDS, Progress, StallDetector, Watchdog
from driftline.streams.errors import AwayError


def test_partition_that_stands_still_with_records_waiting_has_stood_since_it_was_first_seen() -> None:
    detector = StallDetector()
    assert detector.standing(0, {0: 5}, {0: 9}) == {}
    assert detector.standing(9, {0: 5}, {0: 12}) == {0: 9}
    assert detector.standing(10, {0: 5}, {0: 12}) == {0: 10}


def test_partition_at_its_end_never_stalls() -> None:
    detector = StallDetector()
    for now in range(0, 1000, 5):
        assert detector.standing(now, {0: 9}, {0: 9}) == {}


def test_records_that_come_after_a_long_quiet_time_get_the_whole_limit() -> None:
    detector = StallDetector()
    detector.standing(0, {0: 9}, {0: 9})
    detector.standing(500, {0: 9}, {0: 9})
    assert detector.standing(505, {0: 9}, {0: 10}) == {0: 5}


def test_slow_progress_is_progress_forward_or_back() -> None:
    detector = StallDetector()
    for now, position in ((0, 5), (9, 6), (18, 7), (27, 3)):
        assert detector.standing(now, {0: position}, {0: 1000}) == {}


def test_one_silent_partition_is_found_among_busy_ones() -> None:
    detector = StallDetector()
    detector.standing(0, {0: 1, 1: 1}, {0: 50, 1: 50})
    assert detector.standing(10, {0: 30, 1: 1}, {0: 50, 1: 50}) == {1: 10}


def test_partition_that_went_away_and_came_back_starts_anew() -> None:
    detector = StallDetector()
    detector.standing(0, {0: 1}, {0: 5})
    detector.standing(8, {}, {})
    assert detector.standing(12, {0: 1}, {0: 5}) == {}


class Broker:
    """Answers with these ends, or is away while they are None."""

    def __init__(self, ends: Mapping[int, int] | None) -> None:
        self.ends = ends
        self.asked = 0

    def __call__(self, _topic: str, _partitions: Iterable[int]) -> Mapping[int, int]:
        self.asked += 1
        if self.ends is None:
            raise AwayError("no broker")
        return self.ends


def watch(
    progress: Progress, broker: Broker, *, until: Callable[[], bool], stall_seconds: float = 0.05, away_seconds: float = 900
) -> list[int]:
    """Exit codes by the time `until` holds."""
    codes: list[int] = []
    limits = {"stall_seconds": stall_seconds, "away_seconds": away_seconds}
    watchdog = Watchdog(progress, lambda: broker, "driftline.drift", **limits, end=codes.append)
    watchdog.start()
    deadline = time.monotonic() + 60
    while not codes and not until():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    watchdog.stop()
    watchdog.join(5)
    return codes


def standing() -> Progress:
    progress = Progress()
    progress.set({0: 5})
    return progress


def test_stall_ends_the_process_with_status_one() -> None:
    assert watch(standing(), Broker({0: 9}), until=lambda: False) == [1]


def test_nothing_to_do_is_no_stall() -> None:
    broker = Broker({0: 5})
    assert watch(standing(), broker, until=lambda: broker.asked > 40) == []


def test_broker_that_does_not_answer_is_no_stall() -> None:
    broker = Broker(None)
    assert watch(standing(), broker, until=lambda: broker.asked > 40) == []


def test_who_says_that_he_waits_has_longer_and_not_for_ever() -> None:
    progress, broker = standing(), Broker({0: 9})
    progress.waits("redis: connection refused")
    assert watch(progress, broker, until=lambda: broker.asked > 40) == []
    assert watch(progress, broker, until=lambda: False, away_seconds=0.1) == [1]


def test_a_word_that_is_old_explains_nothing() -> None:
    now = 0.0
    progress = Progress(clock=lambda: now)
    progress.waits("redis: connection refused")
    assert progress.reason() == "redis: connection refused"
    now = WORD_SECONDS
    assert progress.reason() is None


def test_the_end_of_an_outage_is_no_stall() -> None:
    """The watchdog saw nothing of what went on meanwhile; the app gets the whole limit to go on."""
    progress, broker = standing(), Broker({0: 9})

    def outage() -> bool:
        broker.ends = None if 2 <= broker.asked < 12 else {0: 9}
        if broker.asked >= 12:
            progress.set({0: 9})
        return broker.asked > 30

    assert watch(progress, broker, until=outage, stall_seconds=0.4) == []
