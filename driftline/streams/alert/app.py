"""The alert app: Faust consumes drift events, `AlertWorker` does the rest.

Faust acknowledges an event in a `finally`, so that an exception in an agent commits the very event it failed on
(faust-streaming#527). Here acknowledgement is manual and comes last; a failure retries, then stops the process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka.errors import KafkaError
from mode.supervisors import CrashingSupervisor

from driftline.streams.alert import transport
from driftline.streams.alert.watchdog import EndOffsetsOf, Progress
from driftline.streams.alert.worker import STAGE, AlertWorker
from driftline.streams.errors import AwayError, FatalError, RecoverableError
from driftline.streams.http import Health
from driftline.streams.metrics import LAG, REBALANCES, TASKS, Metrics
from driftline.streams.task import MemoryRecord

log = logging.getLogger(__name__)

BATCH_EVENTS = 200
LOOK_SECONDS = 0.2
STOP_SECONDS = 20
RETRY_SECONDS = 60
"""How long Kafka or Redis may be away before the process gives up; every step may be repeated."""


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What the app needs to know.

    Attributes
    ----------
    brokers : ``host:port,host:port``.
    until_idle_s : end with 0 after this many seconds with nothing to do; None runs on.
    republish_s : time between two publications of all open alerts.
    check_crcs : False for the embedded broker, whose transactional batches carry a wrong checksum.
    """

    brokers: str
    group: str
    topic: str
    data_directory: str
    credentials: Any = None
    until_idle_s: float | None = None
    republish_s: float = 300
    instance_id: str | None = None
    session_timeout_s: float = 30
    check_crcs: bool = True


def faust_app(settings: AppSettings) -> Any:
    """A Faust app with nothing that could surprise: at-least-once, no tables, no web server, no topic made by itself."""
    transport.register()
    urls = [f"{transport.SCHEME}://{broker.strip()}" for broker in settings.brokers.split(",") if broker.strip()]
    return faust.App(
        settings.group,
        broker=urls,
        broker_credentials=settings.credentials,
        processing_guarantee="at_least_once",
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,           # effects are idempotent: what is in flight at a rebalance is read again
        stream_recovery_delay=0,
        broker_max_poll_records=500,
        broker_max_poll_interval=300,      # the default 1000 s hides a stall
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 10,
        broker_commit_interval=1.0,
        broker_check_crcs=settings.check_crcs,
        consumer_group_instance_id=settings.instance_id,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        web_enabled=False,
        store="memory://",
        datadir=settings.data_directory,
    )


class AlertApp:
    """One run of the alert processor; `run` returns the exit code.

    Parameters
    ----------
    worker : every call to it comes from one thread of its own.
    seed : fills an empty store (`recovery.py`); called before the first record is taken.
    ends_of : end offsets; called from a second thread, so that a slow delivery does not stop the heartbeat.
    """

    def __init__(
        self,
        worker: AlertWorker,
        settings: AppSettings,
        *,
        seed: Callable[[], int],
        ends_of: EndOffsetsOf,
        progress: Progress,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._seed = seed
        self._ends_of = ends_of
        self._progress = progress
        self._health = health
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="alert-worker")
        self._probe = ThreadPoolExecutor(1, thread_name_prefix="alert-probe")
        self._handled: dict[int, int] = {}
        self._draining = False
        self._busy = False
        self._assigned = False
        self._failure: BaseException | None = None

    async def run(self) -> int:
        """Run until a signal, an idle end or a failure.

        Raises
        ------
        FatalError, RecoverableError : what stopped it, after an orderly stop.
        """
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ended.set)
        self._loop.add_signal_handler(signal.SIGUSR1, self._drain)
        self._app: Any = faust_app(self._settings)
        self._app.seek_to_applied = self._seek_to_applied   # what CommittedConsumer calls
        topic = self._app.topic(self._settings.topic, key_type=bytes, value_type=bytes, value_serializer="raw", internal=False)
        self._agent = self._app.agent(topic, name="drift_events", concurrency=1, supervisor_strategy=CrashingSupervisor)(self._take)
        try:
            await self._app.start()
            await self._watch()
        except KafkaError as error:
            raise AwayError(f"aiokafka: {error!r}") from error
        finally:
            self._health.stopping()
            await asyncio.wait_for(self._app.stop(), STOP_SECONDS)
            self._thread.shutdown(wait=True)
            self._probe.shutdown(wait=True)
        if self._failure is not None:
            raise self._failure
        return 0

    async def _take(self, stream: Any) -> None:
        """The agent: gather what is there, handle it, acknowledge it."""
        batch: list[Any] = []
        async for event in stream.noack().events():
            batch.append(event)
            self._busy = True
            if len(batch) < BATCH_EVENTS and not stream.channel.queue.empty():
                continue
            try:
                await self._handle(batch)
            except (RecoverableError, FatalError) as error:
                self._fail(error)
                await asyncio.Event().wait()   # never acknowledged: the process ends
            for done in batch:
                done.ack()
                self._handled[done.message.partition] = done.message.offset + 1
            batch = []
            self._busy = False

    async def _handle(self, batch: Sequence[Any]) -> None:
        records = [_record(event.message) for event in batch]
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                await self._in_thread(self._worker.handle, records)
                self._health.redis(None)
                return
            except AwayError as error:
                if time.monotonic() > deadline:
                    raise
                self._health.redis(str(error))
                log.warning("alert_retry reason=%s", error)
                await asyncio.sleep(1)

    async def _seek_to_applied(self, consumer: transport.CommittedConsumer) -> None:
        """Where the store is behind the committed offset, read again from there (PROTOCOL 18)."""
        partitions = [tp for tp in consumer.assignment() if tp.topic == self._settings.topic]
        log.info("alert_assigned partitions=%s", sorted(tp.partition for tp in partitions))
        self._metrics.add(REBALANCES, 1, STAGE)
        applied = {tp: await self._in_thread(self._worker.next_offset, tp.partition) for tp in partitions}
        if any(offset is None for offset in applied.values()):
            seeded = await self._in_thread(self._seed)
            log.info("alert_store_seeded alerts=%d", seeded)
        for tp, offset in applied.items():
            committed = consumer.committed_offset(tp)
            if committed is not None and committed > (offset or 0):
                log.warning("alert_store_behind partition=%d applied=%s committed=%d: reading again", tp.partition, offset, committed)
                await consumer.seek(tp, offset or 0)
        owned = {tp.partition for tp in partitions}
        self._handled = {number: offset for number, offset in self._handled.items() if number in owned}
        await self._in_thread(self._worker.republish, sorted(owned))
        self._assigned = True
        self._health.assigned(len(owned))
        self._metrics.set(TASKS, len(owned), STAGE)

    async def _watch(self) -> None:
        """Look at the progress, publish open alerts again now and then, and see when there is nothing left to do."""
        idle_since: float | None = None
        republished = time.monotonic()
        while not self._ended.is_set():
            await _wait(self._ended, LOOK_SECONDS)
            if self._app.crashed or self._agent.crashed:
                reason = self._app.crash_reason or self._agent.crash_reason
                if isinstance(reason, FatalError):
                    raise reason
                raise RecoverableError(f"Faust stopped: {reason!r}") from reason
            self._health.beat()
            if not self._assigned:
                continue
            idle = await self._look()
            now = time.monotonic()
            idle_since = (idle_since or now) if idle else None
            if idle_since is not None and self._ends_after(now - idle_since):
                log.info("alert_idle: the end of the drift topic is reached")
                return
            if now - republished > self._settings.republish_s:
                republished = now
                await self._republish()

    async def _republish(self) -> None:
        """Every few minutes; while Kafka or Redis is away the next time will do."""
        owned = sorted(tp.partition for tp in self._app.consumer.assignment() if tp.topic == self._settings.topic)
        try:
            await self._in_thread(self._worker.republish, owned)
        except AwayError as error:
            log.warning("alert_republish_put_off reason=%s", error)

    def _ends_after(self, idle_seconds: float) -> bool:
        limit = 2 * LOOK_SECONDS if self._draining else self._settings.until_idle_s
        return limit is not None and idle_seconds >= limit

    async def _look(self) -> bool:
        """Write progress and lag; whether everything up to the log's end is done."""
        consumer = self._app.consumer
        partitions = {tp.partition: tp for tp in consumer.assignment() if tp.topic == self._settings.topic}
        done: dict[int, int] = {}
        for number, tp in partitions.items():
            position = await consumer.position(tp)
            fetched = consumer.fetched.get(tp)
            handled = self._handled.get(number, 0)
            # with nothing in flight the position counts: it passes transaction markers and aborted records
            finished = not self._busy and (fetched is None or handled >= fetched)
            done[number] = (position or 0) if finished else handled
        self._progress.set(done)
        try:
            ends = await self._loop.run_in_executor(self._probe, self._ends_of, self._settings.topic, sorted(done))
        except AwayError as error:
            log.warning("alert_end_offsets_unknown reason=%s", error)
            return False
        lags = {number: max(0, end - done[number]) for number, end in ends.items()}
        for number, lag in lags.items():
            self._metrics.set(LAG, lag, self._settings.topic, number)
        self._health.committed(lag_records=sum(lags.values()))
        return not any(lags.values())

    def _drain(self) -> None:
        self._draining = True

    def _fail(self, error: BaseException) -> None:
        log.error("alert_failed error=%s: %s", type(error).__name__, error)
        self._failure = error
        self._ended.set()

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await self._loop.run_in_executor(self._thread, call, *arguments)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _record(message: Any) -> MemoryRecord:
    headers = message.headers or []
    return MemoryRecord(
        topic_=message.topic,
        partition_=message.partition,
        offset_=message.offset,
        key_=message.key,
        value_=message.value,
        timestamp_ms=int(message.timestamp * 1000) if message.timestamp is not None else -1,
        headers_=tuple(headers.items() if isinstance(headers, dict) else headers),
    )
