"""The alerts of a run under faults beside those of the uninterrupted one: in the store, in the topics, for a reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from driftline.schemas.dead_letter import DeadLetter
from driftline.streams.alert.state import AlertState, IncidentState
from driftline.streams.task import MemoryRecord
from tests.chaos.alerts.reference import Expected
from tests.chaos.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Found:
    """What a run left behind.

    Attributes
    ----------
    states : by fingerprint, of the store; incidents by id.
    applied : next offset by partition, of the store.
    outbox : rows that were never published.
    alerts, told, transitions, dead : records that stand, in the order of their offsets within a partition; told = of incidents.
    """

    states: Mapping[str, AlertState]
    incidents: Mapping[str, IncidentState]
    applied: Mapping[int, int | None]
    outbox: int
    alerts: Sequence[MemoryRecord]
    told: Sequence[MemoryRecord]
    transitions: Sequence[MemoryRecord]
    dead: Sequence[MemoryRecord]


def verify(expected: Expected, found: Found) -> dict[str, Verdict]:
    """One verdict on the state, one on what was sent, one on what readers end with."""
    return {"state": _state(expected, found), "sent": _sent(expected, found), "readers": _readers(expected, found)}


def _state(expected: Expected, found: Found) -> Verdict:
    verdict = Verdict(len(expected.states) + len(expected.incidents))
    for fingerprint, state in expected.states.items():
        there = found.states.get(fingerprint)
        if there is None:
            verdict.differs("lost", f"the store has no alert {state.alert.episode}")
        elif _essence(there) != _essence(state):
            verdict.differs("changed", f"{state.alert.episode}/{state.alert.seq} is {there.alert.episode}/{there.alert.seq} in the store")
    for fingerprint in found.states.keys() - expected.states.keys():
        verdict.differs("doubled", f"the store has an alert {found.states[fingerprint].alert.episode} that must not be")
    for id_, incident in expected.incidents.items():
        if id_ not in found.incidents:
            verdict.differs("lost", f"the store has no incident {id_}")
        elif found.incidents[id_] != incident:
            there_seq = found.incidents[id_].incident.seq
            verdict.differs("changed", f"incident {id_} is at {there_seq}, not {incident.incident.seq}, in the store")
    for id_ in found.incidents.keys() - expected.incidents.keys():
        verdict.differs("doubled", f"the store has an incident {id_} that must not be")
    for partition, offset in expected.applied.items():
        if found.applied.get(partition) != offset:
            verdict.differs("changed", f"partition {partition} is applied to {found.applied.get(partition)}, not to {offset}")
    if found.outbox:
        verdict.differs("lost", f"{found.outbox} rows of the outbox were never published")
    return verdict


def _essence(state: AlertState) -> tuple[Any, ...]:
    """All but what is remembered against repeats, which a store filled from the topics remembers otherwise."""
    return state.alert, state.members, state.source, state.offset


def _sent(expected: Expected, found: Found) -> Verdict:
    """Each record at least once; whatever comes again is the same to the byte."""
    wanted = {(_topic(row.topic), dict(row.headers)["ce_id"]): row.value.encode() for row in expected.rows}
    verdict = Verdict(len(wanted) + len(expected.poison))
    seen: set[tuple[str, str]] = set()
    for record in (*found.alerts, *found.told, *found.transitions):
        key = (_topic(record.topic()), _header(record, "ce_id"))
        if key not in wanted:
            verdict.differs("doubled", f"{key[0]} has {key[1]}, which must not be")
        elif record.value() != wanted[key]:
            verdict.differs("changed", f"{key[0]}: {key[1]} has other bytes")
        seen.add(key)
    for topic, id_ in wanted.keys() - seen:
        verdict.differs("lost", f"{topic} has no {id_}")
    letters = [DeadLetter.from_headers(record.headers() or ()) for record in found.dead]
    places = {(letter.partition, letter.offset) for letter in letters}
    for place in expected.poison - places:
        verdict.differs("lost", f"no dead letter of {place}")
    for place in places - expected.poison:
        verdict.differs("doubled", f"a dead letter of {place}, which is no poison")
    return verdict


def _readers(expected: Expected, found: Found) -> Verdict:
    """The last record of each key, as compaction leaves it, and what a reader by the rules of docs/subscribing.md ends with."""
    last = {row.key: orjson.loads(row.value) for row in expected.rows if _topic(row.topic) != "transitions"}
    verdict = Verdict(len(last))
    compacted: dict[str, dict[str, Any]] = {}
    followed: dict[str, dict[str, Any]] = {}
    for record in (*found.alerts, *found.told):
        key, told = (record.key() or b"").decode(), orjson.loads(record.value() or b"null")
        compacted[key] = told
        before = followed.get(key)
        if before is None or _newer(told, before):
            followed[key] = told
    for name, view in (("the compacted topic", compacted), ("a reader", followed)):
        for key, told in last.items():
            if view.get(key) != told:
                there = view.get(key, {})
                verdict.differs("changed", f"{name} ends with {_place(there)}, not {_place(told)}")
    return verdict


def _newer(alert: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Of an alert, or of an incident, which has one episode."""
    if alert.get("episode") == before.get("episode"):
        return bool(alert["seq"] > before["seq"])
    return bool(alert["detected_at_ms"] >= before["detected_at_ms"])


def _place(alert: Mapping[str, Any]) -> str:
    return f"{alert.get('episode') or alert.get('id')}/{alert.get('seq')}"


def _topic(name: str) -> str:
    return name.rpartition(".")[2]


def _header(record: MemoryRecord, name: str) -> str:
    value = dict(record.headers() or ())[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def duplicates(records: Iterable[MemoryRecord]) -> int:
    """Records that came again; that is no fault."""
    ids = [_header(record, "ce_id") for record in records]
    return len(ids) - len(set(ids))
