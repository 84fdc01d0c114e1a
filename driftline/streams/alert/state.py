"""What is kept of alerts and incidents between drift events; stored as JSON, so that any language can read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from driftline.schemas.events import Alert, Incident, Severity
from driftline.streams.errors import StateError

SEEN_MAX = 128
"""Drift event ids remembered of one alert: a producer's repeat comes within a batch, not after a hundred events."""
CLOSED_MAX = 16


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One open episode of the detectors.

    The fingerprint has no version, so two versions of a model may be open under one alert at the same time:
    the alert resolves when the last of them does.
    """

    episode: str
    version: str | None
    severity: Severity
    since_ms: int
    evidence: dict[str, Any] = {}
    """The figures of the drift event that set `severity`."""


class AlertState(msgspec.Struct, frozen=True, kw_only=True):
    """An alert, what is open under it, and what it has seen."""

    alert: Alert
    members: tuple[Member, ...] = ()
    closed: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    source: str = ""
    """Partition of the drift topic whose events change it, as `Source.key` writes it."""
    offset: int = -1
    """Offset of the last drift event that changed it, in `source`."""


class IncidentState(msgspec.Struct, frozen=True, kw_only=True):
    """An incident with every alert that is in it."""

    incident: Incident
    source: str = ""
    """Partition of the drift topic whose events change it, as `Source.key` writes it."""
    offset: int = -1
    """Offset of the last drift event that changed it, in `source`."""


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """The incidents of one model that an alert may belong to: those that are not resolved.

    After the store was filled from the topics also those that are resolved by events which the alerts have yet to take.
    """

    incidents: tuple[IncidentState, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a drift event was read: our own drift topic, by its id, as a recreated topic starts its offsets anew."""

    topic_id: str
    partition: int
    offset: int

    @classmethod
    def of(cls, state: AlertState | IncidentState) -> Source:
        """Of the last drift event that changed what is stored."""
        topic_id, _, partition = state.source.rpartition("/")
        return cls(topic_id, int(partition), state.offset)

    @property
    def key(self) -> str:
        return f"{self.topic_id}/{self.partition}"


_PLACE = re.compile(r".*/\d{1,10}", re.DOTALL)
REPAIR = "stop the alert processor and delete its keys in Redis (those that contain \":alert}\"): it fills them again from its topics"
"""What to do about a damaged store: everything in it stands in Kafka, too."""

_State = TypeVar("_State", AlertState, IncidentState, Book)
_DECODER = msgspec.json.Decoder(AlertState)
_BOOK_DECODER = msgspec.json.Decoder(Book)
_INCIDENT_DECODER = msgspec.json.Decoder(IncidentState)
_ENCODER = msgspec.json.Encoder()


def encode_state(state: AlertState | IncidentState | Book) -> bytes:
    return _ENCODER.encode(state)


def decode_state(raw: bytes) -> AlertState:
    """The state in `raw`.

    Raises
    ------
    StateError : not a state that this version wrote.
    """
    state = _decoded(_DECODER, raw, "the state of an alert")
    _check_place(state.source, "an alert")
    return state


def decode_incident(raw: bytes) -> IncidentState:
    """The state in `raw`; StateError as `decode_state`."""
    state = _decoded(_INCIDENT_DECODER, raw, "the state of an incident")
    _check_place(state.source, "an incident")
    return state


def decode_book(raw: bytes) -> Book:
    """The incidents in `raw`; StateError as `decode_state`."""
    book = _decoded(_BOOK_DECODER, raw, "the incidents of a model")
    for state in book.incidents:
        _check_place(state.source, "an incident")
    return book


def _decoded(decoder: msgspec.json.Decoder[_State], raw: bytes, what: str) -> _State:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f"alert store: {what} is damaged: {error}", hint=REPAIR) from error


def _check_place(source: str, what: str) -> None:
    if source and not _PLACE.fullmatch(source):
        raise StateError(f"alert store: the state of {what} names no partition: {source[:40]!r}", hint=REPAIR)
