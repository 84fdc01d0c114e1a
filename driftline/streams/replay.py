"""The same processors without Kafka: topics are queues in memory, and every record passes once.

A replay is a function of the records handed in: the tasks are those that `run` opens, in the order in which events
pass them, with one partition a topic. What nobody in here reads (drift events, alerts, snapshots, dead letters) goes
to the caller as it is published.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from driftline.schemas.config import Config
from driftline.schemas.topics import DRIFT, TOPICS
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.store import MemoryAlertStore, OutboxRow
from driftline.streams.alert.worker import AlertWorker, Names
from driftline.streams.cluster import Cluster
from driftline.streams.partitioner import partition_for
from driftline.streams.task import FINAL_MS, Idle, MemoryRecord, Output, PartitionId, Processor, Record, RestoredState, Task

Sink = Callable[[Output], None]

# Tasks let go of what a commit makes superfluous only when they hear of one; each costs an export of their state.
_COMMIT_RECORDS: Final = 100_000


def file_cluster(config: Config, *, partitions: int = 1) -> Cluster:
    """What a replay says of its cluster: topics are their own ids; sources have one partition, ours `partitions`."""
    sources = [source.topic for source in config.predictions] + [source.topic for source in config.labels]
    ours = {topic.full_name(config.topics.prefix): topic.partitions or partitions for topic in TOPICS}
    counts = {**dict.fromkeys(sources, 1), **ours}
    return Cluster("file", {name: name for name in counts}, counts)


class Replay:
    """Drives processors over records.

    Parameters
    ----------
    processors : in the order in which events pass them.
    sink : takes every output that no processor reads, in order.
    """

    def __init__(self, processors: Sequence[Processor], cluster: Cluster, sink: Sink) -> None:
        self._stages = [_Stage(processor, cluster) for processor in processors]
        self._log = _Log(cluster)
        self._sink = sink
        self._since_commit = 0

    def feed(self, records: Iterable[Record]) -> None:
        """Hand records to whoever reads their topics, and all that follows from them."""
        for record in records:
            self._since_commit += 1
            self._enqueue(record)
        self._pump()
        if self._since_commit >= _COMMIT_RECORDS:
            self._commit()

    def finish(self, *, mature: bool) -> None:
        """The input has ended.

        Parameters
        ----------
        mature : decide predictions that are not yet of age with the labels known by now; else they stay waiting.
        """
        if mature:
            first = self._stages[0]
            for task in first.tasks.values():
                self._publish(task.tick(Idle(FINAL_MS, frozenset(first.inputs_of(task)))))
            self._pump()
        self._commit()

    def _enqueue(self, record: Record) -> bool:
        """Whether some processor reads the record's topic."""
        key = (record.topic(), record.partition())
        found = False
        for stage in self._stages:
            if key in stage.queues:
                stage.queues[key].append(record)
                found = True
        return found

    def _pump(self) -> None:
        """Let every stage take what waits for it until nothing moves."""
        moved = True
        while moved:
            moved = False
            for stage in self._stages:
                for outputs in stage.step():
                    moved = True
                    self._publish(outputs)

    def _publish(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if not self._enqueue(self._log.append(output)):
                self._sink(output)

    def _commit(self) -> None:
        self._since_commit = 0
        for stage in self._stages:
            for task in stage.tasks.values():
                task.checkpoint()
                task.committed()


class _Stage:
    """One processor with its open tasks and the records that wait for them."""

    def __init__(self, processor: Processor, cluster: Cluster) -> None:
        self.queues: dict[PartitionId, deque[Record]] = {}
        self.tasks: dict[str, Task] = {}
        self._inputs: dict[str, frozenset[PartitionId]] = {}
        for topic in processor.input_topics():
            for partition in range(cluster.partitions[topic]):
                key = (topic, partition)
                self.queues[key] = deque()
                name = processor.task_name(key)
                if name not in self.tasks:
                    self._inputs[name] = processor.task_inputs(name)
                    self.tasks[name] = processor.open(name, RestoredState())

    def inputs_of(self, task: Task) -> frozenset[PartitionId]:
        name = next(name for name, other in self.tasks.items() if other is task)
        return self._inputs[name]

    def step(self) -> Iterable[list[Output]]:
        """Hand each task what waits and is not paused; its outputs, a list a task."""
        for name, task in self.tasks.items():
            open_inputs = [key for key in self._inputs[name] - task.paused() if self.queues[key]]
            if not open_inputs:
                continue
            batch: Mapping[PartitionId, Sequence[Record]] = {key: list(self.queues[key]) for key in sorted(open_inputs)}
            for key in batch:
                self.queues[key].clear()
            yield task.process(batch)


class _Log:
    """Gives outputs their place: partition by key as our producers do, offsets by counting."""

    def __init__(self, cluster: Cluster) -> None:
        self._partitions = cluster.partitions
        self._next: dict[PartitionId, int] = {}

    def append(self, output: Output) -> MemoryRecord:
        count = self._partitions.get(output.topic, 1)
        partition = output.partition
        if partition is None:
            partition = partition_for((output.key or b"").decode("utf-8", "replace"), count)
        key = (output.topic, partition)
        offset = self._next.get(key, 0)
        self._next[key] = offset + 1
        return MemoryRecord(output.topic, partition, offset, output.key, output.value, output.timestamp_ms or 0, output.headers)


class AlertReplay:
    """The alert pipeline over drift events as they come, with its state in memory."""

    def __init__(self, config: Config, cluster: Cluster, sink: Sink) -> None:
        topic = DRIFT.full_name(config.topics.prefix)
        names = Names(config.environment, config.topics.prefix, cluster.topic_ids.get(topic, topic))
        self._topic = topic
        self._worker = AlertWorker(AlertPipeline.of(config), MemoryAlertStore(), _SinkPublisher(sink), names)
        self._log = _Log(cluster)

    def add(self, output: Output) -> None:
        """Take one drift event."""
        self._worker.handle([self._log.append(output)])


class _SinkPublisher:
    """Where `AlertWorker` publishes."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        for row in rows:
            headers = tuple((name, value.encode()) for name, value in row.headers)
            self._sink(Output(row.topic, row.key.encode(), row.value.encode(), headers))

    def dead_letter(self, record: Record, *, error: str) -> None:
        raise AssertionError(f"the detect processor wrote a drift event that its own contract refuses: {error} ({record.value()!r})")


__all__ = ["AlertReplay", "Replay", "Sink", "file_cluster"]
