"""Outputs and offsets to Kafka: in one transaction, or at least once where there are no transactions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from driftline.schemas.config import Kafka
from driftline.streams.errors import (
    FatalError,
    KafkaAwayError,
    OutputError,
    OwnershipError,
    RecoverableError,
    SetupError,
    StreamError,
    UncertainError,
)
from driftline.streams.kafka import RIGHTS_HINT, make_producer, needs_a_person, no_such_topic
from driftline.streams.task import Output

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# A restart takes over its own transactional.id once or twice; two workers with one name do it for ever.
_FENCED_MAX: Final = 5
_FENCED_WINDOW_SECONDS: Final = 120.0
_INIT_CALL_SECONDS: Final = 5.0
_TOPICS_CALL_SECONDS: Final = 2.0
_REFUSAL_SECONDS: Final = 0.2
_HANG_GRACE_SECONDS: Final = 2.0
_REFUSED_CODES: Final = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._INVALID_ARG, KafkaError.INVALID_MSG)


class Publisher(Protocol):
    """The producing half of a commit."""

    def open(self) -> bool:
        """Get ready; false when the broker does not answer yet and it should be called again."""

    def publish(self, outputs: Sequence[Output]) -> None:
        """Send outputs as part of the running commit."""

    def prepare(self) -> None:
        """Before the checkpoint is written: everything that must be known to be delivered by then."""

    def send_offsets(self, offsets: list[TopicPartition], metadata: bytes) -> None:
        """Offsets with the reference of their checkpoint."""

    def commit(self) -> None:
        """Make outputs and offsets visible together."""

    def abort(self) -> None:
        """Undo what was published since the last commit, as far as the mode can; never raises."""

    def close(self) -> None:
        """End, without waiting for deliveries."""


def _produce(producer: Producer, output: Output, deadline: float, on_delivery: Callable[..., None] | None) -> None:
    arguments: dict[str, Any] = {"value": output.value, "key": output.key}
    if output.partition is not None:
        arguments["partition"] = output.partition
    if output.headers:
        arguments["headers"] = list(output.headers)
    if output.timestamp_ms is not None:
        arguments["timestamp"] = output.timestamp_ms
    if on_delivery is not None:
        arguments["on_delivery"] = on_delivery
    while True:
        try:
            producer.produce(output.topic, **arguments)
            return
        except BufferError:
            producer.poll(0.05)
            if time.monotonic() >= deadline:
                raise UncertainError("kafka: outputs are not taken off the local queue; is the broker away?") from None
        except KafkaException as error:
            raise _output_error(error.args[0], output.topic, output.value) from error


def _check_topics(producer: Producer, topics: Iterable[str]) -> None:
    """See that the topics of undelivered outputs are still there; with no answer, they are.

    For a topic that was deleted the client waits as for a broker that is away, and names none.

    Raises
    ------
    SetupError : some are not.
    """
    try:
        # All of them: to ask for one by name may create it.
        there = producer.list_topics(timeout=_TOPICS_CALL_SECONDS).topics
    except KafkaException:
        return
    if gone := sorted(set(topics) - there.keys()):
        raise no_such_topic(gone)


def _output_error(error: KafkaError, topic: str, value: bytes | None) -> StreamError:
    if error.code() in _REFUSED_CODES:
        return OutputError(f'topic "{topic}": a record of {len(value or b"")} bytes was refused: {error.str()}')
    if needs_a_person(error):
        return SetupError(f'topic "{topic}": {error.str()}', hint=RIGHTS_HINT)
    return UncertainError(f'topic "{topic}": {error.str()}')


class Transactions:
    """Exactly once: outputs and offsets in one Kafka transaction.

    Any call whose outcome is not known costs the producer: a new one with the same id fences what the old one may
    still have on the way, because librdkafka lacks KIP-890 (PROTOCOL 10).
    """

    def __init__(self, make: Callable[[], Producer], *, timeout_seconds: float) -> None:
        self._make = make
        # Half for the calls of a commit, so that an abort still fits in the transaction's time.
        self._budget = timeout_seconds / 2
        self._producer: Producer | None = None
        self._ready = False
        self._begun_at: float | None = None
        self._topics: set[str] = set()
        self._refusal: StreamError | None = None
        self._fenced: list[float] = []

    def open(self) -> bool:
        if self._ready:
            return True
        if self._producer is None:
            self._producer = self._make()
        try:
            producer = self._producer
            self._bounded("init", lambda seconds: producer.init_transactions(seconds), _INIT_CALL_SECONDS)
        except UncertainError as error:
            _log.warning("transactions_not_ready error=%r", error.message)
            return False
        except KafkaException as error:
            cause = error.args[0]
            if needs_a_person(cause):
                raise SetupError(f"kafka: transactions: {cause.str()}", hint=RIGHTS_HINT) from error
            _log.warning("transactions_not_ready code=%s error=%r", cause.name(), cause.str())
            if not cause.retriable():
                self._drop()
            return False
        self._ready = True
        return True

    def publish(self, outputs: Sequence[Output]) -> None:
        producer = self._begin()
        self._topics.update(output.topic for output in outputs)
        deadline = time.monotonic() + self._budget
        try:
            for output in outputs:
                _produce(producer, output, deadline, self._delivered)
        except UncertainError:
            # A transaction in which a record was refused takes no other one, and does not say which it was.
            self._await_refusal(producer)
            raise
        producer.poll(0)

    def prepare(self) -> None:
        """Begin if nothing was published: the offsets need a transaction too. Deliveries are awaited by the commit."""
        self._begin()

    def send_offsets(self, offsets: list[TopicPartition], metadata: bytes) -> None:
        producer = self._begin()
        self._call("send_offsets", lambda seconds: producer.send_offsets_to_transaction(offsets, metadata, seconds))

    def commit(self) -> None:
        producer = self._begin()
        self._call("commit", lambda seconds: producer.commit_transaction(seconds))
        self._begun_at = None

    def abort(self) -> None:
        if self._begun_at is None:
            return
        self._begun_at = None
        if self._producer is None:
            return
        try:
            producer = self._producer
            producer.purge()
            self._bounded("abort", lambda seconds: producer.abort_transaction(seconds), self._budget)
        except UncertainError as error:
            _log.warning("abort_hangs error=%r", error.message)
        except KafkaException as error:
            # The broker's timeout or the next init_transactions ends it (librdkafka 4849).
            _log.warning("abort_failed code=%s error=%r", error.args[0].name(), error.args[0].str())
            self._drop()

    def close(self) -> None:
        self.abort()
        self._drop()

    def _begin(self) -> Producer:
        if self._producer is None or not self._ready:
            raise UncertainError("kafka: the producer is gone")
        if self._begun_at is None:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                self._fail("begin", error.args[0])
            self._begun_at = time.monotonic()
            self._topics.clear()
            self._refusal = None
        return self._producer

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None or self._refusal is not None:
            return
        found = _output_error(error, message.topic() or "", message.value())
        if isinstance(found, FatalError):
            self._refusal = found

    def _await_refusal(self, producer: Producer) -> None:
        """Raise what Kafka said of a record of this transaction that it will never take, if it did; its word may be on its way."""
        deadline = time.monotonic() + _REFUSAL_SECONDS
        while self._refusal is None and time.monotonic() < deadline:
            producer.poll(_REFUSAL_SECONDS / 10)
        if self._refusal is not None:
            raise self._refusal

    def _call(self, what: str, call: Callable[[float], object]) -> None:
        deadline = time.monotonic() + self._budget
        while True:
            try:
                self._bounded(what, call, max(0.1, deadline - time.monotonic()))
                return
            except KafkaException as error:
                cause = error.args[0]
                if not cause.retriable() or time.monotonic() >= deadline:
                    self._fail(what, cause)

    def _bounded(self, what: str, call: Callable[[float], object], seconds: float) -> None:
        """The call, given up when it outstays its own time limit.

        librdkafka (2.16) may never return from it after its group coordinator was away (its issues 5456 and 5511). The
        thread and its producer are then left behind; the next producer has the same id and fences that one.
        """
        outcome: list[Exception | None] = []

        def run() -> None:
            try:
                call(seconds)
                outcome.append(None)
            except Exception as error:  # noqa: BLE001 - raised again by whoever waits
                outcome.append(error)

        thread = threading.Thread(target=run, name=f"transaction-{what}", daemon=True)
        thread.start()
        thread.join(seconds + _HANG_GRACE_SECONDS)
        if not outcome:
            self._producer, self._ready, self._begun_at = None, False, None
            raise UncertainError(f"kafka: {what}: the client did not return within {seconds + _HANG_GRACE_SECONDS:.0f} s")
        if outcome[0] is not None:
            raise outcome[0]

    def _fail(self, what: str, cause: KafkaError) -> None:
        """Turn an error into what to do: rights and sizes stop, an abortable one aborts, everything else is uncertain."""
        if needs_a_person(cause):
            raise SetupError(f"kafka: {what}: {cause.str()}", hint=RIGHTS_HINT)
        if cause.code() in _REFUSED_CODES:
            raise self._refusal or OutputError(f"kafka: {what}: {cause.str()}")
        if cause.txn_requires_abort() and not cause.fatal():
            raise RecoverableError(f"kafka: {what}: {cause.str()}")
        if cause.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
            self._note_fencing(cause)
        elif self._producer is not None:
            _check_topics(self._producer, self._topics)
        self._drop()
        raise UncertainError(f"kafka: {what}: {cause.str()}")

    def _note_fencing(self, cause: KafkaError) -> None:
        now = time.monotonic()
        self._fenced = [at for at in self._fenced if at > now - _FENCED_WINDOW_SECONDS] + [now]
        if len(self._fenced) > _FENCED_MAX:
            raise OwnershipError(
                f"kafka: fenced {len(self._fenced)} times in {_FENCED_WINDOW_SECONDS:.0f} s: {cause.str()}",
                hint="another worker runs with the same instance name; set DRIFTLINE_INSTANCE to a name of its own for each",
            )

    def _drop(self) -> None:
        """Destroy the producer; the next `open` makes one with the same id, which fences this one."""
        producer, self._producer = self._producer, None
        self._ready, self._begun_at = False, None
        if producer is not None:
            producer.purge()
            del producer


class AtLeastOnce:
    """For brokers without transactions: deliver, then checkpoint, then commit the offsets with the same metadata."""

    def __init__(self, make: Callable[[], Producer], consumer: Callable[[], Consumer], *, timeout_seconds: float) -> None:
        self._make = make
        self._consumer = consumer
        self._budget = timeout_seconds
        self._producer: Producer | None = None
        self._failed: KafkaError | None = None
        self._topics: set[str] = set()
        self._offsets: list[TopicPartition] = []

    def open(self) -> bool:
        if self._producer is None:
            self._producer = self._make()
        return True

    def publish(self, outputs: Sequence[Output]) -> None:
        assert self._producer is not None
        self._topics.update(output.topic for output in outputs)
        deadline = time.monotonic() + self._budget
        for output in outputs:
            _produce(self._producer, output, deadline, self._delivered)
        self._producer.poll(0)

    def prepare(self) -> None:
        assert self._producer is not None
        left = self._producer.flush(self._budget)
        failed, self._failed = self._failed, None
        if failed is not None and failed.code() in _REFUSED_CODES:
            raise OutputError(f"kafka: {failed.str()}")
        if failed is not None and needs_a_person(failed):
            raise SetupError(f"kafka: {failed.str()}", hint=RIGHTS_HINT)
        if failed is not None or left:
            _check_topics(self._producer, self._topics)
            raise KafkaAwayError(f"kafka: {left} outputs were not delivered: {failed.str() if failed else 'no answer'}")

    def send_offsets(self, offsets: list[TopicPartition], metadata: bytes) -> None:  # noqa: ARG002 - the consumer knows its group
        self._offsets = offsets

    def commit(self) -> None:
        offsets, self._offsets = self._offsets, []
        try:
            results = self._consumer().commit(offsets=offsets, asynchronous=False) or []
        except KafkaException as error:
            raise RecoverableError(f"kafka: offset commit: {error.args[0].str()}") from error
        for result in results:
            if result.error is not None:
                raise RecoverableError(f"kafka: offset commit of {result.topic}/{result.partition}: {result.error.str()}")

    def abort(self) -> None:
        """What was sent stays: at least once."""
        self._offsets = []
        if self._producer is not None:
            self._producer.purge()
            self._producer.poll(0)
        self._failed = None

    def close(self) -> None:
        self.abort()
        self._producer = None

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        if error is not None and self._failed is None:
            self._failed = error


def make_publisher(kafka: Kafka, consumer: Callable[[], Consumer], *, exactly_once: bool, transactional_id: str) -> Publisher:
    """The publisher of a guarantee; only the transactional one needs an id that a restart will have too."""
    seconds = kafka.transaction_timeout / 1000
    if exactly_once:
        return Transactions(lambda: make_producer(kafka, transactional_id=transactional_id), timeout_seconds=seconds)
    return AtLeastOnce(lambda: make_producer(kafka), consumer, timeout_seconds=seconds)
