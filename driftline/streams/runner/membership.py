"""The consumer as the runner sees it: what is owned, what is read, and how far.

Positions are kept here and never asked of the client: batch consumption has moved the client's position past
records that were not delivered (librdkafka 4844). A partition is owned from the moment Kafka says so and read only
once its task is restored; until then it is not assigned to the client at all, so nothing is fetched for nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from driftline.streams.errors import OffsetError, SetupError, StreamError
from driftline.streams.kafka import RIGHTS_HINT, needs_a_person
from driftline.streams.runner.batches import Batches, error_of, grouped, in_order, offset_of, place_of
from driftline.streams.runner.group_metadata import generation
from driftline.streams.runner.name import InstanceName
from driftline.streams.task import PartitionId

_log = logging.getLogger(__name__)

_CALL_SECONDS: Final = 5.0
# A client that is dead is followed by another one, which costs a thread for each broker.
_AGAIN_SECONDS: Final = 2.0
_PROBE_SECONDS: Final = 1.0
_LOST_CODES: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


class Membership:
    """One consumer in its group.

    Attributes
    ----------
    changes : counts rebalance callbacks; a transaction is aborted when it moved (PROTOCOL 9).
    owned : what Kafka assigned to this member.
    next : partitions being read and their next offset.
    consumer : the client; another one once the group has refused it, because librdkafka's is dead then.
    joined : whether any assignment has arrived since it asked for one.
    refused : why the group has not let this worker in, or has thrown it out; it goes on asking.
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
        holder: Callable[[], str | None],
    ) -> None:
        self._make, self._holder = make, holder
        self._topics = tuple(topics)
        self._topic = topics[0] if len(topics) == 1 else None
        self._incremental = incremental
        self._revoked, self._lost = revoked, lost
        self._failure: BaseException | None = None
        self._ends: dict[PartitionId, int] = {}
        self._paused: frozenset[PartitionId] = frozenset()
        self._name = InstanceName()
        self._again_at = 0.0
        self.refused: str | None = None
        self.changes = 0
        self.arrived = 0.0
        self.joined = self._told_all = False
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
        return self._told_all or (self._incremental and not self.owned and self.metadata() is not None)

    def metadata(self) -> bytes | None:
        """The group metadata to commit a transaction with, taken *before* its first poll; None when not a member.

        Fetched later, a zombie that has rejoined would commit its old batch with its new generation (PROTOCOL 9).
        """
        metadata: Any = self.consumer.consumer_group_metadata()
        return metadata if generation(metadata) >= 0 else None

    def poll(self, timeout: float, limit: int, linger: Callable[[float], float] = lambda _: 0.0) -> Batches:
        """The next records, at most `limit`, of partitions being read; rebalance callbacks run inside.

        Parameters
        ----------
        timeout : seconds, for the first record.
        linger : seconds for the others, given when the first one came.
        """
        if self._again_at and not self._joins_again(timeout):
            return {}
        try:
            first = self.consumer.poll(timeout)
            self.arrived = time.monotonic()
            batch = [] if first is None else [first, *self._following(first, limit - 1, linger(self.arrived))]
        except KafkaException as error:
            self._raise_failure()
            raise StreamError(f"kafka: {error.args[0].str()}") from error
        self._raise_failure()
        if not batch:
            return {}
        if any(map(error_of, batch)):
            batch = self._without_errors(batch)
        return self._advance(grouped(batch, self._topic))

    def _following(self, first: Message, limit: int, linger: float) -> list[Message]:
        """The end of a partition is waited for by a tick: it lingers for nobody."""
        return self.consumer.consume(limit, 0 if first.error() else linger) if limit else []

    def _advance(self, groups: dict[PartitionId, list[Message]]) -> Batches:
        """Move the ledger; drop what is not ours or was read before."""
        for key, records in list(groups.items()):
            expected = self.next.get(key)
            if expected is None:
                self.dropped += len(records)
                del groups[key]
                continue
            first, last = offset_of(records[0]), offset_of(records[-1])
            if first < expected or last - first < len(records) - 1:
                records = in_order(records, expected)
                self.dropped += len(groups[key]) - len(records)
                groups[key] = records
            if records:
                self.next[key] = offset_of(records[-1]) + 1
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
                self._ends[place_of(message)] = offset_of(message)
                continue
            self._judge(error, message)
            if self._again_at:
                return []  # refused: nothing that the dead client read is ours to process
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
        self.joined = self._told_all = False
        self._again_at = 0.0

    def _refused(self, error: KafkaError) -> None:
        """The client is dead, and what this worker had is lost: ask again with another client, unless the name is a rival's.

        A client that was refused for good tells nobody what it loses, and its transaction's metadata is of no member any more.

        Raises
        ------
        OwnershipError : the name is another living worker's.
        """
        holder = self._holder()
        self.refused = self._name.denied(error, holder)
        note = "name_in_use note=%r error=%r holder=%r retry_in_seconds=%.0f"
        _log.warning(note, self.refused, error.str(), holder, _AGAIN_SECONDS)
        if self.owned:
            self._lost(frozenset(self.owned))
        self._disown(frozenset(self.owned))
        self.joined = self._told_all = False
        dead, self.consumer = self.consumer, self._make()
        dead.close()
        self._again_at = time.monotonic() + _AGAIN_SECONDS

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
        self.joined, self._told_all, self.refused = True, True, None
        self._name.granted()
        keys = {(p.topic, p.partition) for p in partitions}
        _log.info("partitions_assigned partitions=%s", sorted(keys))
        self.owned |= keys
        # Nothing is read before its task is restored; `read` assigns.
        if self._incremental:
            consumer.incremental_assign([])
        else:
            consumer.assign(_positions(self.next))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._taken_away(consumer, partitions, self._revoked, "partitions_revoked")

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._taken_away(consumer, partitions, self._lost, "partitions_lost")

    def _taken_away(
        self, consumer: Consumer, partitions: list[TopicPartition], inform: Callable[[frozenset[PartitionId]], None], event: str
    ) -> None:
        if consumer is not self.consumer:
            return  # a dead one that is being closed: all it had was given up before
        # The list may name partitions we never held (confluent-kafka-python 1551).
        keys = frozenset((p.topic, p.partition) for p in partitions) & self.owned
        _log.info("%s partitions=%s", event, sorted(keys))
        try:
            inform(keys)
        except BaseException as error:  # noqa: BLE001 - an exception must not unwind through librdkafka; `poll` raises it
            self._failure = error
        # One by one, the others stay; all at once, a new assignment is on its way.
        self._told_all = self._incremental and event == "partitions_revoked"
        gone = self._disown(keys)
        if self._incremental:
            consumer.incremental_unassign(_positions(dict.fromkeys(gone, 0)))
        else:
            consumer.unassign()

    def _disown(self, keys: frozenset[PartitionId]) -> list[PartitionId]:
        """Another assignment holds from now on; those of the partitions that were being read."""
        self.changes += 1
        self.owned -= keys
        self._paused -= keys
        for key in keys:
            self._ends.pop(key, None)
        return [key for key in keys if self.next.pop(key, None) is not None]

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _positions(offsets: Mapping[PartitionId, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
