"""Alert workers that are killed, sleep, fail, come and go."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from typing import Final

from driftline.streams.runner.failpoint import ALERT_STEPS
from tests.chaos.alerts.fault import AlertFault
from tests.chaos.alerts.process import AlertProcess
from tests.chaos.alerts.scene import PARTITIONS, Hit, Scene
from tests.chaos.process import away, until

_KILLS_SHORT, _KILLS_LONG = 1, 20
_RANDOM_SHORT, _RANDOM_LONG = 5, 60
_SCALES_SHORT, _SCALES_LONG = 1, 6
_NAPS_SHORT, _NAPS_LONG = 1, 4
_DEATHS_SHORT, _DEATHS_LONG = 2, 6
_PASSES: Final = (2, 20)
"""Of a step before it is the one to die at: small enough to come soon, large enough to come at another event each time."""
_SLEPT_OFFSETS: Final = 300
"""Five events of each alert, so that what a sleeper holds is old when it wakes."""
_GONE_SECONDS: Final = 2.0
"""A worker that does not wait for Kafka is past its next step by then."""


def kills_at_steps(scene: Scene) -> None:
    """kill -9 before and after each step of an event's way, and a start under the same name."""
    for step in ALERT_STEPS:
        for _ in range(_KILLS_SHORT if scene.short else _KILLS_LONG):
            worker = scene.start(failpoint=f"{step}:{scene.draw.randint(*_PASSES)}")
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
    if step in ("alert_stored", "alert_sending"):
        return f"{rows} rows of the outbox are stored and unpublished" if rows else None
    if step == "alert_delivered":
        ids = {value.decode() for r in scene.watch.read(scene.topic("transitions")) for name, value in r.headers() or () if name == "ce_id"}
        waiting = [row for n in range(PARTITIONS) for row in scene.store.outbox(scene.partition_key(n), 10_000)]
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


def killed_unanswered(scene: Scene) -> None:
    """kill -9 while what the worker publishes waits in it for a broker that is away."""
    for _ in range(_NAPS_SHORT if scene.short else _NAPS_LONG):
        worker = scene.start(failpoint=f"alert_sending:{scene.draw.randint(*_PASSES)}:hang")
        worker.until_logged("failpoint_hangs")
        with away(scene.services.kafka, killed=True):
            worker.wake()
            time.sleep(_GONE_SECONDS)
            hit = scene.hit("killed unanswered")
            worker.kill()
            rows = scene.waiting_rows()
            hit.witness = f"{rows} rows were still in the outbox" if rows or scene.without else None
        scene.start()
        scene.recovered(hit)
        scene.workers[-1].kill()


def zombies(scene: Scene) -> None:
    """A worker sleeps at a step, another takes over, it wakes and goes on: what it then writes, sends or deletes is old."""
    short = scene.short and not scene.without
    for step in ("alert_decided", "alert_sending") if short else ("alert_decided", "alert_delivered", "alert_deleted", "alert_sending"):
        zombie, heir, hit = _replaced_while_it_slept(scene, step)
        if step == "alert_sending":
            # What it sends is the last record of its alert then, not one that the next event replaces.
            scene.feeder.pause()
            scene.read_to_the_end()
        zombie.wake()
        zombie.until(lambda zombie=zombie: _is_back(zombie), "come back into the group")   # type: ignore[misc]
        if step != "alert_sending" or not scene.without:
            scene.feeder.go_on()
            scene.flows(40)
        scene.recovered(hit)
        for worker in (zombie, heir):
            worker.kill()


def zombies_die(scene: Scene) -> None:
    """A worker sleeps with an event that it has decided on, another takes over; it wakes, writes, and dies before it does more."""
    for _ in range(_DEATHS_SHORT if scene.short else _DEATHS_LONG):
        zombie, heir, hit = _replaced_while_it_slept(scene, "alert_decided")
        before = scene.applied()
        zombie.wake()
        # Its place in the group is asked for by another thread, which may be faster than the one that writes.
        tried = time.monotonic() + _GONE_SECONDS
        zombie.until(
            lambda zombie=zombie, before=before, tried=tried:   # type: ignore[misc]
            _less(scene.applied(), before) or (_is_back(zombie) and time.monotonic() > tried),
            "write or come back into the group",
        )
        zombie.kill()
        if _less(scene.applied(), before):
            hit.witness = f"{hit.witness}, and it wrote over that"
        scene.flows(40)
        scene.recovered(hit)
        heir.kill()


def _replaced_while_it_slept(scene: Scene, step: str) -> tuple[AlertProcess, AlertProcess, Hit]:
    """A worker that sleeps at a step, and the one that has taken its partitions."""
    # Event by event: what it will wake with is one event, and nothing behind it puts right what that does.
    scene.feeder.pause()
    zombie = scene.start("zombie", failpoint=f"{step}:{scene.draw.randint(*_PASSES)}:stop")
    zombie.until_logged("alert_assigned")
    scene.feeder.go_on()
    zombie.until_asleep()
    hit = scene.hit(f"zombie {step}")
    before = scene.applied()
    heir = scene.start("heir")
    scene.flows(_SLEPT_OFFSETS)
    until(lambda: all(now > before[number] for number, now in scene.applied().items()), scene.tails)
    hit.witness = f"the heir applied {sum(scene.applied().values()) - sum(before.values())} offsets while it slept"
    return zombie, heir, hit


def _is_back(zombie: AlertProcess) -> bool:
    return zombie.log.count("alert_assigned") >= 2


def _less(now: Mapping[int, int], before: Mapping[int, int]) -> bool:
    """Whether the store went back somewhere, which only a control lets happen."""
    return any(now[number] < offset for number, offset in before.items())


def handler_raises(scene: Scene) -> None:
    """A handler fails with an error that no code expects: the process ends, and the event is taken again."""
    for step in ("alert_decided", "alert_delivered") if scene.short else ALERT_STEPS:
        worker = scene.start(failpoint=f"{step}:{scene.draw.randint(*_PASSES)}:raise")
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
    until(lambda: worker.code is not None or sum(scene.applied().values()) >= goal, worker.tail)
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
        second.until_logged("alert_assigned")
        first.until(lambda n=assigned: first.log.count("alert_assigned") > n, "be assigned anew")   # type: ignore[misc]
        hit.witness = "both were assigned partitions"
        scene.recovered(hit)
        hit = scene.hit("one worker less")
        second.stop()
        assert second.code == 0, second.tail()
        hit.witness = "it ended in order"
        scene.recovered(hit)


FAULTS: Final = (
    AlertFault("kills_at_steps", kills_at_steps),
    AlertFault("kills_at_random", kills_at_random),
    AlertFault("killed_unanswered", killed_unanswered),
    AlertFault("zombies", zombies),
    AlertFault("zombies_die", zombies_die),
    AlertFault("handler_raises", handler_raises),
    AlertFault("many_workers", many_workers),
)
