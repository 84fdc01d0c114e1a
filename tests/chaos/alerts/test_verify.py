"""The verifier is worth something: what is lost, doubled or changed among alerts is found, and what is allowed is not."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec import structs

from driftline.schemas.dead_letter import dead_letter
from driftline.streams.alert.state import AlertState, IncidentState
from driftline.streams.alert.store import OutboxRow
from driftline.streams.alert.worker import Names
from driftline.streams.task import MemoryRecord
from tests.chaos.alerts.events import DriftStream
from tests.chaos.alerts.reference import Expected, uninterrupted
from tests.chaos.alerts.verify import Found, verify

TRANSACTIONS = 120
Records = Sequence[MemoryRecord]


@pytest.fixture(scope="module")
def expected() -> Expected:
    batches = itertools.islice(DriftStream(7), TRANSACTIONS)
    sent = [record for batch in batches if not batch.aborted for record in batch.records]
    drift = [MemoryRecord("t.drift", 0, offset, one.key.encode(), one.value, 0, one.headers) for offset, one in enumerate(sent)]
    return uninterrupted(drift, Names("chaos", "t", "topic-id"))


@pytest.fixture
def found(expected: Expected) -> Found:
    """What the uninterrupted run itself leaves behind."""
    letters = [(partition, offset, dead_letter_headers(partition, offset)) for partition, offset in sorted(expected.poison)]
    return Found(
        states=dict(expected.states),
        incidents=dict(expected.incidents),
        applied=dict(expected.applied),
        outbox=0,
        alerts=records([row for row in expected.rows if row.topic == "t.alerts"]),
        told=records([row for row in expected.rows if row.topic == "t.incidents"]),
        transitions=records([row for row in expected.rows if row.topic == "t.transitions"]),
        dead=[MemoryRecord("t.dlq", 0, number, None, b"", 0, headers) for number, (_, _, headers) in enumerate(letters)],
    )


def records(rows: Sequence[OutboxRow]) -> list[MemoryRecord]:
    found = []
    for offset, row in enumerate(rows):
        headers = tuple((name, text.encode()) for name, text in row.headers)
        found.append(MemoryRecord(row.topic, 0, offset, row.key.encode(), row.value.encode(), 0, headers))
    return found


def dead_letter_headers(partition: int, offset: int) -> tuple[tuple[str, bytes], ...]:
    record = MemoryRecord("t.drift", partition, offset, None, b"{poison", 0)
    return tuple(dead_letter(record, stage="alert", reason="invalid", error="no JSON", limit_bytes=1 << 20)[2])


def result(expected: Expected, found: Found) -> dict[str, tuple[int, int, int]]:
    return {name: (one.lost, one.doubled, one.changed) for name, one in verify(expected, found).items()}


CLEAN = (0, 0, 0)


def test_the_uninterrupted_run_differs_from_itself_in_nothing(expected: Expected, found: Found) -> None:
    assert set(result(expected, found).values()) == {CLEAN}
    assert min(len(expected.states), len(expected.incidents), len(expected.rows), len(expected.poison)) > 3


def test_what_is_sent_again_is_no_difference(expected: Expected, found: Found) -> None:
    again = dataclasses.replace(
        found, alerts=[*found.alerts, *found.alerts[-20:]], transitions=[*found.transitions[:9], *found.transitions[3:]]
    )
    assert result(expected, again)["sent"] == CLEAN


def _bit(record: MemoryRecord) -> MemoryRecord:
    value = bytearray(record.value() or b"")
    at = value.index(b"summary") if b"summary" in value else value.index(b"model")
    value[at + 11] ^= 1
    return dataclasses.replace(record, value_=bytes(value))


def _with_an_older_one(found: Found) -> dict[str, AlertState]:
    key, state = next(iter(found.states.items()))
    return {**found.states, key: structs.replace(state, offset=state.offset - 1)}


def _with_an_older_incident(found: Found) -> dict[str, IncidentState]:
    key, state = next(iter(found.incidents.items()))
    return {**found.incidents, key: structs.replace(state, offset=state.offset - 1)}


TAMPERED: dict[str, tuple[str, str, Callable[[Found], dict[str, Any]]]] = {
    "an alert is not in the store": ("state", "lost", lambda f: {"states": dict(list(f.states.items())[1:])}),
    "an alert too many is in the store": ("state", "doubled", lambda f: {"states": {**f.states, "f": next(iter(f.states.values()))}}),
    "an alert in the store is older": ("state", "changed", lambda f: {"states": _with_an_older_one(f)}),
    "an incident is not in the store": ("state", "lost", lambda f: {"incidents": dict(list(f.incidents.items())[1:])}),
    "an incident in the store is older": ("state", "changed", lambda f: {"incidents": _with_an_older_incident(f)}),
    "an incident is not sent": ("sent", "lost", lambda f: {"told": f.told[1:]}),
    "an older incident is the last of its key": ("readers", "changed", lambda f: {"told": [*f.told, _older(f.told)]}),
    "an event is not applied": ("state", "changed", lambda f: {"applied": {0: (f.applied[0] or 0) - 1}}),
    "a row was never published": ("state", "lost", lambda _: {"outbox": 1}),
    "an alert is not sent": ("sent", "lost", lambda f: {"alerts": f.alerts[1:]}),
    "a transition is not sent": ("sent", "lost", lambda f: {"transitions": f.transitions[:-1]}),
    "one bit of an alert is another": ("sent", "changed", lambda f: {"alerts": [_bit(f.alerts[0]), *f.alerts[1:]]}),
    "one bit of a transition is another": ("sent", "changed", lambda f: {"transitions": [_bit(f.transitions[0]), *f.transitions[1:]]}),
    "a dead letter is missing": ("sent", "lost", lambda f: {"dead": f.dead[1:]}),
    "an older alert is the last of its key": ("readers", "changed", lambda f: {"alerts": [*f.alerts, _older(f.alerts)]}),
}  # fmt: skip


def _older(alerts: Records) -> MemoryRecord:
    """The first record of a key that has more."""
    return next(one for n, one in enumerate(alerts) if any(other.key() == one.key() for other in alerts[n + 1 :]))


@pytest.mark.parametrize("what", TAMPERED)
def test_a_difference_is_found_where_it_is(expected: Expected, found: Found, what: str) -> None:
    where, kind, change = TAMPERED[what]
    verdict = verify(expected, dataclasses.replace(found, **change(found)))[where]
    assert getattr(verdict, kind) >= 1
    assert verdict.notes
