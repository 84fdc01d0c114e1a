"""When a partition stands still, and what is said of it."""

from __future__ import annotations

import logging

import pytest

from driftline.streams.http import Health
from driftline.streams.progress import Progress, ProgressAlarm
from tests.operations.conftest import Clock

KEY, OTHER = ("predictions", 0), ("predictions", 1)


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(stall_seconds=60, clock=clock)


def stalled(progress: Progress) -> list[tuple[str, int]]:
    return [(stall.topic, stall.partition) for stall in progress.stalls()]


def test_partition_with_records_that_does_not_move_is_stalled_after_the_limit(progress: Progress, clock: Clock) -> None:
    for clock.seconds in range(60):
        progress.tell(KEY, 7, busy=True)
        assert stalled(progress) == []
    clock.seconds = 60
    assert stalled(progress) == [KEY]
    assert progress.tell(KEY, 8, busy=True)
    assert stalled(progress) == []


def test_partition_without_records_never_stalls_while_its_worker_goes_round(progress: Progress, clock: Clock) -> None:
    for clock.seconds in range(0, 1_000, 10):
        progress.tell(KEY, 7, busy=False)
        assert stalled(progress) == []


def test_worker_that_tells_nothing_any_more_stands_still_everywhere(progress: Progress, clock: Clock) -> None:
    progress.tell(KEY, 7, busy=False)
    progress.tell(OTHER, 9, busy=True)
    clock.seconds = 61
    assert stalled(progress) == [KEY, OTHER]


def test_one_silent_partition_shows_among_busy_ones(progress: Progress, clock: Clock) -> None:
    for clock.seconds in range(0, 100, 10):
        progress.tell(KEY, clock.seconds, busy=True)
        progress.tell(OTHER, 5, busy=True)
    assert stalled(progress) == [OTHER]


def test_what_counts_as_movement_beside_the_position_is_the_callers_to_say(progress: Progress, clock: Clock) -> None:
    for clock.seconds in range(0, 200, 10):
        progress.tell(KEY, 7, busy=True, mark=clock.seconds // 50)
        progress.tell(OTHER, 7, busy=True, mark=0)
    assert stalled(progress) == [OTHER]


def test_partition_that_went_to_another_worker_is_his(progress: Progress, clock: Clock) -> None:
    progress.tell(KEY, 7, busy=True)
    progress.forget([KEY])
    clock.seconds = 100
    assert stalled(progress) == []


def test_alarm_is_written_once_in_a_while_and_when_it_is_over(progress: Progress, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    alarm = ProgressAlarm(progress, lambda: "redis: connection refused", clock=clock)
    progress.tell(KEY, 7, busy=True)
    progress.tell(OTHER, None, busy=True)
    with caplog.at_level(logging.INFO):
        for clock.seconds in range(0, 500, 5):
            alarm.look()
        progress.tell(KEY, 8, busy=True)
        alarm.look()
    assert caplog.messages == [
        "partition_stalled where='predictions/0 stands still for 60 s: nothing committed past offset 7 and 1 more partitions'"
        " hint='redis: connection refused'",
        "partition_stalled where='predictions/0 stands still for 360 s: nothing committed past offset 7 and 1 more partitions'"
        " hint='redis: connection refused'",
        "partition_moves_again partitions=predictions/0",
    ]


def test_hint_names_what_the_worker_knows(clock: Clock) -> None:
    health = Health(clock=clock)
    health.assigned(1)
    assert health.hint() == "redis: not connected yet"
    health.redis(None)
    assert "commit_aborted" in health.hint()
    clock.seconds = 100
    assert "the worker's loop has not come round for 100 s" in health.hint()
    health.kafka("kafka: 1/1 brokers are down")
    assert health.hint() == "kafka: 1/1 brokers are down"
