"""The one loop: poll, process, commit; rebalances, pauses, ticks, draining and recovery around it.

What a commit is stands in `commit.py`; how a task starts at what was committed, in `restore.py`. The loop knows two
kinds of trouble: a `RecoverableError` aborts and loads everything again, any other error ends the worker.
"""

from __future__ import annotations

import logging
import threading
import time as clocks
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from confluent_kafka import Consumer, KafkaException

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.errors import AwayError, FatalError, KafkaAwayError, RecoverableError, WriteRefused
from driftline.streams.http import Health
from driftline.streams.kafka import MOCK_CLUSTER_PREFIX, START_SECONDS, from_kafka, make_admin, make_consumer, member_named
from driftline.streams.metrics import ABORTS, BATCH_RECORDS, PROCESS_SECONDS, REBALANCES, RECOVERIES, Metrics
from driftline.streams.runner.batches import Batches
from driftline.streams.runner.commit import Committer
from driftline.streams.runner.instance import Instance
from driftline.streams.runner.membership import Membership
from driftline.streams.runner.pace import Pace
from driftline.streams.runner.publisher import make_publisher
from driftline.streams.runner.report import Reporter
from driftline.streams.runner.restore import NO_END, OnLostState, Restorer, RunningTask, read_committed
from driftline.streams.runner.signals import handled
from driftline.streams.runner.tasks import TaskTable
from driftline.streams.runner.waiting import Waiting, client_errors
from driftline.streams.state.base import open_base_log
from driftline.streams.state.checkpoints import Scope
from driftline.streams.state.store import Store
from driftline.streams.task import FINAL_MS, Idle, Output, PartitionId, Processor, Record

_log = logging.getLogger(__name__)

# Records may be appended later than their time says (linger, retries); a tick claims nothing about the last second.
TICK_GRACE_MS: Final = 1_000
_TICK_SECONDS: Final = 1.0
_IDLE_POLL_SECONDS: Final = 0.2
# Decoded records of one call stay in the processor's cache; ten times as many cost a tenth more each.
_POLL_RECORDS_MAX: Final = 5_000
# Models that share a partition each make a batch of what was polled: with 50, so many records leave 200 rows a batch.
_POLL_RECORDS_A_MODEL: Final = 400
# Above any transaction timeout we allow together with its abort, below max.poll.interval.
_COMMITTED_SECONDS_MAX: Final = 120.0
# A fault that comes back this often without one commit between is no passing trouble.
_RECOVERIES_MAX: Final = 20


class Runner:
    """Runs one processor until it is stopped.

    Parameters
    ----------
    time : ``wall`` sends ticks by the clock while caught up; ``data`` leaves time to the rows.
    until_idle_s : stop after so many seconds without records at the end of every input; None = never.
    at_end : whether the end of the input matures what waits (one tick of `FINAL_MS`) or leaves it waiting.
    start : where tasks without committed offsets begin; None = the configuration's `start`.
    transactional : exactly once; False for brokers without transactions, then at least once; None = by the configuration.
    on_lost_state : what to do when no checkpoint fits the committed offsets.
    clock : wall time in seconds; ticks and `start` come from it, nothing in a task's logic does.
    instance : a name for this worker that its restart will have too; None = host and slot.
    state_version : version of the processor's state; checkpoints of another one are refused.
    """

    def __init__(
        self,
        processor: Processor,
        config: Config,
        cluster: Cluster,
        store: Store,
        metrics: Metrics | None = None,
        health: Health | None = None,
        *,
        time: Literal["wall", "data"] = "wall",
        until_idle_s: float | None = None,
        at_end: Literal["mature", "wait"] = "wait",
        start: str | None = None,
        transactional: bool | None = None,
        on_lost_state: OnLostState = "fail",
        clock: Callable[[], float] = clocks.time,
        instance: str | None = None,
        state_version: str = "1",
        former: Callable[[bytes], Processor] | None = None,
    ) -> None:
        self._processor, self._stage, self._store = processor, processor.name, store
        self._metrics, self._health = metrics or Metrics(), health or Health()
        self._time = time
        self._until_idle = until_idle_s
        self._mature = at_end == "mature"
        self._clock = clock
        group = f"{config.kafka.group_prefix}.{processor.name}"
        self._instance = Instance(group, config.kafka.bootstrap, name=instance)
        member = f"{group}.{self._instance.name}"
        exactly_once = config.kafka.guarantee == "exactly_once" if transactional is None else transactional
        # The embedded broker makes a static member wait for its own former session to end.
        name, error_cb = member if exactly_once else None, client_errors(self._health)
        self._membership = Membership(
            lambda: make_consumer(config.kafka, group, instance=name, error_cb=error_cb), processor.input_topics(),
            incremental=config.kafka.group_protocol == "consumer", revoked=self._revoked, lost=self._lost,
            holder=lambda: member_named(make_admin(config.kafka), group, member),
        )  # fmt: skip
        client: Callable[[], Consumer] = lambda: self._membership.consumer  # noqa: E731
        self._publisher = make_publisher(config.kafka, client, exactly_once=exactly_once, transactional_id=member)
        base = open_base_log(config, cluster, group)
        scope = Scope(config.redis.key_prefix, config.environment, group, cluster, state_version, config.digest, config.decisive)
        self._restorer = Restorer(
            processor, client, store, scope, base,
            start=start or config.start, by_time=not cluster.cluster_id.startswith(MOCK_CLUSTER_PREFIX),
            on_lost_state=on_lost_state, now_ms=lambda: round(clock() * 1000), former=former,
        )  # fmt: skip
        self._pace = Pace(_POLL_RECORDS_MAX + _POLL_RECORDS_A_MODEL * (len(config.models) - 1))
        self._committer = Committer(
            self._membership, self._publisher, store,
            kafka=config.kafka, base=base, stage=self._stage, metrics=self._metrics, health=self._health, pace=self._pace,
        )  # fmt: skip
        self._tasks = TaskTable(processor)
        self._reporter = Reporter(self._stage, self._membership, self._metrics, self._health)
        self._stopping, self._draining = threading.Event(), threading.Event()
        self._waiting = Waiting(self._membership, store, self._health, self._stopping)
        self._finished = self._reload = False
        self._recoveries = self._exhausted_rounds = 0
        self._pending_since = self._last_record = clocks.monotonic()
        self._last_tick = self._last_told = 0.0

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
        StreamError : why it cannot go on; its message says what to do.
        """
        with handled(self.stop, self.drain):
            try:
                self._waiting.store_answers(START_SECONDS)
                while not self._finished:
                    self._round()
            except FatalError as error:
                self._health.failed(error.message)
                raise
            finally:
                self._close()

    def _close(self) -> None:
        self._health.stopping()
        self._committer.abort()
        self._tasks.clear()
        try:
            self._membership.close()
        finally:
            self._publisher.close()
            self._instance.close()

    def _round(self) -> None:
        """Once round the loop; every recoverable error ends in an abort and a reload."""
        self._health.beat()
        try:
            # `init_transactions` comes before committed offsets are read: it ends what a killed self left open.
            if not self._committer.ready():
                raise KafkaAwayError("kafka: the producer is not ready")
            self._restore_pending()
            self._committer.begin()
            changes = self._membership.changes
            patience = 0.01 if self._tasks.pending(self._membership.owned) else _IDLE_POLL_SECONDS
            limit = min(self._committer.room(), self._pace.records)
            batches = self._membership.poll(self._committer.seconds_left(patience), limit, self._committer.linger)
            if self._reload:
                # A rebalance aborted tasks that stay here too: load them again from what was committed.
                self._reload, batches = False, {}
                self._membership.forget(list(self._membership.next))
            elif self._membership.changes != changes:
                batches = self._membership.narrow(self._tasks.inputs(), batches)
            self._feed(batches)
            self._tick()
            if self._committer.due() or self._stopping.is_set():
                self._committer.commit(self._tasks)
            self._end_if_done(batches)
        except RecoverableError as error:
            self._recover(error)
        except KafkaException as error:
            self._recover(from_kafka(error))

    # -- records

    def _feed(self, batches: Batches) -> None:
        if not batches:
            return
        self._last_record = clocks.monotonic()
        self._tell_time()
        by_task: dict[str, tuple[RunningTask, dict[PartitionId, Sequence[Record]]]] = {}
        for key, records in batches.items():
            task = self._tasks.of(key)
            by_task.setdefault(task.name, (task, {}))[1][key] = records  # type: ignore[assignment]
        for task, inputs in by_task.values():
            if task.replay_to is not None:
                self._replay(task, inputs)
                continue
            rows = sum(map(len, inputs.values()))
            began = clocks.monotonic()
            outputs = task.task.process(inputs)
            seconds = clocks.monotonic() - began
            self._pace.took(rows, seconds)
            self._metrics.observe(PROCESS_SECONDS, seconds, self._stage)
            self._metrics.observe(BATCH_RECORDS, rows, self._stage)
            self._reporter.took(inputs)
            self._after(task, outputs, rows)

    def _after(self, task: RunningTask, outputs: Sequence[Output], rows: int) -> None:
        """Publish what a task returned, note that it moved, and pause its partitions where it asks to."""
        if rows or outputs:
            self._committer.add(rows, outputs)
            task.rows += rows
            task.dirty = True
        self._pause(task)

    def _pause(self, task: RunningTask) -> None:
        paused = task.task.paused()
        if paused != task.paused:
            task.paused = paused
            self._membership.pause(self._tasks.paused())

    def _replay(self, task: RunningTask, inputs: Mapping[PartitionId, Sequence[Record]]) -> None:
        task.replay(inputs)
        self._pause(task)
        self._end_replay(task)

    def _end_replay(self, task: RunningTask) -> None:
        target = task.replay_to
        at, ended = self._membership.next, self._membership.reached_end
        if target is None or not all(at.get(key, 0) >= offset or ended(key) for key, offset in target.items()):
            return
        task.replayed(target)
        _log.info("task_replayed task=%s rows=%d", task.name, task.rows)
        if task.former:
            # From here on the present configuration is active.
            self._committer.commit(self._tasks)
            self._tasks.remove(task.inputs)
            self._membership.forget(task.inputs)
            return
        self._after(task, task.task.opened(), 0)
        # Records past the target were fetched and put aside: read them again.
        self._membership.read(target)

    # -- time and ends

    def _tell_time(self) -> None:
        """Under load no partition is ever at its end: tasks learn the wall time with the records, about once a second, new ones at once."""
        if self._time != "wall" or clocks.monotonic() - self._last_told < _TICK_SECONDS:
            return
        self._last_told = clocks.monotonic()
        for task in self._tasks:
            outputs = task.task.tick(Idle(self._wall_ms(), frozenset()))
            # What a replay brings was published before.
            self._after(task, outputs if task.replay_to is None else [], 0)

    def _wall_ms(self) -> int:
        return round(self._clock() * 1000) - TICK_GRACE_MS

    def _tick(self) -> None:
        now = clocks.monotonic()
        if now - self._last_tick < _TICK_SECONDS:
            return
        self._last_tick = now
        if self._reporter.report(self._tasks, self._committer, now_ms=round(self._clock() * 1000)):
            self._recoveries = 0
        for task in self._tasks:
            self._end_replay(task)
        if self._time != "wall":
            return
        at_end = self._membership.at_end()
        for task in self._tasks:
            ends = at_end & task.inputs
            if ends and task.replay_to is None:
                self._after(task, task.task.tick(Idle(self._wall_ms(), ends)), 0)

    def _end_if_done(self, batches: Batches) -> None:
        if self._stopping.is_set():
            self._finished = True
            return
        if self._until_idle is None and not self._draining.is_set():
            return
        busy = batches or self._committer.open or self._tasks.pending(self._membership.owned) or not self._membership.joined
        if busy or self._tasks.replaying() or not self._membership.exhausted():
            self._exhausted_rounds = 0
            return
        self._exhausted_rounds += 1
        idle = self._until_idle is not None and clocks.monotonic() - self._last_record >= self._until_idle
        # Twice: a commit of ours may have made a task resume what it had paused.
        if idle or (self._draining.is_set() and self._exhausted_rounds >= 2 and self._really_exhausted()):
            self._finish(final=idle and self._mature)

    def _really_exhausted(self) -> bool:
        """The same, asked of the broker now: a drained worker is not started again."""
        return self._membership.at_end() | self._tasks.paused() >= self._membership.next.keys()

    def _finish(self, *, final: bool) -> None:
        if final:
            self._committer.begin()
            for task in self._tasks:
                self._after(task, task.task.tick(Idle(FINAL_MS, task.inputs)), 0)
        self._committer.commit(self._tasks)
        self._finished = True

    # -- tasks come and go

    def _restore_pending(self) -> None:
        if self._committer.open:
            return
        pending = self._tasks.pending(self._membership.owned)
        if not pending:
            self._health.assigned(len(self._tasks) if self._membership.settled else None)
            self._pending_since = clocks.monotonic()
            return
        if self._membership.metadata() is None:
            return  # thrown out of the group and not told yet: nothing is ours to claim
        committed = read_committed(self._membership.consumer, sorted(frozenset[PartitionId]().union(*pending.values())))
        if committed is None:
            if not self._membership.answers():
                raise KafkaAwayError("kafka: no broker answers")
            self._health.kafka("the committed offsets are not readable yet")
            if clocks.monotonic() - self._pending_since > _COMMITTED_SECONDS_MAX:
                raise FatalError(f"kafka: the committed offsets are not readable for {_COMMITTED_SECONDS_MAX:.0f} s", hint=NO_END)
            return
        self._committer.begin()
        started: dict[PartitionId, int] = {}
        for name in sorted(pending):
            task = self._restorer.restore(name, pending[name], committed)
            self._tasks.add(task)
            started |= task.read_from
            self._after(task, task.task.opened() if task.replay_to is None else [], 0)
            self._metrics.add(RECOVERIES, 1, self._stage, task.source)
        self._committer.reach("restored")
        # A new task's start offsets and empty state are committed before its first record.
        self._committer.commit(self._tasks)
        self._membership.read(started)
        for task in self._tasks:
            self._pause(task)
        self._health.assigned(len(self._tasks))
        self._health.redis(None)
        self._health.kafka(None)
        self._last_told = 0.0
        self._last_record = clocks.monotonic()

    def _revoked(self, partitions: frozenset[PartitionId]) -> None:
        """Inside the revoke callback: finish what is open if that works at once, else abort; then let go."""
        try:
            if self._committer.open:
                self._committer.commit(self._tasks)
        except RecoverableError as error:
            _log.info("revoked_with_abort reason=%r", error.message)
        finally:
            self._lost(partitions)

    def _lost(self, partitions: frozenset[PartitionId]) -> None:
        """Nothing more may be committed. What other tasks have open goes too: they share the transaction."""
        self._metrics.add(REBALANCES, 1, self._stage)
        self._health.assigned(None)
        self._reporter.lost(partitions)
        if self._committer.open:
            self._committer.abort()
            self._tasks.clear()
            self._reload = True
            return
        self._tasks.remove(partitions)

    # -- recovery

    def _recover(self, error: RecoverableError) -> None:
        """Abort, forget, wait until Kafka and Redis answer; the next rounds load what was committed (PROTOCOL 10)."""
        self._recoveries += 1
        self._metrics.add(ABORTS, 1, self._stage, type(error).__name__)
        _log.warning("commit_aborted reason=%s error=%r count=%d", type(error).__name__, error.message, self._recoveries)
        self._health.assigned(None)
        self._committer.abort()
        self._tasks.clear()
        self._membership.forget(list(self._membership.next))
        if isinstance(error, WriteRefused) and error.reason == "owner":
            self._waiting.rebalance(error)
        if isinstance(error, AwayError):
            self._waiting.away(error)
        elif self._recoveries > _RECOVERIES_MAX:
            raise FatalError(f"{self._recoveries} commits in a row failed, the last with: {error.message}") from error
        else:
            self._waiting.before_retry(self._recoveries)
        self._pending_since = clocks.monotonic()
        # Nothing is open now, and what does not answer must not hold up a stop.
        self._finished = self._stopping.is_set()
