"""The app's loop at moments that a real group brings about too seldom to wait for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import IllegalStateError
from faust.types import TP

from driftline.streams.alert.app import AlertApp
from driftline.streams.alert.faust_app import AppSettings
from driftline.streams.alert.pipeline import AlertPipeline
from driftline.streams.alert.store import MemoryAlertStore
from driftline.streams.alert.watchdog import Progress
from driftline.streams.alert.worker import AlertWorker, Names
from driftline.streams.http import Health
from driftline.streams.metrics import Metrics


class TakenBack:
    """A consumer whose client knows of a rebalance of which Faust has not been told: a worker that slept too long wakes so."""

    def __init__(self) -> None:
        self.fetched: dict[TP, int] = {}

    def assignment(self) -> set[TP]:
        return {TP("driftline.drift", 0)}

    async def position(self, tp: TP) -> int:
        raise IllegalStateError(f"Partition {tp} is not assigned")


def test_partitions_that_were_taken_back_a_moment_ago_do_not_end_the_app() -> None:
    publisher: Any = None
    worker = AlertWorker(AlertPipeline(), MemoryAlertStore(), publisher, Names("test", "driftline", "topic-id"))
    settings = AppSettings("kafka:9092", "group", "driftline.drift", "unused")
    progress = Progress()
    app = AlertApp(
        worker, settings, seed=lambda: 0, ends_of=lambda *_: {0: 5}, progress=progress, health=Health(), metrics=Metrics()
    )   # fmt: skip
    app._app = SimpleNamespace(consumer=TakenBack())
    assert asyncio.run(app._look()) is False
    assert progress.get() == {}
