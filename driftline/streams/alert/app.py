"""The alert app: Faust consumes drift events, `AlertWorker` does the rest.

Faust acknowledges an event in a `finally`, so that an exception in an agent commits the very event it failed on
(faust-streaming#527). Here acknowledgement is manual and comes last. While Kafka or Redis is away the app waits and says
so; any other failure stops the process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka.errors import IllegalStateError, KafkaError
from mode.supervisors import CrashingSupervisor

from driftline.streams.alert import transport
from driftline.streams.alert.faust_app import AppSettings, faust_app
from driftline.streams.alert.watchdog import EndOffsetsOf, Progress
from driftline.streams.alert.worker import STAGE, AlertWorker, BeginAgainError
from driftline.streams.errors import AwayError, FatalError, KafkaAwayError, RecoverableError
from driftline.streams.http import Health
from driftline.streams.metrics import LAG, PROGRESS, REBALANCES, TASKS, Metrics
from driftline.streams.task import MemoryRecord

log = logging.getLogger(__name__)

BATCH_EVENTS = 200
LOOK_SECONDS = 0.2
CHECK_SECONDS = 2.0
"""Between two questions to an idle store: whether it answers, and still knows what it was told."""
STOP_SECONDS = 20
_PAUSE_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


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
        self._gathered: list[Any] = []
        self._handling = False
        self._handled: dict[int, int] = {}
        self._owned: frozenset[int] = frozenset()
        self._republish_at = float("-inf")
        self._draining = False
        self._attempts = 0
        self._failure: BaseException | None = None

    async def run(self) -> int:
        """Run until a signal, an idle end or a failure.

        Raises
        ------
        FatalError, RecoverableError : what stopped it, after an orderly stop.
        """
        self._ended = asyncio.Event()
        self._placed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ended.set)
        self._loop.add_signal_handler(signal.SIGUSR1, self._drain)
        self._app: Any = faust_app(self._settings)
        self._app.seek_to_applied, self._app.stand_by = self._seek_to_applied, self._stand_by   # what CommittedConsumer calls
        topic = self._app.topic(self._settings.topic, key_type=bytes, value_type=bytes, value_serializer="raw", internal=False)
        self._agent = self._app.agent(topic, name="drift_events", concurrency=1, supervisor_strategy=CrashingSupervisor)(self._take)
        try:
            await self._app.start()
            await self._watch()
        except KafkaError as error:
            raise KafkaAwayError(f"aiokafka: {error!r}") from error
        finally:
            self._health.assigned(None)
            await asyncio.wait_for(self._app.stop(), STOP_SECONDS)
            self._thread.shutdown(wait=True)
            self._probe.shutdown(wait=True)
        if self._failure is not None:
            raise self._failure
        return 0

    # -- events

    async def _take(self, stream: Any) -> None:
        """The agent: gather what is there, handle it, acknowledge it."""
        async for event in stream.noack().events():
            self._gathered.append(event)
            if len(self._gathered) < BATCH_EVENTS and not stream.channel.queue.empty():
                continue
            batch, self._gathered = self._gathered, []
            self._handling = True
            try:
                handled = await self._handle(batch)
            except (RecoverableError, FatalError) as error:
                self._fail(error)
                await asyncio.Event().wait()   # never acknowledged: the process ends
            for done in handled:
                done.ack()
                self._handled[done.message.partition] = done.message.offset + 1
            self._handling = False

    async def _handle(self, batch: Sequence[Any]) -> list[Any]:
        """Handle a batch, however long Kafka and Redis take; returns what may be acknowledged.

        Events from before an assignment are left out: they come again, from where the store stands.
        """
        while True:
            await self._placed.wait()
            fresh = [event for event in batch if event.message.generation_id == self._app.consumer_generation_id]
            try:
                await self._republish_if_due()
                await self._in_thread(self._worker.handle, [_record(event.message) for event in fresh])
            except AwayError as error:
                await self._wait_out(error)
                continue
            self._answered()
            return fresh

    async def _wait_out(self, error: AwayError) -> None:
        """Say what is waited for, and wait a little; the watchdog ends what takes too long."""
        pause = _PAUSE_SECONDS[min(self._attempts, len(_PAUSE_SECONDS) - 1)]
        self._attempts += 1
        log.warning("alert_waits reason=%r retry_in_seconds=%.1f", error.message, pause)
        self._away(error)
        await _wait(self._ended, pause)
        if self._ended.is_set():
            raise error

    def _away(self, error: AwayError) -> None:
        self._progress.waits(error.message)
        (self._health.kafka if isinstance(error, KafkaAwayError) else self._health.redis)(error.message)

    def _answered(self) -> None:
        self._attempts = 0
        self._progress.waits(None)
        self._health.redis(None)
        self._health.kafka(None)

    # -- partitions

    async def _seek_to_applied(self, consumer: transport.CommittedConsumer) -> None:
        """Where the store is behind the committed offset, read again from there (PROTOCOL 18)."""
        began = time.monotonic()
        self._placed.clear()
        self._gathered = []
        partitions = {tp.partition: tp for tp in consumer.assignment() if tp.topic == self._settings.topic}
        log.info("alert_assigned partitions=%s", sorted(partitions))
        self._metrics.add(REBALANCES, 1, STAGE)
        committed = {number: consumer.committed_offset(tp) or 0 for number, tp in partitions.items()}
        self._progress.set(committed)
        try:
            applied = await self._applied(partitions)
        except asyncio.CancelledError:
            if time.monotonic() - began > self._app.conf.broker_request_timeout - 1:
                # Faust gives up here for good, without a word.
                self._fail(BeginAgainError("the alert store did not answer while partitions were assigned"))
            raise
        for number, tp in partitions.items():
            consumer.fetched.pop(tp, None)
            if committed[number] > applied[number]:
                log.warning(
                    "alert_store_behind partition=%d applied=%d committed=%d: reading again", number, applied[number], committed[number]
                )
                await consumer.seek(tp, applied[number])
        self._handled = {number: min(applied[number], committed[number]) for number in partitions}
        self._own(partitions)

    async def _applied(self, partitions: Collection[int]) -> dict[int, int]:
        """Where the store stands; one that knows nothing of a partition is filled from the alerts topic first."""
        while True:
            try:
                found = {number: await self._in_thread(self._worker.next_offset, number) for number in partitions}
                new = [number for number, offset in found.items() if offset is None]
                # A store with nothing at all: the alerts of topics with another number of partitions may have been carried over.
                if await self._had_events(new) or (new and await self._in_thread(self._worker.knows_none)):
                    log.info("alert_store_seeded alerts=%d", await self._in_thread(self._seed))
            except AwayError as error:
                await self._wait_out(error)
                continue
            self._answered()
            return {number: offset or 0 for number, offset in found.items()}

    async def _had_events(self, partitions: Sequence[int]) -> bool:
        ends = await self._loop.run_in_executor(self._probe, self._ends_of, self._settings.topic, partitions)
        return any(ends.values())

    def _stand_by(self) -> None:
        """No partition is this worker's."""
        self._gathered = []
        self._handled = {}
        self._progress.set({})
        self._own(())

    def _own(self, partitions: Collection[int]) -> None:
        lost = self._owned - set(partitions)
        for number in lost:
            for metric in (LAG, PROGRESS):
                self._metrics.drop(metric, self._settings.topic, number)
        self._health.progress.forget((self._settings.topic, number) for number in lost)
        self._owned = frozenset(partitions)
        self._health.assigned(len(self._owned))
        self._metrics.set(TASKS, len(self._owned), STAGE)
        self._republish_at = time.monotonic()
        self._placed.set()

    # -- watching

    async def _watch(self) -> None:
        """Look at progress and store, publish open alerts again now and then, and see when there is nothing left to do."""
        idle_since: float | None = None
        check_at = float("-inf")
        while not self._ended.is_set():
            await _wait(self._ended, LOOK_SECONDS)
            if self._app.crashed or self._agent.crashed:
                reason = self._app.crash_reason or self._agent.crash_reason
                if isinstance(reason, FatalError):
                    raise reason
                raise RecoverableError(f"Faust stopped: {reason!r}") from reason
            self._health.beat()
            if not self._placed.is_set():
                idle_since = None
                continue
            idle = await self._look()
            now = time.monotonic()
            if not self._handling and now >= min(check_at, self._republish_at):
                check_at = now + CHECK_SECONDS
                idle = await self._ask_store() and idle
            idle_since = (idle_since or now) if idle else None
            if idle_since is not None and self._ends_after(now - idle_since):
                log.info("alert_idle: the end of the drift topic is reached")
                return

    async def _ask_store(self) -> bool:
        """See that the store answers and has lost nothing; publish open and recent alerts again where that is due."""
        try:
            await self._republish_if_due()
            await self._in_thread(self._worker.check, sorted(self._owned))
        except AwayError as error:
            log.warning("alert_store_check_failed reason=%r", error.message)
            self._away(error)
            return False
        self._answered()
        return True

    async def _republish_if_due(self) -> None:
        """On assignment before anything else, so that nothing new is published twice; then now and then."""
        if time.monotonic() >= self._republish_at:
            await self._in_thread(self._worker.republish, sorted(self._owned))
            self._republish_at = time.monotonic() + self._settings.republish_s

    def _ends_after(self, idle_seconds: float) -> bool:
        limit = 2 * LOOK_SECONDS if self._draining else self._settings.until_idle_s
        return limit is not None and idle_seconds >= limit

    async def _look(self) -> bool:
        """Write progress and lag; whether everything up to the log's end is done."""
        consumer = self._app.consumer
        partitions = {tp.partition: tp for tp in consumer.assignment() if tp.topic == self._settings.topic}
        done: dict[int, int] = {}
        for number, tp in partitions.items():
            try:
                position = await consumer.position(tp)
            except IllegalStateError:
                return False   # the group has just taken everything back: Faust is told later than its client
            fetched = consumer.fetched.get(tp)
            handled = self._handled.get(number, 0)
            # with nothing in flight the position counts: it passes transaction markers and aborted records
            finished = not self._handling and not self._gathered and (fetched is None or handled >= fetched)
            done[number] = (position or 0) if finished else handled
        self._progress.set(done)
        try:
            ends = await self._loop.run_in_executor(self._probe, self._ends_of, self._settings.topic, sorted(done))
        except AwayError as error:
            log.warning("alert_end_offsets_unknown reason=%r", error.message)
            self._health.kafka(error.message)
            return False
        if not self._handling:
            self._health.kafka(None)
        lags = {number: max(0, end - done[number]) for number, end in ends.items()}
        for number, lag in lags.items():
            self._metrics.set(LAG, lag, self._settings.topic, number)
            if self._health.progress.tell((self._settings.topic, number), done[number], busy=lag > 0):
                self._metrics.set(PROGRESS, time.time(), self._settings.topic, number)
        self._health.committed(lag_records=sum(lags.values()))
        return not any(lags.values())

    def _drain(self) -> None:
        self._draining = True

    def _fail(self, error: BaseException) -> None:
        if not self._ended.is_set():
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
