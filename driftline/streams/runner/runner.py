"""The one loop: poll, process, checkpoint, commit; rebalances, pauses, ticks, draining and recovery around it.

A commit has five steps, and Kafka's commit (4) is the only one that decides:

1. the group's metadata, taken before the first poll; records are processed and their outputs published;
2. the checkpoint, one conditional write to the store a task;
3. the offsets of every input with the checkpoint's name as their metadata;
4. the commit of the transaction;
5. the tasks learn that it stands, and older checkpoints are removed with the next write.

Whatever goes wrong before 4 is aborted, and memory is loaded again from what was committed (PROTOCOL 9, 10).
"""

from __future__ import annotations

import logging
import signal
import threading
import time as clocks
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from confluent_kafka import Consumer, KafkaException, TopicPartition

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.errors import AssignmentChanged, AwayError, FatalError, OwnershipError, RecoverableError, WriteRefused
from driftline.streams.kafka import MOCK_CLUSTER_PREFIX, make_consumer, make_producer
from driftline.streams.runner.failpoint import Failpoints
from driftline.streams.runner.instance import Instance
from driftline.streams.runner.membership import Batches, Membership
from driftline.streams.runner.ports import NoHealth, NoMetrics, RunnerHealth, RunnerMetrics
from driftline.streams.runner.publisher import AtLeastOnce, Publisher, Transactions
from driftline.streams.runner.restore import OnLostState, Restorer, RunningTask, read_committed
from driftline.streams.state.checkpoints import Scope
from driftline.streams.state.manifest import encode_reference
from driftline.streams.state.store import Store, Write
from driftline.streams.task import FINAL_MS, Idle, Output, PartitionId, Processor, Record

_log = logging.getLogger(__name__)

# Records may be appended later than their time says (linger, retries); a tick claims nothing about the last second.
TICK_GRACE_MS: Final = 1_000
_TICK_SECONDS: Final = 1.0
_IDLE_POLL_SECONDS: Final = 0.2
# Above any transaction timeout we allow together with its abort, below max.poll.interval.
_COMMITTED_SECONDS_MAX: Final = 120.0
# A fault that comes back this often without one commit between is no passing trouble.
_RECOVERIES_MAX: Final = 20
_PAUSE_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
_SESSION_SECONDS: Final = 12.0
_METADATA_BYTES_MAX: Final = 4_000


class Runner:
    """Runs one processor until it is stopped.

    Parameters
    ----------
    time : ``wall`` sends ticks by the clock while caught up; ``data`` leaves time to the rows.
    until_idle_seconds : stop after so long without records at the end of every input; None = never.
    at_end : whether the end of the input matures what waits (one tick of `FINAL_MS`) or leaves it waiting.
    start : where tasks without committed offsets begin; None = the configuration's `start`.
    transactional : exactly once; False for brokers without transactions, then at least once.
    on_lost_state : what to do when no checkpoint fits the committed offsets.
    clock : wall time in seconds; only ticks, `start` and nothing in a task's logic come from it.
    instance : a name for this worker that its restart will have too; None = host and slot.
    state_version : version of the processor's state; checkpoints of another one are refused.
    """

    def __init__(
        self,
        processor: Processor,
        config: Config,
        cluster: Cluster,
        store: Store,
        metrics: RunnerMetrics | None = None,
        health: RunnerHealth | None = None,
        *,
        time: Literal["wall", "data"] = "wall",
        until_idle_seconds: float | None = None,
        at_end: Literal["mature", "wait"] = "wait",
        start: str | None = None,
        transactional: bool = True,
        on_lost_state: OnLostState = "fail",
        clock: Callable[[], float] = clocks.time,
        instance: str | None = None,
        state_version: str = "1",
        config_hash: str = "",
    ) -> None:
        self._processor = processor
        self._kafka = config.kafka
        self._store = store
        self._metrics = metrics or NoMetrics()
        self._health = health or NoHealth()
        self._time = time
        self._until_idle = until_idle_seconds
        self._mature = at_end == "mature"
        self._clock = clock
        self._failpoints = Failpoints()
        group = f"{config.kafka.group_prefix}.{processor.name}"
        self._instance = Instance(group, config.kafka.bootstrap, name=instance)
        self._consumer: Consumer = make_consumer(config.kafka, group, instance=f"{group}.{self._instance.name}")
        self._publisher = self._make_publisher(transactional, f"{group}.{self._instance.name}")
        scope = Scope(config.redis.key_prefix, config.environment, group, cluster, state_version, config_hash)
        self._restorer = Restorer(
            processor,
            self._consumer,
            store,
            scope,
            start=start or config.start,
            by_time=not cluster.cluster_id.startswith(MOCK_CLUSTER_PREFIX),
            on_lost_state=on_lost_state,
            now_ms=lambda: round(clock() * 1000),
        )
        self._membership = Membership(
            self._consumer,
            processor.input_topics(),
            incremental=config.kafka.group_protocol == "consumer",
            metrics=self._metrics,
            revoked=self._revoked,
            lost=self._lost,
        )
        self._tasks: dict[str, RunningTask] = {}
        self._task_of: dict[PartitionId, RunningTask] = {}
        self._open = False
        self._stopping = threading.Event()
        self._draining = threading.Event()
        self._finished = False
        self._metadata: bytes | None = None
        self._cycle = 0
        self._cycle_rows = 0
        self._cycle_started: float | None = None
        self._recoveries = 0
        self._pending_since = clocks.monotonic()
        self._last_record = clocks.monotonic()
        self._last_tick = 0.0
        self._exhausted_rounds = 0

    def _make_publisher(self, transactional: bool, transactional_id: str) -> Publisher:
        seconds = self._kafka.transaction_timeout / 1000
        if transactional:
            return Transactions(lambda: make_producer(self._kafka, transactional_id=transactional_id), timeout_seconds=seconds)
        return AtLeastOnce(lambda: make_producer(self._kafka), self._consumer, timeout_seconds=seconds)

    def stop(self) -> None:
        """Commit what is processed and leave; safe in a signal handler."""
        self._stopping.set()

    def drain(self) -> None:
        """Leave once every input is read to its end; safe in a signal handler."""
        self._draining.set()

    def run(self) -> None:
        """Run until stopped, drained or idle.

        Raises
        ------
        StreamError : why it cannot go on; a `FatalError` says what to do.
        """
        with _signals(self.stop, self.drain):
            try:
                self._until_answer()
                while not self._finished:
                    self._round()
            finally:
                self._health.ready(False, "stopped")
                self._close()

    def _close(self) -> None:
        self._publisher.abort()
        self._drop_tasks()
        try:
            self._membership.close()
        finally:
            self._publisher.close()
            self._instance.close()

    def _round(self) -> None:
        """Once round the loop, with every recoverable error ending in an abort and a reload."""
        self._health.alive()
        try:
            if not self._open:
                self._open_publisher()
            self._restore_pending()
            self._take_metadata()
            batches = self._membership.poll(self._patience(), self._room())
            if self._membership.changes != self._cycle and batches:
                raise AssignmentChanged("records arrived across a rebalance")
            self._feed(batches)
            self._tick()
            self._commit_if_due()
            self._end_if_done(batches)
        except RecoverableError as error:
            self._recover(error)
        except KafkaException as error:
            self._recover(AwayError(f"kafka: {error.args[0].str()}"))

    # -- step 1: metadata, records, outputs

    def _take_metadata(self) -> None:
        """Only between transactions: within one it stays what it was before the first poll."""
        if self._cycle_started is None:
            self._metadata = self._membership.metadata()
            self._cycle = self._membership.changes

    def _patience(self) -> float:
        if self._cycle_started is None:
            return 0.01 if self._pending() else _IDLE_POLL_SECONDS
        due = self._cycle_started + self._kafka.commit_interval / 1000 - clocks.monotonic()
        return min(max(due, 0.0), _IDLE_POLL_SECONDS)

    def _room(self) -> int:
        return max(1, self._kafka.commit_rows - self._cycle_rows)

    def _feed(self, batches: Batches) -> None:
        if not batches:
            return
        self._last_record = clocks.monotonic()
        by_task: dict[str, dict[PartitionId, list[Record]]] = {}
        for key, records in batches.items():
            by_task.setdefault(self._task_of[key].name, {})[key] = records  # type: ignore[assignment]
        for name, inputs in by_task.items():
            task = self._tasks[name]
            rows = sum(map(len, inputs.values()))
            if task.replay_to is not None:
                self._replay(task, task.replay_to, inputs)
                continue
            self._after(task, task.task.process(inputs), rows)

    def _after(self, task: RunningTask, outputs: list[Output], rows: int) -> None:
        """Publish what a task returned, note that it moved, and stop its partitions where it asks to."""
        if outputs:
            self._publisher.publish(outputs)
            self._metrics.count("outputs_total", len(outputs), task=task.name)
        if rows:
            task.rows += rows
            self._cycle_rows += rows
            self._metrics.count("records_total", rows, task=task.name)
        if rows or outputs:
            task.dirty = True
            if self._cycle_started is None:
                self._cycle_started = clocks.monotonic()
        self._pause(task)

    def _pause(self, task: RunningTask) -> None:
        paused = task.task.paused()
        if paused != task.paused:
            task.paused = paused
            self._membership.pause(frozenset().union(*(other.paused for other in self._tasks.values())))

    def _replay(self, task: RunningTask, target: dict[PartitionId, int], inputs: dict[PartitionId, list[Record]]) -> None:
        """Bring an older checkpoint up to the committed offsets; its outputs were published before."""
        before = {key: [r for r in records if r.offset() < target[key]] for key, records in inputs.items()}
        task.task.process({key: records for key, records in before.items() if records})
        self._pause(task)
        self._end_replay(task)

    def _end_replay(self, task: RunningTask) -> None:
        target = task.replay_to
        if target is None:
            return
        done = [self._membership.next.get(key, 0) >= offset or self._membership.reached_end(key) for key, offset in target.items()]
        if not all(done):
            return
        task.replay_to = None
        task.committed = dict(target)
        task.dirty = True
        _log.info("task_replayed task=%s", task.name)
        # Records past the target were fetched and put aside: read them again.
        self._membership.read(target)

    # -- steps 2 to 5

    def _commit_if_due(self) -> None:
        if self._cycle_started is None:
            return
        late = clocks.monotonic() - self._cycle_started >= self._kafka.commit_interval / 1000
        if late or self._cycle_rows >= self._kafka.commit_rows or self._stopping.is_set():
            self._commit()

    def _commit(self) -> None:
        """Steps 2 to 5 for every task that moved; see the module's docstring."""
        tasks = [task for task in self._tasks.values() if task.dirty and task.replay_to is None]
        if not tasks:
            self._end_cycle()
            return
        if self._metadata is None:
            raise AssignmentChanged("not a member of the group")
        began = clocks.monotonic()
        # 1. Outputs are published; where delivery is not part of the commit, it is awaited here.
        self._unchanged()
        self._publisher.prepare()
        self._failpoints.reach("produced")
        # 2. Checkpoints.
        self._unchanged()
        writes: list[Write] = []
        offsets: list[TopicPartition] = []
        positions = {task.name: task.positions() for task in tasks}
        for task in tasks:
            write, reference = task.checkpoints.prepare(task.task.checkpoint(), positions[task.name], task.base)
            metadata = encode_reference(reference)
            if len(metadata) > _METADATA_BYTES_MAX:
                raise FatalError(f"commit metadata of {len(metadata)} bytes, Kafka takes {_METADATA_BYTES_MAX}")
            writes.append(write)
            offsets += [TopicPartition(*key, offset, metadata) for key, offset in sorted(positions[task.name].items())]
        self._store.write(writes)
        for task in tasks:
            task.checkpoints.written()
        self._failpoints.reach("checkpointed")
        # 3. Offsets.
        self._unchanged()
        self._publisher.send_offsets(offsets, self._metadata)
        self._failpoints.reach("offsets_sent")
        # 4. The commit.
        self._unchanged()
        self._publisher.commit()
        self._failpoints.reach("committed")
        # 5. It stands.
        for task in tasks:
            task.checkpoints.confirm()
            task.task.committed()
            task.committed = positions[task.name]
            task.dirty = False
        self._recoveries = 0
        self._metrics.count("commits_total")
        self._metrics.observe("commit_seconds", clocks.monotonic() - began)
        self._end_cycle()

    def _unchanged(self) -> None:
        if self._membership.changes != self._cycle:
            raise AssignmentChanged("a rebalance came between two steps of a commit")

    def _end_cycle(self) -> None:
        self._cycle_rows = 0
        self._cycle_started = None

    # -- time and ends

    def _tick(self) -> None:
        now = clocks.monotonic()
        if now - self._last_tick < _TICK_SECONDS:
            return
        self._last_tick = now
        for (topic, partition), behind in self._membership.lag().items():
            self._metrics.gauge("lag_records", behind, topic=topic, partition=str(partition))
        for task in list(self._tasks.values()):
            self._end_replay(task)
        if self._time != "wall":
            return
        time_ms = round(self._clock() * 1000) - TICK_GRACE_MS
        at_end = self._membership.at_end()
        for task in self._tasks.values():
            ends = at_end & task.inputs
            if ends and task.replay_to is None:
                self._after(task, task.task.tick(Idle(time_ms, ends)), 0)

    def _end_if_done(self, batches: Batches) -> None:
        if self._stopping.is_set():
            if self._cycle_started is None:
                self._finished = True
            return
        if not (self._until_idle is not None or self._draining.is_set()):
            return
        waiting = batches or self._cycle_started is not None or self._pending() or not self._membership.joined
        if waiting or not self._membership.exhausted():
            self._exhausted_rounds = 0
            return
        self._exhausted_rounds += 1
        idle = self._until_idle is not None and clocks.monotonic() - self._last_record >= self._until_idle
        # Twice: a commit of ours may have made a task resume what it had paused.
        if idle or (self._draining.is_set() and self._exhausted_rounds >= 2 and self._really_exhausted()):
            self._finish(final=idle and self._mature)

    def _really_exhausted(self) -> bool:
        """The same, asked of the broker now: a drained worker is not started again."""
        at_end = self._membership.at_end()
        paused = frozenset().union(*(task.paused for task in self._tasks.values()))
        return all(key in at_end or key in paused for key in self._membership.next)

    def _finish(self, *, final: bool) -> None:
        if final:
            self._take_metadata()
            for task in self._tasks.values():
                self._after(task, task.task.tick(Idle(FINAL_MS, task.inputs)), 0)
        self._commit()
        self._finished = True

    # -- tasks come and go

    def _pending(self) -> dict[str, frozenset[PartitionId]]:
        """Tasks whose inputs are all owned and that do not run yet."""
        wanted: dict[str, frozenset[PartitionId]] = {}
        for key in self._membership.owned - self._task_of.keys():
            name = self._processor.task_name(key)
            inputs = self._processor.task_inputs(name)
            if inputs <= self._membership.owned:
                wanted[name] = inputs
        return wanted

    def _open_publisher(self) -> None:
        """`init_transactions` comes before committed offsets are read: it ends what a killed self left open."""
        self._open = self._publisher.open()
        if not self._open:
            raise AwayError("kafka: the producer is not ready")

    def _restore_pending(self) -> None:
        pending = self._pending()
        if not pending or self._cycle_started is not None:
            if self._cycle_started is None:
                self._pending_since = clocks.monotonic()
            return
        committed = read_committed(self._consumer, sorted(frozenset().union(*pending.values())))
        if committed is None:
            if clocks.monotonic() - self._pending_since > _COMMITTED_SECONDS_MAX:
                raise FatalError(f"kafka: committed offsets are not readable for {_COMMITTED_SECONDS_MAX:.0f} s")
            return
        self._take_metadata()
        started: dict[PartitionId, int] = {}
        for name in sorted(pending):
            task = self._restorer.restore(name, pending[name], committed)
            self._tasks[name] = task
            self._task_of |= dict.fromkeys(task.inputs, task)
            started |= task.read_from
        self._failpoints.reach("restored")
        # A new task's start offsets and empty state are committed before its first record.
        self._commit()
        self._membership.read(started)
        for name in pending:
            self._pause(self._tasks[name])
        self._health.ready(True)
        self._last_record = clocks.monotonic()

    def _revoked(self, partitions: frozenset[PartitionId]) -> None:
        """Inside the revoke callback: finish what is open if that works at once, else abort; then let go."""
        self._metrics.count("rebalances_total")
        try:
            if self._cycle_started is not None:
                self._commit()
        except RecoverableError as error:
            _log.info("revoked_with_abort reason=%r", error.message)
        finally:
            self._lost(partitions)

    def _lost(self, partitions: frozenset[PartitionId]) -> None:
        """Nothing may be committed any more. What other tasks have open is aborted too: they share the transaction."""
        if self._cycle_started is not None:
            self._publisher.abort()
            self._drop_tasks()
            self._end_cycle()
            return
        for task in [task for task in self._tasks.values() if task.inputs & partitions]:
            del self._tasks[task.name]
            for key in task.inputs:
                self._task_of.pop(key, None)

    def _drop_tasks(self) -> None:
        self._tasks.clear()
        self._task_of.clear()

    # -- recovery

    def _recover(self, error: RecoverableError) -> None:
        """Abort, forget, wait until Kafka and Redis answer; the next rounds load what was committed (PROTOCOL 10)."""
        self._recoveries += 1
        self._metrics.count("aborts_total", reason=type(error).__name__)
        _log.warning("commit_aborted reason=%s error=%r count=%d", type(error).__name__, error.message, self._recoveries)
        self._publisher.abort()
        self._open = False
        self._drop_tasks()
        self._end_cycle()
        self._membership.forget(list(self._membership.next))
        if isinstance(error, WriteRefused) and error.reason == "owner":
            self._expect_rebalance(error)
        if isinstance(error, AwayError):
            self._health.ready(False, error.message)
            self._until_answer()
        elif self._recoveries > _RECOVERIES_MAX:
            raise FatalError(f"{self._recoveries} commits in a row failed, the last with: {error.message}") from error
        self._pending_since = clocks.monotonic()

    def _expect_rebalance(self, error: WriteRefused) -> None:
        """Another worker took our task. Kafka will say so within a session; if it does not, two claim one task."""
        before = self._membership.changes
        deadline = clocks.monotonic() + _SESSION_SECONDS
        while self._membership.changes == before:
            if clocks.monotonic() > deadline or self._stopping.is_set():
                raise OwnershipError(error.message, hint="does another installation use the same redis.key_prefix, environment and group?")
            self._membership.poll(_IDLE_POLL_SECONDS, 1)

    def _until_answer(self) -> None:
        """Return when the store answers; the group membership is kept alive meanwhile and nothing is read."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                self._store.check()
                return
            except AwayError as error:
                pause = _PAUSE_SECONDS[min(attempt, len(_PAUSE_SECONDS) - 1)]
                _log.warning("store_away error=%r retry_in_seconds=%.1f", error.message, pause)
                self._health.ready(False, error.message)
            attempt += 1
            until = clocks.monotonic() + pause
            while (left := until - clocks.monotonic()) > 0 and not self._stopping.is_set():
                self._health.alive()
                self._membership.poll(min(left, _IDLE_POLL_SECONDS), 1)
        self._finished = True


@contextmanager
def _signals(stop: Callable[[], None], drain: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT stop, SIGUSR1 drains, while in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    actions = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGUSR1: drain}
    before = {number: signal.signal(number, lambda *_, act=act: act()) for number, act in actions.items()}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
