"""What a worker tells of itself about once a second: lag, time behind, tasks, and whether it moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from driftline.streams.http import Health
from driftline.streams.metrics import DROPPED, LAG, TASKS, WATERMARK_LAG, Metrics
from driftline.streams.runner.membership import Membership
from driftline.streams.task import PartitionId, Record


class Reporter:
    """Keeps the metrics and the health of one runner."""

    def __init__(self, stage: str, membership: Membership, metrics: Metrics, health: Health) -> None:
        self._stage = stage
        self._membership = membership
        self._metrics = metrics
        self._health = health
        self._reached: dict[PartitionId, int] = {}
        self._dropped = 0

    def took(self, inputs: Mapping[PartitionId, Sequence[Record]]) -> None:
        """Rows of these partitions were processed."""
        for key, records in inputs.items():
            self._reached[key] = records[-1].timestamp()[1]

    def lost(self, partitions: Iterable[PartitionId]) -> None:
        """Partitions went to another worker."""
        for topic, partition in partitions:
            self._reached.pop((topic, partition), None)
            self._metrics.drop(LAG, topic, partition)
            self._metrics.drop(WATERMARK_LAG, topic, partition)

    def report(self, tasks: int, *, now_ms: int, moved: bool) -> None:
        """Tell; `moved`: something was committed since the last time, or nothing waits for it."""
        behind = self._membership.lag()
        for (topic, partition), records in behind.items():
            self._metrics.set(LAG, records, topic, partition)
            reached = self._reached.get((topic, partition), -1)
            if records <= 0 or reached >= 0:
                seconds = max(0.0, (now_ms - reached) / 1000) if records > 0 else 0.0
                self._metrics.set(WATERMARK_LAG, seconds, topic, partition)
        self._metrics.set(TASKS, tasks, self._stage)
        self._metrics.add(DROPPED, self._membership.dropped - self._dropped, self._stage)
        self._dropped = self._membership.dropped
        if moved:
            self._health.committed(lag_records=sum(behind.values()))
        else:
            self._health.lagging(sum(behind.values()))
