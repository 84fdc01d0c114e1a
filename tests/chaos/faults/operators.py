"""What operators and upgrades do: offsets reset, topics recreated or widened, records deleted, an older release among newer ones.

Where the protocol says stop, the stop is what must be seen: by name, with what to do, and with nothing written.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

import orjson
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from driftline.streams.state.manifest import decode_reference
from driftline.streams.task import PartitionId
from driftline.streams.topic_creation import create_topics, wanted_topics
from tests.chaos.fault import Fault
from tests.chaos.faults.store import REPLACED, committed_manifests, redis_client, sequences
from tests.chaos.inputs import FEATURES, Input
from tests.chaos.installation import SESSION_MS, Options
from tests.chaos.process import until
from tests.chaos.scene import DRIFT_EVENTS, Hit, Scene
from tests.chaos.watch import Watch
from tests.chaos.workers import STAGES, Stage, Worker

_DRIFT_SECONDS: Final = 600.0
_CALL_SECONDS: Final = 30
_ADMIN_SECONDS: Final = 10
_PAUSE_SECONDS: Final = 0.5
_QUIET_COMMITS: Final = 100
_QUIET_ROWS: Final = 40
_BASE_SECONDS: Final = 150.0
"""A base checkpoint a minute, and a busy machine."""
_METADATA_MS: Final = 2_000


def offsets_reset(scene: Scene) -> None:
    """Detect's offsets are set back to the beginning by a tool: state and offsets no longer belong together, so it stops.

    Whoever did it puts them back, as they were, and detect goes on.
    """
    crew, admin, group = scene.crew("detect"), scene.installation.admin, scene.group("detect")
    for _ in range(1 if scene.short else 3):
        crew.of("a").stop()
        saved = scene.watch.committed(group, scene.inputs("detect"))
        hit = scene.hit("detect", "offsets reset")
        _set(scene, admin, group, dict.fromkeys(saved, (0, "")))
        hit.witness = _refused(scene, "detect", "names no checkpoint")
        if hit.witness is None:
            return
        _set(scene, admin, group, saved)
        crew.start()
        scene.recovered(hit)


def offsets_deleted(scene: Scene) -> None:
    """Detect's group is deleted while it is down: with state there and no offset it must stop, and say so.

    Whoever deleted it puts the offsets back, as they were, and detect goes on.
    """
    crew, admin, group = scene.crew("detect"), scene.installation.admin, scene.group("detect")
    for _ in range(1 if scene.short else 3):
        crew.of("a").stop()
        saved = scene.watch.committed(group, scene.inputs("detect"))
        hit = scene.hit("detect", "offsets deleted")
        scene.until(lambda: _deleted(admin, group), "the group is empty and goes")
        hit.witness = _refused(scene, "detect", "no committed offset")
        if hit.witness is None:
            return  # it goes on, which is wrong, and the verifier will say so
        _set(scene, admin, group, saved)
        crew.start()
        scene.recovered(hit)


def older_worker_meets_newer_checkpoint(scene: Scene) -> None:
    """A release with a newer checkpoint format takes detect over; the older one, started again, stops and asks for an upgrade."""
    crew = scene.crew("detect")
    for _ in range(1 if scene.short else 3):
        crew.of("a").stop()
        older, crew.defaults = crew.defaults, replace(crew.defaults, without=_and(crew.defaults.without, "the_next_version"))
        hit = scene.hit("detect", "an older worker meets a newer checkpoint")
        newer = crew.start()
        scene.recovered(hit)
        newer.stop()
        newer_launch, crew.defaults = crew.defaults, older
        hit.witness = _refused(scene, "detect", "upgrade this worker")
        if hit.witness is None:
            return
        # It has taken nothing from the newer one, which goes on to the end.
        crew.defaults = newer_launch
        again = scene.hit("detect", "the newer worker goes on")
        crew.start()
        scene.recovered(again)
        again.witness = hit.witness


def records_deleted_and_redis_lost(scene: Scene) -> None:
    """Observations below the newest base checkpoint are deleted, then detect's keys in Redis: the base and a replay bring it back.

    Its baselines were learned from records that are gone: no replay from the log's start could learn them again.
    """
    crew, observations = scene.crew("detect"), scene.installation.topic("observations")
    for _ in range(1 if scene.short else 3):
        begun = _base_offsets(scene)
        scene.until(lambda begun=begun: _moved(_base_offsets(scene), begun), "a base checkpoint of every task", _BASE_SECONDS)  # type: ignore[misc]
        bases = _base_offsets(scene)
        scene.watch.keep(observations)
        crew.of("a").kill()
        hit = scene.hit("detect", "records deleted, redis lost")
        below = [TopicPartition(*key, offset) for key, offset in bases.items()]
        for deleted in scene.installation.admin.delete_records(below).values():
            deleted.result(_CALL_SECONDS)
        with redis_client(scene) as client:
            for key in list(client.scan_iter(f"*{scene.group('detect')}:*", count=10_000)):
                client.delete(key)
        worker = crew.start()
        scene.recovered(hit)
        replaced = [line for line in worker.log.splitlines() if REPLACED in line and "by=base" in line]
        if len(replaced) == len(bases) and all(offset > 0 for offset in bases.values()):
            hit.witness = f"{len(replaced)} tasks from bases at {', '.join(map(str, bases.values()))}, nothing before them left"


def idle_and_quiet(scene: Scene) -> None:
    """One partition of labels gets nothing, and one version of a model nothing more, for 100 commits; then all are killed.

    A quiet partition must not name a checkpoint that was cleaned up, nor a quiet panel have lost its only blob.
    """
    idle = (scene.installation.sources["labels"], 1)
    scene.feeder.send(_quiet_version())
    scene.until(lambda: bool(_quiet_blobs(scene)), "the quiet version has a panel")
    scene.feeder.idle = frozenset({idle})
    time.sleep(_PAUSE_SECONDS)
    begun, first = sequences(scene), _names(scene, idle)
    scene.until(lambda: _moved(sequences(scene), begun, _QUIET_COMMITS), f"{_QUIET_COMMITS} commits", _DRIFT_SECONDS)
    quiet = _quiet_blobs(scene)
    hits = [scene.hit(stage, "killed after 100 quiet commits") for stage in STAGES]
    for stage in STAGES:
        scene.crew(stage).of("a").kill()
    last = _names(scene, idle)
    scene.feeder.idle = frozenset()
    workers = [scene.crew(stage).start() for stage in STAGES]
    for hit, worker in zip(hits, workers, strict=True):
        # A commit that was under way may stand after the kill: only what it started from tells.
        worker.until_logged("task_started")
        scene.recovered(hit)
        loaded = "task_started" in worker.log and REPLACED not in worker.log
        if hit.stage == "ingest":
            stood = first[0] == last[0] and first[1] != last[1]
            hit.witness = f"its idle partition stood at {last[0]} and named {last[1]}, not {first[1]}" if stood else None
        elif loaded:
            ages = ", ".join(f"{age} commits" for age in quiet.values())
            hit.witness = f"loaded what it had, blobs of the quiet version from {ages} before among it"


def partitions_added(scene: Scene) -> None:
    """The observations get a fourth partition: models would move away from their state, so everyone who reads or writes them stops."""
    _drained(scene)
    scene.installation.remember()
    topic = scene.installation.topic("observations")
    live = scene.crew("detect").start()
    live.until(lambda: len(live.tasks) == len(scene.inputs("detect")), "start its tasks")
    outputs = _ends(scene)
    hit = _final(scene, "detect", "partitions added under a live worker")
    wider = NewPartitions(topic, len(scene.watch.partitions(topic)) + 1)
    scene.installation.admin.create_partitions([wider])[topic].result(_CALL_SECONDS)
    live.expected.add(1)
    live.until_dead()
    hit.witness = _last_words(live, "has more now")
    for stage in STAGES:
        after = _final(scene, stage, f"{stage} starts after partitions were added")
        after.witness = _refused(scene, stage, "belongs to partitions" if stage == "detect" else "has 4 now")
    assert _ends(scene) == outputs, "something was written after the refusal"


def topic_recreated(scene: Scene) -> None:
    """The topic of predictions is deleted and made again under its name: its offsets begin anew, so ingest stops."""
    _drained(scene)
    scene.installation.remember()
    source = scene.installation.sources["predictions"]
    scene.watch.keep(source)
    outputs = _ends(scene)
    hit = _final(scene, "ingest", "topic recreated")
    scene.installation.admin.delete_topics([source])[source].result(_CALL_SECONDS)
    config = scene.installation.config
    scene.until(lambda: source not in scene.installation.admin.list_topics(timeout=_CALL_SECONDS).topics, "the topic is gone")
    like = wanted_topics(config.topics)[0]
    wanted = replace(like, name=source, partitions=config.topics.partitions, properties={"retention.ms": "-1"})
    until(lambda: bool(create_topics(scene.installation.admin, [wanted])), lambda: "the topic is not made again")
    # A broker forgets the offsets of a topic that is deleted, if it has come to that yet.
    hit.witness = _refused(scene, "ingest", "belongs to topic_ids", "no committed offset")
    assert _ends(scene) == outputs, "something was written after the refusal"


# -- what they share


def _drained(scene: Scene) -> None:
    """Input and all stages come to their ends, so that nothing is missing when they are refused for good."""
    scene.until_drift(DRIFT_EVENTS, _DRIFT_SECONDS)
    scene.end()
    for stage in STAGES:
        scene.crew(stage).over = True


def _final(scene: Scene, stage: Stage, what: str) -> Hit:
    hit = scene.hit(stage, what)
    hit.final = True
    return hit


def _refused(scene: Scene, stage: Stage, *words: str) -> str | None:
    """Start a worker that must stop by itself, with one of these words and a hint; what it said, None if it did not."""
    worker = scene.crew(stage).start()
    worker.expected.add(1)
    _until_decided(scene, worker)
    return _last_words(worker, *words) if worker.code == 1 else None


def _until_decided(scene: Scene, worker: Worker) -> None:
    """It has stopped, or begun all its tasks: the one that must be refused may be the last of them."""
    inputs = scene.inputs(worker.stage)
    until(
        lambda: worker.code is not None or scene.task_inputs(worker) >= inputs,
        lambda: f"{worker.name} neither stops nor begins:\n{worker.tail()}",
    )


def _last_words(worker: Worker, *words: str) -> str | None:
    said = [line.strip() for line in worker.log.splitlines() if any(text in line for text in words)]
    return said[-1][:200] if said and "hint:" in worker.log else None


def _ends(scene: Scene) -> dict[PartitionId, int]:
    """How far every output topic has been written."""
    names = ("observations", "waiting", "labels", "drift", "snapshots", "dlq", "checkpoints")
    # A client of its own: one that has asked before knows nothing of a partition that is new.
    watch = Watch(scene.services.bootstrap)
    try:
        found = {key: end.high for name in names for key, end in watch.ends(scene.installation.topic(name)).items()}
    finally:
        watch.close()
    return {key: high for key, high in found.items() if high}


def _set(scene: Scene, admin: AdminClient, group: str, offsets: dict[PartitionId, tuple[int, str]]) -> None:
    """As a tool does it. A static member that left in order is counted until its session ends, and is in the way so long."""
    wanted = [TopicPartition(*key, offset, metadata) for key, (offset, metadata) in offsets.items()]

    def done() -> bool:
        try:
            answer = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])[group].result(_ADMIN_SECONDS)
        except KafkaException:
            time.sleep(_PAUSE_SECONDS)
            return False
        # The call succeeds where every partition was refused.
        return all(partition.error is None for partition in answer.topic_partitions)

    scene.until(done, "the offsets are set")


def _deleted(admin: AdminClient, group: str) -> bool:
    try:
        admin.delete_consumer_groups([group])[group].result(_ADMIN_SECONDS)
    except KafkaException:
        time.sleep(_PAUSE_SECONDS)
        return False
    return True


def _base_offsets(scene: Scene) -> dict[PartitionId, int]:
    """The offset of the newest committed base checkpoint of every task of detect."""
    newest = {r.key(): r.value() for r in scene.watch.read(scene.installation.topic("checkpoints")) if b"|detect/" in (r.key() or b"")}
    found: dict[PartitionId, int] = {}
    for key, value in newest.items():
        if (key or b"").endswith(b"|manifest") and value is not None:
            for topic, partition, offset in orjson.loads(value)["manifest"]["offsets"]:
                found[topic, partition] = offset
    return found


def _moved(now: dict[PartitionId, int], begun: dict[PartitionId, int], by: int = 1) -> bool:
    time.sleep(_PAUSE_SECONDS)
    return bool(now) and now.keys() >= begun.keys() and all(value >= begun.get(key, 0) + by for key, value in now.items())


def _quiet_version() -> list[Input]:
    events = []
    for number in range(_QUIET_ROWS):
        features = dict.fromkeys(FEATURES, number / 10) | {"country": "BR"}
        event = {"id": f"quiet-{number}", "model": "cards", "version": "quiet", "features": features, "score": 0.5, "latency_ms": 1.0}
        events.append(Input(0, "predictions", number % 3, orjson.dumps(event), True, "quiet_version"))
    return events


def _quiet_blobs(scene: Scene) -> dict[str, int]:
    """Blobs of the quiet version in detect's newest checkpoints, and how many commits ago each was written."""
    with redis_client(scene) as client:
        return {
            name: newest.sequence - int(blob.key.rpartition(":")[2].partition("-")[0])
            for _, _, newest in committed_manifests(scene, client)
            for name, blob in newest.blobs.items()
            if "~quiet~" in name
        }


def _names(scene: Scene, key: PartitionId) -> tuple[int, str]:
    """The committed offset of a source partition and the checkpoint that it names."""
    offset, metadata = scene.watch.committed(scene.group("ingest"), [key])[key]
    return offset, decode_reference(metadata, f"ingest/{key[0]}/{key[1]}").id


def _and(names: str, name: str) -> str:
    return ",".join(filter(None, [names, name]))


_EAGER_METADATA: Final = Options(
    kafka={
        "properties": {
            "max.poll.interval.ms": 300_000,
            "linger.ms": 0,
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": 1_000,
            # A client learns of new partitions within this, five minutes by default.
            "topic.metadata.refresh.interval.ms": _METADATA_MS,
        }
    }
)

FAULTS: Final = (
    Fault("offsets_reset", offsets_reset),
    Fault("offsets_deleted", offsets_deleted),
    Fault("older_worker_newer_checkpoint", older_worker_meets_newer_checkpoint, short=True, shares=True),
    Fault("records_deleted_redis_lost", records_deleted_and_redis_lost),
    Fault("idle_and_quiet", idle_and_quiet),
    Fault("partitions_added", partitions_added, _EAGER_METADATA),
    Fault("topic_recreated", topic_recreated),
)
