"""Topics of ours as they are to be, and their creation: what `topics create` asks of a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.schemas.config import Topics
from driftline.schemas.topics import TOPICS, retention_ms
from driftline.streams.errors import KafkaAwayError, SetupError
from driftline.streams.kafka import CALL_SECONDS


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic of ours as it is to be created."""

    name: str
    partitions: int
    replication: int
    properties: Mapping[str, str]


def wanted_topics(topics: Topics, *, greatest_age_ms: int = 0) -> list[WantedTopic]:
    """Every topic of the table, with the configured prefix, partitions, replication and a retention that covers the ages."""
    wanted = []
    for topic in TOPICS:
        properties = {
            "cleanup.policy": topic.cleanup,
            "max.message.bytes": str(topic.max_message_bytes),
            # Logical time stands inside; with a producer's old timestamps retention would eat a replay of history.
            "message.timestamp.type": "LogAppendTime",
        }
        if topic.cleanup == "delete":
            properties["retention.ms"] = str(retention_ms(topic, greatest_age_ms))
        else:
            # Only closed segments are compacted; the default closes one after 1 GiB or a week, and whoever reads the
            # topic to its end (recovery, a console) reads all of that.
            properties |= {"segment.ms": "600000", "segment.bytes": str(64 << 20), "min.cleanable.dirty.ratio": "0.1"}
        partitions = topic.partitions or topics.partitions
        wanted.append(WantedTopic(topic.full_name(topics.prefix), partitions, topics.replication, properties))
    return wanted


def create_topics(admin: AdminClient, wanted: Sequence[WantedTopic]) -> list[str]:
    """Create what is missing; the names of the topics that were created.

    Raises
    ------
    SetupError : the cluster refused one, or it exists with another number of partitions.
    """
    existing = {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=CALL_SECONDS).topics.items()}
    for topic in wanted:
        if topic.name in existing and existing[topic.name] != topic.partitions:
            raise SetupError(
                f'topic "{topic.name}": expected {topic.partitions} partitions, it has {existing[topic.name]}',
                hint="set topics.partitions to what is there; adding partitions moves models and would tear their history",
            )
    new = [topic for topic in wanted if topic.name not in existing]
    if not new:
        return []
    requests = [NewTopic(topic.name, topic.partitions, topic.replication, config=dict(topic.properties)) for topic in new]
    created: list[str] = []
    for name, future in admin.create_topics(requests, operation_timeout=CALL_SECONDS).items():
        try:
            future.result(CALL_SECONDS * 2)
            created.append(name)
        except KafkaException as error:
            # Another worker or a moment ago.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise SetupError(f'topic "{name}": {error.args[0].str()}') from error
    _wait_for_topics(admin, created)
    return created


def _wait_for_topics(admin: AdminClient, names: Sequence[str]) -> None:
    """Return when the brokers list new topics; they learn of them one after the other."""
    deadline = time.monotonic() + CALL_SECONDS
    while not set(names) <= admin.list_topics(timeout=CALL_SECONDS).topics.keys():
        if time.monotonic() > deadline:
            raise KafkaAwayError(f"kafka: created topics are not listed after {CALL_SECONDS:.0f} s")
        time.sleep(0.05)
