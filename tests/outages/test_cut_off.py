"""A worker whose own way to Redis or to Kafka is gone, while another's is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.streams.local.kafka import LocalKafka
from driftline.streams.local.process import LOOPBACK, free_port
from driftline.streams.local.redis import LocalRedis
from driftline.streams.runner import waiting
from tests.conftest import CreateTopics, Kafka
from tests.outages.proxy import Proxy
from tests.runner.conftest import Bench
from tests.runner.member import Member
from tests.runner.test_exactly_once import expected

ROUND = 200


def goes_to_the_other_and_comes_back(bench: Bench, cut: Member, other: Member, proxy: Proxy, service: str) -> None:
    """Three rounds of records: both at work, one cut off, both again; each counts once and in order."""
    cut.owns(1)
    other.owns(1)
    bench.publish(ROUND, partitions=2)
    assert len(bench.outputs(count=ROUND)) == ROUND
    proxy.cut()
    bench.publish(ROUND, first=ROUND, partitions=2)
    cut.misses(service)
    other.owns(2)
    assert len(bench.outputs(count=2 * ROUND)) == 2 * ROUND
    assert not cut.health.ready()[0]
    proxy.mend()
    cut.owns(1)
    other.owns(1)
    bench.publish(ROUND, first=2 * ROUND, partitions=2)
    outputs = bench.outputs(count=3 * ROUND)
    for task in (0, 1):
        assert [row for row in outputs if row["task"] == f"toy/{task}"] == expected(list(range(task, 3 * ROUND, 2)), f"toy/{task}")
    assert cut.errors == other.errors == []


both_protocols = pytest.mark.parametrize("protocol", ["classic", "consumer"])


@both_protocols
def test_worker_cut_off_from_redis_gives_its_partitions_up_and_comes_back(
    kafka: Kafka, own_redis: LocalRedis, proxy: Proxy, create_topics: CreateTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:  # fmt: skip
    """It waits a minute first: for a restart of Redis nobody has to move."""
    monkeypatch.setattr(waiting, "LEAVE_SECONDS", 2.0)
    source, output = create_topics("source", "output", partitions=2)
    bench = Bench(kafka.bootstrap, own_redis.url, source, source, output, tmp_path)
    bench.settings["kafka"] = {"group_protocol": protocol}
    with Member(bench, "other") as other, Member(bench, "cut", redis=proxy.url) as cut:
        goes_to_the_other_and_comes_back(bench, cut, other, proxy, "redis: ")


@pytest.fixture
def broker_with_two_ways(tmp_path: Path) -> Iterator[tuple[LocalKafka, Proxy]]:
    """A broker with a second listener, whose clients are told to come through the proxy."""
    plain, second, controller = free_port(), free_port(), free_port()
    with Proxy(second) as proxy:
        properties = {
            "listeners": f"PLAINTEXT://{LOOPBACK}:{plain},SECOND://{LOOPBACK}:{second},CONTROLLER://{LOOPBACK}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{plain},SECOND://{LOOPBACK}:{proxy.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SECOND:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.session.timeout.ms": "6000",
        }
        with LocalKafka(tmp_path / "kafka", port=plain, controller_port=controller, properties=properties, heap="256m") as broker:
            yield broker, proxy


@both_protocols
def test_worker_cut_off_from_kafka_loses_its_partitions_and_comes_back(
    broker_with_two_ways: tuple[LocalKafka, Proxy], own_redis: LocalRedis, tmp_path: Path, protocol: str
) -> None:
    """Its session ends without a word of it; its open transaction, with its timeout."""
    broker, proxy = broker_with_two_ways
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for created in admin.create_topics([NewTopic("source", 2, 1), NewTopic("output", 1, 1)]).values():
        created.result(60)
    bench = Bench(broker.bootstrap, own_redis.url, "cut-off", "source", "output", tmp_path)
    bench.settings["kafka"] = {"group_protocol": protocol}
    with Member(bench, "other") as other, Member(bench, "cut", bootstrap=f"{LOOPBACK}:{proxy.port}") as cut:
        goes_to_the_other_and_comes_back(bench, cut, other, proxy, "kafka: ")
