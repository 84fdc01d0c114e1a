"""What is kept of one alert between drift events; stored as JSON, so that any language can read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from driftline.schemas.events import Alert, Severity
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


@dataclass(frozen=True, slots=True)
class Source:
    """Where a drift event was read: our own drift topic, by its id, as a recreated topic starts its offsets anew."""

    topic_id: str
    partition: int
    offset: int

    @property
    def key(self) -> str:
        return f"{self.topic_id}/{self.partition}"


_PLACE = re.compile(r".*/\d{1,10}", re.DOTALL)
REPAIR = "stop the alert processor and delete its keys in Redis (those that contain \":alert}\"): it fills them again from its topics"
"""What to do about a damaged store: everything in it stands in Kafka, too."""

_DECODER = msgspec.json.Decoder(AlertState)
_ENCODER = msgspec.json.Encoder()


def encode_state(state: AlertState) -> bytes:
    return _ENCODER.encode(state)


def decode_state(raw: bytes) -> AlertState:
    """The state in `raw`.

    Raises
    ------
    StateError : not a state that this version wrote.
    """
    try:
        state = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f"alert store: the state of an alert is damaged: {error}", hint=REPAIR) from error
    if state.source and not _PLACE.fullmatch(state.source):
        raise StateError(f"alert store: the state of an alert names no partition: {state.source[:40]!r}", hint=REPAIR)
    return state
