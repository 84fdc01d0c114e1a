"""Base checkpoints: the full state of a task in Kafka, so that Redis may vanish.

Replaying the log from its start would not give the same state: learned baselines, adaptive windows and admitted
segments would come from other events. So every minute or million rows the full state goes to the compacted topic
`driftline.checkpoints` inside the transaction, manifest last (PROTOCOL 7). Recovery = the newest base and a replay of
the records since, outputs suppressed.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

from driftline.schemas.config import Config
from driftline.schemas.topics import CHECKPOINTS
from driftline.streams.bounded import Count
from driftline.streams.cluster import Cluster
from driftline.streams.errors import AwayError, LostStateError, RecoverableError, SetupError, StateError
from driftline.streams.kafka import RIGHTS_HINT, consumer_properties, needs_a_person
from driftline.streams.state.checkpoints import Checkpoints
from driftline.streams.state.manifest import Manifest, checksum, decode_manifest, encode_manifest
from driftline.streams.state.origin import Loaded
from driftline.streams.task import Output, RestoredRing, RestoredState

_log = logging.getLogger(__name__)

BASE_SECONDS: Final = 60.0
BASE_ROWS: Final = 1_000_000
# After a start that found a base of unknown age: not in the first commit, which all tasks make at once, and before a worker
# that restarts again and again dies the next time.
_SOON_SECONDS: Final = 5.0
# Well below the topic's largest message, so that compression and headers never decide.
_CHUNK_BYTES: Final = 512 << 10
_READ_SECONDS_MAX: Final = 300.0
_MANIFEST: Final = "manifest"
_DAMAGED: Final = "`--on-lost-state=rebuild-from-earliest` begins anew from what the input topics still hold"


class _Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    kind: Literal["b", "r"]
    length: Count
    checksum: str
    chunks: Count


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: msgspec.Raw
    parts: list[_Part]
    rows: Count


_decoder = msgspec.json.Decoder(_Base)


@dataclass(frozen=True, slots=True)
class FoundBase:
    """A base checkpoint as read from Kafka, every checksum right."""

    loaded: Loaded
    rows: int


class BaseLog:
    """Writes and reads the base checkpoints of one group.

    Parameters
    ----------
    make_consumer : a reader without a group's membership.
    """

    def __init__(self, topic: str, partitions: int, group: str, make_consumer: Callable[[], Consumer]) -> None:
        self._topic, self._partitions, self._group = topic, partitions, group
        self._make_consumer = make_consumer
        self._last: dict[str, tuple[float, int]] = {}
        self._names: dict[str, set[str]] = {}
        self._sent: dict[str, tuple[int, set[str]]] = {}

    def due(self, task: str, rows: int) -> bool:
        """Whether this commit shall carry the full state."""
        at, then = self._last.get(task, (-BASE_SECONDS, rows))
        # A task that was opened anew counts its rows from 0.
        return time.monotonic() - at >= BASE_SECONDS or rows - (then if then <= rows else 0) >= BASE_ROWS

    def known(self, task: str, rows: int) -> None:
        """The task goes on from a state of which a base exists, made by nobody knows whom and when."""
        self._last.setdefault(task, (time.monotonic() - BASE_SECONDS + min(_SOON_SECONDS, BASE_SECONDS), rows))

    def changed(self, task: str) -> None:
        """The task goes on under another configuration: its next commit carries a base, so that no replay begins before the change."""
        self._last.pop(task, None)

    def committed(self) -> None:
        """The transaction with the last `records` stands: the next base is due an interval later."""
        for task, (rows, names) in self._sent.items():
            self._last[task] = (time.monotonic(), rows)
            self._names[task] = names
        self._sent.clear()

    def aborted(self) -> None:
        """What was sent does not stand, so that it is due still."""
        self._sent.clear()

    def records(self, checkpoints: Checkpoints, rows: int) -> list[Output]:
        """The records of the checkpoint just written, manifest last."""
        try:
            manifest, state = checkpoints.snapshot()
        except LostStateError as error:
            raise RecoverableError(error.message) from error
        task = checkpoints.task
        values: list[tuple[Literal["b", "r"], str, bytes]] = [("b", name, blob) for name, blob in state.blobs.items()]
        values += [("r", name, ring.rows) for name, ring in state.rings.items()]
        outputs: list[Output] = []
        parts: list[_Part] = []
        names: set[str] = set()
        for kind, name, value in values:
            chunks = [value[start : start + _CHUNK_BYTES] for start in range(0, len(value), _CHUNK_BYTES)]
            parts.append(_Part(name, kind, len(value), checksum(value), len(chunks)))
            for number, chunk in enumerate(chunks):
                names.add(f"{kind}/{name}/{number}")
                outputs.append(self._output(task, f"{kind}/{name}/{number}", chunk))
        outputs += [self._output(task, gone, None) for gone in sorted(self._names.get(task, set()) - names)]
        base = _Base(msgspec.Raw(encode_manifest(manifest)), parts, rows)
        outputs.append(self._output(task, _MANIFEST, msgspec.json.encode(base)))
        self._sent[task] = (rows, names)
        _log.info("base_checkpoint task=%s id=%s bytes=%d", task, manifest.id, sum(len(value) for _, _, value in values))
        return outputs

    def exists(self, task: str) -> bool:
        """Whether Kafka holds a base checkpoint of the task."""
        return self._key(task, _MANIFEST) in self._read(task)

    def find(self, task: str) -> FoundBase | None:
        """The newest base checkpoint, or None if there is none.

        Raises
        ------
        StateError : there is one and it is damaged.
        """
        records = self._read(task)
        data = records.get(self._key(task, _MANIFEST))
        if data is None:
            return None
        try:
            base = _decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StateError(f'task "{task}": the base checkpoint in Kafka is damaged: {error}', hint=_DAMAGED) from error
        manifest = decode_manifest(bytes(base.manifest), task)
        blobs: dict[str, bytes] = {}
        rings: dict[str, RestoredRing] = {}
        for part in base.parts:
            value = self._value(task, part, records)
            if part.kind == "b":
                blobs[part.name] = value
            else:
                rings[part.name] = _ring(part, manifest, value)
        self._names[task] = {f"{part.kind}/{part.name}/{number}" for part in base.parts for number in range(part.chunks)}
        return FoundBase(Loaded.of(manifest, RestoredState(blobs, rings)), base.rows)

    def _value(self, task: str, part: _Part, records: Mapping[bytes, bytes]) -> bytes:
        keys = [self._key(task, f"{part.kind}/{part.name}/{number}") for number in range(min(part.chunks, len(records)))]
        value = b"".join(records.get(key, b"") for key in keys)
        if len(keys) != part.chunks or len(value) != part.length or checksum(value) != part.checksum:
            raise StateError(f'task "{task}": "{part.name}" of the base checkpoint in Kafka is damaged or incomplete', hint=_DAMAGED)
        return value

    def _key(self, task: str, name: str) -> bytes:
        return f"{self._group}|{task}|{name}".encode()

    def _partition(self, task: str) -> int:
        # All records of a task in one partition: their order is what makes the manifest the last.
        return zlib.crc32(f"{self._group}|{task}".encode()) % self._partitions

    def _output(self, task: str, name: str, value: bytes | None) -> Output:
        return Output(self._topic, self._key(task, name), value, partition=self._partition(task))

    def _read(self, task: str) -> dict[bytes, bytes]:
        """The newest value of every key of the task, read from the partition's start to its end."""
        consumer = self._make_consumer()
        prefix = self._key(task, "")
        partition = TopicPartition(self._topic, self._partition(task))
        found: dict[bytes, bytes] = {}
        try:
            partition.offset, _ = consumer.get_watermark_offsets(partition, timeout=10.0, cached=False)
            consumer.assign([partition])
            deadline = time.monotonic() + _READ_SECONDS_MAX
            while time.monotonic() < deadline:
                for message in consumer.consume(1000, 0.2):
                    error = message.error()
                    if error is not None and error.code() == KafkaError._PARTITION_EOF:
                        return found
                    if error is not None and needs_a_person(error):
                        raise SetupError(f'kafka: topic "{self._topic}": {error.str()}', hint=RIGHTS_HINT)
                    key = message.key()
                    if error is None and isinstance(key, bytes) and key.startswith(prefix):
                        _keep(found, key, message.value())
        finally:
            consumer.close()
        raise AwayError(f"kafka: topic {self._topic} was not read to its end in {_READ_SECONDS_MAX:.0f} s")


def _keep(found: dict[bytes, bytes], key: bytes, value: Any) -> None:
    if value is None:
        found.pop(key, None)
    else:
        found[key] = bytes(value)


def _ring(part: _Part, manifest: Manifest, value: bytes) -> RestoredRing:
    entry = manifest.rings.get(part.name)
    if entry is None or len(value) != min(entry.head, entry.window) * entry.record_bytes:
        raise StateError(f'task "{manifest.task}": window "{part.name}" of the base checkpoint has another length than its manifest says')
    return RestoredRing(part.name, entry.record_bytes, entry.window, entry.head, value)


def open_base_log(config: Config, cluster: Cluster, group: str) -> BaseLog | None:
    """The base checkpoints of a group; None where the topic does not exist, then Redis must not be lost."""
    topic = CHECKPOINTS.full_name(config.topics.prefix)
    partitions = cluster.partitions.get(topic)
    if not partitions or config.kafka.guarantee != "exactly_once":
        _log.warning("no_base_checkpoints topic=%s note=%r", topic, "state cannot be rebuilt if Redis is lost")
        return None
    # A consumer needs a group id even if it never joins; it is not the group's own, so nothing is fenced.
    properties = consumer_properties(config.kafka, f"{group}.base-reader")
    return BaseLog(topic, partitions, group, lambda: Consumer(properties))
