"""How often a worker commits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftline.streams.runner.cadence import BEHIND, Cadence


def test_a_worker_that_keeps_up_commits_as_often_as_it_should() -> None:
    cadence = Cadence(0.1, 0.5)
    for waiting in (0, 10, BEHIND * 10):
        cadence.committed(10, waiting)
        assert cadence.seconds == 0.1


def test_a_worker_that_is_behind_commits_less_often_until_it_has_caught_up() -> None:
    cadence = Cadence(0.1, 0.5)
    seconds = []
    for waiting in (1_000, 1_000, 1_000, 1_000, 0, 0, 0):
        cadence.committed(10, waiting)
        seconds.append(cadence.seconds)
    assert seconds == [0.2, 0.4, 0.5, 0.5, 0.25, 0.125, 0.1]


def test_a_few_records_that_one_call_takes_are_no_backlog() -> None:
    """A record of detect is a batch of rows: twenty that wait behind a commit of two are one call."""
    cadence = Cadence(0.1, 0.5)
    for call, waiting, seconds in ((50, 20, 0.1), (50, 50, 0.1), (50, 51, 0.2), (1, 20, 0.4)):
        cadence.committed(2, waiting, call=call)
        assert cadence.seconds == seconds


@given(st.floats(0.01, 5.0), st.floats(0.01, 5.0), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1_000))))
def test_it_stays_between_its_ends(least: float, most: float, commits: list[tuple[int, int]]) -> None:
    cadence = Cadence(least, most)
    for records, waiting in commits:
        cadence.committed(records, waiting)
        assert least <= cadence.seconds <= max(least, most)
