"""kill -9: at each numbered step of the commit, and at any moment."""

from __future__ import annotations

import time
from typing import Final

from driftline.streams.state.checkpoints import Scope
from driftline.streams.state.manifest import Manifest, decode_manifest, decode_reference
from driftline.streams.state.redis_store import RedisStore, open_store
from driftline.streams.state.retention import TaskKeys
from driftline.streams.wiring import tasks_of
from tests.chaos.fault import Fault
from tests.chaos.installation import Options
from tests.chaos.scene import Hit, Scene
from tests.chaos.verify import observation_head
from tests.chaos.workers import STAGES, Stage, Worker

STEPS: Final = ("produced", "checkpointed", "offsets_sent", "committed", "restored")
"""Where a commit can be cut; the last is before the first of a worker's life."""
_HOLDING: Final = ("produced", "checkpointed", "offsets_sent")
"""Steps at which a transaction is open."""

_KILLS_SHORT, _KILLS_LONG = 1, 20
# Of ten transactions of detect some seven hold a drift event; others do not count. A join whose ingest is being killed, too, has no
# outcomes to lose for as long as that starts, on a busy machine half of the time.
_ATTEMPTS: Final = 12
_PASSES: Final = (4, 14)
"""Commits of a worker before the one that is cut; enough to be past its start, few enough to be quick."""
_LAST_WORDS_SECONDS: Final = 0.1
_ONE_COMMIT_MS: Final = 60
_RANDOM_SHORT, _RANDOM_LONG = 6, 100
_AWAITED: Final = 0.6
"""Share of random kills after which the stage may recover before the next one falls anywhere."""


def at_steps(scene: Scene) -> None:
    """Each worker is killed at each step of its commit, and started again under its name.

    A kill counts where its transaction held something: for detect a drift event, for join an outcome, for ingest rows.
    """
    wanted = _KILLS_SHORT if scene.short else _KILLS_LONG

    def cut(stage: Stage) -> None:
        for step in STEPS:
            count = wanted if stage == "detect" and step != "restored" else max(1, wanted // 4)
            scene.needs[_name(stage, step)] = count
            _kill_at(scene, stage, step, count)
        scene.crew(stage).start()

    scene.each_stage(cut)


def _name(stage: Stage, step: str) -> str:
    return f"kill {stage} {step}"


def _kill_at(scene: Scene, stage: Stage, step: str, count: int) -> None:
    """Kill until so many kills are witnessed, or there is no hope."""
    crew = scene.crew(stage)
    # What a finished commit held is known only in the end, and every third holds nothing: more than needed, of one most.
    goal = count + 2 + -(-count // 2) if step == "committed" and stage == "detect" else count
    witnessed = 0
    for _ in range(goal * _ATTEMPTS):
        if witnessed >= goal:
            return
        for worker in crew.alive:
            worker.kill()
        passes = 1 if step == "restored" else scene.draw[stage].randint(*_PASSES)
        hit = cut_at(scene, crew.start(failpoint=f"{step}:{passes}"), step)
        bit = hit.witness is not None or bool(hit.spans)
        witnessed += bit
        if not bit and stage != "ingest":
            scene.until_fed()


def cut_at(scene: Scene, worker: Worker, step: str) -> Hit:
    """Wait until a worker has died at its failpoint, and look at what its transaction held."""
    worker.until_dead()
    at = time.monotonic()
    # What it sent last is on its way: requests, and the markers of a transaction that it saw committed.
    time.sleep(_LAST_WORDS_SECONDS)
    hit = scene.hit(worker.stage, _name(worker.stage, step), at)
    if step in _HOLDING:
        held = _held(scene, worker.stage)
        hit.witness = f"{held} records in the open transaction" if held else None
    elif step == "committed" and worker.stage == "detect":
        hit.spans = last_transaction(scene)
    else:
        hit.witness = f"dead at {step} with {len(worker.tasks)} tasks"
    return hit


def _held(scene: Scene, stage: Stage) -> int:
    """Records of the dead worker's open transaction: drift events, outcomes or waiting rows."""
    if stage == "detect":
        return len(scene.watch.open_records(scene.installation.topic("drift")))
    if stage == "ingest":
        return len(scene.watch.open_records(scene.installation.topic("waiting")))
    # Ingest writes there too, but its transactions end: what stays open after several of its commits is the join's.
    time.sleep(4 * scene.installation.options.commit_interval_ms / 1000)
    records = scene.watch.open_records(scene.installation.topic("observations"))
    return sum(observation_head(record.value())["task"].startswith("join") for record in records)


def last_transaction(scene: Scene) -> dict[int, tuple[int, int]]:
    """The observations of detect's last commit, by partition, from the checkpoints that it and the one before it made."""
    installation = scene.installation
    config, cluster = installation.config, installation.cluster()
    store = open_store(config)
    found: dict[int, tuple[int, int, int]] = {}
    try:
        for place in tasks_of(config, cluster):
            if place.processor != "detect":
                continue
            keys = Scope(config.redis.key_prefix, config.environment, place.group, cluster).keys(place.name)
            for (_, partition), (offset, metadata) in scene.watch.committed(place.group, place.inputs).items():
                newest = _manifest(store, keys, decode_reference(metadata, place.name).id, place.name)
                before = _manifest(store, keys, newest.kept[0], place.name) if newest is not None and newest.kept else None
                if newest is not None and before is not None:
                    found[partition] = (before.offsets[0][2], offset, newest.written_ms)
    finally:
        store.close()
    # A task that had nothing to do was no part of the last commit: its checkpoint is older.
    last_ms = max((written_ms for _, _, written_ms in found.values()), default=0)
    return {key: (first, end) for key, (first, end, at_ms) in found.items() if at_ms > last_ms - _ONE_COMMIT_MS}


def _manifest(store: RedisStore, keys: TaskKeys, id_: str, task: str) -> Manifest | None:
    data = store.read([keys.manifest(id_)])[0]
    return None if data is None else decode_manifest(data, task)


def at_random(scene: Scene) -> None:
    """Workers of all stages are killed at any moment, and started again under their names."""
    draw = scene.draw["detect"]
    kills = _RANDOM_SHORT if scene.short else _RANDOM_LONG
    for _ in range(kills):
        stage = draw.choice(STAGES)
        time.sleep(draw.uniform(0.2, 2.0))
        (worker,) = scene.crew(stage).alive
        # A worker that was killed right after its start may have nothing to lose yet.
        working = "task_started" in worker.log
        worker.kill()
        hit = scene.hit(stage, "kill at random")
        hit.witness = "it was at work" if working else "it was starting"
        scene.crew(stage).start()
        if draw.random() < _AWAITED:
            scene.recovered(hit)


_WITH_CONSUMER = Options(protocol="consumer")

FAULTS: Final = (
    Fault("kill_at_steps", at_steps, short=True, shares=True),
    Fault("kill_at_steps_consumer", at_steps, _WITH_CONSUMER),
    Fault("kill_at_random", at_random),
    Fault("kill_at_random_consumer", at_random, _WITH_CONSUMER, short=True, shares=True),
)
