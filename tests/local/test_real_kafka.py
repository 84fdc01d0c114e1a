"""A real broker answers, forgets nothing over a restart, and hands offset metadata back."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.streams.local.kafka import LocalKafka, kafka_answers
from driftline.streams.local.process import LocalServiceError
from tests.conftest import CreateTopics, Kafka


def test_transactional_offsets_carry_their_metadata_back(kafka: Kafka, create_topics: CreateTopics, topic_prefix: str) -> None:
    [topic] = create_topics("in")
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic_prefix, "enable.auto.commit": False})
    consumer.subscribe([topic])
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic_prefix})
    producer.init_transactions(30)

    producer.begin_transaction()
    producer.produce(topic, b"x")
    while not consumer.assignment():
        consumer.poll(0.1)
    offset = TopicPartition(topic, 0, 1, metadata="state-7")
    producer.send_offsets_to_transaction([offset], consumer.consumer_group_metadata(), 20)
    producer.commit_transaction(20)

    [committed] = consumer.committed([TopicPartition(topic, 0)], timeout=90)
    consumer.close()
    assert (committed.offset, committed.metadata) == (1, "state-7")


def test_a_killed_broker_comes_back_on_its_port_with_its_records() -> None:
    with LocalKafka(heap="256m") as broker:
        port, pid = broker.port, broker.pid
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])["kept"].result(20)
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        producer.produce("kept", b"x")
        assert producer.flush(60) == 0

        broker.kill()
        assert not kafka_answers(broker.bootstrap, timeout_seconds=1)
        broker.start()

        assert broker.port == port
        assert broker.pid != pid
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g"})
        consumer.assign([TopicPartition("kept", 0, 0)])
        message = consumer.poll(20)
        consumer.close()
        assert message is not None
        assert message.value() == b"x"


def test_a_bad_broker_property_is_named() -> None:
    with pytest.raises(LocalServiceError, match=r"num\.io\.threads"), LocalKafka(properties={"num.io.threads": "none"}, heap="128m"):
        pass
