"""What `driftline state rescale` refuses, before it has written anything, and what it says to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import orjson
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.schemas.loading import load_config
from driftline.streams.savepoint.archive import ArchiveReader, ArchiveWriter
from driftline.streams.savepoint.contents import Contents, SavepointReader, SavepointWriter
from driftline.streams.savepoint.groups import GroupOffsets
from driftline.streams.task import StateDelta
from tests.conftest import CreateTopics, Kafka
from tests.e2e.programs import driftline
from tests.rescale.installation import Sources, installation, records
from tests.savepoint.installation import Installation

_JOIN = {
    "v": 1, "waiting_next": 0, "labels_next": 0, "cached_next": 0, "label_ticks": [], "waiting_ticks": [], "marks": [60_000, []],
    "decided": [0, 0], "settle_head": 0, "seq": {}, "age_ms": 120_000,
}  # fmt: skip


class World:
    """An installation that has run on empty topics and stopped, and the one it is to become."""

    def __init__(self, old: Installation, new: Installation, folder: Path) -> None:
        self.old, self.new = old, new
        self._folder = folder
        driftline("topics", "create", old.config)
        driftline("topics", "create", new.config)

    def ran(self, *, without: str = "") -> World:
        for place in self.old.places():
            blobs: dict[str, dict[str, object]] = {
                "ingest": {"ingest": {"v": 1, "time_ms": 0, "seq": {}}},
                "detect": {"task": {"v": 2, "sequence": {}, "models": {}}},
            }
            if place.name != without:
                held = blobs.get(place.processor, {"join": _JOIN})
                self.old.commit(place, StateDelta({name: orjson.dumps(blob) for name, blob in held.items()}), 0)
        return self

    def exported(self) -> Path:
        path = self._folder / "old.savepoint"
        self.old.done("export", "-o", path, "--force")
        return path

    def write(self, of: Installation, topic: str, partition: int = 0) -> None:
        producer = Producer({"bootstrap.servers": of.bootstrap})
        producer.produce(f"{of.prefix}.{topic}", b"x", b"key", partition)
        assert producer.flush(30) == 0

    def refusal(self, savepoint: Path, *, code: int = 1) -> str:
        said = self.new.refused("rescale", savepoint, "-o", self._folder / "new.savepoint", code=code)
        assert not (self._folder / "new.savepoint").exists()
        return said

    def edit(self, *changes: tuple[str, str]) -> None:
        text = self.new.config.read_text()
        for before, after in changes:
            assert text.count(before) == 1
            text = text.replace(before, after)
        self.new.config.write_text(text)


@pytest.fixture
def world(kafka: Kafka, redis_url: str, topic_prefix: str, create_topics: CreateTopics, tmp_path: Path) -> World:
    one, two, labels = create_topics("one", "two", "labels")
    sources = Sources(one, two, labels)
    old, new = (
        installation(tmp_path, kafka.bootstrap, redis_url, f"{topic_prefix}-{name}", partitions, sources)
        for name, partitions in (("old", 2), ("new", 3))
    )
    return World(old, new, tmp_path)


def changed(savepoint: Path, change: Callable[[Contents], Contents]) -> Path:
    """The same savepoint with another manifest, its sums right."""
    path = savepoint.with_suffix(".changed")
    with savepoint.open("rb") as file, path.open("wb") as sink:
        reader = SavepointReader(ArchiveReader(file))
        out = SavepointWriter(ArchiveWriter(sink))
        tasks = []
        for task in reader.contents.tasks:
            blobs, rings = out.put(reader.state(task))
            tasks.append(msgspec.structs.replace(task, blobs=blobs, rings=rings))
        out.close(change(msgspec.structs.replace(reader.contents, tasks=tasks)))
    return path


def test_an_installation_in_which_nothing_waits_is_moved_and_can_be_imported(world: World, tmp_path: Path) -> None:
    savepoint = world.ran().exported()
    (done,) = world.new.done("rescale", savepoint, "-o", tmp_path / "new.savepoint")
    assert (done["partitions"], done["waiting"], done["labels"], done["alerts"]) == ([2, 3], 0, 0, 0)
    world.new.done("import", tmp_path / "new.savepoint")
    assert {row["fit"] for row in world.new.done("inspect", "-o", "json")} == {"fits", "nothing"}  # alert never ran
    assert "the new installation has run" in world.new.refused("rescale", savepoint, "-o", tmp_path / "again")


def test_the_new_installation_needs_names_of_its_own(world: World) -> None:
    savepoint = world.ran().exported()
    old, new, config = world.old.prefix, world.new.prefix, world.new.config
    text = config.read_text()
    for before, after, named in (
        (f'topics: {{prefix: "{new}"', f'topics: {{prefix: "{old}"', "topics.prefix"),
        ("kafka: {", f'kafka: {{group_prefix: "{old}", ', "kafka.group_prefix"),
        (f'key_prefix: "{new}"', f'key_prefix: "{old}"', "redis.key_prefix"),
    ):
        world.edit((before, after))
        said = world.refusal(savepoint, code=2)
        assert f'{named} is "{old}" as in the savepoint' in said
        assert f"set another {named} in the new configuration" in said
        config.write_text(text)
    world.edit(("partitions: 3", "partitions: 0"))
    assert "topics.partitions" in world.refusal(savepoint, code=2)


def test_another_cluster_environment_source_or_age_is_refused(world: World) -> None:
    savepoint = world.ran().exported()

    def elsewhere(contents: Contents) -> Contents:
        return msgspec.structs.replace(contents, world=msgspec.structs.replace(contents.world, cluster_id="other"))

    said = world.refusal(changed(savepoint, elsewhere), code=2)
    assert 'the savepoint is of cluster "other"' in said
    assert "import --rebase" in said
    said = world.refusal(changed(savepoint, lambda contents: msgspec.structs.replace(contents, version=2)), code=2)
    assert "savepoint version 2: this release reads version 1" in said
    text = world.new.config.read_text()
    for before, after, expected in (
        ("kafka: {", "environment: staging\nkafka: {", 'the configuration has "staging"'),
        ("{topic: ", f"{{topic: {world.old.prefix}.drift}}, {{topic: ", "has no task in the savepoint: it is new, or was never read"),
        ("ages: [2m, 5m]", "ages: [2m, 6m]", "join-300000ms is only in the savepoint: the label ages must be the same"),
    ):
        world.new.config.write_text(text.replace(before, after, 1) if before != "ages: [2m, 5m]" else text.replace(before, after))
        assert expected in world.refusal(savepoint, code=2)


def test_workers_of_either_installation_must_be_stopped(world: World) -> None:
    savepoint = world.ran().exported()
    for one in (world.old, world.new):
        with one.member(f"{one.prefix}.detect"):
            said = world.refusal(savepoint)
            assert f'workers are in group "{one.prefix}.detect" (1)' in said
            assert "stop them" in said


def test_what_was_written_or_committed_after_the_savepoint_is_refused(world: World) -> None:
    savepoint = world.ran().exported()
    place = next(place for place in world.old.places() if place.processor == "ingest")
    (key,) = place.inputs
    with GroupOffsets(load_config(str(world.old.config)).kafka, place.group) as group:
        committed = group.committed([key])
        group.commit({key: (1, committed[key][1])})
        said = world.refusal(savepoint)
        assert f'group "{place.group}" stands elsewhere on {key[0]}/{key[1]} than in the savepoint' in said
        assert "driftline state export" in said
        group.commit(committed)
    world.write(world.old, "waiting", 1)
    assert f"{world.old.prefix}.waiting/1 has records that were written after the savepoint" in world.refusal(savepoint)


def test_detect_and_alert_must_have_read_everything_that_is_there(world: World) -> None:
    world.ran()
    world.write(world.old, "observations", 1)
    savepoint = world.exported()
    said = world.refusal(savepoint)
    assert f"detect has not read all of {world.old.prefix}.observations/1" in said
    assert "--processors detect,alert --until-idle" in said


def test_alert_lags_only_where_it_runs(world: World, tmp_path: Path) -> None:
    world.ran()
    world.write(world.old, "drift", 1)
    savepoint = world.exported()
    with GroupOffsets(load_config(str(world.old.config)).kafka, f"{world.old.prefix}.alert") as group:
        group.commit({(f"{world.old.prefix}.drift", 1): (0, "")})
        assert f"the alert processor has not taken all of {world.old.prefix}.drift/1" in world.refusal(savepoint)
        group.commit({(f"{world.old.prefix}.drift", 1): (1, "")})
    world.new.done("rescale", savepoint, "-o", tmp_path / "new.savepoint")


@pytest.mark.parametrize("topic", ["waiting", "alerts", "observations"])
def test_topics_that_hold_records_of_others_are_refused(world: World, topic: str) -> None:
    savepoint = world.ran().exported()
    world.write(world.new, topic, 2)
    assert f"{world.new.prefix}.{topic}/2 has records that no `state rescale` has written" in world.refusal(savepoint)
    assert len(records(world.new.bootstrap, f"{world.new.prefix}.{topic}")) == 1


def test_a_task_that_has_never_run_is_named(world: World) -> None:
    savepoint = world.ran(without="join-300000ms/1").exported()
    said = world.refusal(savepoint)
    assert "not in the savepoint, having committed nothing: join-300000ms/1" in said
    assert "run join once" in said


def test_rows_that_retention_has_removed_are_missed(world: World) -> None:
    world.ran()
    world.write(world.old, "waiting", 0)
    savepoint = world.exported()
    _remove(world.old, "waiting", 0)
    said = world.refusal(savepoint)
    assert f"{world.old.prefix}.waiting/0: the join goes on at 0, the topic holds 1 to 1" in said


def _remove(of: Installation, topic: str, partition: int) -> None:
    admin = AdminClient({"bootstrap.servers": of.bootstrap})
    for future in admin.delete_records([TopicPartition(f"{of.prefix}.{topic}", partition, 1)]).values():
        future.result(30)
