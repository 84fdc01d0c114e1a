"""The clients the runner is given: a consumer, a producer and a reader of one partition, over the Kafka in memory.

They behave as librdkafka where the runner depends on it: a background thread of the consumer joins, hears of being thrown
out and fetches ahead; callbacks run inside `poll`, after what was fetched before them; positions can be added once only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from driftline.streams.task import PartitionId
from tests.protocol.broker import Broker, Entry, Identity
from tests.protocol.group import Kind, Member, failed

_FETCHED_MAX = 4
_MAGIC = b"CGMDv2:"
_GROUP = b"g"


class NeverReturns(BaseException):
    """The call hangs: what comes after it never happens."""


class Host(Protocol):
    """What the clients ask of the world."""

    broker: Broker

    def step(self, point: str) -> None:
        """A call across the port: here a worker may be killed, paused, or let another one run."""

    def commit_fault(self) -> str:
        """What shall happen to the commit about to be sent: empty, ``lost``, ``done``, ``late`` or ``hangs``."""

    def later(self, arrive: Callable[[], None]) -> None:
        """A request on its way that arrives when the network likes."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""


@dataclass(frozen=True, slots=True)
class Event:
    """A rebalance callback to be served."""

    kind: Kind
    partitions: frozenset[PartitionId]


class FakeConsumer:
    """A member of the group."""

    def __init__(self, host: Host, properties: dict[str, Any]) -> None:
        self._host, self._broker = host, host.broker
        self._instance = str(properties["group.instance.id"]).rpartition(".")[2]
        self._committed_only = properties.get("isolation.level", "read_committed") == "read_committed"
        self._queue: deque[Message | Event] = deque()
        self._positions: dict[PartitionId, int] = {}
        self._paused: set[PartitionId] = set()
        self._told_end: dict[PartitionId, int] = {}
        self._owned: set[PartitionId] = set()
        self._member: Member | None = None
        self._identity = Identity("", -1, self._instance)
        self._callbacks: dict[Kind, Callable[..., None]] = {}
        self._refused = self._closed = False

    def subscribe(
        self, topics: list[str], *, on_assign: Callable[..., None], on_revoke: Callable[..., None], on_lost: Callable[..., None]
    ) -> None:
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost}

    def list_topics(self, topic: str, timeout: float) -> None:
        """A broker that answers."""

    # -- what the background thread does

    def heartbeat(self) -> None:
        """Join, or hear what the coordinator says; what the application must hear goes to the queue."""
        group = self._broker.group
        self._broker.expire()
        told = any(isinstance(item, Event) for item in self._queue)
        if self._closed or self._refused or (self._member is None and told):
            return
        if self._member is None:
            try:
                self._member = group.join(self._instance)
            except KafkaException as error:
                self._dead(error.args[0].code())
                return
        elif group.members.get(self._member.id) is not self._member:
            self._thrown_out()
            return
        self._member.seen = self._host_now()
        answer = None if told else group.reconcile(self._member)
        self._identity = Identity(self._member.id, self._member.generation, self._instance)
        if answer is not None:
            self._queue.append(Event(answer[0], frozenset(answer[1])))

    def _thrown_out(self) -> None:
        self._member = None
        self._queue = deque(item for item in self._queue if not isinstance(item, Event))
        # By KIP-848 it is unknown, and refused when it joins again.
        if not self._broker.group.incremental and any(m.instance == self._instance for m in self._broker.group.members.values()):
            self._dead(KafkaError.FENCED_INSTANCE_ID)
            return
        self._identity = Identity("", -1, self._instance)
        if self._owned:
            self._queue.append(Event("lost", frozenset(self._owned)))

    def _dead(self, code: int) -> None:
        """Nothing comes of this client any more but why."""
        self._refused = True
        error: Any = KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(code).str()}", True)
        self._queue.append(Message(topic="", partition=-1, offset=-1, error=error))

    def _host_now(self) -> float:
        return self._broker._now()

    def _fetch(self) -> None:
        for key, position in self._positions.items():
            waiting = sum(isinstance(item, Message) and (item.topic(), item.partition()) == key for item in self._queue)
            if key in self._paused or waiting >= _FETCHED_MAX:
                continue
            found = self._broker.records(key, position, committed=self._committed_only)[:_FETCHED_MAX]
            end = self._broker.end(key, committed=self._committed_only)
            for offset, entry in found:
                self._queue.append(Message(topic=key[0], partition=key[1], offset=offset, value=entry.value, timestamp=(1, offset)))
            self._positions[key] = position = found[-1][0] + 1 if found else end
            if not found and self._told_end.get(key) != position:
                self._told_end[key] = position
                error: Any = KafkaError(KafkaError._PARTITION_EOF)
                self._queue.append(Message(topic=key[0], partition=key[1], offset=position, error=error))

    # -- what the application calls

    def poll(self, timeout: float) -> Message | None:
        self._host.step("poll")
        self.heartbeat()
        self._fetch()
        found = self._take(1)
        self.heartbeat()
        self._fetch()
        self._host.advance(0.004 if found else timeout)
        return found[0] if found else None

    def consume(self, count: int, timeout: float) -> list[Message]:
        found = self._take(count)
        if timeout and len(found) < count:
            self.heartbeat()
            self._fetch()
            self._host.advance(timeout)
            found += self._take(count - len(found))
        return found

    def _take(self, count: int) -> list[Message]:
        found: list[Message] = []
        while self._queue and len(found) < count:
            item = self._queue.popleft()
            if isinstance(item, Message):
                found.append(item)
            else:
                self._serve(item)
        return found

    def _serve(self, event: Event) -> None:
        self._callbacks[event.kind](self, [TopicPartition(*key) for key in sorted(event.partitions)])
        if event.kind == "assign":
            self._owned |= event.partitions
            return
        self._owned -= event.partitions
        member = self._member
        if event.kind == "revoke" and member is not None and self._broker.group.members.get(member.id) is member:
            self._broker.group.given_up(member, set(event.partitions))

    def consumer_group_metadata(self) -> bytes:
        identity = self._identity
        generation = identity.generation.to_bytes(4, "little", signed=True)
        return _MAGIC + generation + b"\0".join([_GROUP, identity.member.encode(), identity.instance.encode(), b""])

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._host.step("read_committed")
        keys = [(p.topic, p.partition) for p in partitions]
        try:
            found = self._broker.read_committed_offsets(keys, stable=self._committed_only)
        except KafkaException:
            self._host.advance(timeout)
            raise
        return [TopicPartition(*key, *found.get(key, (-1001, ""))) for key in keys]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float = 0.0, cached: bool = False) -> tuple[int, int]:
        return 0, self._broker.end((partition.topic, partition.partition), committed=False)

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.unassign()
        self._add(partitions)

    def unassign(self) -> None:
        self._drop(set(self._positions))

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        if any((p.topic, p.partition) in self._positions for p in partitions):
            raise failed(KafkaError._CONFLICT)
        self._add(partitions)

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        keys = {(p.topic, p.partition) for p in partitions}
        if not keys <= self._positions.keys():
            raise failed(KafkaError._INVALID_ARG)
        self._drop(keys)

    def _add(self, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            self._positions[(p.topic, p.partition)] = p.offset
            self._told_end.pop((p.topic, p.partition), None)

    def _drop(self, keys: set[PartitionId]) -> None:
        """What was fetched of them goes too: librdkafka tells old fetches by a version."""
        for key in keys:
            del self._positions[key]
        self._paused -= keys
        kept = self._positions.keys()
        self._queue = deque(m for m in self._queue if isinstance(m, Event) or not m.topic() or (m.topic(), m.partition()) in kept)

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._paused -= {(p.topic, p.partition) for p in partitions}

    def close(self) -> None:
        """The partitions of a static member wait for its restart or its session's end; by KIP-848 it says that it may come back."""
        self._host.step("close")
        if self._owned and self._member is not None:
            self._serve(Event("revoke", frozenset(self._owned)))
        if self._member is not None:
            self._member.left = True
        self._closed = True


class FakeProducer:
    """A transactional producer; what it produces is at the broker at once."""

    def __init__(self, host: Host, properties: dict[str, Any]) -> None:
        self._host, self._broker = host, host.broker
        self._id = str(properties["transactional.id"])
        self._epoch = 0
        self._partitions = {topic: n + 1 for topic, n in sorted(self._broker.logs)}

    def init_transactions(self, timeout: float) -> None:
        self._host.step("init")
        self._epoch = self._broker.init(self._id)

    def begin_transaction(self) -> None:
        """Local; the broker learns of it with the first record or offset."""
        self._host.step("begin")

    def produce(
        self, topic: str, *, value: bytes | None, key: bytes | None, partition: int = 0, headers: object = None, timestamp: int = 0,
        on_delivery: object = None,
    ) -> None:  # fmt: skip
        self._broker.produce(self._id, self._epoch, (topic, partition), Entry("open", key, value))

    def list_topics(self, timeout: float) -> None:
        """No broker answers to that."""
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def poll(self, timeout: float) -> int:
        self._host.advance(timeout)
        return 0

    def purge(self) -> None:
        """Everything has left already."""

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], metadata: bytes, timeout: float) -> None:
        self._host.step("send_offsets")
        found = {(p.topic, p.partition): (p.offset, p.metadata or "") for p in offsets}
        _, _, rest = metadata[len(_MAGIC) + 4 :].partition(b"\0")
        member, instance, _ = rest.split(b"\0")
        generation = int.from_bytes(metadata[len(_MAGIC) : len(_MAGIC) + 4], "little", signed=True)
        self._broker.add_offsets(self._id, self._epoch, Identity(member.decode(), generation, instance.decode()), found)

    def commit_transaction(self, timeout: float) -> None:
        self._host.step("commit")
        fault, id_, epoch = self._host.commit_fault(), self._id, self._epoch
        if fault in ("late", "hangs"):
            self._host.later(lambda: self._broker.finish(id_, epoch, commit=True))
        elif fault != "lost":
            self._broker.finish(id_, epoch, commit=True)
        if fault:
            self._host.advance(timeout + 0.001)
            if fault == "hangs":
                raise NeverReturns
            raise failed(KafkaError._TIMED_OUT, retriable=True)

    def abort_transaction(self, timeout: float) -> None:
        self._host.step("abort")
        self._broker.finish(self._id, self._epoch, commit=False)


class FakeReader:
    """Reads one partition from its start, outside of the group."""

    def __init__(self, host: Host) -> None:
        self._broker = host.broker
        self._left: list[Message] = []

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float, cached: bool) -> tuple[int, int]:
        return 0, self._broker.end((partition.topic, partition.partition), committed=False)

    def assign(self, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            key = (p.topic, p.partition)
            for offset, entry in self._broker.records(key, p.offset):
                self._left.append(Message(topic=p.topic, partition=p.partition, offset=offset, key=entry.key, value=entry.value))
            end: Any = KafkaError(KafkaError._PARTITION_EOF)
            self._left.append(Message(topic=p.topic, partition=p.partition, offset=self._broker.end(key), error=end))

    def consume(self, count: int, timeout: float) -> list[Message]:
        found, self._left = self._left[:count], self._left[count:]
        return found

    def close(self) -> None:
        """Nothing to give back."""
