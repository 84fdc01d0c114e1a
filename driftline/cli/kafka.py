"""What the commands ask of a cluster: connect with a clear error, read topic settings, read a topic to its end."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from driftline.cli.errors import Failure, Refusal
from driftline.cli.output import note

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, TopicPartition
    from confluent_kafka.admin import AdminClient

    from driftline.schemas.config import Config, Kafka

CONNECT_SECONDS = 6.0
_NEW_TOPIC_SECONDS = 2.0
_NEAR_MAX = 5
_NEAR_RATIO = 0.6


def quiet(properties: dict[str, Any]) -> dict[str, Any]:
    """The same, with the client's own log on stderr left to errors that a command does not report itself."""
    return {**properties, "log_level": 2, "error_cb": _ignore}


def _ignore(_error: object) -> None:
    """What fails comes back from the call that a command makes."""


def admin(kafka: Kafka) -> AdminClient:
    """An admin client of a cluster that answers.

    Raises
    ------
    Failure : no broker answers.
    SetupError : none ever will: password, certificate or protocol.
    """
    from confluent_kafka import KafkaException

    from driftline.streams.kafka import make_admin

    client = make_admin(kafka)
    for _ in range(2):
        try:
            client.list_topics(timeout=CONNECT_SECONDS / 2)
            return client
        except KafkaException as error:
            name = error.args[0].name()
        if (refused := client.refusal()) is not None:
            raise refused
    raise Failure(
        f'kafka: no broker answers at "{kafka.bootstrap}" within {CONNECT_SECONDS:.0f} s ({name})',
        hint="is kafka.bootstrap right and the broker up? `make services` starts a local one",
    )


def partition_counts(client: AdminClient, wanted: Iterable[str] = ()) -> dict[str, int]:
    """Every topic and its number of partitions.

    Parameters
    ----------
    wanted : ask again for a moment while one of these is missing: a broker learns of a new topic after its creation
        was confirmed, and `topics create` followed at once by `publish` must not fail on that.
    """
    deadline = time.monotonic() + _NEW_TOPIC_SECONDS
    names = set(wanted)
    while True:
        metadata = client.list_topics(timeout=CONNECT_SECONDS)
        counts = {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None and topic.partitions}
        if names <= counts.keys() or time.monotonic() > deadline:
            return counts
        time.sleep(0.2)


def consumer(kafka: Kafka, **properties: Any) -> Consumer:
    """A consumer outside every group of ours, read-committed; it commits nothing."""
    from confluent_kafka import Consumer

    from driftline.streams.kafka import consumer_properties

    return Consumer(quiet(consumer_properties(kafka, f"{kafka.group_prefix}.cli")) | properties)


def partitions_of(kafka: Kafka, topic: str) -> int:
    """How many partitions a topic has.

    Raises
    ------
    Refusal : there is no such topic.
    """
    counts = partition_counts(admin(kafka), [topic])
    if topic not in counts:
        raise no_topic(topic, counts, kafka)
    return counts[topic]


def no_topic(topic: str, existing: Iterable[str], kafka: Kafka) -> Refusal:
    """The refusal of a topic that is not there, with the nearest names of those that are: a cluster may have thousands."""
    names = [name for name in existing if not name.startswith("__")]
    near = difflib.get_close_matches(topic, names, n=_NEAR_MAX, cutoff=_NEAR_RATIO)
    found = f"none of its {len(names):,} topics has a similar name" if names else "it has no topics"
    if near:
        found = f"the nearest of its {len(names):,} topics: " + ", ".join(f'"{name}"' for name in near)
    return Refusal(
        f'no topic "{topic}" at "{kafka.bootstrap}"; {found}',
        hint="create it; `driftline topics create CONFIG` makes Driftline's own, with --sources also predictions and labels for a trial",
    )


def read_from(config: Config, from_ms: int) -> Config:
    """The configuration for reading the observations topic from a time on: in the middle of it, a gap in the numbers is no loss."""
    if not from_ms:
        return config
    note("reading begins inside the log: windows and baselines are learned from there on")
    return config.model_copy(update={"kafka": config.kafka.model_copy(update={"guarantee": "at_least_once"})})


def read_topic(
    kafka: Kafka,
    topic: str,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    until_idle: float | None = 0.0,
    offset: int | None = None,
    tail: int | None = None,
) -> Iterator[Message]:
    """Records of a topic from a time (None = the end, 0 = the beginning) or an offset on.

    Parameters
    ----------
    tail : begin at most this many records before the end of each partition instead.
    until_idle : stop when all partitions are at their end and no record came for this many seconds; None = never.
    """
    from confluent_kafka import KafkaError, KafkaException

    partitions = partitions_of(kafka, topic)
    client = consumer(kafka)
    try:
        start = _start(client, topic, partitions, from_ms=from_ms, offset=offset, tail=tail)
        client.assign(start)
        at_end: set[int] = set()
        last = time.monotonic()
        while True:
            message = client.poll(0.2)
            if message is None:
                if until_idle is not None and len(at_end) == partitions and time.monotonic() - last >= until_idle:
                    return
                continue
            error, partition = message.error(), message.partition() or 0
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    at_end.add(partition)
                    if until_idle == 0.0 and len(at_end) == partitions:
                        return
                    continue
                if error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                    continue
                raise KafkaException(error)
            last = time.monotonic()
            if to_ms is not None and message.timestamp()[1] >= to_ms:
                at_end.add(partition)
                if len(at_end) == partitions and until_idle is not None:
                    return
                continue
            yield message
    finally:
        client.close()


def _start(
    client: Consumer, topic: str, partitions: int, *, from_ms: int | None, offset: int | None, tail: int | None
) -> list[TopicPartition]:
    from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, TopicPartition

    parts = [TopicPartition(topic, p) for p in range(partitions)]
    if tail is not None:
        bounds = [client.get_watermark_offsets(part, timeout=CONNECT_SECONDS, cached=False) for part in parts]
        return [TopicPartition(topic, p, max(low, high - tail)) for p, (low, high) in enumerate(bounds)]
    if offset is None and from_ms:
        return client.offsets_for_times([TopicPartition(topic, p, from_ms) for p in range(partitions)], timeout=CONNECT_SECONDS)
    first = offset if offset is not None else OFFSET_BEGINNING if from_ms == 0 else OFFSET_END
    return [TopicPartition(topic, p, first) for p in range(partitions)]
