"""How many records a poll may take."""

from __future__ import annotations

from driftline.streams.runner.pace import FIRST_RECORDS, TARGET_SECONDS, Pace


def test_a_quick_task_is_given_twice_as_many_each_time_up_to_the_most() -> None:
    pace = Pace(1_000)
    given = []
    for _ in range(6):
        given.append(pace.records)
        pace.took(pace.records, 0.001)
    assert given == [FIRST_RECORDS, 128, 256, 512, 1_000, 1_000]


def test_a_slow_call_cuts_the_next_one_at_once_to_what_fits() -> None:
    pace = Pace(10_000)
    pace.took(64, 64 * TARGET_SECONDS)
    assert pace.records == 1
    pace.took(1, TARGET_SECONDS / 10)
    assert pace.records == 2


def test_a_partial_poll_does_not_let_the_next_one_explode() -> None:
    pace = Pace(10_000)
    pace.took(1, 1e-9)
    assert pace.records == 2 * FIRST_RECORDS
