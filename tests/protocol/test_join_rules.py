"""Rule 15, visibility: a label that only an aborted attempt has read is not there.

A label's time is no earlier than what its source had passed (16), so a label that comes after the decision is late
anyway; where blocks were written without that, visibility alone keeps the outcome what it was.
"""

from __future__ import annotations

import pytest

from driftline.streams.join import task
from driftline.streams.join.decide import Window
from tests.join.logs import Join, Logs


def outcomes(logs: Logs, *, aborted: bool) -> list[tuple[int, float | str | None, int]]:
    """Decide after the second label block; `aborted`: an attempt before had read all of them."""
    join = Join().read(logs, waiting=0, labels=1).commit()
    if aborted:
        join.read(logs, waiting=0)
        join.open()
    join.read(logs, labels=1)
    return join.read(logs.end()).rows()


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Logs:
    """A prediction of age at a tick, and a label from before that tick in the block after it."""
    monkeypatch.setattr(Logs, "_seen", lambda self, source, times: times)
    return Logs().tick(1.0).predict(("p", 0.0)).tick(10.001).label(("p", 10.0, 1))


def test_a_label_of_an_aborted_attempt_changes_no_outcome(logs: Logs) -> None:
    assert outcomes(logs, aborted=True) == outcomes(logs, aborted=False)


def test_without_visibility_it_does(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outcomes(logs, aborted=False)
    monkeypatch.setattr(task, "Window", lambda records, age, start, _next, models: Window(records, age, start, 1 << 62, models))
    assert outcomes(logs, aborted=True) != expected
