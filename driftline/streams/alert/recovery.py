"""An empty store is filled again from the alerts topic, before the drift topic is read from its start.

The drift topic forgets after its retention, the compacted alerts topic does not: an alert that has been open for two
months survives the loss of Redis. Each record names the drift event behind it, so what is read again changes nothing.
"""

from __future__ import annotations

import logging
import time

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from driftline.schemas.config import Kafka
from driftline.schemas.contracts import ContractError, decode
from driftline.schemas.events import Alert
from driftline.schemas.topics import ALERTS
from driftline.streams.alert.connections import ANSWER_SECONDS
from driftline.streams.alert.state import AlertState, Member
from driftline.streams.alert.wire import SOURCE_HEADER, source_offset
from driftline.streams.errors import KafkaAwayError
from driftline.streams.kafka import consumer_properties

log = logging.getLogger(__name__)

SILENCE_SECONDS = 30


def published_states(kafka: Kafka, *, group: str, prefix: str) -> dict[str, AlertState]:
    """The last published state of every alert, by fingerprint; empty when the topic is.

    Raises
    ------
    KafkaAwayError : Kafka stopped answering before the end of the topic.
    """
    topic = ALERTS.full_name(prefix)
    consumer = Consumer({**consumer_properties(kafka, group), "auto.offset.reset": "earliest", "logger": log})
    states: dict[str, AlertState] = {}
    try:
        unread = set(consumer.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unread])
        last_answer = time.monotonic()
        while unread:
            messages = consumer.consume(1000, 0.2)
            for message in messages:
                error = message.error()
                if error is None:
                    _take(message, states)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
            last_answer = time.monotonic() if messages else last_answer
            if time.monotonic() - last_answer > SILENCE_SECONDS:
                raise KafkaAwayError(f'the end of "{topic}" was not reached: no record for {SILENCE_SECONDS} s')
    except KafkaException as error:
        raise KafkaAwayError(f'"{topic}" cannot be read: {error.args[0].str()}') from error
    finally:
        consumer.close()
    return states


def state_of(alert: Alert, key: str, offset: int) -> AlertState:
    """The state behind a published alert: its evidence names the episodes that are open under it."""
    members = msgspec.convert(alert.evidence.get("open_episodes", []), tuple[Member, ...])
    return AlertState(alert=alert, members=members if alert.condition == "firing" else (), source=key, offset=offset)


def _take(message: Message, states: dict[str, AlertState]) -> None:
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
