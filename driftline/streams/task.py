"""The ports between the logic and the machinery: records in, outputs and state out.

A *processor* opens a *task* for each partition it owns. A task has no I/O and no clock: the runner (Kafka
and Redis), the replay over a file and the tests drive the same object. One call to `process` may hold any
cut of the stream; every cut gives the same outputs in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

PartitionId = tuple[str, int]
"""Topic name and partition number."""

FINAL_MS = 1 << 62
"""The tick of an input that has ended: later than any record."""


class Record(Protocol):
    """What a task reads of an input record; `confluent_kafka.Message` has this shape already."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> list[tuple[str, bytes]] | None: ...


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record that did not come from Kafka."""

    topic_: str
    partition_: int
    offset_: int
    key_: bytes | None
    value_: bytes | None
    timestamp_ms: int
    headers_: tuple[tuple[str, bytes], ...] = ()

    def topic(self) -> str:
        return self.topic_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def timestamp(self) -> tuple[int, int]:
        return (1, self.timestamp_ms)

    def headers(self) -> list[tuple[str, bytes]] | None:
        return list(self.headers_) or None


@dataclass(frozen=True, slots=True)
class Output:
    """A record to publish; `topic` is a full name and `partition` is set wherever the order matters."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RingWrite:
    """The newest rows of one ring: a sliding window kept as fixed-size records.

    `rows` holds `head - previous head` records (or, when `full`, the last `min(head, window)` of them).
    """

    name: str
    record_bytes: int
    window: int
    head: int
    rows: bytes
    full: bool = False


@dataclass(frozen=True, slots=True)
class StateDelta:
    """What changed since the last checkpoint of a task: blobs to write, (None) blobs or rings to drop, and ring rows."""

    blobs: Mapping[str, bytes | None] = field(default_factory=dict)
    rings: Sequence[RingWrite] = ()


@dataclass(frozen=True, slots=True)
class RestoredRing:
    """A ring as loaded: the last `min(head, window)` records, oldest first."""

    name: str
    record_bytes: int
    window: int
    head: int
    rows: bytes


@dataclass(frozen=True, slots=True)
class RestoredState:
    """The checkpoint that belongs to the committed offsets; empty when the task never ran.

    Attributes
    ----------
    generation : not 0 once, when an operator has the task rebuilt from its input's beginning: a number above that of all
        its former lives. The task keeps it, and stamps what it publishes with it.
    """

    blobs: Mapping[str, bytes] = field(default_factory=dict)
    rings: Mapping[str, RestoredRing] = field(default_factory=dict)
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """Where the inputs stand when no data comes.

    Attributes
    ----------
    time_ms : the tick: wall time minus the grace while live, `FINAL_MS` when the input has ended.
    at_end : partitions whose position equals the broker's end offset, behind the grace. Only these may be ticked.
    """

    time_ms: int
    at_end: frozenset[PartitionId]


class Task(Protocol):
    """The state and logic of one partition number of one processor."""

    def process(self, records: Mapping[PartitionId, Sequence[Record]]) -> list[Output]:
        """Take the next records of each partition, in offset order, and return what to publish, in order."""

    def opened(self) -> list[Output]:
        """What follows of the state alone, such as the end of what an edited configuration no longer has; once.

        Asked when the task goes live, before the next record: it is published with the state that no longer has it.
        """

    def tick(self, idle: Idle) -> list[Output]:
        """Let time pass (about once a second when live, once with `FINAL_MS` at the end of the input)."""

    def positions(self) -> Mapping[PartitionId, int]:
        """The next offset to read of every partition seen: what is committed. May trail what was handed in.

        Right after `open` it names the partitions that must be read from elsewhere than their committed offset
        (a join that rebuilds a lost label cache); the runner seeks there, and to the committed offset otherwise.
        """

    def paused(self) -> frozenset[PartitionId]:
        """Partitions to pause until a later call no longer names them (a full buffer of rows not yet due)."""

    def checkpoint(self) -> StateDelta:
        """The changes of state since the last call; called once a commit, after `process`/`tick`."""

    def committed(self) -> None:
        """The transaction that holds the last checkpoint stands: what it made superfluous may be removed."""

    def close(self) -> None:
        """The task runs here no more, or is opened anew: what it measures is no longer this worker's to tell."""


class Processor(Protocol):
    """Opens tasks; one instance a worker."""

    name: str

    def input_topics(self) -> Sequence[str]:
        """Full names of the topics to subscribe to."""

    def task_name(self, partition: PartitionId) -> str:
        """The task a partition belongs to, for example ``ingest/fraud.predictions/0`` or ``detect/3``."""

    def task_inputs(self, task: str) -> frozenset[PartitionId]:
        """Every partition the task must own before it runs."""

    def open(self, task: str, state: RestoredState) -> Task:
        """A task that goes on from `state`."""
