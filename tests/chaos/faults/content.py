"""Input and surroundings that go wrong: bad records by the thousand, nowhere to put them, clocks that jump."""

from __future__ import annotations

import time
from typing import Final

from driftline.schemas.dead_letter import TRUNCATED
from driftline.schemas.topics import DEAD_LETTERS
from driftline.streams.errors import SetupError
from driftline.streams.task import FINAL_MS
from driftline.streams.topic_creation import create_topics, wanted_topics
from tests.chaos.fault import Fault
from tests.chaos.installation import Options
from tests.chaos.scene import Scene
from tests.chaos.verify import observation_head

_ATTEMPTS: Final = 40
_KILLED: Final = "killed in a burst of poison"
_HOUR_S: Final = 3_600
_TICK_S: Final = 1.0


def poison_burst(scene: Scene) -> None:
    """Thousands of bad records come at once, and ingest is killed while their dead letters are in an open transaction."""
    crew = scene.crew("ingest")
    dead_letters = scene.installation.topic(DEAD_LETTERS.name)
    wanted = 1 if scene.short else 10
    for _ in range(wanted * _ATTEMPTS):
        if sum(hit.witness is not None for hit in scene.hits if hit.what == _KILLED) >= wanted:
            return
        scene.check()
        scene.feeder.burst(2_000)
        time.sleep(scene.draw["ingest"].uniform(0.01, 0.2))
        worker = crew.of("a")
        worker.sleep()
        held = len(scene.watch.open_records(dead_letters))
        if not held:
            worker.wake()
            continue
        worker.kill()
        hit = scene.hit("ingest", _KILLED)
        hit.witness = f"{held} dead letters in its open transaction"
        crew.start()
        scene.recovered(hit)


def dead_letter_topic_missing(scene: Scene) -> None:
    """The dead-letter topic is deleted under a running ingest and bad records come: it stops, and goes on once the topic is made again."""
    topic = scene.installation.topic(DEAD_LETTERS.name)
    config = scene.installation.config
    crew = scene.crew("ingest")
    worker = crew.of("a")
    worker.expected.add(SetupError.exit_code)
    scene.installation.admin.delete_topics([topic])[topic].result(30)
    scene.feeder.burst(200)
    hit = scene.hit("ingest", "no dead-letter topic")
    worker.until_dead()
    hit.witness = "it ended and named the topic" if f'no such topic: "{topic}"' in worker.log else None
    wanted = [item for item in wanted_topics(config.topics, greatest_age_ms=config.greatest_age_ms) if item.name == topic]
    create_topics(scene.installation.admin, wanted)
    crew.start()
    scene.recovered(hit)


def large_records(scene: Scene) -> None:
    """Records of 5 MB that compress to a few KB: they fit the source's limit as they came, and ours only if they are cut."""
    for _ in range(2 if scene.short else 10):
        hit = scene.hit("ingest", "compressible 5 MB records")
        scene.feeder.send_large()
        scene.recovered(hit)
        scene.until(lambda: _cut_dead_letters(scene) > 0, "a dead letter that is cut")
        hit.witness = f"{_cut_dead_letters(scene)} dead letters that were cut"


def _cut_dead_letters(scene: Scene) -> int:
    records = scene.watch.read(scene.installation.topic(DEAD_LETTERS.name))
    return sum(dict(record.headers_)[TRUNCATED] == b"true" for record in records)


def clock_jumps(scene: Scene) -> None:
    """The workers' clocks go an hour ahead, an hour back and a day ahead; so do a producer's."""
    scene.times = False
    for seconds in (_HOUR_S, -_HOUR_S, 0, 24 * _HOUR_S, 0):
        hit = scene.hit("ingest", f"clocks off by {seconds} s")
        _set_clock(scene, seconds)
        if seconds > 0:
            ahead_ms = (time.time() + seconds / 2) * 1000
            scene.until(lambda ahead_ms=ahead_ms: _newest_tick_ms(scene) > ahead_ms, "a tick from the future")  # type: ignore[misc]
            hit.witness = "ticks of that time stand in the observations"
        else:
            time.sleep(2 * _TICK_S)
            hit.witness = "every worker has read it" if _read_by_all(scene) else None
        scene.recovered(hit)
    for skew_ms in (2 * _HOUR_S * 1000, -_HOUR_S * 1000, 0):
        hit = scene.hit("ingest", f"a producer's clock off by {skew_ms} ms")
        before = scene.feeder.count
        scene.feeder.skew_ms = skew_ms
        scene.until(lambda before=before: scene.feeder.count > before + 100, "inputs of that time")  # type: ignore[misc]
        hit.witness = f"{scene.feeder.count - before} inputs of that time"
        scene.recovered(hit)


def _set_clock(scene: Scene, seconds: int) -> None:
    written = scene.directory / "clock.new"
    written.write_text(str(seconds))
    written.replace(scene.directory / "clock")


def _newest_tick_ms(scene: Scene) -> int:
    records = scene.watch.read(scene.installation.topic("observations"))
    ticks: list[int] = [observation_head(record.value())["tick_ms"] or 0 for record in records]
    return max((tick_ms for tick_ms in ticks if tick_ms < FINAL_MS), default=0)


def _read_by_all(scene: Scene) -> bool:
    """The clock notes when it was read last; every worker reads it about once a second."""
    written = (scene.directory / "clock").stat().st_mtime
    workers = [worker for crew in scene.crews.values() for worker in crew.alive]
    return all((scene.directory / f"clock.{worker.pid}").stat().st_mtime > written for worker in workers)


FAULTS: Final = (
    Fault("poison_burst", poison_burst),
    Fault("dead_letter_topic_missing", dead_letter_topic_missing, Options(poison=0.0)),
    Fault("large_records", large_records),
    Fault("clock_jumps", clock_jumps, clocked=True),
)
