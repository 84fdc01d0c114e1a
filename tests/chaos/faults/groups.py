"""Workers that come and go: scaled up and down, revoked while they load, replaced by others."""

from __future__ import annotations

import time
from typing import Final

from driftline.streams.task import PartitionId
from tests.chaos.fault import Fault
from tests.chaos.faults.naps import NOTICED
from tests.chaos.inputs import AGE_MS
from tests.chaos.installation import Options
from tests.chaos.scene import Scene
from tests.chaos.workers import Stage

_PASSES: Final = (5, 12)
_SETTLE_SECONDS: Final = 0.5


def scale(scene: Scene) -> None:
    """One worker of detect becomes three, at once, and one again, over and over; in the long form of every stage."""
    if scene.short:
        _scale(scene, "detect", 2)
    else:
        scene.each_stage(lambda stage: _scale(scene, stage, 8))


def _scale(scene: Scene, stage: Stage, rounds: int) -> None:
    crew = scene.crew(stage)
    for number in range(rounds):
        grown = scene.hit(stage, f"{stage} from 1 to 3")
        more = [crew.start(name) for name in ("b", "c")]
        for worker in more:
            worker.until(lambda worker=worker: bool(worker.tasks), "get a task")  # type: ignore[misc]
        grown.witness = "; ".join(f"{worker.name} started {', '.join(sorted(worker.tasks))}" for worker in more)
        scene.recovered(grown)
        shrunk = scene.hit(stage, f"{stage} from 3 to 1")
        heard = len(crew.of("a").log)
        for worker in more:
            if number % 2 and scene.draw[stage].random() < 0.5:
                worker.kill()
            else:
                worker.stop()
        scene.recovered(shrunk)
        crew.of("a").until_logged("task_started", after=heard)
        shrunk.witness = "a took all tasks back"


def revoke_during_restore(scene: Scene) -> None:
    """A worker sleeps after it has loaded its tasks and before it has begun them; they go back to the first one."""

    def interrupt(stage: Stage) -> None:
        crew = scene.crew(stage)
        for _ in range(1 if scene.short else 5):
            heard = len(crew.of("a").log)
            late = crew.start("b", failpoint="restored:1:stop")
            late.until_asleep()
            hit = scene.hit(stage, f"{stage} revoked during its restore")
            scene.recovered(hit)
            back = [name for name in late.tasks if f"task_started task={name} " in crew.of("a").log[heard:]]
            hit.witness = f"a loaded {', '.join(sorted(back))} while b slept over them" if back else None
            asleep_at = len(late.log)
            late.wake()
            late.until(lambda: any(text in late.log[asleep_at:] for text in NOTICED), "notice that its tasks are gone")  # noqa: B023
            late.stop()

    scene.each_stage(interrupt, ["detect"] if scene.short else ["ingest", "join", "detect"])


def kept_away(scene: Scene) -> None:
    """A worker is killed with its offsets sent and not committed, and does not come back: another one needs its partitions.

    Until the broker ends the dead one's transaction nobody can say what is committed, and an error is no "no offset".
    """
    crew, draw = scene.crew("detect"), scene.draw["detect"]
    for _ in range(1 if scene.short else 6):
        gone = crew.start("b", failpoint=f"offsets_sent:{draw.randint(*_PASSES)}")
        gone.until_dead()
        heard = len(crew.of("a").log)
        hit = scene.hit("detect", "killed with offsets sent, kept away")
        scene.recovered(hit)
        pending = crew.of("a").log[heard:].count("committed_offsets_pending")
        hit.witness = f"its successor was told {pending} times that offsets are pending" if pending else None
        time.sleep(draw.uniform(0.1, 1.0))


def ingest_down(scene: Scene) -> None:
    """One of two ingest workers dies and is gone for longer than the labels' age: its labels are late for nobody.

    The join decides only when every source of labels has passed the age, the dead worker's among them.
    """
    crew = scene.crew("ingest")
    for _ in range(1 if scene.short else 6):
        other = crew.start("b")
        other.until(lambda other=other: bool(other.tasks), "get a task")  # type: ignore[misc]
        time.sleep(_SETTLE_SECONDS)
        other.kill()
        hit = scene.hit("ingest", "ingest down for longer than the age")
        time.sleep(AGE_MS / 1000)
        before = _waiting_decided(scene)
        time.sleep(AGE_MS / 1000)
        hit.witness = "no outcome was formed meanwhile" if _waiting_decided(scene) == before else None
        scene.recovered(hit)


def _waiting_decided(scene: Scene) -> dict[PartitionId, int]:
    return {key: offset for key, offset in scene.committed("join").items() if key[0].endswith(".waiting")}


# The dead one's transaction must outlive its session, or there is nothing to wait for.
_LASTING: Final = Options(transaction_timeout_ms=15_000)

FAULTS: Final = (
    Fault("scale_1_3_1", scale),
    Fault("scale_1_3_1_consumer", scale, Options(protocol="consumer")),
    Fault("revoke_during_restore", revoke_during_restore),
    Fault("kept_away", kept_away, _LASTING),
    Fault("ingest_down", ingest_down),
)
