"""Client settings, and what a cluster is asked at start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer
from confluent_kafka.admin import AdminClient

from driftline.schemas.config import Kafka, Topics
from driftline.streams.errors import AwayError, SetupError
from driftline.streams.kafka import (
    consumer_properties,
    make_admin,
    make_producer,
    producer_properties,
    read_cluster,
)
from driftline.streams.partitioner import partition_for
from driftline.streams.runner.start import start_ms
from driftline.streams.topic_creation import create_topics, wanted_topics


def test_secret_comes_from_its_reference_and_stands_in_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    monkeypatch.setenv("DRIFTLINE_TEST_USER", "alice")
    kafka = Kafka.model_validate(
        {"properties": {"sasl.username": {"env": "DRIFTLINE_TEST_USER"}, "sasl.password": {"file": str(file)}, "sasl.mechanism": "PLAIN"}}
    )
    properties = consumer_properties(kafka, "g")
    assert (properties["sasl.username"], properties["sasl.password"]) == ("alice", "s3cret")
    monkeypatch.delenv("DRIFTLINE_TEST_USER")
    with pytest.raises(SetupError, match="DRIFTLINE_TEST_USER") as missing:
        consumer_properties(kafka, "g")
    assert "s3cret" not in str(missing.value)


@pytest.mark.parametrize(("name", "value"), [("enable.auto.commit", True), ("isolation.level", "read_uncommitted")])
def test_property_that_breaks_exactly_once_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SetupError, match=name):
        consumer_properties(Kafka.model_validate({"properties": {name: value}}), "g")


def test_clients_take_their_properties_and_leave_the_other_kinds_alone(caplog: pytest.LogCaptureFixture) -> None:
    given = {"linger.ms": 7, "fetch.min.bytes": 10, "compression.type": "zstd", "socket.timeout.ms": 30_000, "acks": "all"}
    kafka = Kafka.model_validate({"properties": given})
    consumer, producer = consumer_properties(kafka, "g"), producer_properties(kafka, transactional_id="t")
    assert consumer["fetch.min.bytes"] == 10
    assert "linger.ms" not in consumer
    assert producer["linger.ms"] == 7
    assert "fetch.min.bytes" not in producer
    with caplog.at_level(logging.WARNING):
        Consumer(consumer | {"logger": logging.getLogger("test")}).close()
        Producer(producer | {"logger": logging.getLogger("test")}).poll(0)
    assert "CONFWARN" not in caplog.text


def test_missing_topics_are_all_named_with_the_command_that_creates_them(kafka: Any) -> None:
    admin = make_admin(Kafka(bootstrap=kafka.bootstrap))
    with pytest.raises(SetupError, match=r'"none\.drift", "none\.labels"[^"]*\n.*driftline topics create'):
        read_cluster(admin, ["none.labels", "none.drift"])


def test_broker_that_is_away_at_start_is_waited_for_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AwayError, match="no broker answered within 1 s"), caplog.at_level(logging.CRITICAL):
        read_cluster(make_admin(Kafka(bootstrap="127.0.0.1:1")), [], seconds=1)


def test_cluster_has_ids_that_change_with_a_recreated_topic(kafka: Any, create_topics: Callable[..., list[str]]) -> None:
    admin: AdminClient = make_admin(Kafka(bootstrap=kafka.bootstrap))
    names = create_topics("a", "b", partitions=3)
    cluster = read_cluster(admin, names)
    assert cluster.cluster_id
    assert set(cluster.partitions.items()) == {(name, 3) for name in names}
    assert len(set(cluster.topic_ids.values())) == 2
    assert all(len(topic_id) == 22 for topic_id in cluster.topic_ids.values())


def test_topics_are_created_once_and_another_partition_count_is_refused(kafka: Any, topic_prefix: str) -> None:
    admin = make_admin(Kafka(bootstrap=kafka.bootstrap))
    topics = Topics(prefix=topic_prefix, partitions=2)
    created = create_topics(admin, wanted_topics(topics))
    assert f"{topic_prefix}.observations" in created
    assert create_topics(admin, wanted_topics(topics)) == []
    with pytest.raises(SetupError, match="expected 5 partitions, it has 2"):
        create_topics(admin, wanted_topics(Topics(prefix=topic_prefix, partitions=5)))


def test_producers_partition_as_the_one_partitioner_says(kafka: Any, create_topics: Callable[..., list[str]]) -> None:
    (topic,) = create_topics("keyed", partitions=7)
    producer = make_producer(Kafka(bootstrap=kafka.bootstrap))
    seen: dict[str, int | None] = {}

    def delivered(_: object, message: Message) -> None:
        seen[(message.key() or b"").decode()] = message.partition()

    keys = ["a", "fraud", "m\u00f6del", "x" * 50, "model-17"]
    for key in keys:
        producer.produce(topic, b"v", key=key.encode(), on_delivery=delivered)
    assert producer.flush(60) == 0
    assert seen == {key: partition_for(key, 7) for key in keys}


@pytest.mark.parametrize(
    ("start", "expected"),
    [("now", 1_000_000_000_000), ("-24h", 1_000_000_000_000 - 86_400_000), ("2001-09-09T01:46:40Z", 1_000_000_000_000), ("earliest", None)],
)
def test_start_is_a_time_a_duration_or_a_word(start: str, expected: int | None) -> None:
    assert start_ms(start, 1_000_000_000_000) == expected


def test_start_that_is_none_of_these_is_refused() -> None:
    with pytest.raises(SetupError, match='got "yesterday"'):
        start_ms("yesterday", 0)
