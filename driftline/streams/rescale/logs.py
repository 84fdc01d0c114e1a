"""The old topics, read to their ends side by side, and the new ones, written in transactions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from driftline.schemas.config import Kafka
from driftline.streams.errors import AwayError, SetupError
from driftline.streams.join.before import WRITTEN_HEADER
from driftline.streams.kafka import RIGHTS_HINT, consumer_properties, from_kafka, needs_a_person, producer_properties
from driftline.streams.runner.failpoint import RESCALE_STEPS, Failpoints
from driftline.streams.task import PartitionId, Record

MARK: Final = WRITTEN_HEADER
"""The header of every record that is written here; one that was carried over before goes on with the time it had."""
AGAIN: Final = "begin `driftline state rescale` again: what an attempt that broke off has written is removed first"
_AHEAD_BYTES_MAX: Final = 4 << 20
_SILENCE_SECONDS: Final = 60.0
_COMMIT_BYTES: Final = 8 << 20
_COMMIT_SECONDS: Final = 2.0
_CALL_SECONDS: Final = 10.0
_INIT_SECONDS: Final = 60.0
_BY_KEY: Final = -1


def quiet(properties: dict[str, object]) -> dict[str, object]:
    """Errors come back from the calls; the client's own log would repeat them."""
    return {**properties, "log_level": 2, "error_cb": lambda _error: None}


def read_side_by_side(kafka: Kafka, group: str, topic: str, starts: Mapping[int, int]) -> Iterator[Record]:
    """The records of partitions from these offsets to their ends, about in the order in which they were written.

    What is read ahead of the slowest partition is bounded.

    Raises
    ------
    AwayError : Kafka stopped answering before the end.
    """
    consumer = Consumer(quiet(consumer_properties(kafka.model_copy(update={"group_protocol": "classic"}), group)))
    held: dict[int, deque[Message]] = {partition: deque() for partition in starts}
    ahead = dict.fromkeys(starts, 0)
    open_, paused = set(starts), set[int]()
    heard = time.monotonic()
    try:
        consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
        while open_ or any(held.values()):
            if all(held[partition] for partition in open_):
                first = min((queue[0].timestamp()[1], partition) for partition, queue in held.items() if queue)[1]
                message = held[first].popleft()
                ahead[first] -= len(message.value() or b"")
                if first in paused and ahead[first] < _AHEAD_BYTES_MAX // 2:
                    consumer.resume([TopicPartition(topic, first)])
                    paused.discard(first)
                yield cast("Record", message)
                heard = time.monotonic()
                continue
            for message in consumer.consume(1_000, 0.2):
                heard = time.monotonic()
                _sort_in(message, held, ahead, open_)
            full = [p for p in open_ - paused if ahead[p] >= _AHEAD_BYTES_MAX]
            consumer.pause([TopicPartition(topic, partition) for partition in full])
            paused.update(full)
            if time.monotonic() - heard > _SILENCE_SECONDS:
                raise AwayError(f'kafka: "{topic}" was not read to its end: no answer for {_SILENCE_SECONDS:.0f} s', hint=AGAIN)
    finally:
        consumer.close()


def _sort_in(message: Message, held: dict[int, deque[Message]], ahead: dict[int, int], open_: set[int]) -> None:
    error, partition = message.error(), message.partition() or 0
    if error is None:
        held[partition].append(message)
        ahead[partition] += len(message.value() or b"")
    elif error.code() == KafkaError._PARTITION_EOF:
        open_.discard(partition)
    elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
        raise from_kafka(KafkaException(error))


class Sink(Protocol):
    """Takes records for the new topics."""

    def send(
        self, topic: str, value: bytes | None, *, partition: int | None = None, key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:  # fmt: skip
        """Write a record; it counts once `finish` has returned. Without a partition its key decides."""

    def finish(self) -> None:
        """Return when what was sent stands."""


class Carrier:
    """Records into the new topics; use as a context manager.

    It takes a transactional id: what an earlier attempt still has open ends with this one's beginning, and that attempt, should
    it live, can write no more.
    """

    def __init__(self, kafka: Kafka, transactional_id: str) -> None:
        self._kafka, self._id = kafka, transactional_id
        self._failpoints = Failpoints(steps=RESCALE_STEPS)
        self._producer: Producer | None = None
        self._refused: KafkaError | None = None
        self._begun_at: float | None = None
        self._bytes = 0
        self.records = 0
        self.next_offsets: dict[PartitionId, int] = {}
        """Of each partition that was written: the offset after the last record."""

    def __enter__(self) -> Carrier:
        self._producer = Producer(quiet(producer_properties(self._kafka, transactional_id=self._id)))
        deadline = time.monotonic() + _INIT_SECONDS
        while True:
            try:
                self._producer.init_transactions(_CALL_SECONDS)
                return self
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise from_kafka(error) from error

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and kind is not None and self._begun_at is not None:
            producer.purge()
            # Otherwise it ends with its timeout, or with the next attempt.
            with suppress(KafkaException):
                producer.abort_transaction(_CALL_SECONDS)

    def send(
        self, topic: str, value: bytes | None, *, partition: int | None = None, key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:  # fmt: skip
        """As `Sink.send`.

        Raises
        ------
        AwayError : Kafka does not take records.
        """
        producer = self._open()
        sent: list[tuple[str, str | bytes | None]] = [*headers]
        deadline = time.monotonic() + _CALL_SECONDS
        while True:
            try:
                producer.produce(topic, value, key, _BY_KEY if partition is None else partition, headers=sent, on_delivery=self._delivered)
                break
            except BufferError:
                producer.poll(0.05)
                if time.monotonic() > deadline:
                    raise AwayError("kafka: records are not taken off the local queue; is the broker away?", hint=AGAIN) from None
            except KafkaException as error:
                raise self._failure(error) from error
        producer.poll(0)
        self.records += 1
        self._bytes += len(value or b"")
        if self._bytes >= _COMMIT_BYTES or time.monotonic() - (self._begun_at or 0.0) >= _COMMIT_SECONDS:
            self.finish()

    def finish(self) -> None:
        """As `Sink.finish`.

        Raises
        ------
        AwayError : it is not known to stand.
        """
        if self._begun_at is None:
            return
        producer = self._open()
        try:
            producer.commit_transaction(_CALL_SECONDS * 3)
        except KafkaException as error:
            raise self._failure(error) from error
        self._begun_at, self._bytes = None, 0
        self._failpoints.reach("rescale_committed")

    def _open(self) -> Producer:
        assert self._producer is not None
        if self._begun_at is None:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                raise self._failure(error) from error
            self._begun_at = time.monotonic()
        return self._producer

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refused = self._refused or error
            return
        place = (message.topic() or "", message.partition() or 0)
        self.next_offsets[place] = max(self.next_offsets.get(place, 0), (message.offset() or 0) + 1)

    def _failure(self, error: KafkaException) -> AwayError | SetupError:
        cause = self._refused or error.args[0]
        if needs_a_person(cause):
            return SetupError(f"kafka: {cause.str()}", hint=RIGHTS_HINT)
        return AwayError(f"kafka: what was to be moved is not written: {cause.str()}", hint=AGAIN)
