"""What the broker knows: records that stand and records that were taken back, open transactions, committed offsets.

All of it is asked with plain clients, so that what is said of the workers does not rest on their own code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from driftline.streams.task import MemoryRecord, PartitionId
from tests.chaos.process import Stuck

_CALL_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 60.0
_READ_SECONDS_MAX: Final = 300.0
_PAUSE_SECONDS: Final = 0.1
# Not called retriable by the client, and true of any broker that has just started or lost a coordinator.
_BUSY: Final = (
    KafkaError._TIMED_OUT, KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a partition: what committed readers see goes to `stable`, what is written to `high`."""

    stable: int
    high: int


class Watch:
    """Questions to the broker about one installation; safe in several threads."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._askers: dict[str, Consumer] = {}
        self._counted: dict[PartitionId, tuple[int, int]] = {}
        self._kept: dict[tuple[str, bool], list[MemoryRecord]] = {}

    def close(self) -> None:
        for asker in self._askers.values():
            asker.close()

    def partitions(self, topic: str) -> list[PartitionId]:
        found = self._asked(lambda: self._asker("").list_topics(topic, timeout=_CALL_SECONDS)).topics[topic].partitions
        return [(topic, number) for number in sorted(found)]

    def committed(self, group: str, partitions: Iterable[PartitionId]) -> dict[PartitionId, tuple[int, str]]:
        """Committed offsets and their metadata; what a running transaction is about to commit does not count."""
        wanted = [TopicPartition(*key) for key in partitions]
        answers = self._asked(lambda: self._asker(group).committed(wanted, timeout=_CALL_SECONDS))
        return {(a.topic, a.partition): (a.offset, a.metadata or "") for a in answers if a.offset >= 0}

    def ends(self, topic: str) -> dict[PartitionId, Ends]:
        """Where each partition of a topic ends, for committed readers and for all."""
        found = {}
        for key in self.partitions(topic):
            # The stable end first: it may move between two questions, and never beyond the other one.
            stable, high = (self._asked(lambda: self._end(key, committed=committed)) for committed in (True, False))  # noqa: B023
            found[key] = Ends(stable, high)
        return found

    def open_records(self, topic: str) -> list[MemoryRecord]:
        """Records of transactions that are open, and of others behind them: beyond what a committed reader may see."""
        ends = {key: end for key, end in self.ends(topic).items() if end.stable < end.high}
        return self._read({key: end.stable for key, end in ends.items()}, committed=False)

    def read(self, topic: str, *, committed: bool = True) -> list[MemoryRecord]:
        """A topic from its beginning to its end as it is now, partition by partition, in offset order; what was kept included."""
        found = {(r.partition(), r.offset()): r for r in self._kept.get((topic, committed), ())}
        fresh = self._read({key: self._begin(key) for key in self.partitions(topic)}, committed=committed)
        found.update({(r.partition(), r.offset()): r for r in fresh})
        return [found[place] for place in sorted(found)]

    def keep(self, topic: str) -> None:
        """Remember what stands in a topic, of which records are about to be deleted."""
        for committed in (True, False):
            self._kept[topic, committed] = self.read(topic, committed=committed)

    def count(self, topic: str) -> int:
        """Records of a topic that stand; only those not seen by the last call are read."""
        keys = self.partitions(topic)
        with self._counting:
            fresh = self._read({key: self._counted.get(key, (0, 0))[0] for key in keys}, committed=True)
            for record in fresh:
                key = (topic, record.partition())
                self._counted[key] = (record.offset() + 1, self._counted.get(key, (0, 0))[1] + 1)
            return sum(n for (name, _), (_, n) in self._counted.items() if name == topic)

    def _begin(self, key: PartitionId) -> int:
        asker = self._asker("", committed=False)
        first: int = self._asked(lambda: asker.get_watermark_offsets(TopicPartition(*key), timeout=_CALL_SECONDS, cached=False))[0]
        return first

    def _end(self, key: PartitionId, *, committed: bool) -> int:
        asker = self._asker("", committed=committed)
        return asker.get_watermark_offsets(TopicPartition(*key), timeout=_CALL_SECONDS, cached=False)[1]

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """The answer, asked for again while the broker is busy with itself.

        Raises
        ------
        KafkaException : there was none in time.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self._lock:
                    return ask()
            except KafkaException as error:
                if (not error.args[0].retriable() and error.args[0].code() not in _BUSY) or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _asker(self, group: str, *, committed: bool = False) -> Consumer:
        """A client that never joins a group; without a name it belongs to none of ours."""
        name = f"{group}|{committed}"
        if name not in self._askers:
            self._askers[name] = Consumer(self._properties(group or "chaos-watch", committed=committed))
        return self._askers[name]

    def _properties(self, group: str, *, committed: bool) -> dict[str, Any]:
        return {
            "bootstrap.servers": self._bootstrap,
            "group.id": group,
            # Asked for committed offsets, a reader of committed records waits for open transactions to end.
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "log_level": 0,
        }

    def _read(self, starts: Mapping[PartitionId, int], *, committed: bool) -> list[MemoryRecord]:
        if not starts:
            return []
        consumer = Consumer(self._properties("chaos-reader", committed=committed))
        found: dict[PartitionId, list[MemoryRecord]] = {key: [] for key in sorted(starts)}
        left = set(starts)
        deadline = time.monotonic() + _READ_SECONDS_MAX
        try:
            consumer.assign([TopicPartition(*key, offset) for key, offset in starts.items()])
            while left:
                if time.monotonic() > deadline:
                    raise Stuck(f"{sorted(left)} were not read to their ends in {_READ_SECONDS_MAX:.0f} s")
                for message in consumer.consume(2_000, 0.1):
                    key = (message.topic() or "", message.partition() or 0)
                    error = message.error()
                    if error is None:
                        if key in left:
                            found[key].append(_stored(message))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(key)
                    elif not error.retriable():
                        raise KafkaException(error)
        finally:
            consumer.close()
        return [record for records in found.values() for record in records]


def _stored(message: Any) -> MemoryRecord:
    headers = tuple((name, value) for name, value in message.headers() or [])
    value, key = message.value(), message.key()
    return MemoryRecord(message.topic(), message.partition(), message.offset(), key, value, message.timestamp()[1], headers)
