"""Rules of the alert app, each taken out of the real code of a worker process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from faust.transport.drivers import aiokafka as driver
from pytest import MonkeyPatch  # noqa: PT013 - a type only

from driftline.streams.alert import pipeline, transport
from driftline.streams.alert.app import AlertApp
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.store import Applied, OutboxRow
from driftline.streams.alert.worker import AlertWorker

Switch = Callable[[MonkeyPatch], None]


def there_is_no_outbox(patch: MonkeyPatch) -> None:
    """What follows from an event is held in memory from its write to its delivery."""
    held: dict[str, list[OutboxRow]] = {}
    apply = RedisAlertStore.apply

    def without_rows(self: RedisAlertStore, change: Applied) -> bool:
        stored = apply(self, dataclasses.replace(change, outbox=()))
        if stored:
            held.setdefault(change.partition, []).extend(change.outbox)
        return stored

    patch.setattr(RedisAlertStore, "apply", without_rows)
    patch.setattr(RedisAlertStore, "outbox", lambda _, partition, limit: held.get(partition, [])[:limit])
    patch.setattr(RedisAlertStore, "published", lambda _, partition, rows: held[partition].clear())


def rows_are_deleted_before_delivery(patch: MonkeyPatch) -> None:
    def flush(self: Any, partition: int) -> int:
        key = self.partition_key(partition)
        while rows := self._store.outbox(key, 500):
            self._store.published(key, rows)
            self._failpoints.reach("alert_deleted")
            self._publisher.publish(rows)
        return 0

    patch.setattr(AlertWorker, "flush", flush)


def nobody_seeks_back(patch: MonkeyPatch) -> None:
    """Events are taken from the committed offset on, wherever the store stands."""

    async def stay(self: Any, partitions: Sequence[int]) -> dict[int, int]:
        consumer = self._app.consumer
        return {tp.partition: consumer.committed_offset(tp) or 0 for tp in consumer.assignment() if tp.partition in partitions}

    patch.setattr(AlertApp, "_applied", stay)
    patch.setattr(AlertWorker, "_check_known", lambda *_: None)


def offsets_are_not_compared(patch: MonkeyPatch) -> None:
    """Whoever writes last wins, with whatever he read before, and nobody sees that the store went back."""
    patch.setattr(AlertWorker, "_check_known", lambda *_: None)
    apply = RedisAlertStore.apply
    patch.setattr(
        RedisAlertStore,
        "apply",
        lambda self, change: apply(self, dataclasses.replace(change, expected=self.next_offset(change.partition))),
    )


def repeats_are_not_known(patch: MonkeyPatch) -> None:
    patch.setattr(pipeline, "STAGES", tuple(stage for stage in pipeline.STAGES if stage is not pipeline.dedup))
    patch.setattr(pipeline.AlertPipeline.__init__, "__kwdefaults__", {"owners": None, "stages": pipeline.STAGES})


def uncommitted_events_are_read(patch: MonkeyPatch) -> None:
    base = driver.AIOKafkaConsumerThread
    patch.setattr(transport.CommittedConsumerThread, "_create_worker_consumer", base._create_worker_consumer)
    patch.setattr(transport, "READ_COMMITTED", 0)


def errors_are_acknowledged(patch: MonkeyPatch) -> None:
    """As Faust does by itself: an event whose handler raised counts as done."""
    apply = AlertWorker.apply

    def swallow(self: AlertWorker, record: Any) -> None:
        try:
            apply(self, record)
        except Exception:  # noqa: BLE001 - the fault itself
            return

    patch.setattr(AlertWorker, "apply", swallow)


SWITCHES: Final[Mapping[str, Switch]] = {
    switch.__name__: switch
    for switch in (
        there_is_no_outbox, rows_are_deleted_before_delivery, nobody_seeks_back, offsets_are_not_compared, repeats_are_not_known,
        uncommitted_events_are_read, errors_are_acknowledged,
    )
}  # fmt: skip


def take_out(names: str, patch: MonkeyPatch) -> None:
    """Switch rules off in this process, for good."""
    for name in filter(None, names.split(",")):
        SWITCHES[name](patch)
