"""The tasks that run now, by name and by partition, and those that should."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from driftline.streams.runner.restore import RunningTask
from driftline.streams.task import PartitionId, Processor


class TaskTable:
    """Running tasks of one worker."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._tasks: dict[str, RunningTask] = {}
        self._by_partition: dict[PartitionId, RunningTask] = {}

    def __iter__(self) -> Iterator[RunningTask]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)

    def of(self, partition: PartitionId) -> RunningTask:
        """The task that reads a partition."""
        return self._by_partition[partition]

    def pending(self, owned: Set[PartitionId]) -> dict[str, frozenset[PartitionId]]:
        """Tasks whose inputs are all owned and that do not run yet, with their inputs."""
        wanted: dict[str, frozenset[PartitionId]] = {}
        for key in owned - self._by_partition.keys():
            name = self._processor.task_name(key)
            inputs = self._processor.task_inputs(name)
            if inputs <= owned:
                wanted[name] = inputs
        return wanted

    def inputs(self) -> frozenset[PartitionId]:
        """What the running tasks read."""
        return frozenset(self._by_partition)

    def add(self, task: RunningTask) -> None:
        self._tasks[task.name] = task
        self._by_partition |= dict.fromkeys(task.inputs, task)

    def remove(self, partitions: Iterable[PartitionId]) -> None:
        """Forget the tasks that read any of these partitions."""
        gone = {id(task): task for key in partitions if (task := self._by_partition.get(key)) is not None}
        for task in gone.values():
            task.task.close()
            del self._tasks[task.name]
            for key in task.inputs:
                self._by_partition.pop(key, None)

    def clear(self) -> None:
        for task in self._tasks.values():
            task.task.close()
        self._tasks.clear()
        self._by_partition.clear()

    def paused(self) -> frozenset[PartitionId]:
        """Partitions that some task wants no records of for now."""
        return frozenset[PartitionId]().union(*(task.paused for task in self._tasks.values()))

    def replaying(self) -> bool:
        return any(task.replay_to is not None for task in self._tasks.values())
