from __future__ import annotations

import random

from driftline.streams.join import CacheLost
from driftline.streams.task import Idle
from tests.join.logs import LABELS, Join, Logs


def long_stream(minutes: int) -> Logs:
    """One labelled prediction a second; ticks on both sides."""
    logs = Logs()
    rng = random.Random(4)
    for second in range(minutes * 60):
        logs.predict((f"{second}", second))
        logs.label((f"{second}", second + 0.1 + rng.random(), second % 2))
    return logs


def test_a_lost_cache_is_filled_again_from_the_offset_in_the_checkpoint() -> None:
    logs = long_stream(40)
    join = Join().read(logs, labels=2_000).commit()
    join.cache.reset(0)
    assert join.open() is None  # type: ignore[func-returns-value]
    start = join.task.positions()[LABELS]
    # Labels of the last ten minutes (and the minute between marks) may still be wanted; all before are not.
    assert 2_000 - 11 * 60 - 30 <= start <= 2_000 - 10 * 60
    assert join.position[LABELS] == start


def test_no_outcome_is_decided_before_the_cache_is_full_again() -> None:
    logs = long_stream(3)
    join = Join().read(logs, waiting=100, labels=80).commit()
    decided = len(join.rows())
    join.cache.reset(0)
    join.open()
    join.read(logs, labels=50)
    assert len(join.rows()) == decided
    join.read(logs)
    assert all(label is not None for label in list(join.labels().values())[:160])


def test_a_crash_in_the_middle_of_a_rebuild_begins_it_again() -> None:
    logs = long_stream(3)
    join = Join().read(logs, waiting=100, labels=80).commit()
    join.cache.reset(0)
    join.open()
    join.read(logs, labels=30).commit()
    join.open()
    assert join.task.positions()[LABELS] == 0
    join.read(logs.end())
    assert [offset for offset, _, _ in join.rows()] == list(range(180))
    assert None not in join.labels().values()


def test_a_rebuild_ends_where_the_log_ends_though_labels_are_gone() -> None:
    logs = long_stream(2)
    join = Join().read(logs, waiting=100, labels=80).commit()
    join.cache.reset(0)
    join.open()
    join.task.tick(Idle(0, frozenset({LABELS})))
    assert join.task.positions()[LABELS] == 80


def test_a_cache_that_loses_entries_while_running_asks_for_a_restart() -> None:
    logs = long_stream(2)
    join = Join().read(logs, labels=50)
    join.cache.reset(0)
    try:
        join.read(logs)
    except CacheLost:
        return
    raise AssertionError("the loss was not noticed")


def test_the_list_of_marks_stays_short() -> None:
    logs = Logs()
    for minute in range(500):
        logs.label((f"{minute}", minute * 60, 1))
    join = Join().read(logs)
    assert len(join.task._marks.export()[1]) <= 64
