"""How often a worker commits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.streams.runner.cadence import BEHIND, GATHER, Cadence


def at_work(least: float = 0.1, most: float = 0.5) -> Cadence:
    """It has just done a commit, at 0; what comes next came at once."""
    cadence = Cadence(least, most)
    cadence.committed(0.0, 0.0, 1, 0)
    return cadence


def test_a_worker_that_keeps_up_commits_as_often_as_it_should() -> None:
    cadence = at_work()
    for waiting in (0, 10, BEHIND * 10):
        cadence.committed(0.0, 0.0, 10, waiting)
        assert cadence.seconds == 0.1


def test_a_worker_that_is_behind_commits_less_often_until_it_has_caught_up() -> None:
    cadence = at_work()
    seconds = []
    for waiting in (1_000, 1_000, 1_000, 1_000, 0, 0, 0):
        cadence.committed(0.0, 0.0, 10, waiting)
        seconds.append(cadence.seconds)
    assert seconds == [0.2, 0.4, 0.5, 0.5, 0.25, 0.125, 0.1]


def test_what_comes_after_a_pause_is_committed_at_once_and_what_comes_soon_after_a_commit_is_gathered() -> None:
    cadence = Cadence(0.1, 0.5)
    at_once = GATHER * 0.1
    assert cadence.due(7.0) == 7.0 + at_once
    cadence.committed(8.0, 7.0, 10, 0)
    assert [cadence.due(arrived) for arrived in (8.0, 8.05, 8.09, 8.2)] == pytest.approx([8.1, 8.1, 8.1, 8.2 + at_once])
    cadence.committed(9.0, 8.0, 10, 1_000)
    assert cadence.due(9.0) == 9.2


def test_what_is_committed_before_it_is_all_there_is_no_backlog() -> None:
    cadence = Cadence(0.1, 0.5)
    cadence.committed(5.0, 4.9, 1, 0)
    cadence.committed(7.05, 7.0, 1, 1_000)
    assert cadence.seconds == 0.1
    # What waited was taken together with what came meanwhile, and as much waits again.
    cadence.committed(7.2, 7.05, 1_000, 10_000)
    assert cadence.seconds == 0.2


def test_lumps_that_come_at_the_pace_of_commits_upstream_wait_for_none_of_ours() -> None:
    """A worker that commits every 140 ms, 100 of them its rest, gives another one a lump each time."""
    cadence, waited = Cadence(0.1, 0.5), []
    for lump in range(1, 20):
        arrived = 0.14 * lump
        waited.append(cadence.due(arrived) - arrived)
        cadence.committed(cadence.due(arrived) + 0.03, arrived, 1, 0)
    assert max(waited) == pytest.approx(GATHER * 0.1)


def test_a_few_records_that_one_call_takes_are_no_backlog() -> None:
    """A record of detect is a batch of rows: twenty that wait behind a commit of two are one call."""
    cadence = at_work()
    for call, waiting, seconds in ((50, 20, 0.1), (50, 50, 0.1), (50, 51, 0.2), (1, 20, 0.4)):
        cadence.committed(0.0, 0.0, 2, waiting, call=call)
        assert cadence.seconds == seconds


@given(st.floats(0.01, 5.0), st.floats(0.01, 5.0), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1_000))))
def test_it_stays_between_its_ends(least: float, most: float, commits: list[tuple[int, int]]) -> None:
    cadence = at_work(least, most)
    for records, waiting in commits:
        cadence.committed(0.0, 0.0, records, waiting)
        assert least <= cadence.seconds <= max(least, most)
