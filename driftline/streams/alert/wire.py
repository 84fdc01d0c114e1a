"""Alerts, incidents and transitions as records to publish."""

from __future__ import annotations

import re

from driftline.schemas.contracts import cloud_event_headers, encode_event
from driftline.schemas.events import Alert, Incident, Transition
from driftline.schemas.topics import ALERTS, INCIDENTS, TRANSITIONS
from driftline.streams.alert.incidents import listed
from driftline.streams.alert.pipeline import Decision
from driftline.streams.alert.state import AlertState, IncidentState, Source
from driftline.streams.alert.store import OutboxRow

SOURCE_HEADER = "driftline_source"
"""Id of the drift topic, partition and offset of the event behind a record: an emptied store is seeded with it (`recovery.py`).

The offset is -1 where it was an event of another drift topic, before there was this one (`streams/rescale`)."""


_FIRST_INCIDENT = 2
"""After the alert and its transition."""
_SOURCE = re.compile(r"(?P<key>.+/[0-9]{1,10})/(?P<offset>-1|[0-9]{1,18})")


def outbox_rows(decision: Decision, source: Source, *, prefix: str, environment: str) -> list[OutboxRow]:
    """The rows of one decision: the alert, its transition, its incident and the one that it has left."""
    rows = []
    if decision.alert is not None:
        rows.append(_alert_row(decision.alert, source, prefix))
    if decision.transition is not None:
        topic = TRANSITIONS.full_name(prefix)
        transition = decision.transition
        event_id = f"{transition.episode}/{transition.seq}"
        key, order = transition.fingerprint, (source.offset, 1)
        rows.append(_row(transition, event_id, transition.time_ms, topic, key, order, source, environment))
    rows += [incident_row(state, prefix=prefix, place=place) for place, state in enumerate(decision.incidents, _FIRST_INCIDENT)]
    return rows


def state_row(state: AlertState, *, prefix: str) -> OutboxRow:
    """An alert to publish again: the very bytes it was published with."""
    return _alert_row(state.alert, Source.of(state), prefix)


def incident_row(state: IncidentState, *, prefix: str, place: int = _FIRST_INCIDENT) -> OutboxRow:
    """An incident to publish, for the first time or again: the same bytes; `place` among the rows of its event."""
    incident, source = listed(state.incident), Source.of(state)
    topic, event_id = INCIDENTS.full_name(prefix), f"{incident.id}/{incident.seq}"
    return _row(incident, event_id, _moment(incident), topic, incident.id, (source.offset, place), source, incident.environment)


def source_offset(header: bytes) -> tuple[str, int]:
    """`Source.key` and offset of a `SOURCE_HEADER`.

    Raises
    ------
    ValueError : not a header this module wrote.
    """
    found = _SOURCE.fullmatch(header.decode())
    if found is None:
        raise ValueError(f"expected a topic, a partition and an offset in {SOURCE_HEADER}, got {header[:80]!r}")
    return found["key"], int(found["offset"])


def _alert_row(alert: Alert, source: Source, prefix: str) -> OutboxRow:
    topic, event_id = ALERTS.full_name(prefix), f"{alert.episode}/{alert.seq}"
    return _row(alert, event_id, _moment(alert), topic, alert.fingerprint, (source.offset, 0), source, alert.environment)


def _moment(told: Alert | Incident) -> int:
    return told.ends_at_ms if told.ends_at_ms is not None else told.observed_at_ms


def _row(
    event: Alert | Incident | Transition, event_id: str, time_ms: int, topic: str, key: str, order: tuple[int, int], source: Source,
    environment: str,
) -> OutboxRow:  # fmt: skip
    attributes = cloud_event_headers(event, id=event_id, source=f"/driftline/{environment}", subject=event.model, time_ms=time_ms)
    headers = (*((name, value.decode()) for name, value in attributes), (SOURCE_HEADER, f"{source.key}/{source.offset}"))
    return OutboxRow(order=order, topic=topic, key=key, value=encode_event(event).decode(), headers=headers)
