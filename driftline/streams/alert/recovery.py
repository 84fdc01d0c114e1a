"""An empty store is filled again from the topics of alerts and incidents, before the drift topic is read from its start.

The drift topic forgets after its retention, the compacted topics do not: an alert that has been open for two months
survives the loss of Redis. Each record names the drift event behind it, so what is read again changes nothing.

An incident is published before the alert whose event changed it, so it may stand after events that its alerts have yet to
take: they then find it as it will be, and only add themselves to its list (`incidents.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import structs

from driftline.schemas.config import Kafka
from driftline.schemas.contracts import ContractError, decode
from driftline.schemas.events import Alert, Incident
from driftline.schemas.topics import ALERTS, INCIDENTS
from driftline.streams.alert.blame import blamed_of, place_of
from driftline.streams.alert.connections import ANSWER_SECONDS
from driftline.streams.alert.incidents import book_key
from driftline.streams.alert.state import AlertState, Book, IncidentState, Member
from driftline.streams.alert.store import Published
from driftline.streams.alert.wire import SOURCE_HEADER, source_offset
from driftline.streams.errors import KafkaAwayError
from driftline.streams.kafka import consumer_properties

log = logging.getLogger(__name__)

SILENCE_SECONDS = 30


@dataclass(slots=True)
class _Last:
    """The last published state of every alert by fingerprint, and of every incident by id."""

    alerts: dict[str, AlertState] = field(default_factory=dict)
    incidents: dict[str, IncidentState] = field(default_factory=dict)


def published(kafka: Kafka, *, group: str, prefix: str) -> Published:
    """What the topics say of alerts and incidents; nothing where they are empty.

    Raises
    ------
    KafkaAwayError : Kafka stopped answering before the end of a topic.
    """
    last = _Last()
    consumer = Consumer({**consumer_properties(kafka, group), "auto.offset.reset": "earliest", "logger": log})
    try:
        for topic, take in ((ALERTS, _take_alert), (INCIDENTS, _take_incident)):
            _read(consumer, topic.full_name(prefix), lambda message, take=take: _take(message, take, last))   # type: ignore[misc]
    finally:
        consumer.close()
    return contents(last.alerts, last.incidents)


def contents(alerts: Mapping[str, AlertState], incidents: Mapping[str, IncidentState]) -> Published:
    """What a store holds of these alerts and incidents, by fingerprint and id.

    An incident is published with the first of its alerts; the others name it themselves.
    """
    members: dict[str, list[Alert]] = {}
    newest: dict[tuple[str, str], int] = {}
    for state in alerts.values():
        alert = state.alert
        place = (state.source, book_key(alert.environment, alert.model))
        newest[place] = max(newest.get(place, -1), state.offset)
        if alert.incident is not None:
            members.setdefault(alert.incident, []).append(alert)
    books: dict[str, Book] = {}
    for last in sorted(incidents.values(), key=lambda last: (last.incident.starts_at_ms, last.incident.id)):
        incident = last.incident
        key = book_key(incident.environment, incident.model)
        # What has resolved with an event that no alert of the model has taken: those to come belong to it.
        if incident.condition == "firing" or last.offset > newest.get((last.source, key), -1):
            whole = structs.replace(last, incident=_whole(incident, members.get(incident.id, ())))
            books[key] = Book(incidents=(*books.get(key, Book()).incidents, whole))
    ended = [last for last in incidents.values() if last.incident.condition == "resolved"]
    return Published(alerts, books, ended)


def state_of(alert: Alert, key: str, offset: int) -> AlertState:
    """The state behind a published alert: its evidence names the episodes that are open under it."""
    members = msgspec.convert(alert.evidence.get("open_episodes", []), tuple[Member, ...])
    return AlertState(alert=alert, members=members if alert.condition == "firing" else (), source=key, offset=offset)


def _whole(incident: Incident, alerts: Iterable[Alert]) -> Incident:
    listed = {one.fingerprint for one in incident.blamed}
    blamed = [*incident.blamed, *(blamed_of(alert) for alert in alerts if alert.fingerprint not in listed)]
    return structs.replace(incident, blamed=sorted(blamed, key=place_of), more=0)


def _read(consumer: Consumer, topic: str, take: Callable[[Message], None]) -> None:
    """Read a topic from its beginning to its end of now."""
    try:
        unread = set(consumer.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unread])
        last_answer = time.monotonic()
        while unread:
            messages = consumer.consume(1000, 0.2)
            for message in messages:
                error = message.error()
                if error is None:
                    take(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
            last_answer = time.monotonic() if messages else last_answer
            if time.monotonic() - last_answer > SILENCE_SECONDS:
                raise KafkaAwayError(f'the end of "{topic}" was not reached: no record for {SILENCE_SECONDS} s')
    except KafkaException as error:
        raise KafkaAwayError(f'"{topic}" cannot be read: {error.args[0].str()}') from error


def _take(message: Message, take: Callable[[Message, str, int, _Last], None], last: _Last) -> None:
    headers: list[tuple[str, bytes]] = message.headers() or []   # type: ignore[assignment]  # it types what it sends, too
    try:
        key, offset = source_offset(dict(headers)[SOURCE_HEADER])
        take(message, key, offset, last)
    except (ContractError, msgspec.ValidationError, KeyError, ValueError) as error:
        log.warning("alert_record_unusable topic=%s offset=%s reason=%r", message.topic(), message.offset(), str(error))


def _take_alert(message: Message, key: str, offset: int, last: _Last) -> None:
    alert = decode("alerts", message.value(), message.headers())   # type: ignore[arg-type]  # it types what it sends, too
    assert isinstance(alert, Alert)
    known = last.alerts.get(alert.fingerprint)
    if known is None or known.source != key or known.offset <= offset:
        last.alerts[alert.fingerprint] = state_of(alert, key, offset)


def _take_incident(message: Message, key: str, offset: int, last: _Last) -> None:
    incident = decode("incidents", message.value(), message.headers())   # type: ignore[arg-type]  # as above
    assert isinstance(incident, Incident)
    known = last.incidents.get(incident.id)
    if known is None or known.source != key or known.offset <= offset:
        last.incidents[incident.id] = IncidentState(incident=incident, source=key, offset=offset)
