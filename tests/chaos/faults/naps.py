"""Workers that sleep: shorter than their session, longer than it, and with only the main thread of them asleep."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from tests.chaos.fault import Fault
from tests.chaos.installation import Options
from tests.chaos.scene import Scene
from tests.chaos.workers import Stage, Worker

_STEPS: Final = ("checkpointed", "produced")
_PASSES: Final = (6, 16)
_ATTEMPTS: Final = 30
_SETTLE_SECONDS: Final = 0.4
_TIMED_OUT: Final = "transaction times out"
NOTICED: Final = ("commit_aborted", "partitions_lost", "partitions_revoked", "revoked_with_abort")
"""What a worker says when it learns that it was overtaken."""


def transaction_times_out(scene: Scene) -> None:
    """Detect sleeps, with drift events in an open transaction, until the broker ends that; its session lives on.

    Nobody else is there to do its work: what it had in memory is ahead of what stands, and must be forgotten.
    """
    topic = scene.installation.topic("drift")
    worker = scene.crew("detect").of("a")
    wanted = 3 if scene.short else 20
    for _ in range(wanted * _ATTEMPTS):
        if sum(hit.witness is not None for hit in scene.hits if hit.what == _TIMED_OUT) >= wanted:
            return
        scene.check()
        time.sleep(scene.draw["detect"].uniform(0.3, 0.9))
        worker.sleep()
        time.sleep(_SETTLE_SECONDS)
        held = len(scene.watch.open_records(topic))
        if not held:
            worker.wake()
            continue
        hit = scene.hit("detect", _TIMED_OUT)
        scene.until(lambda: not scene.watch.open_records(topic), "the broker ends the transaction")
        hit.witness = f"{held} drift events taken back by the broker while it slept"
        worker.wake()
        scene.recovered(hit)


def zombies(scene: Scene) -> None:
    """A worker of each stage sleeps in its commit for longer than its session; another one goes on; then it wakes."""
    rounds = 1 if scene.short else 6

    def haunt(stage: Stage) -> None:
        first = scene.draw[stage].randrange(len(_STEPS))
        for number in range(rounds):
            _haunt(scene, stage, _STEPS[(first + number) % len(_STEPS)], "stop")

    scene.each_stage(haunt)


def zombies_with_offsets_sent(scene: Scene) -> None:
    """A worker of each stage sleeps with its offsets sent: until its transaction ends, its successor cannot know them."""
    rounds = 1 if scene.short else 4

    def haunt(stage: Stage) -> None:
        for _ in range(rounds):
            _haunt(scene, stage, "offsets_sent", "stop")

    scene.each_stage(haunt)


def hung(scene: Scene) -> None:
    """Detect's main thread hangs before it sends its offsets, for longer than its poll interval; the client's threads live.

    So it is thrown out of the group and its client knows. What it has open could be committed still, were the offsets sent
    with what the client says of the group by then, and not with what was true when the records were polled.
    """
    for _ in range(1 if scene.short else 8):
        _haunt(scene, "detect", "checkpointed", "hang")


def _haunt(scene: Scene, stage: Stage, step: str, how: str) -> None:
    """A second worker falls asleep at a step, the first one takes over its tasks, the second one wakes."""
    crew = scene.crew(stage)
    for worker in crew.alive:
        if worker.launch.instance == "b":
            worker.stop()
    for _ in range(_ATTEMPTS):
        zombie = crew.start("b", failpoint=f"{step}:{scene.draw[stage].randint(*_PASSES)}:{how}")
        zombie.until(lambda zombie=zombie: zombie.asleep or "failpoint_hangs" in zombie.log, "fall asleep")  # type: ignore[misc]
        hit = scene.hit(stage, f"{stage} {how}s at {step}")
        if zombie.tasks and (stage != "detect" or _holds_drift(scene, zombie)):
            break
        # Nothing in its hands that could be doubled: it counts for nothing.
        scene.hits.remove(hit)
        zombie.kill()
    heard = len(zombie.log)
    scene.recovered(hit)
    # All partitions have moved on while it slept, its own among them: somebody else owns them.
    # One that hangs and whose transaction the broker has ended meanwhile is no danger any more, and proves nothing.
    if zombie.code is None and (how != "hang" or _holds_drift(scene, zombie)):
        hit.witness = f"{', '.join(sorted(zombie.tasks))} went on elsewhere while it slept"
    zombie.wake()
    zombie.until(lambda: any(text in zombie.log[heard:] for text in NOTICED), "notice that it was overtaken")


def _holds_drift(scene: Scene, worker: Worker) -> bool:
    """Whether the worker's transaction holds a drift event: nobody else writes to the partitions of its tasks."""
    time.sleep(_SETTLE_SECONDS)
    numbers = {partition for _, partition in scene.task_inputs(worker)}
    return any(record.partition() in numbers for record in scene.watch.open_records(scene.installation.topic("drift")))


# A zombie that wakes within its transaction's time is the dangerous one: the broker would take its commit. A busy machine
# needs a minute for what an idle one does in ten seconds, and nobody waits for this to pass: the zombie is woken. A zombie of
# detect has one partition of three; once the input is a trickle, half a second of it holds a drift event more often than not.
_LASTING: Final = Options(transaction_timeout_ms=120_000, poll_interval_ms=7_000, commit_interval_ms=500)
_LASTING_CONSUMER: Final = replace(_LASTING, protocol="consumer")

FAULTS: Final = (
    Fault("transaction_times_out", transaction_times_out, Options(transaction_timeout_ms=2_500), short=True),
    Fault("zombies", zombies, _LASTING, short=True, shares=True),
    Fault("zombies_consumer", zombies, _LASTING_CONSUMER),
    Fault("zombies_with_offsets_sent", zombies_with_offsets_sent),
    Fault("hung", hung, _LASTING, short=True, shares=True),
    Fault("hung_consumer", hung, _LASTING_CONSUMER),
)
