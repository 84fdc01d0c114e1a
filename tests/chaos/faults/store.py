"""Redis that restarts, forgets, goes back in time, is slow or stands still under live workers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from driftline.streams.local.redis import LocalRedis
from driftline.streams.local.service import LocalService
from driftline.streams.state.checkpoints import Scope
from driftline.streams.state.manifest import Manifest, decode_manifest, decode_reference
from driftline.streams.state.retention import TaskKeys
from driftline.streams.task import PartitionId
from driftline.streams.wiring import TaskPlace, tasks_of
from tests.chaos.fault import Fault
from tests.chaos.installation import Options
from tests.chaos.process import away, frozen, until
from tests.chaos.scene import Hit, Scene
from tests.chaos.workers import STAGES, Stage

_APPEND_ONLY: Final = "appendonlydir"
_OLDER_SECONDS: Final = (1.0, 2.0)
"""What `appendfsync everysec` may lose, and a little more."""
_OUTAGE_SECONDS: Final = (0.1, 2.0)
_STALLS_SHORT, _STALLS_LONG = (1.0, 10.0), (1.0, 10.0, 30.0)
_WITHIN_DEADLINE_SECONDS: Final = 1.5
"""Below the least deadline of these runs (a third of 8 s): such a stall must cost no abort, only time."""
_SLOW_SECONDS: Final = 15.0
_PAUSE_MS: Final = 80
_PASSES: Final = (6, 14)
_COMMITS_MIN: Final = 8
_LOOK_SECONDS: Final = 0.5
LOST: Final = ("store_away", "redis_restarted", "commit_aborted")
"""What a worker says when Redis is not what it was."""
REPLACED: Final = "checkpoint_replaced"


def restarts(scene: Scene) -> None:
    """Redis is stopped and started again under all workers, with its data kept; in the long form many times, and by kill -9."""
    for hits, before in restarted(scene, scene.services.redis, "redis", [False, True] * 4, _OUTAGE_SECONDS):
        _all_noticed(scene, hits, before)


def wiped(scene: Scene) -> None:
    """Everything is deleted from Redis under all workers; in the long form some of them are killed at the same moment."""
    # Redis' note of when all began goes with the rest; detect's checkpoints have it.
    scene.installation.remember()
    for number in range(1 if scene.short else 6):
        _at_work(scene)
        before = heard(scene)
        hits = [scene.hit(stage, "redis wiped") for stage in STAGES]
        with redis_client(scene) as client:
            client.flushall()
        for stage in STAGES if number % 2 else ():
            worker = scene.crew(stage).of("a")
            worker.kill()
            scene.crew(stage).start()
        # A killed worker's log ends; its successor's begins with what it found instead.
        _all_noticed(scene, hits, before if not number % 2 else dict.fromkeys(STAGES, 0), (*LOST, REPLACED))


def newest_is_lost(scene: Scene) -> None:
    """Detect is killed and the manifest of its committed checkpoint deleted: it goes on from an older one, and replays."""
    _without_newest(scene, "newest manifest lost", lambda client, keys, newest: client.delete(keys.manifest(newest.id)))


def newest_is_corrupt(scene: Scene) -> None:
    """Detect is killed and one byte of its newest checkpoint changed, in the manifest, a blob or a window, in turn."""
    turns = iter(range(10_000))

    def corrupt(client: Any, keys: TaskKeys, newest: Manifest) -> None:
        blobs = [keys.of(blob.key) for blob in newest.blobs.values()]
        rings = [keys.of(ring.key) for ring in newest.rings.values()]
        among = ([keys.manifest(newest.id)], blobs, rings)[next(turns) % 3] or [keys.manifest(newest.id)]
        # Of a window the first bytes: further on may stand rows that no checkpoint reads any more.
        place = 0 if among is rings else scene.draw["detect"].randrange(1 << 30)
        _flip(client, scene.draw["detect"].choice(among), place)

    _without_newest(scene, "newest checkpoint corrupt", corrupt)


def two_newest_are_corrupt(scene: Scene) -> None:
    """Detect dies with a checkpoint written and not committed; the two committed ones before it are damaged."""

    def corrupt(client: Any, keys: TaskKeys, newest: Manifest) -> None:
        for id_ in [newest.id, *newest.kept[:1]]:
            _flip(client, keys.manifest(id_), 7)

    _without_newest(scene, "two newest checkpoints corrupt", corrupt, failpoint="checkpointed")


def rolled_back(scene: Scene) -> None:
    """Redis comes back as it was one or two seconds ago, under a live worker of detect, which is then killed.

    What `appendfsync everysec` may do to a running worker: its windows must not be written on top of what is older.
    """
    draw, crew = scene.draw["detect"], scene.crew("detect")
    for _ in range(1 if scene.short else 8):
        _at_work(scene)
        server = scene.services.redis
        older = _copied(server, scene.directory / "older")
        time.sleep(draw.uniform(*_OLDER_SECONDS))
        before = heard(scene)
        heads = _heads(scene)
        hits = [scene.hit(stage, "redis rolled back") for stage in STAGES]
        server.kill()
        shutil.rmtree(server.directory / _APPEND_ONLY)
        older.rename(server.directory / _APPEND_ONLY)
        server.start()
        behind = [task for task, head in _heads(scene).items() if head != heads.get(task)]
        _all_noticed(scene, hits, before)
        for hit in hits:
            hit.witness = f"{hit.witness}; {len(behind)} tasks had an older head" if behind and hit.witness else None
        crew.of("a").kill()
        again = scene.hit("detect", "killed after the roll-back")
        worker = crew.start()
        scene.recovered(again)
        again.witness = "it started from what stands" if "task_started" in worker.log else None


def stalls(scene: Scene) -> None:
    """Redis stands still for 1, 10 and 30 s: the first costs time, the others an abort, and nobody loses its place for good."""
    for seconds in _STALLS_SHORT if scene.short else _STALLS_LONG * 2:
        before = heard(scene)
        what = f"redis stalls for {seconds:.0f} s"
        # While ingest stands still there may be nothing for the next stage to write.
        scene.needs[what] = scene.needs.get(what, 0) + len(STAGES) - 1
        hits = [scene.hit(stage, what) for stage in STAGES]
        with frozen(scene.services.redis.pid):
            time.sleep(0.4 * seconds)
            early = {stage: scene.committed(stage) for stage in STAGES}
            time.sleep(0.6 * seconds)
            late = {stage: scene.committed(stage) for stage in STAGES}
        for hit in hits:
            scene.recovered(hit)
            felt = said(scene, hit.stage, before[hit.stage])
            if felt:
                hit.witness = f"it said {', '.join(felt)}"
            elif seconds <= _WITHIN_DEADLINE_SECONDS and early[hit.stage] == late[hit.stage]:
                hit.witness = "it committed nothing meanwhile, and aborted nothing"


def slow(scene: Scene) -> None:
    """Every command waits for up to 80 ms, for a quarter of a minute: commits go on, slower."""
    hits = [scene.hit(stage, "redis slow") for stage in STAGES]
    until_s = time.monotonic() + (_SLOW_SECONDS if scene.short else 4 * _SLOW_SECONDS)
    pauses = 0
    begun = {stage: scene.committed(stage) for stage in STAGES}
    with redis_client(scene) as client:
        while time.monotonic() < until_s:
            client.client_pause(_PAUSE_MS)
            pauses += 1
            time.sleep(_PAUSE_MS / 1000 + 0.01)
    for hit in hits:
        scene.recovered(hit)
        moved = sum(scene.committed(hit.stage).values()) > sum(begun[hit.stage].values())
        hit.witness = f"{pauses} pauses of {_PAUSE_MS} ms, and it committed on" if moved else None


# -- what they share


def restarted(
    scene: Scene, server: LocalService, name: str, kills: Sequence[bool], seconds: tuple[float, float]
) -> Iterator[tuple[list[Hit], dict[Stage, int]]]:
    """Stop a service for so long and start it again, by kill -9 where `kills` says so; only the first time in the short form.

    Each time yields a hit for every stage, and how much its first worker had said before.
    """
    for killed in kills[:1] if scene.short else kills:
        before = heard(scene)
        hits = [scene.hit(stage, f"{name} {'is killed' if killed else 'restarts'}") for stage in STAGES]
        with away(server, killed=killed):
            time.sleep(scene.draw["detect"].uniform(*seconds))
        yield hits, before


def heard(scene: Scene) -> dict[Stage, int]:
    """How much each stage's first worker has said so far."""
    return {stage: len(scene.crew(stage).of("a").log) for stage in STAGES}


def _all_noticed(scene: Scene, hits: list[Hit], before: dict[Stage, int], texts: tuple[str, ...] = LOST) -> None:
    """Every stage must say that it felt it, and commit again on every partition."""
    for hit in hits:
        scene.until(lambda hit=hit: bool(said(scene, hit.stage, before[hit.stage], texts)), f"{hit.stage} notices")  # type: ignore[misc]
        hit.witness = f"it said {', '.join(said(scene, hit.stage, before[hit.stage], texts))}"
        scene.recovered(hit)


def said(scene: Scene, stage: Stage, heard: int, texts: tuple[str, ...] = LOST) -> list[str]:
    """What the stage's first worker has said of these since."""
    log = scene.crew(stage).of("a").log[heard:]
    return [text for text in texts if text in log]


def sequences(scene: Scene) -> dict[PartitionId, int]:
    """How many commits every task of detect has made."""
    with redis_client(scene) as client:
        return {next(iter(place.inputs)): newest.sequence for place, _, newest in committed_manifests(scene, client)}


def _at_work(scene: Scene) -> None:
    """Wait until every task of detect has committed a few times: an empty state is easily replaced."""
    inputs = scene.inputs("detect")

    def worked() -> bool:
        time.sleep(_LOOK_SECONDS)
        made = sequences(scene)
        return made.keys() >= inputs and min(made.values()) >= _COMMITS_MIN

    scene.until(worked, f"{_COMMITS_MIN} commits of every task")


def _without_newest(scene: Scene, what: str, damage: Callable[[Any, TaskKeys, Manifest], object], failpoint: str = "") -> None:
    """Kill detect, damage the newest committed checkpoint of every task, and see what it starts from instead."""
    crew, draw = scene.crew("detect"), scene.draw["detect"]
    for _ in range(1 if scene.short else 6):
        _at_work(scene)
        for worker in crew.alive:
            worker.kill()
        if failpoint:
            dying = crew.start(failpoint=f"{failpoint}:{draw.randint(*_PASSES)}")
            dying.until_dead()
        hit = scene.hit("detect", what)
        with redis_client(scene) as client:
            damaged = []
            for place, keys, newest in committed_manifests(scene, client):
                damage(client, keys, newest)
                damaged.append(place.name)
        worker = crew.start()
        scene.recovered(hit)
        replaced = [line.partition(REPLACED)[2].strip() for line in worker.log.splitlines() if REPLACED in line]
        hit.witness = f"{len(replaced)} of {len(damaged)} tasks: {replaced[0]}" if len(replaced) == len(damaged) > 0 else None


def committed_manifests(scene: Scene, client: Any) -> Iterator[tuple[TaskPlace, TaskKeys, Manifest]]:
    """The keys and the committed manifest of every task of detect."""
    config, cluster = scene.installation.config, scene.installation.cluster()
    for place in tasks_of(config, cluster):
        if place.processor != "detect":
            continue
        keys = Scope(config.redis.key_prefix, config.environment, place.group, cluster).keys(place.name)
        for _, metadata in _metadata(scene, place):
            data = client.get(keys.manifest(decode_reference(metadata, place.name).id))
            if data is not None:
                yield place, keys, decode_manifest(data, place.name)


def _metadata(scene: Scene, place: TaskPlace) -> list[tuple[int, str]]:
    """Committed once no transaction is open on it: after a kill the broker has to end one first."""
    found: list[tuple[int, str]] = []

    def known() -> bool:
        found[:] = list(scene.watch.committed(place.group, place.inputs).values())
        return len(found) == len(place.inputs)

    until(known, lambda: f"the offsets of {place.name} are not known")
    return found


def _heads(scene: Scene) -> dict[str, bytes]:
    """The newest checkpoint of every task, as Redis has it."""
    with redis_client(scene) as client:
        keys = client.scan_iter(f"*{scene.installation.prefix}*:head", count=10_000)
        return {key.decode(): client.get(key) or b"" for key in keys}


def _flip(client: Any, key: str, place: int) -> None:
    """Change one byte of a value."""
    length = client.strlen(key)
    if length:
        at = place % length
        byte = client.getrange(key, at, at)
        client.setrange(key, at, bytes([byte[0] ^ 0x20]))


def _copied(server: LocalRedis, target: Path) -> Path:
    """The append-only file as it is on disk now; its last command may be cut, which Redis mends when it loads it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(server.directory / _APPEND_ONLY, target)
    return target


@contextmanager
def redis_client(scene: Scene) -> Iterator[Any]:
    client = redis.Redis.from_url(scene.services.redis.url)
    try:
        yield client
    finally:
        client.close()


FAULTS: Final = (
    Fault("redis_restarts", restarts, short=True, shares=True),
    Fault("redis_wiped", wiped, short=True, shares=True),
    Fault("newest_checkpoint_lost", newest_is_lost),
    Fault("newest_checkpoint_corrupt", newest_is_corrupt, short=True, shares=True),
    Fault("two_newest_checkpoints_corrupt", two_newest_are_corrupt),
    Fault("redis_rolled_back", rolled_back, short=True, shares=True),
    Fault("redis_stalls", stalls, short=True, shares=True),
    Fault("redis_slow", slow, Options(commit_interval_ms=100)),
)
