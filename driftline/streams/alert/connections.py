"""Clients of the alert app: librdkafka for what it writes and asks; aiokafka, which Faust brings, reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from driftline.schemas.config import Kafka
from driftline.schemas.dead_letter import dead_letter
from driftline.schemas.topics import DEAD_LETTERS
from driftline.streams.alert.store import OutboxRow
from driftline.streams.errors import KafkaAwayError, OutputError
from driftline.streams.kafka import log_client_error, make_consumer, producer_properties
from driftline.streams.task import Record

log = logging.getLogger(__name__)

# Not "unknown topic": topics were there at the start, and a client whose broker is away says so too.
_NEVER = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.TOPIC_AUTHORIZATION_FAILED)
DELIVERY_SECONDS = 60
ANSWER_SECONDS = 10
_OVERHEAD_BYTES = 512
"""Of a record batch with one record; the topic's limit is on batches."""


class KafkaPublisher:
    """Publishes with an idempotent producer and returns when every record is acknowledged."""

    def __init__(self, kafka: Kafka, *, prefix: str) -> None:
        self._dead_letters = DEAD_LETTERS.full_name(prefix)
        # each event is awaited: a linger would only be added to its delay
        self._properties = {**producer_properties(kafka), "linger.ms": 0, "delivery.timeout.ms": DELIVERY_SECONDS * 1000}
        self._producer = self._make()

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        """Deliver the rows, in order within a key.

        Raises
        ------
        KafkaAwayError : Kafka did not take all of them in time; publishing again is harmless.
        OutputError : Kafka will never take one of them.
        """
        self._deliver(
            (row.topic, row.key.encode(), row.value.encode(), [(name, value.encode()) for name, value in row.headers]) for row in rows
        )

    def dead_letter(self, record: Record, *, error: str) -> None:
        """Deliver a record that is no drift event to the dead-letter topic; raises as `publish` does."""
        limit = DEAD_LETTERS.max_message_bytes - _OVERHEAD_BYTES
        key, value, headers = dead_letter(record, stage="alert", reason="invalid", error=error, limit_bytes=limit)
        self._deliver([(self._dead_letters, key, value, list(headers))])

    def close(self) -> None:
        self._producer.flush(ANSWER_SECONDS)

    def _make(self) -> Producer:
        settings: dict[str, Any] = {**self._properties, "error_cb": log_client_error, "logger": log}
        return Producer(settings)

    def _deliver(self, records: Iterable[tuple[str, bytes | None, bytes | None, list[tuple[str, str | bytes | None]]]]) -> None:
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        for topic, key, value, headers in records:
            while True:
                try:
                    self._producer.produce(topic, key=key, value=value, headers=headers, on_delivery=delivered)
                except BufferError:
                    self._producer.poll(0.1)
                    continue
                except KafkaException as error:
                    failures.append(error.args[0])
                break
        if self._producer.flush(DELIVERY_SECONDS + ANSWER_SECONDS) > 0:
            raise KafkaAwayError("Kafka did not acknowledge what the alert app published")
        if failures:
            if any(error.fatal() for error in failures):
                self._producer = self._make()   # this one takes nothing any more
            _raise(failures[0])


class EndOffsets:
    """Asks for the ends of partitions as a committed reader sees them; belongs to one thread and joins no group."""

    def __init__(self, kafka: Kafka, group: str) -> None:
        self._consumer = make_consumer(kafka, group)

    def __call__(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """End offset by partition (the last stable offset).

        Raises
        ------
        KafkaAwayError : no answer in time.
        """
        try:
            return {
                number: self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_SECONDS, cached=False)[1]
                for number in partitions
            }
        except KafkaException as error:
            raise KafkaAwayError(f'no end offsets of "{topic}": {error.args[0].str()}') from error

    def close(self) -> None:
        self._consumer.close()


def _raise(error: KafkaError) -> None:
    if error.code() in _NEVER:
        raise OutputError(f"Kafka refused a record of the alert app: {error.str()}")
    raise KafkaAwayError(f"Kafka did not take a record of the alert app: {error.str()}")
