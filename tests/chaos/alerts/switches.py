"""Rules of the alert app, each taken out of the real code of a worker process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from faust.transport.drivers import aiokafka as driver
from pytest import MonkeyPatch  # noqa: PT013 - a type only

from driftline.streams.alert import main, pipeline, transport
from driftline.streams.alert.app import AlertApp
from driftline.streams.alert.connections import KafkaPublisher
from driftline.streams.alert.redis_store import RedisAlertStore
from driftline.streams.alert.state import AlertState
from driftline.streams.alert.store import Applied, Loaded, OutboxRow, Published
from driftline.streams.alert.worker import AlertWorker

Switch = Callable[[MonkeyPatch], None]
_COMPARISON: Final = "if current ~= ARGV[2] then"
"""Of `alert_apply.lua`."""


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


def states_are_written_apart(patch: MonkeyPatch) -> None:
    """The applied offset and the outbox are written first, the alert's state by the next call."""
    later: dict[str, AlertState] = {}
    apply, load = RedisAlertStore.apply, RedisAlertStore.load

    def without_states(self: RedisAlertStore, change: Applied) -> bool:
        stored = apply(self, dataclasses.replace(change, states={}))
        if stored:
            later.update(change.states)
        return stored

    def after_states(self: RedisAlertStore, partition: str, fingerprint: str, book: str = "") -> Loaded:
        if later:
            next_offset = self.next_offset(partition) or 0
            apply(self, Applied(partition, next_offset, next_offset, dict(later)))
            later.clear()
        return load(self, partition, fingerprint, book)

    patch.setattr(RedisAlertStore, "apply", without_states)
    patch.setattr(RedisAlertStore, "load", after_states)


def rows_are_deleted_before_delivery(patch: MonkeyPatch) -> None:
    def flush(self: Any, partition: int) -> int:
        key = self.partition_key(partition)
        while rows := self._store.outbox(key, 500):
            self._store.published(key, rows)
            self._failpoints.reach("alert_sending")
            self._publisher.publish(rows)
            self._failpoints.reach("alert_delivered")
            self._failpoints.reach("alert_deleted")
        return 0

    patch.setattr(AlertWorker, "flush", flush)


def deliveries_are_not_awaited(patch: MonkeyPatch) -> None:
    """Rows count as published once the client has taken them."""

    def publish(self: Any, rows: Sequence[OutboxRow]) -> None:
        for row in rows:
            headers = [(name, value.encode()) for name, value in row.headers]
            self._producer.produce(row.topic, key=row.key.encode(), value=row.value.encode(), headers=headers)

    patch.setattr(KafkaPublisher, "publish", publish)


def nobody_seeks_back(patch: MonkeyPatch) -> None:
    """Events are taken from the committed offset on, wherever the store stands."""

    async def stay(self: Any, partitions: Sequence[int]) -> dict[int, int]:
        consumer = self._app.consumer
        return {tp.partition: consumer.committed_offset(tp) or 0 for tp in consumer.assignment() if tp.partition in partitions}

    patch.setattr(AlertApp, "_applied", stay)
    losses_are_not_seen(patch)


def losses_are_not_seen(patch: MonkeyPatch) -> None:
    """Nobody notices that the store knows less than it was told."""
    patch.setattr(AlertWorker, "_check_known", lambda *_: None)


def offsets_are_not_compared(patch: MonkeyPatch) -> None:
    """Whoever writes last wins, with whatever he read before, and nobody sees that the store went back.

    Out of the script itself: asked for just before a write, the offset has moved on by the time a sleeper has woken up.
    """
    losses_are_not_seen(patch)
    make = RedisAlertStore.__init__

    def without_comparison(self: RedisAlertStore, client: Any, *arguments: Any, **options: Any) -> None:
        make(self, client, *arguments, **options)
        source = self._script.script
        assert isinstance(source, str)
        assert _COMPARISON in source
        self._script = client.register_script(source.replace(_COMPARISON, "if false then"))

    patch.setattr(RedisAlertStore, "__init__", without_comparison)


def applied_events_are_taken_again(patch: MonkeyPatch) -> None:
    """The applied offset is compared when an event is written, and tells nobody whether it was written before."""
    losses_are_not_seen(patch)
    load, apply = RedisAlertStore.load, RedisAlertStore.apply

    def load_state(self: RedisAlertStore, partition: str, fingerprint: str, book: str = "") -> Loaded:
        return dataclasses.replace(load(self, partition, fingerprint, book), next_offset=None)

    def write(self: RedisAlertStore, change: Applied) -> bool:
        next_offset = self.next_offset(change.partition)
        return apply(self, dataclasses.replace(change, expected=next_offset, next_offset=max(change.next_offset, next_offset or 0)))

    patch.setattr(RedisAlertStore, "load", load_state)
    patch.setattr(RedisAlertStore, "apply", write)


def repeats_are_not_known(patch: MonkeyPatch) -> None:
    patch.setattr(pipeline, "STAGES", tuple(stage for stage in pipeline.STAGES if stage is not pipeline.dedup))
    defaults = pipeline.AlertPipeline.__init__.__kwdefaults__
    patch.setattr(pipeline.AlertPipeline.__init__, "__kwdefaults__", {**(defaults or {}), "stages": pipeline.STAGES})


def an_empty_store_stays_empty(patch: MonkeyPatch) -> None:
    """What the drift topic still holds is all that is known."""
    patch.setattr(main, "published", lambda *_, **__: Published())


def nothing_is_published_again(patch: MonkeyPatch) -> None:
    """What stands last in the alerts topic is what was sent last, by whomever."""

    def only_what_waits(self: AlertWorker, partitions: Sequence[int]) -> int:
        self.check(partitions)
        return sum(self.flush(partition) for partition in partitions)

    patch.setattr(AlertWorker, "republish", only_what_waits)


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
        there_is_no_outbox, states_are_written_apart, rows_are_deleted_before_delivery, deliveries_are_not_awaited, nobody_seeks_back,
        losses_are_not_seen, offsets_are_not_compared, applied_events_are_taken_again, repeats_are_not_known, an_empty_store_stays_empty,
        nothing_is_published_again, uncommitted_events_are_read, errors_are_acknowledged,
    )
}  # fmt: skip


def take_out(names: str, patch: MonkeyPatch) -> None:
    """Switch rules off in this process, for good."""
    for name in filter(None, names.split(",")):
        SWITCHES[name](patch)
