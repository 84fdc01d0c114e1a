"""Whether our topics keep records for as long as they are needed: asked before a worker reads its first one.

A topic that forgets too early fails weeks later and in silence: predictions vanish before their labels come, or Redis
is lost and the observations since the last base checkpoint are gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from driftline.schemas.config import Config
from driftline.schemas.topics import LABELS, OBSERVATIONS, WAITING, retention_ms
from driftline.streams.cluster import Cluster
from driftline.streams.errors import SetupError
from driftline.streams.kafka import CALL_SECONDS, MOCK_CLUSTER_PREFIX
from driftline.streams.state.base import BASE_SECONDS

_log = logging.getLogger(__name__)

BASES_KEPT: Final = 3
"""Base checkpoints that the observations must reach back over (PROTOCOL 7)."""

_NEW_TOPIC_SECONDS: Final = 5.0
"""A broker learns the settings of a topic a moment after it lists it."""


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """The settings of a topic that decide whether old records survive in it; -1 keeps for ever."""

    retention_ms: int
    create_time: bool
    compacted: bool


@dataclass(frozen=True, slots=True)
class Need:
    """How long a topic must keep records, and what for.

    Attributes
    ----------
    advised_ms : what `topics create` sets.
    """

    topic: str
    least_ms: int
    advised_ms: int
    reason: str


def topic_settings(client: AdminClient, topic: str) -> TopicSettings:
    """Settings as the broker has them, defaults included."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    settings = client.describe_configs([resource])[resource].result(CALL_SECONDS)
    cleanup = settings["cleanup.policy"].value
    kept_ms = int(settings["retention.ms"].value) if "delete" in cleanup else -1
    return TopicSettings(kept_ms, settings["message.timestamp.type"].value == "CreateTime", "compact" in cleanup)


def needs(config: Config) -> Iterator[Need]:
    """What the configuration asks of our topics."""
    prefix, age_ms = config.topics.prefix, config.greatest_age_ms
    base_ms = round(BASES_KEPT * BASE_SECONDS * 1000)
    if config.kafka.guarantee == "exactly_once":
        reason = f"recovery reads them again from one of the last {BASES_KEPT} base checkpoints, {BASE_SECONDS:.0f} s apart"
        yield Need(OBSERVATIONS.full_name(prefix), base_ms, OBSERVATIONS.retention_ms, reason)
    if age_ms:
        reason = f"the greatest of labels.ages is {_days(age_ms)}"
        for topic in (WAITING, LABELS):
            # A tenth more: a worker that was down for a while still finds the rows that came of age meanwhile.
            yield Need(topic.full_name(prefix), age_ms * 11 // 10, retention_ms(topic, age_ms), reason)


def check_retention(admin: AdminClient, cluster: Cluster, config: Config) -> None:
    """Look at the topics that a worker reads or writes.

    Raises
    ------
    SetupError : one of them forgets too early, or keeps only the newest record of a key.
    """
    if cluster.cluster_id.startswith(MOCK_CLUSTER_PREFIX):
        return
    for need in needs(config):
        if need.topic not in cluster.partitions:
            continue
        settings = _settings(admin, need.topic)
        if settings is None:
            continue
        alter = f"kafka-configs --alter --topic {need.topic} --add-config"
        if settings.compacted:
            raise SetupError(
                f'topic "{need.topic}": expected cleanup.policy delete, it is compacted: records that are still needed vanish',
                hint=f"{alter} cleanup.policy=delete,retention.ms={need.advised_ms}",
            )
        if 0 <= settings.retention_ms < need.least_ms:
            raise SetupError(
                f'topic "{need.topic}": expected to keep records for {_days(need.least_ms)} at least, '
                f"it keeps {_days(settings.retention_ms)}; {need.reason}",
                hint=f"{alter} retention.ms={need.advised_ms}",
            )


def _settings(admin: AdminClient, topic: str) -> TopicSettings | None:
    """The settings of a topic that exists; None where we may not ask, which is no reason to stand still."""
    deadline = time.monotonic() + _NEW_TOPIC_SECONDS
    while True:
        try:
            return topic_settings(admin, topic)
        except KafkaException as error:
            reason = error.args[0]
        if reason.code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > deadline:
            _log.warning("retention_unknown topic=%s error=%r", topic, reason.str())
            return None
        time.sleep(0.1)


def _days(milliseconds: int) -> str:
    """A duration in the greatest unit that leaves it above one."""
    for unit, size in (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if milliseconds >= size:
            return f"{milliseconds / size:.3g} {unit}"
    return f"{milliseconds / 1000:g} s"
