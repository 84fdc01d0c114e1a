"""What is done to the alert app, each with what shows that it bit."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from driftline.streams.runner.failpoint import ALERT_STEPS
from tests.chaos.alerts.process import AlertProcess
from tests.chaos.alerts.scene import PARTITIONS, SESSION_SECONDS, Scene
from tests.chaos.process import away, frozen, until

_KILLS_SHORT, _KILLS_LONG = 1, 20
_RANDOM_SHORT, _RANDOM_LONG = 5, 60
_SCALES_SHORT, _SCALES_LONG = 1, 6
_AWAY_SECONDS: Final = 8.0
"""Longer than a call to Redis may take (5 s), so that a stall shows as an error."""


@dataclass(frozen=True, slots=True)
class AlertFault:
    """One fault; `short` says whether the short form has it."""

    name: str
    inject: Callable[[Scene], None]
    short: bool = True

    @property
    def about(self) -> str:
        """The first line of what `inject` says of itself."""
        return (self.inject.__doc__ or "").strip().partition("\n")[0]


def kills_at_steps(scene: Scene) -> None:
    """kill -9 before and after each step of an event's way, and a start under the same name."""
    for step in ALERT_STEPS:
        for _ in range(_KILLS_SHORT if scene.short else _KILLS_LONG):
            worker = scene.start(failpoint=f"{step}:{scene.draw.randint(2, 25)}")
            assert worker.until_dead() == -signal.SIGKILL, worker.tail()
            hit = scene.hit(f"kill {step}")
            hit.witness = _trace(scene, step)
            # The next one goes straight on; its own kill may come before every partition has moved.
    scene.start()
    for hit in scene.hits:
        scene.recovered(hit)


def _trace(scene: Scene, step: str) -> str | None:
    """What a worker that died at a step leaves: it is looked up, not believed."""
    rows, applied, committed = scene.waiting_rows(), scene.applied(), scene.committed()
    ahead = sum(applied[number] - committed[number] for number in range(PARTITIONS))
    if step in ("alert_taken", "alert_decided"):
        return "it died with an event in its hands" if ahead >= 0 else None
    if step == "alert_stored":
        return f"{rows} rows of the outbox are stored and unpublished" if rows else None
    if step == "alert_delivered":
        ids = {value.decode() for r in scene.watch.read(scene.topic("transitions")) for name, value in r.headers() or () if name == "ce_id"}
        waiting = [row for n in range(PARTITIONS) for row in scene.store.outbox(f"{scene.names.topic_id}/{n}", 10_000)]
        sent = [row for row in waiting if row.topic.endswith("transitions") and dict(row.headers)["ce_id"] in ids]
        return f"{len(sent)} rows are published and still in the outbox" if sent else None
    return f"{ahead} offsets are applied and not committed" if ahead > 0 else None


def kills_at_random(scene: Scene) -> None:
    """kill -9 at any moment, again and again."""
    for _ in range(_RANDOM_SHORT if scene.short else _RANDOM_LONG):
        worker = scene.start()
        worker.until_logged("alert_assigned")
        time.sleep(scene.draw.uniform(0.0, 2.0))
        hit = scene.hit("kill at random")
        worker.kill()
        hit.witness = f"killed with {scene.waiting_rows()} rows in the outbox"
    scene.start()
    for hit in scene.hits:
        scene.recovered(hit)


def zombies(scene: Scene) -> None:
    """A worker sleeps between reading a state and writing it, or between Kafka and its outbox; another takes over; it wakes."""
    for step in ("alert_decided",) if scene.short else ("alert_decided", "alert_delivered", "alert_deleted"):
        zombie = scene.start("zombie", failpoint=f"{step}:{scene.draw.randint(2, 20)}:stop")
        zombie.until_asleep()
        hit = scene.hit(f"zombie {step}")
        before = scene.applied()
        heir = scene.start("heir")
        until(
            lambda before=before: all(now > before[n] for n, now in scene.applied().items()),   # type: ignore[misc]
            lambda heir=heir: f"nobody took over:\n{heir.tail()}",   # type: ignore[misc]
        )
        hit.witness = f"the heir applied {sum(scene.applied().values()) - sum(before.values())} events while it slept"
        zombie.wake()
        scene.flows(40)
        scene.recovered(hit)
        zombie.until(lambda zombie=zombie: zombie.log.count("alert_assigned") >= 2, "come back into the group")   # type: ignore[misc]
        for worker in (zombie, heir):
            worker.kill()


def handler_raises(scene: Scene) -> None:
    """A handler fails with an error that no code expects: the process ends, and the event is taken again."""
    for step in ("alert_decided", "alert_delivered") if scene.short else ALERT_STEPS:
        worker = scene.start(failpoint=f"{step}:{scene.draw.randint(2, 20)}:raise")
        worker.expected.add(1)
        hit_code = worker.until_dead() if not scene.without else _end_somehow(scene, worker)
        hit = scene.hit(f"raise {step}")
        hit.witness = "it ended with 1 and named the error" if hit_code == 1 and "FailpointError" in worker.log else None
    scene.start()
    for hit in scene.hits:
        scene.recovered(hit)


def _end_somehow(scene: Scene, worker: AlertProcess) -> int:
    """A control takes out what would end it."""
    goal = sum(scene.applied().values()) + 80
    until(lambda: worker.code is not None or sum(scene.applied().values()) >= goal, lambda: worker.tail())
    if worker.code is None:
        worker.kill()
    return 1


def many_workers(scene: Scene) -> None:
    """From one worker to two and back, while events come."""
    first = scene.start("one")
    first.until_logged("alert_assigned")
    for _ in range(_SCALES_SHORT if scene.short else _SCALES_LONG):
        hit = scene.hit("one more worker")
        assigned = first.log.count("alert_assigned")
        second = scene.start("two")
        second.until(lambda second=second: "alert_assigned" in second.log, "get partitions")   # type: ignore[misc]
        first.until(lambda n=assigned: first.log.count("alert_assigned") > n, "be assigned anew")   # type: ignore[misc]
        hit.witness = "both were assigned partitions"
        scene.recovered(hit)
        hit = scene.hit("one worker less")
        second.stop()
        assert second.code == 0, second.tail()
        hit.witness = "it ended in order"
        scene.recovered(hit)


def redis_rolled_back(scene: Scene) -> None:
    """Redis comes back with an append-only file of seconds ago, under a live worker and before a start."""
    worker = scene.start()
    for live in (True, False):
        scene.flows(40)
        scene.client.bgrewriteaof()   # whole from here on; its copy is what an older disk would hold
        _settled(scene)
        copy = scene.directory / f"aof-{live}"
        shutil.copytree(scene.services.redis.directory / "appendonlydir", copy)
        scene.flows(120)
        if not live:
            worker.kill()
        hit = scene.hit("rolled back, live" if live else "rolled back, dead")
        before = scene.applied()
        scene.services.redis.kill()
        shutil.rmtree(scene.services.redis.directory / "appendonlydir")
        shutil.copytree(copy, scene.services.redis.directory / "appendonlydir")
        scene.services.redis.start()
        if not live:
            after = scene.applied()
            worker = scene.start()
            hit.witness = f"the store went back by {sum(before.values()) - sum(after.values())} events" if after != before else None
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
    for live in (True, False):
        scene.flows(100)
        if not live:
            worker.kill()
        hit = scene.hit("wiped, live" if live else "wiped, dead")
        scene.client.flushall()
        if live:
            worker.until_logged("alert_begins_again")
        else:
            worker = scene.start()
        worker.until_logged("alert_store_seeded")
        hit.witness = "the store was filled from the alerts topic"
        scene.recovered(hit)


def redis_away(scene: Scene) -> None:
    """Redis is stopped, and frozen, for seconds; the worker waits, says so and goes on by itself."""
    worker = scene.start()
    server = scene.services.redis
    for stands in (False, True):
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
    AlertFault("kills_at_steps", kills_at_steps),
    AlertFault("kills_at_random", kills_at_random),
    AlertFault("zombies", zombies),
    AlertFault("handler_raises", handler_raises),
    AlertFault("many_workers", many_workers),
    AlertFault("redis_rolled_back", redis_rolled_back),
    AlertFault("redis_wiped", redis_wiped),
    AlertFault("redis_away", redis_away),
    AlertFault("kafka_away", kafka_away),
)
assert SESSION_SECONDS < _AWAY_SECONDS
