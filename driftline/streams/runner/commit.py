"""One commit after another: the group's metadata, the outputs, the checkpoints, the offsets, the decision.

A commit has five steps, and Kafka's commit (4) is the only one that decides:

1. the group's metadata, taken before the first poll; records are processed and their outputs published;
2. the checkpoint, one conditional write to the store a task;
3. the offsets of every input with the checkpoint's name as their metadata;
4. the commit of the transaction;
5. the tasks learn that it stands, and older checkpoints are removed with the next write.

The assignment counter must be the same before each step as it was before the first poll (PROTOCOL 9). Whatever goes
wrong before 4 is aborted by the caller, and memory is loaded again from what was committed (PROTOCOL 10).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from confluent_kafka import TopicPartition

from driftline.schemas.config import Kafka
from driftline.streams.errors import AssignmentChanged, FatalError
from driftline.streams.http import Health
from driftline.streams.metrics import BASE_BYTES, BASE_SECONDS, CHECKPOINT_BYTES, COMMIT_SECONDS, LAST_COMMIT, REDIS_SECONDS, Metrics
from driftline.streams.runner.cadence import Cadence
from driftline.streams.runner.failpoint import Failpoints
from driftline.streams.runner.membership import Membership
from driftline.streams.runner.pace import Pace
from driftline.streams.runner.publisher import Publisher
from driftline.streams.runner.restore import RunningTask
from driftline.streams.state.base import BaseLog
from driftline.streams.state.manifest import encode_reference
from driftline.streams.state.store import Store, Write
from driftline.streams.task import Output, PartitionId

_METADATA_BYTES_MAX: Final = 4_000
# A loop that waits says between two waits that it lives.
_LINGER_SECONDS_MAX: Final = 0.2


class Committer:
    """What is open between two commits, and how it is committed or aborted.

    Attributes
    ----------
    rows : input records since the last commit.
    """

    def __init__(
        self,
        membership: Membership,
        publisher: Publisher,
        store: Store,
        *,
        kafka: Kafka,
        base: BaseLog | None,
        stage: str,
        metrics: Metrics,
        health: Health,
        pace: Pace,
    ) -> None:
        self._membership = membership
        self._publisher = publisher
        self._store = store
        self._base = base
        # A transaction must outlive the wait for its commit by far.
        behind = min(kafka.commit_interval_behind, kafka.transaction_timeout // 3)
        self._cadence = Cadence(kafka.commit_interval / 1000, behind / 1000)
        self._pace = pace
        self._rows_max = kafka.commit_rows
        self._stage, self._metrics, self._health = stage, metrics, health
        self._failpoints = Failpoints()
        self._metadata: bytes | None = None
        self._changes = 0
        self._started: float | None = None
        self._ready = False
        self.rows = 0
        self.commits = 0

    @property
    def open(self) -> bool:
        """Whether something was processed since the last commit."""
        return self._started is not None

    def ready(self) -> bool:
        """Open the producer if it is not; false when Kafka does not answer yet."""
        if not self._ready:
            self._ready = self._publisher.open()
        return self._ready

    def begin(self) -> None:
        """Take the metadata, between transactions only: within one it stays what it was before the first poll."""
        if self._started is None:
            self._metadata = self._membership.metadata()
            self._changes = self._membership.changes

    def room(self) -> int:
        """Records that the next poll may bring."""
        return max(1, self._rows_max - self.rows)

    def seconds_left(self, otherwise: float) -> float:
        """Seconds until a commit is due; `otherwise` when nothing is open."""
        if self._started is None:
            return otherwise
        return min(otherwise, self._until_due(self._started))

    def linger(self, arrived: float) -> float:
        """Seconds for which others may be waited for with a record that came then: what is processed sooner is not seen sooner."""
        return min(self._until_due(arrived if self._started is None else self._started), _LINGER_SECONDS_MAX)

    def due(self) -> bool:
        """Whether to commit now."""
        return self._started is not None and (self.rows >= self._rows_max or self._until_due(self._started) == 0.0)

    def _until_due(self, started: float) -> float:
        return max(0.0, self._cadence.due(started) - time.monotonic())

    def add(self, rows: int, outputs: Sequence[Output]) -> None:
        """Note processed records and publish what came of them."""
        self.unchanged()
        if self._started is None:
            self._started = self._membership.arrived if rows else time.monotonic()
        self.rows += rows
        if outputs:
            self._publisher.publish(outputs)

    def unchanged(self) -> None:
        """Raise `AssignmentChanged` if a rebalance came since the metadata was taken."""
        if self._membership.changes != self._changes:
            raise AssignmentChanged("a rebalance came between two steps of a commit")

    def commit(self, running: Iterable[RunningTask]) -> None:
        """Steps 2 to 5 for every task that moved; nothing when none did."""
        tasks = [task for task in running if task.dirty and task.replay_to is None]
        if not tasks:
            self._end()
            return
        if self._metadata is None:
            raise AssignmentChanged("not a member of the group")
        began = time.monotonic()
        # 1. Outputs are published; where delivery is no part of the commit, it is awaited here.
        self.unchanged()
        self._publisher.prepare()
        self._failpoints.reach("produced")
        # 2. Checkpoints.
        self.unchanged()
        positions = {task.name: task.positions() for task in tasks}
        offsets = self._write_checkpoints(tasks, positions)
        self._failpoints.reach("checkpointed")
        # 3. Offsets.
        self.unchanged()
        self._publisher.send_offsets(offsets, self._metadata)
        self._failpoints.reach("offsets_sent")
        # 4. The commit.
        self.unchanged()
        self._publisher.commit()
        self._failpoints.reach("committed")
        # 5. It stands.
        if self._base is not None:
            self._base.committed()
        for task in tasks:
            task.checkpoints.confirm()
            task.task.committed()
            task.committed = positions[task.name]
            task.dirty = False
        self.commits += 1
        now, waiting = time.monotonic(), self._membership.waiting()
        self._cadence.committed(now, now if self._started is None else self._started, self.rows, waiting, call=self._pace.records)
        self._metrics.observe(COMMIT_SECONDS, time.monotonic() - began, self._stage)
        self._metrics.set(LAST_COMMIT, time.time(), self._stage)
        self._end()

    def abort(self) -> None:
        """Undo the open transaction; the producer is opened again before the next one."""
        self._publisher.abort()
        if self._base is not None:
            self._base.aborted()
        self._ready = False
        self._end()

    def reach(self, step: str) -> None:
        """A failpoint outside the five steps."""
        self._failpoints.reach(step)

    def _write_checkpoints(self, tasks: Sequence[RunningTask], positions: Mapping[str, Mapping[PartitionId, int]]) -> list[TopicPartition]:
        """Write one checkpoint a task, and base checkpoints where they are due; the offsets that name them."""
        writes: list[Write] = []
        offsets: list[TopicPartition] = []
        based: list[RunningTask] = []
        for task in tasks:
            due = self._base is not None and self._base.due(task.name, task.rows)
            write, reference = task.checkpoints.prepare(task.task.checkpoint(), positions[task.name], base=due)
            due = due and not reference.inline
            metadata = encode_reference(reference)
            if len(metadata) > _METADATA_BYTES_MAX:
                raise FatalError(f"commit metadata of {len(metadata)} bytes, Kafka takes {_METADATA_BYTES_MAX}")
            writes.append(write)
            offsets += [TopicPartition(*key, offset, metadata) for key, offset in sorted(positions[task.name].items())]
            if due:
                based.append(task)
        began = time.monotonic()
        self._store.write(writes)
        self._metrics.observe(REDIS_SECONDS, time.monotonic() - began, "checkpoint")
        self._metrics.add(CHECKPOINT_BYTES, sum(write.size for write in writes), self._stage)
        for task in tasks:
            task.checkpoints.written()
        for task in based:
            self._write_base(task)
        return offsets

    def _write_base(self, task: RunningTask) -> None:
        assert self._base is not None
        began = time.monotonic()
        records = self._base.records(task.checkpoints, task.rows)
        self._publisher.publish(records)
        self._metrics.observe(BASE_SECONDS, time.monotonic() - began, self._stage)
        self._metrics.add(BASE_BYTES, sum(len(record.value or b"") for record in records), self._stage)

    def _end(self) -> None:
        self.rows = 0
        self._started = None
