"""An installation with state, made by hand: what its workers would have left behind, without running any."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import redis
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from driftline.cli.main import cli
from driftline.schemas.loading import load_config
from driftline.streams.cluster import Cluster
from driftline.streams.kafka import make_admin, read_cluster
from driftline.streams.savepoint.groups import GroupOffsets
from driftline.streams.savepoint.tasks import CommittedTask, read_task, scope_of
from driftline.streams.state.checkpoints import Checkpoints
from driftline.streams.state.manifest import encode_reference
from driftline.streams.state.redis_store import RedisStore
from driftline.streams.task import RingWrite, StateDelta
from driftline.streams.wiring import TaskPlace, task_topics, tasks_of

RECORDS = 5
"""In every topic, partition 0."""


@dataclass(frozen=True)
class Installation:
    """A configuration whose topics exist."""

    config: Path
    bootstrap: str
    redis_url: str
    prefix: str

    def run(self, *arguments: str | Path) -> Result:
        return CliRunner().invoke(cli, ["state", *map(str, arguments), "-c", str(self.config)])

    def done(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """The JSON lines of a command that succeeds."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    def refused(self, *arguments: str | Path, code: int = 1) -> str:
        result = self.run(*arguments)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
        return result.stderr

    def places(self) -> list[TaskPlace]:
        config, cluster = self._open()
        return tasks_of(config, cluster)

    def commit(self, place: TaskPlace, delta: StateDelta, offset: int, *, times: int = 2) -> None:
        """What a worker does for one task, several commits long."""
        config, cluster = self._open()
        store = RedisStore(self.redis_url)
        checkpoints = Checkpoints(store, scope_of(place, config, cluster), place.name, place.inputs, now_ms=lambda: 1_700_000_000_000)
        checkpoints.claim()
        checkpoints.begin()
        offsets = dict.fromkeys(place.inputs, offset)
        with GroupOffsets(config.kafka, place.group) as group:
            for number in range(times):
                write, reference = checkpoints.prepare(delta if number == times - 1 else StateDelta(), offsets)
                store.write([write])
                checkpoints.written()
                group.commit({key: (at, encode_reference(reference)) for key, at in offsets.items()})
                checkpoints.confirm()
        store.close()

    def state(self) -> dict[str, CommittedTask | None]:
        """The committed state of every task, as a worker would load it."""
        config, cluster = self._open()
        store = RedisStore(self.redis_url)
        found: dict[str, CommittedTask | None] = {}
        for place in tasks_of(config, cluster):
            with GroupOffsets(config.kafka, place.group) as group:
                committed = group.committed(place.inputs)
                found[place.name] = read_task(place, config, cluster, store, partial(dict, committed))
        store.close()
        return found

    def redis_keys(self) -> list[bytes]:
        client: redis.Redis = redis.Redis.from_url(self.redis_url)
        found = sorted(client.scan_iter(f"*{self.prefix}*", count=10_000))
        client.close()
        return found

    def wipe(self) -> None:
        """Redis flushed and the groups' offsets deleted."""
        client: redis.Redis = redis.Redis.from_url(self.redis_url)
        if keys := self.redis_keys():
            client.delete(*keys)
        client.close()
        forget_groups(self.bootstrap, self.prefix)

    @contextmanager
    def member(self, group: str) -> Iterator[None]:
        """A live member of a group."""
        config, _ = self._open()
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
        assigned: list[int] = []
        consumer.subscribe([config.predictions[0].topic], on_assign=lambda _c, p: assigned.append(len(p)))
        while not assigned:
            consumer.poll(0.1)
        yield
        consumer.close()

    def _open(self) -> tuple[Any, Cluster]:
        config = load_config(str(self.config))
        return config, read_cluster(make_admin(config.kafka), task_topics(config))


def forget_groups(bootstrap: str, prefix: str) -> None:
    """Delete the groups of this prefix; a stopped static member keeps its group alive for the session timeout."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    deadline = time.monotonic() + 60
    while True:
        listed = admin.list_consumer_groups(request_timeout=30).result(30).valid
        mine = [group.group_id for group in listed if group.group_id.startswith(prefix)]
        busy = []
        for name, future in admin.delete_consumer_groups(mine, request_timeout=30).items() if mine else ():
            try:
                future.result(30)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                    busy.append(name)
        if not busy:
            return
        assert time.monotonic() < deadline, busy
        time.sleep(0.5)


def config_text(bootstrap: str, redis_url: str, prefix: str, *, environment: str = "test", ours: str = "ours", ages: str = "5m") -> str:
    return (
        f'environment: {environment}\nkafka: {{bootstrap: "{bootstrap}", group_prefix: {prefix}}}\n'
        f'redis: {{url: "{redis_url}", key_prefix: {prefix}}}\ntopics: {{prefix: {prefix}-{ours}, partitions: 2}}\n'
        f"http: {{port: 0}}\npredictions: {prefix}.in\nlabels: {prefix}.labels\nmodels: {{m: {{labels: {{ages: [{ages}]}}}}}}\n"
    )


def fill(bootstrap: str, config: Path) -> None:
    """Some records in every topic, so that offsets can stand among them."""
    loaded = load_config(str(config))
    producer = Producer({"bootstrap.servers": bootstrap})
    for topic in task_topics(loaded):
        for number in range(RECORDS):
            producer.produce(topic, b"x%d" % number, partition=0)
    assert producer.flush(30) == 0


def state_of(name: str) -> StateDelta:
    """A state that is another one for every task."""
    mark = name.encode()
    if name.startswith("ingest/"):
        return StateDelta({"ingest": orjson.dumps({"of": name})})
    if name.startswith("join"):
        return StateDelta({"join": mark, "big": mark * 2_000}, [RingWrite("decided", 2, 4, 7, b"ddeeffgg", full=True)])
    panel: list[object] = ["features~~", "features", "", None, 70, 0, True, []]
    meta = {"v": 1, "models": {"m": {"panels": [panel]}}}
    blobs = {"task": orjson.dumps(meta), "m/features~~/scope/0": mark * 3, "m/features~~/baseline": b"{}"}
    return StateDelta(dict(blobs), [RingWrite("m/features~~/ring/0", 1, 50, 70, bytes(50), full=True)])
