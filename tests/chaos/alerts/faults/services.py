"""Redis and Kafka that go away, stand still, forget or go back in time under the alert app."""

from __future__ import annotations

import shutil
import time
from typing import Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.chaos.alerts.fault import AlertFault
from tests.chaos.alerts.process import AlertProcess
from tests.chaos.alerts.scene import SESSION_SECONDS, Scene
from tests.chaos.process import away, frozen, until

_TIMES_SHORT, _TIMES_LONG = 1, 4
_AWAY_SECONDS: Final = 8.0
"""Longer than a call to Redis may take (5 s), so that a stall shows as an error; and longer than the session."""
assert SESSION_SECONDS < _AWAY_SECONDS
_KEPT_OFFSETS: Final = 60
"""A drift topic that forgets still has what was not long ago: the repeats of events among it."""


def redis_rolled_back(scene: Scene) -> None:
    """Redis comes back with an append-only file of seconds ago, under a live worker and before a start."""
    worker = scene.start()
    for number, live in enumerate((True, False) * (_TIMES_SHORT if scene.short else _TIMES_LONG)):
        scene.flows(40)
        scene.client.bgrewriteaof()   # whole from here on; its copy is what an older disk would hold
        _settled(scene)
        copy = scene.directory / f"aof-{number}"
        append_only = scene.services.redis.directory / "appendonlydir"
        shutil.copytree(append_only, copy)
        scene.flows(120)
        if not live:
            worker.kill()
        hit = scene.hit("rolled back, live" if live else "rolled back, dead")
        before = scene.applied()
        with away(scene.services.redis, killed=True):
            shutil.rmtree(append_only)
            copy.rename(append_only)
        if not live:
            after = scene.applied()
            worker = scene.start()
            hit.witness = f"the store went back by {sum(before.values()) - sum(after.values())} offsets" if after != before else None
            worker.until_logged("alert_store_behind" if not scene.without else "alert_assigned")
        elif scene.without:
            hit.witness = "the store went back"
        else:
            worker.until_logged("alert_begins_again")
            hit.witness = "the worker found that the store had lost writes"
        scene.recovered(hit)


def _settled(scene: Scene) -> None:
    until(lambda: scene.client.info("persistence")["aof_rewrite_in_progress"] == 0, lambda: "the append-only file is being rewritten")
    time.sleep(0.2)


def redis_wiped(scene: Scene) -> None:
    """Redis is empty from one moment to the next, under a live worker and before a start."""
    worker = scene.start()
    for live in (True, False) * (_TIMES_SHORT if scene.short else _TIMES_LONG):
        scene.flows(100)
        worker = _wiped(scene, worker, live=live)


def wiped_when_events_are_gone(scene: Scene) -> None:
    """Redis is emptied after the drift topic has forgotten its beginning: what is open is known to the alerts topic alone."""
    worker = scene.start()
    for live in (True, False) * (_TIMES_SHORT if scene.short else _TIMES_LONG):
        scene.flows(300)
        _forget_the_beginning(scene)
        worker = _wiped(scene, worker, live=live)


def _wiped(scene: Scene, worker: AlertProcess, *, live: bool) -> AlertProcess:
    heard = len(worker.log)
    if not live:
        worker.kill()
    hit = scene.hit("wiped, live" if live else "wiped, dead")
    scene.client.flushall()
    if not live:
        worker, heard = scene.start(), 0
    if scene.without:
        worker.until_logged("alert_assigned", after=heard)
        hit.witness = "the store was emptied"
    else:
        if live:
            worker.until_logged("alert_begins_again", after=heard)
        worker.until_logged("alert_store_seeded", after=heard)
        hit.witness = "the store was filled from the alerts topic"
    scene.recovered(hit)
    return worker


def _forget_the_beginning(scene: Scene) -> None:
    """Delete the records of the drift topic that were applied, all but the last ones."""
    topic = scene.topic("drift")
    scene.watch.keep(topic)
    applied = scene.applied()
    bounds = [TopicPartition(topic, number, max(0, offset - _KEPT_OFFSETS)) for number, offset in applied.items()]
    admin = AdminClient({"bootstrap.servers": scene.services.kafka.bootstrap})
    for deleted in admin.delete_records(bounds).values():
        deleted.result(60)


def redis_away(scene: Scene) -> None:
    """Redis is stopped, and frozen, for seconds; the worker waits, says so and goes on by itself."""
    worker = scene.start()
    server = scene.services.redis
    for stands in (False, True) * (_TIMES_SHORT if scene.short else _TIMES_LONG):
        scene.flows(40)
        since = len(worker.log)
        hit = scene.hit("redis frozen" if stands else "redis stopped")
        with frozen(server.pid) if stands else away(server):
            hit.witness = _says(worker, "redis: ")
            worker.until_logged("alert_", after=since)
            time.sleep(_AWAY_SECONDS if stands else 1.0)
        scene.recovered(hit)
        worker.until(lambda: worker.ready()[0], "be ready again")


def kafka_away(scene: Scene) -> None:
    """The broker is killed and comes back; the worker waits, says so and goes on by itself."""
    worker = scene.start()
    for _ in range(_TIMES_SHORT if scene.short else _TIMES_LONG):
        scene.flows(40)
        hit = scene.hit("broker killed")
        with away(scene.services.kafka, killed=True):
            hit.witness = _says(worker, "kafka: ")
        scene.recovered(hit)
        worker.until(lambda: worker.ready()[0], "be ready again")


def _says(worker: AlertProcess, start: str) -> str:
    """Wait until /readyz has a reason that begins so."""
    found: list[str] = []

    def said() -> bool:
        found[:] = [reason for reason in worker.ready()[1] if reason.startswith(start)]
        return bool(found)

    worker.until(said, f'say "{start}" in /readyz')
    return f"/readyz: {found[0]}"


FAULTS: Final = (
    AlertFault("redis_rolled_back", redis_rolled_back),
    AlertFault("redis_wiped", redis_wiped),
    AlertFault("wiped_when_events_are_gone", wiped_when_events_are_gone),
    AlertFault("redis_away", redis_away),
    AlertFault("kafka_away", kafka_away),
)
