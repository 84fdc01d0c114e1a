"""An empty store is filled again from the alerts topic, before the drift topic is read from its start.

The drift topic forgets after its retention, the compacted alerts topic does not: an alert that has been open for two
months survives the loss of Redis. Each record names the drift event behind it, so what is read again changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from driftline.schemas.contracts import ContractError, decode
from driftline.schemas.events import Alert
from driftline.schemas.topics import ALERTS
from driftline.streams.alert.connections import ANSWER_SECONDS
from driftline.streams.alert.state import AlertState, Member
from driftline.streams.alert.wire import SOURCE_HEADER, source_offset

log = logging.getLogger(__name__)


def published_states(properties: Mapping[str, Any], *, group: str, prefix: str) -> dict[str, AlertState]:
    """The last published state of every alert, by fingerprint; empty when the topic is."""
    topic = ALERTS.full_name(prefix)
    consumer = Consumer({
        **properties, "group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "earliest"
    })
    states: dict[str, AlertState] = {}
    try:
        found = consumer.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
        ends = {}
        for number in found.partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_SECONDS, cached=False)
            if high > low:
                ends[number] = high
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in ends])
        while ends:
            messages = consumer.consume(1000, 1.0)
            for message in messages:
                _take(message, states)
            for place in consumer.position([TopicPartition(topic, number) for number in ends]):
                if place.offset >= ends[place.partition]:
                    del ends[place.partition]
    finally:
        consumer.close()
    return states


def state_of(alert: Alert, key: str, offset: int) -> AlertState:
    """The state behind a published alert: its evidence names the episodes that are open under it."""
    members = msgspec.convert(alert.evidence.get("open_episodes", []), tuple[Member, ...])
    return AlertState(alert=alert, members=members if alert.condition == "firing" else (), source=key, offset=offset)


def _take(message: Message, states: dict[str, AlertState]) -> None:
    if message.error() is not None:
        return
    headers: list[tuple[str, bytes]] = message.headers() or []   # type: ignore[assignment]  # it types what it sends, too
    try:
        alert = decode("alerts", message.value(), headers)
        assert isinstance(alert, Alert)
        key, offset = source_offset(dict(headers)[SOURCE_HEADER])
        state = state_of(alert, key, offset)
    except (ContractError, msgspec.ValidationError, KeyError, ValueError) as error:
        log.warning("alert_record_unusable offset=%s reason=%s", message.offset(), error)
        return
    known = states.get(alert.fingerprint)
    if known is None or known.source != key or known.offset <= offset:
        states[alert.fingerprint] = state
