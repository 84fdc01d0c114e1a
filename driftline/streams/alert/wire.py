"""Alerts and transitions as records to publish."""

from __future__ import annotations

from driftline.schemas.contracts import cloud_event_headers, encode_event
from driftline.schemas.events import Alert, Transition
from driftline.schemas.topics import ALERTS, TRANSITIONS
from driftline.streams.alert.pipeline import Decision
from driftline.streams.alert.state import AlertState, Source
from driftline.streams.alert.store import OutboxRow

SOURCE_HEADER = "driftline_source"
"""Id of the drift topic, partition and offset of the event behind a record: an emptied store is seeded with it (`recovery.py`)."""


def outbox_rows(decision: Decision, source: Source, *, prefix: str, environment: str) -> list[OutboxRow]:
    """The rows of one decision, in the order they are published: the alert, then its transition."""
    rows = []
    if decision.alert is not None:
        rows.append(_alert_row(decision.alert, source, prefix))
    if decision.transition is not None:
        topic = TRANSITIONS.full_name(prefix)
        rows.append(_row(decision.transition, decision.transition.time_ms, topic, (source.offset, 1), source, environment))
    return rows


def state_row(state: AlertState, *, prefix: str) -> OutboxRow:
    """An alert to publish again: the very bytes it was published with."""
    topic_id, _, partition = state.source.rpartition("/")
    return _alert_row(state.alert, Source(topic_id, int(partition), state.offset), prefix)


def source_offset(header: bytes) -> tuple[str, int]:
    """`Source.key` and offset of a `SOURCE_HEADER`.

    Raises
    ------
    ValueError : not a header this module wrote.
    """
    key, _, offset = header.decode().rpartition("/")
    return key, int(offset)


def _alert_row(alert: Alert, source: Source, prefix: str) -> OutboxRow:
    time_ms = alert.ends_at_ms if alert.ends_at_ms is not None else alert.observed_at_ms
    return _row(alert, time_ms, ALERTS.full_name(prefix), (source.offset, 0), source, alert.environment)


def _row(event: Alert | Transition, time_ms: int, topic: str, order: tuple[int, int], source: Source, environment: str) -> OutboxRow:
    attributes = cloud_event_headers(
        event, id=f"{event.episode}/{event.seq}", source=f"/driftline/{environment}", subject=event.model, time_ms=time_ms
    )
    headers = (*((name, value.decode()) for name, value in attributes), (SOURCE_HEADER, f"{source.key}/{source.offset}"))
    return OutboxRow(order=order, topic=topic, key=event.fingerprint, value=encode_event(event).decode(), headers=headers)
