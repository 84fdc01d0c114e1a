"""The app's loop at moments that a real group brings about too seldom to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import IllegalStateError
from faust.types import TP

from driftline.streams.alert.app import AlertApp
from driftline.streams.alert.faust_app import AppSettings
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.store import MemoryAlertStore, OutboxRow
from driftline.streams.alert.watchdog import Progress
from driftline.streams.alert.worker import AlertWorker, Names
from driftline.streams.errors import OutputError
from driftline.streams.http import Health
from driftline.streams.metrics import Metrics
from driftline.streams.task import MemoryRecord, Record
from tests.alert.conftest import MakeEvent, MakeRecord


class TakenBack:
    """A consumer whose client knows of a rebalance of which Faust has not been told: a worker that slept too long wakes so."""

    def __init__(self) -> None:
        self.fetched: dict[TP, int] = {}

    def assignment(self) -> set[TP]:
        return {TP("driftline.drift", 0)}

    async def position(self, tp: TP) -> int:
        raise IllegalStateError(f"Partition {tp} is not assigned")


class Publisher:
    """Kafka; calls what a test wants to see at the moment of a publication."""

    def __init__(self, seen: Callable[[], None]) -> None:
        self._seen = seen

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        self._seen()

    def dead_letter(self, record: Record, *, error: str) -> None:
        self._seen()


def app_of(publisher: Publisher, progress: Progress | None = None) -> tuple[AlertApp, AlertWorker]:
    worker = AlertWorker(AlertPipeline(), MemoryAlertStore(), publisher, Names("test", "driftline", "topic-id"))
    settings = AppSettings("kafka:9092", "group", "driftline.drift", "unused")
    parts: dict[str, Any] = {"seed": lambda: 0, "ends_of": lambda *_: {0: 5}, "health": Health(), "metrics": Metrics()}
    return AlertApp(worker, settings, progress=progress or Progress(), **parts), worker


def test_partitions_that_were_taken_back_a_moment_ago_do_not_end_the_app() -> None:
    progress = Progress()
    app, _ = app_of(Publisher(lambda: None), progress)
    app._app = SimpleNamespace(consumer=TakenBack())
    assert asyncio.run(app._look()) is False
    assert progress.get() == {}


GENERATION = 3


class Event:
    """A drift event as Faust hands it over."""

    def __init__(self, record: MemoryRecord, acked: list[int], generation: int = GENERATION) -> None:
        place = {"topic": record.topic(), "partition": record.partition(), "offset": record.offset(), "generation_id": generation}
        self.message = SimpleNamespace(**place, key=record.key(), value=record.value(), headers=record.headers(), timestamp=1.0)
        self._acked = acked

    def ack(self) -> None:
        self._acked.append(self.message.offset)


class Stream:
    """Events one by one, and an end."""

    channel = SimpleNamespace(queue=SimpleNamespace(empty=lambda: True))

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[Event]:
        for event in self._events:
            yield event


async def taken(app: AlertApp, events: Sequence[Event]) -> None:
    """Let the agent of an app that has its partitions take events, until it has done or failed."""
    app._loop, app._ended, app._placed = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    app._placed.set()
    app._app = SimpleNamespace(consumer_generation_id=GENERATION)
    agent, failed = asyncio.ensure_future(app._take(Stream(events))), asyncio.ensure_future(app._ended.wait())
    await asyncio.wait([agent, failed], return_when=asyncio.FIRST_COMPLETED)
    for one in (agent, failed):
        one.cancel()


def test_event_is_acknowledged_once_what_follows_from_it_is_delivered(drift_event: MakeEvent, drift_record: MakeRecord) -> None:
    acked: list[int] = []
    seen: list[list[int]] = []
    app, _ = app_of(Publisher(lambda: seen.append(list(acked))))
    events = [Event(drift_record(drift_event(number, series=f"s{number}"), number), acked) for number in (4, 6)]
    asyncio.run(taken(app, events))
    assert acked == [4, 6]
    assert seen[-1] == [4], "while the second was delivered"
    assert all(6 not in before for before in seen)


def test_event_whose_delivery_fails_for_good_is_never_acknowledged(drift_event: MakeEvent, drift_record: MakeRecord) -> None:
    def refuse() -> None:
        if worker.next_offset(0):
            raise OutputError("Kafka refused a record")

    acked: list[int] = []
    app, worker = app_of(Publisher(refuse))
    asyncio.run(taken(app, [Event(drift_record(drift_event(number), number), acked) for number in (4, 6)]))
    assert isinstance(app._failure, OutputError)
    assert acked == []


def test_event_from_before_an_assignment_is_left_out(drift_event: MakeEvent, drift_record: MakeRecord) -> None:
    """It comes again from where the store stands, which may be further back: taken now, it would leave a hole."""
    acked: list[int] = []
    app, worker = app_of(Publisher(lambda: None))
    old, fresh = drift_record(drift_event(1), 9), drift_record(drift_event(2, kind="evidence"), 5)
    asyncio.run(taken(app, [Event(old, acked, GENERATION - 1), Event(fresh, acked)]))
    assert acked == [5]
    assert worker.next_offset(0) == 6
