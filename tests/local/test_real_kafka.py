"""A real broker answers, forgets nothing over a restart, and hands offset metadata back."""

from __future__ import annotations

from confluent_kafka import Consumer, Producer, TopicPartition

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

    [committed] = consumer.committed([TopicPartition(topic, 0)], timeout=20)
    consumer.close()
    assert (committed.offset, committed.metadata) == (1, "state-7")
