"""Releases that meet on one installation: an older checkpoint is taken over, a newer one and a newer batch stop the worker by name."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from driftline.schemas.loading import load_config
from driftline.streams.savepoint.groups import GroupOffsets, count_members
from driftline.streams.state.manifest import checksum, decode_reference
from tests.conftest import CreateTopics, Kafka
from tests.e2e.programs import Reader, driftline, produce, write_config

T0 = 1_700_000_000_000
ROWS = 1_200


class Installation:
    """One model, one partition, rows that ingest has read and detect has worked on."""

    def __init__(self, kafka: Kafka, redis_url: str, name: str, source: str, path: Path) -> None:
        self.kafka, self.name, self.source, self.path = kafka.bootstrap, name, source, path
        self.store: redis.Redis = redis.Redis.from_url(redis_url)
        models = "{m: {features: {x: numeric}, window: 200, baseline: {learn: 500, settle: 0s}}}"
        write_config(path, kafka, redis_url, name, models, predictions=source, labels=None)
        driftline("topics", "create", path)
        self.feed(0)

    def feed(self, first: int) -> None:
        rows = range(first, first + ROWS)
        events = [{"id": f"i{i}", "model": "m", "time": T0 + i * 1_000, "features": {"x": i % 7}, "score": 0.5} for i in rows]
        produce(self.kafka, self.source, [(event["time"], orjson.dumps(event)) for event in events])  # type: ignore[misc]
        driftline("run", self.path, "--processors", "ingest", "--until-idle", "1")

    def detect(self, *more: str, code: int = 0) -> str:
        return driftline("run", self.path, "--processors", "detect", "--until-idle", "1", *more, code=code).stderr.decode()

    def read(self, topic: str) -> list[bytes]:
        reader = Reader(self.kafka, f"{self.name}-ours.{topic}")
        found = [message.value() or b"" for message in reader.look()]
        reader.close()
        return found

    @contextmanager
    def group(self) -> Iterator[GroupOffsets]:
        with GroupOffsets(load_config(str(self.path)).kafka, f"{self.name}.detect") as group:
            yield group

    def committed(self) -> tuple[int, str]:
        key = (f"{self.name}-ours.observations", 0)
        with self.group() as group:
            return group.committed([key])[key]

    def commit(self, offset: int, metadata: str) -> None:
        """As another release would have; the broker remembers a worker that stopped until its session has timed out."""
        admin, name = AdminClient({"bootstrap.servers": self.kafka}), f"{self.name}.detect"
        deadline = time.monotonic() + 120
        while count_members(admin, [name])[name]:
            assert time.monotonic() < deadline, "a worker stays in the group"
            time.sleep(0.5)
        with self.group() as group:
            group.commit({(f"{self.name}-ours.observations", 0): (offset, metadata)})

    def version(self) -> int:
        shown = driftline("state", "inspect", "-c", self.path, "--task", "detect", "-o", "json").stdout
        version: int = orjson.loads(shown.splitlines()[0])["redis"]["version"]
        return version


@pytest.fixture
def installation(kafka: Kafka, redis_url: str, topic_prefix: str, create_topics: CreateTopics, tmp_path: Path) -> Installation:
    (source,) = create_topics("in", config={"retention.ms": "-1"})
    return Installation(kafka, redis_url, topic_prefix.rstrip("."), source, tmp_path / "m.yml")


def test_checkpoints_of_other_releases(installation: Installation) -> None:
    installation.detect()
    offset, metadata = installation.committed()

    # A newer one: refused by name, whatever the worker was told; nothing is written.
    newer = json.loads(metadata)
    newer[0] = 3
    installation.commit(offset, json.dumps([*newer, "more"]))
    installation.feed(ROWS)
    before = installation.read("drift")
    for told in ((), ("--on-lost-state", "rebuild-from-earliest")):
        log = installation.detect(*told, code=1)
        assert "processor_stopped error=NewerStateError" in log
        assert "names a checkpoint of version 3: this worker reads versions 1 to 2" in log
        assert "upgrade this worker" in log
    assert installation.read("drift") == before
    assert installation.committed()[0] == offset

    # One of the version before: read, and written anew.
    reference = decode_reference(metadata, "detect/0")
    keys = installation.store.scan_iter(f"*{installation.name}.detect:*:m:{reference.id}", count=10_000)
    (key,) = keys
    older = json.loads(installation.store.get(key) or b"")
    del older["history"], older["environment"]
    data = json.dumps({**older, "v": 1}).encode()
    installation.store.set(key, data)
    installation.commit(offset, json.dumps([1, reference.id, checksum(data), reference.epoch, reference.base]))
    log = installation.detect()
    assert f"task_started task=detect/0 state={reference.id}" in log
    assert installation.version() == 2
    assert installation.committed()[0] > offset
    learned = [event for event in map(orjson.loads, installation.read("drift")) if event["kind"] == "baseline"]
    assert [event["position"]["offset"] for event in learned] == [499, 499]  # features and scores, once each


def test_a_batch_of_a_newer_release_stops_detect_and_is_no_dead_letter(installation: Installation) -> None:
    installation.detect()
    offset, _ = installation.committed()
    before = installation.read("drift")
    known = next(value for value in installation.read("observations") if b'"kind":"predictions"' in value)
    assert b'"v":1' in known
    producer = Producer({"bootstrap.servers": installation.kafka})
    producer.produce(f"{installation.name}-ours.observations", known.replace(b'"v":1', b'"v":2'), b"m", partition=0)
    assert producer.flush(30) == 0
    for _ in range(2):
        log = installation.detect(code=1)
        assert "processor_stopped error=ObservationError" in log
        assert "version 2" in log
    assert installation.committed()[0] == offset
    assert installation.read("dlq") == []
    assert installation.read("drift") == before
