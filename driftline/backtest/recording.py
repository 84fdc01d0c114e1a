"""The observations of a file or topic, kept in memory: what detect reads once as it is and once for each injected change.

Ingest and join run once. Whatever is injected afterwards changes columns of the observation batches they wrote, which hold
the rows as they came; detect takes the same bytes from Kafka.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from driftline.schemas.config import Config
from driftline.schemas.events import Position
from driftline.schemas.topics import OBSERVATIONS
from driftline.streams.cluster import Cluster
from driftline.streams.counters import Counters
from driftline.streams.observation import Int64, Observations, decode
from driftline.streams.partitioner import partition_for
from driftline.streams.replay import Replay, file_cluster
from driftline.streams.task import MemoryRecord, Output, Record
from driftline.streams.wiring import make_ingest, make_joins

Source = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one model in one record.

    Attributes
    ----------
    record : index into `Recording.records`.
    rows : the numbers of its predictions, counted over the model in stream order; -1 = a prediction that is not in the recording.
    """

    record: int
    rows: Int64


@dataclass(slots=True)
class ModelRows:
    """Where the predictions of a model stand, and their outcomes."""

    time_ms: list[Int64] = field(default_factory=list)
    predictions: list[Piece] = field(default_factory=list)
    outcomes: list[Piece] = field(default_factory=list)
    count: int = 0
    _places: dict[Source, list[tuple[Int64, Int64]]] = field(default_factory=dict)
    _sorted: dict[Source, tuple[Int64, Int64]] = field(default_factory=dict)

    @property
    def times(self) -> Int64:
        """Event time of each prediction."""
        if len(self.time_ms) > 1:
            self.time_ms = [np.concatenate(self.time_ms)]
        return self.time_ms[0] if self.time_ms else np.empty(0, np.int64)

    def add(self, record: int, batch: Observations) -> None:
        """Take the batch of a record."""
        if batch.kind == "outcomes":
            self.outcomes.append(Piece(record, self._numbers(batch)))
            return
        rows = np.arange(self.count, self.count + len(batch))
        self.count += len(batch)
        self.predictions.append(Piece(record, rows))
        self.time_ms.append(batch.time_ms)
        for index, source in enumerate(batch.sources):
            mine = batch.source == index
            self._places.setdefault(source, []).append((batch.offset[mine], rows[mine]))
            self._sorted.pop(source, None)

    def number(self, position: Position) -> int:
        """The number of the prediction at a source position; of the last one before it where there is none."""
        offsets, rows = self._of((position.topic, position.partition))
        at = int(np.searchsorted(offsets, position.offset, side="right")) - 1
        return int(rows[at]) if at >= 0 else 0

    def _numbers(self, batch: Observations) -> Int64:
        out = np.full(len(batch), -1, np.int64)
        for index, source in enumerate(batch.sources):
            offsets, rows = self._of(source)
            mine = np.flatnonzero(batch.source == index)
            at = np.searchsorted(offsets, batch.offset[mine])
            known = at < len(offsets)
            known[known] = offsets[at[known]] == batch.offset[mine][known]
            out[mine[known]] = rows[at[known]]
        return out

    def _of(self, source: Source) -> tuple[Int64, Int64]:
        if source not in self._sorted:
            parts = self._places.get(source, [])
            offsets = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, np.int64)
            rows = np.concatenate([part[1] for part in parts]) if parts else np.empty(0, np.int64)
            order = np.argsort(offsets, kind="stable")
            self._sorted[source] = offsets[order], rows[order]
            self._places[source] = [self._sorted[source]]
        return self._sorted[source]


@dataclass(slots=True)
class Recording:
    """Records of the observations topic in the order in which detect reads them, and the rows of each model in them."""

    cluster: Cluster
    records: list[MemoryRecord] = field(default_factory=list)
    models: dict[str, ModelRows] = field(default_factory=dict)

    def add(self, record: MemoryRecord) -> None:
        """Take the next record."""
        if record.value_ is None:
            return
        batch = decode(record.value_)
        if len(batch):
            self.models.setdefault(batch.model, ModelRows()).add(len(self.records), batch)
        self.records.append(record)

    def batch(self, record: int) -> Observations:
        """The batch of a record, decoded."""
        value = self.records[record].value_
        assert value is not None
        return decode(value)


class Recorder:
    """Runs ingest and join over records of the source topics and keeps what they write for detect."""

    def __init__(self, config: Config, counters: Counters) -> None:
        cluster = file_cluster(config)
        self.recording = Recording(cluster)
        self._topic = OBSERVATIONS.full_name(config.topics.prefix)
        self._next: dict[int, int] = {}
        self._replay = Replay([make_ingest(config, cluster, counters), *make_joins(config, cluster, counters)], cluster, self._keep)

    def feed(self, records: Iterable[Record]) -> None:
        """Hand over the next records of the source topics."""
        self._replay.feed(records)

    def finish(self, *, mature: bool) -> Recording:
        """The recording, with predictions that are not yet of age decided by the labels known by now where `mature`."""
        self._replay.finish(mature=mature)
        return self.recording

    def _keep(self, output: Output) -> None:
        if output.topic != self._topic:
            return
        partition = output.partition
        if partition is None:
            partition = partition_for((output.key or b"").decode("utf-8", "replace"), self.recording.cluster.partitions[self._topic])
        offset = self._next.get(partition, 0)
        self._next[partition] = offset + 1
        self.recording.add(MemoryRecord(output.topic, partition, offset, output.key, output.value, output.timestamp_ms or 0))


def record_topic(cluster: Cluster, messages: Iterable[Any]) -> Recording:
    """The recording of an observations topic that was read from Kafka."""
    recording = Recording(cluster)
    for message in messages:
        place = (message.topic(), message.partition(), message.offset())
        recording.add(MemoryRecord(*place, message.key(), message.value(), message.timestamp()[1]))
    return recording


def covers(pieces: Sequence[Piece], start: int, stop: int) -> list[Piece]:
    """The pieces that have a row from `start` on and before `stop`."""
    return [piece for piece in pieces if ((piece.rows >= start) & (piece.rows < stop)).any()]
