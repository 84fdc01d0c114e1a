"""What a worker tells of itself about once a second: lag, time behind, tasks, and whether each partition moves."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from driftline.streams.http import Health
from driftline.streams.metrics import DROPPED, LAG, PROGRESS, TASKS, WATERMARK_LAG, Metrics
from driftline.streams.runner.commit import Committer
from driftline.streams.runner.membership import Membership
from driftline.streams.runner.restore import RunningTask
from driftline.streams.runner.tasks import TaskTable
from driftline.streams.task import PartitionId, Record


class Reporter:
    """Keeps the metrics and the health of one runner."""

    def __init__(self, stage: str, membership: Membership, metrics: Metrics, health: Health) -> None:
        self._stage = stage
        self._membership = membership
        self._metrics = metrics
        self._health = health
        self._reached: dict[PartitionId, int] = {}
        self._steps: dict[PartitionId, tuple[int, int | None, int]] = {}
        self._dropped = 0
        self._commits = 0

    def took(self, inputs: Mapping[PartitionId, Sequence[Record]]) -> None:
        """Rows of these partitions were processed."""
        for key, records in inputs.items():
            self._reached[key] = records[-1].timestamp()[1]

    def lost(self, partitions: Iterable[PartitionId]) -> None:
        """Partitions went to another worker."""
        for topic, partition in partitions:
            self._reached.pop((topic, partition), None)
            self._steps.pop((topic, partition), None)
            for metric in (LAG, WATERMARK_LAG, PROGRESS):
                self._metrics.drop(metric, topic, partition)
        self._health.progress.forget(partitions)

    def report(self, tasks: TaskTable, committer: Committer, *, now_ms: int) -> bool:
        """Tell; returns whether something was committed since the last time."""
        if self._membership.refused is not None:
            self._health.kafka(self._membership.refused)
        elif self._health.kafka_away and self._membership.answers():
            self._health.kafka(None)
        moved, self._commits = committer.commits != self._commits, committer.commits
        behind = self._membership.lag()
        for (topic, partition), records in behind.items():
            self._metrics.set(LAG, records, topic, partition)
            reached = self._reached.get((topic, partition), -1)
            if records <= 0 or reached >= 0:
                seconds = max(0.0, (now_ms - reached) / 1000) if records > 0 else 0.0
                self._metrics.set(WATERMARK_LAG, seconds, topic, partition)
        self._metrics.set(TASKS, len(tasks), self._stage)
        self._metrics.add(DROPPED, self._membership.dropped - self._dropped, self._stage)
        self._dropped = self._membership.dropped
        if moved or not committer.open:
            self._health.committed(lag_records=sum(behind.values()))
        else:
            self._health.lagging(sum(behind.values()))
        self._tell_partitions(tasks, now_ms)
        return moved

    def _tell_partitions(self, tasks: TaskTable, now_ms: int) -> None:
        unread = set(self._membership.owned)
        paused = tasks.paused()
        for task in tasks:
            for key in task.inputs:
                unread.discard(key)
                busy = key not in paused and (task.dirty or not self._membership.reached_end(key))
                self._tell(key, task.committed.get(key), busy, self._step(task, key), now_ms)
        for key in unread:
            self._tell(key, None, True, None, now_ms)

    def _step(self, task: RunningTask, key: PartitionId) -> Hashable:
        """Moves when the worker has read on and committed: a join's own positions trail by the labels' age.

        A replay commits nothing until it is through; there reading on is enough.
        """
        position = self._membership.next.get(key)
        if task.replay_to is not None:
            return "replay", position
        count, then, commits = self._steps.get(key, (0, position, self._commits))
        if commits != self._commits and (position != then or self._membership.reached_end(key)):
            count, then, commits = count + 1, position, self._commits
        self._steps[key] = (count, then, commits)
        return count

    def _tell(self, key: PartitionId, position: int | None, busy: bool, mark: Hashable, now_ms: int) -> None:
        if self._health.progress.tell(key, position, busy=busy, mark=mark):
            self._metrics.set(PROGRESS, now_ms / 1000, *key)
