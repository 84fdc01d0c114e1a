"""The consumer as the runner sees it: what is owned, what is read, and how far.

Positions are kept here and never asked of the client: batch consumption has moved the client's position past
records that were not delivered (librdkafka 4844). A partition is owned from the moment Kafka says so and read only
once its task is restored; until then it is not assigned to the client at all, so nothing is fetched for nobody.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from driftline.streams.errors import OffsetError, OwnershipError, SetupError, StreamError
from driftline.streams.kafka import RIGHTS_HINT, needs_a_person
from driftline.streams.runner.group_metadata import generation as _generation
from driftline.streams.task import PartitionId

_log = logging.getLogger(__name__)

# Unbound methods under `map`: 40 ns a record, a fourth of `operator.methodcaller` or a generator.
_error: Final[Callable[[Message], KafkaError | None]] = Message.error
_partition: Final[Callable[[Message], int]] = Message.partition  # type: ignore[assignment]
_topic: Final[Callable[[Message], str]] = Message.topic  # type: ignore[assignment]
_offset: Final[Callable[[Message], int]] = Message.offset  # type: ignore[assignment]

_CALL_SECONDS: Final = 5.0
_SAME_NAME: Final = "does another worker run with the same instance name? Each needs a DRIFTLINE_INSTANCE of its own"
# With the consumer protocol the name of a worker that was killed is free again once its session has ended: 45 s after its last
# heartbeat by default, 60 s at most unless the broker was told otherwise. Whoever has it for longer is alive.
NAME_SECONDS: Final = 120.0
_AGAIN_SECONDS: Final = 2.0
# A client that was refused passes on the broker's reason as text alone.
_NAME_IN_USE: Final = KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()
_PROBE_SECONDS: Final = 1.0
_LOST_CODES: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)

Batches = Mapping[PartitionId, Sequence[Message]]


class Membership:
    """One consumer in its group.

    Attributes
    ----------
    changes : counts rebalance callbacks; a transaction is aborted when it moved (PROTOCOL 9).
    owned : what Kafka assigned to this member.
    next : partitions being read and their next offset.
    consumer : the client; another one once the group has refused it, because librdkafka's is dead then.
    joined : whether any assignment has arrived since it asked for one.
    refused : why the group has not let this worker in so far; it goes on asking.
    arrived : when the first record of the last poll came, monotonic seconds.
    dropped : records of partitions not read any more, or handed out before.
    """

    def __init__(
        self,
        make: Callable[[], Consumer],
        topics: Sequence[str],
        *,
        incremental: bool,
        revoked: Callable[[frozenset[PartitionId]], None],
        lost: Callable[[frozenset[PartitionId]], None],
    ) -> None:
        self._make = make
        self._topics = tuple(topics)
        self._topic = topics[0] if len(topics) == 1 else None
        self._incremental = incremental
        self._revoked, self._lost = revoked, lost
        self._failure: BaseException | None = None
        self._ends: dict[PartitionId, int] = {}
        self._paused: frozenset[PartitionId] = frozenset()
        self._first_refusal = self._again_at = 0.0
        self.refused: str | None = None
        self.changes = 0
        self.arrived = 0.0
        self.joined = self._settled = False
        self.dropped = 0
        self.owned: set[PartitionId] = set()
        self.next: dict[PartitionId, int] = {}
        self.consumer = make()
        self.join()

    @property
    def settled(self) -> bool:
        """Whether what it owns is all that the group has for it now, be it nothing.

        With KIP-848 a member that gets nothing is told nothing.
        """
        return self._settled or (self._incremental and not self.owned and self.metadata() is not None)

    def metadata(self) -> bytes | None:
        """The group metadata to commit a transaction with, taken *before* its first poll; None when not a member.

        Fetched later, a zombie that has rejoined would commit its old batch with its new generation (PROTOCOL 9).
        """
        metadata: Any = self.consumer.consumer_group_metadata()
        return metadata if _generation(metadata) >= 0 else None

    def poll(self, timeout: float, limit: int, linger: float = 0.0) -> Batches:
        """The next records, at most `limit`, of partitions being read: one wait, then what comes until `linger` seconds later.

        Rebalance callbacks run inside.
        """
        if self._again_at and not self._joins_again(timeout):
            return {}
        try:
            first = self.consumer.poll(timeout)
            self.arrived = time.monotonic()
            batch = [] if first is None else [first, *self._following(first, limit - 1, linger)]
        except KafkaException as error:
            self._raise_failure()
            raise StreamError(f"kafka: {error.args[0].str()}") from error
        self._raise_failure()
        if not batch:
            return {}
        if any(map(_error, batch)):
            batch = self._without_errors(batch)
        return self._advance(self._grouped(batch))

    def _following(self, first: Message, limit: int, linger: float) -> list[Message]:
        """The end of a partition is waited for by a tick: it lingers for nobody."""
        return self.consumer.consume(limit, 0 if first.error() else linger) if limit else []

    def _grouped(self, batch: list[Message]) -> dict[PartitionId, list[Message]]:
        partitions = list(map(_partition, batch))
        groups: dict[PartitionId, list[Message]] = {}
        if self._topic is not None:
            if partitions and len(set(partitions)) == 1:
                return {(self._topic, partitions[0]): batch}
            by_number: defaultdict[int, list[Message]] = defaultdict(list)
            for message, number in zip(batch, partitions, strict=True):
                by_number[number].append(message)
            return {(self._topic, number): records for number, records in by_number.items()}
        for message, key in zip(batch, zip(map(_topic, batch), partitions, strict=True), strict=True):
            if (records := groups.get(key)) is None:
                groups[key] = records = []
            records.append(message)
        return groups

    def _advance(self, groups: dict[PartitionId, list[Message]]) -> Batches:
        """Move the ledger; drop what is not ours or was read before."""
        for key, records in list(groups.items()):
            expected = self.next.get(key)
            if expected is None:
                self.dropped += len(records)
                del groups[key]
                continue
            first, last = _offset(records[0]), _offset(records[-1])
            if first < expected or last - first < len(records) - 1:
                records = _in_order(records, expected)
                self.dropped += len(groups[key]) - len(records)
                groups[key] = records
            if records:
                self.next[key] = _offset(records[-1]) + 1
            else:
                del groups[key]
        return groups

    def _without_errors(self, batch: Iterable[Message]) -> list[Message]:
        records: list[Message] = []
        for message in batch:
            error = message.error()
            if error is None:
                records.append(message)
                continue
            if error.code() == KafkaError._PARTITION_EOF:
                self._ends[(_topic(message), _partition(message))] = _offset(message)
                continue
            self._judge(error, message)
        return records

    def _judge(self, error: KafkaError, message: Message) -> None:
        place = f"{message.topic()}/{message.partition()}"
        if error.code() in _LOST_CODES:
            raise OffsetError(
                f"{place}: the next records to read are gone from the topic: {error.str()}",
                hint="retention was shorter than the worker's absence; --on-lost-state=rebuild-from-earliest accepts the gap",
            )
        if needs_a_person(error):
            raise SetupError(f"kafka: {place}: {error.str()}", hint=RIGHTS_HINT)
        # A client that is told so by its group's coordinator passes on the code alone, without the flag.
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._refused(error)
            return
        _log.warning("kafka_consumer_error place=%s code=%s error=%r", place, error.name(), error.str())

    # -- in and out of the group

    def join(self) -> None:
        """Ask the group for partitions; they come in a poll."""
        self.consumer.subscribe(list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def leave(self) -> None:
        """Give all partitions up until `join`; a poll tells that they are revoked.

        Of a static member the group hears nothing: others get its partitions when its session has ended.
        """
        self.consumer.unsubscribe()
        self.joined = self._settled = False
        self._again_at = 0.0

    def _refused(self, error: KafkaError) -> None:
        """The client is dead: make another one where a worker that was killed has our name for as long as its session lasts.

        Raises
        ------
        OwnershipError : the name is another living worker's.
        """
        now = time.monotonic()
        self._first_refusal = self._first_refusal or now
        # A worker that was in the group and finds its name taken has a rival.
        if self.joined or _NAME_IN_USE not in error.str() or now - self._first_refusal > NAME_SECONDS:
            raise OwnershipError(f"kafka: {error.str()}", hint=_SAME_NAME)
        self.refused = "the worker that had this instance name before is a member of the group until its session ends"
        _log.warning("name_in_use note=%r seconds=%.0f retry_in_seconds=%.0f", self.refused, now - self._first_refusal, _AGAIN_SECONDS)
        self.consumer.close()
        self.consumer = self._make()
        self._again_at = now + _AGAIN_SECONDS

    def _joins_again(self, timeout: float) -> bool:
        """Ask once more when it is time; whether it is."""
        if (left := self._again_at - time.monotonic()) > 0:
            time.sleep(min(left, timeout))
            return False
        self._again_at = 0.0
        self.join()
        return True

    # -- what is read

    def read(self, offsets: Mapping[PartitionId, int]) -> None:
        """Read partitions from these offsets on, beside those being read."""
        moved = [key for key in offsets if key in self.next]
        self.next.update(offsets)
        for key in offsets:
            self._ends.pop(key, None)
        if self._incremental:
            if moved:
                # librdkafka refuses to add a partition that it reads already.
                self.consumer.incremental_unassign(_positions(dict.fromkeys(moved, 0)))
            self.consumer.incremental_assign(_positions(offsets))
        else:
            self.consumer.assign(_positions(self.next))
            self._ends.clear()
        paused, self._paused = self._paused, frozenset()
        self.pause(paused & self.next.keys())

    def forget(self, partitions: Iterable[PartitionId]) -> None:
        """Stop to read partitions."""
        gone = [key for key in partitions if self.next.pop(key, None) is not None]
        if not gone:
            return
        # Who reads them next has paused nothing.
        self._paused -= set(gone)
        if self._incremental:
            self.consumer.incremental_unassign(_positions(dict.fromkeys(gone, 0)))
        else:
            self.consumer.assign(_positions(self.next))

    def narrow(self, partitions: frozenset[PartitionId], batches: Batches) -> Batches:
        """Read nothing but these partitions any more; what the last poll brought of them.

        One input of a task may be revoked before the others, which nobody reads then until the task is whole again. Not in
        the callback: librdkafka takes the first unassignment there for the answer to the revocation.
        """
        self.forget(self.next.keys() - partitions)
        return {key: records for key, records in batches.items() if key in partitions}

    def pause(self, partitions: frozenset[PartitionId]) -> None:
        """Read exactly all but these of the partitions being read."""
        if partitions == self._paused:
            return
        if fresh := (partitions - self._paused) & self.next.keys():
            self.consumer.pause([TopicPartition(*key) for key in fresh])
        if due := (self._paused - partitions) & self.next.keys():
            self.consumer.resume([TopicPartition(*key) for key in due])
        self._paused = partitions

    def reached_end(self, key: PartitionId) -> bool:
        """Whether everything up to the end that the last fetch saw was handed out."""
        return self._ends.get(key, -1) >= self.next.get(key, 0)

    def at_end(self) -> frozenset[PartitionId]:
        """Partitions whose last record so far was handed out, asked of the broker now."""
        reached = [key for key in self.next if self.reached_end(key)]
        return frozenset(key for key in reached if self._ends[key] >= self.bounds(key)[1])

    def exhausted(self) -> bool:
        """Whether nothing is left to read but what is paused."""
        return all(key in self._paused or self.reached_end(key) for key in self.next)

    def bounds(self, key: PartitionId) -> tuple[int, int]:
        """First and end offset, asked of the broker.

        Raises
        ------
        confluent_kafka.KafkaException : no answer in time.
        """
        low, high = self.consumer.get_watermark_offsets(TopicPartition(*key), timeout=_CALL_SECONDS, cached=False)
        return low, high

    def answers(self) -> bool:
        """Whether a broker answers now; waits a second for it."""
        try:
            self.consumer.list_topics(self._topics[0], timeout=_PROBE_SECONDS)
        except KafkaException as error:
            if needs_a_person(error.args[0]):
                raise SetupError(f"kafka: {error.args[0].str()}", hint=RIGHTS_HINT) from error
            return False
        return True

    def lag(self) -> dict[PartitionId, int]:
        """Records behind, by the end offsets of the last fetches; costs no call."""
        behind: dict[PartitionId, int] = {}
        for key, position in self.next.items():
            _, high = self.consumer.get_watermark_offsets(TopicPartition(*key), cached=True)
            behind[key] = 0 if self.reached_end(key) else max(0, high - position)
        return behind

    def waiting(self) -> int:
        """Records behind that may be read: what is paused waits for something else."""
        return sum(records for key, records in self.lag().items() if key not in self._paused)

    def close(self) -> None:
        """Leave; the revoke callback runs inside."""
        self.consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.changes += 1
        self.joined, self._settled, self.refused = True, True, None
        self._first_refusal = 0.0
        keys = {(p.topic, p.partition) for p in partitions}
        _log.info("partitions_assigned partitions=%s", sorted(keys))
        self.owned |= keys
        # Nothing is read before its task is restored; `read` assigns.
        if self._incremental:
            consumer.incremental_assign([])
        else:
            consumer.assign(_positions(self.next))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._leave(consumer, partitions, self._revoked, "partitions_revoked")

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._leave(consumer, partitions, self._lost, "partitions_lost")

    def _leave(
        self, consumer: Consumer, partitions: list[TopicPartition], inform: Callable[[frozenset[PartitionId]], None], event: str
    ) -> None:
        # The list may name partitions we never held (confluent-kafka-python 1551).
        keys = frozenset((p.topic, p.partition) for p in partitions) & self.owned
        _log.info("%s partitions=%s", event, sorted(keys))
        try:
            inform(keys)
        except BaseException as error:  # noqa: BLE001 - an exception must not unwind through librdkafka; `poll` raises it
            self._failure = error
        self.changes += 1
        # One by one, the others stay; all at once, a new assignment is on its way.
        self._settled = self._incremental and event == "partitions_revoked"
        self.owned -= keys
        gone = [key for key in keys if self.next.pop(key, None) is not None]
        for key in keys:
            self._ends.pop(key, None)
        self._paused -= keys
        if self._incremental:
            consumer.incremental_unassign(_positions(dict.fromkeys(gone, 0)))
        else:
            consumer.unassign()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _positions(offsets: Mapping[PartitionId, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]


def _in_order(records: Iterable[Message], expected: int) -> list[Message]:
    """Records at or after `expected` in rising order; others were handed out before."""
    kept: list[Message] = []
    for record in records:
        offset = _offset(record)
        if offset >= expected:
            kept.append(record)
            expected = offset + 1
    return kept
