"""A worker does not start on topics that forget too early; real broker."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from driftline.schemas.config import Config
from driftline.schemas.config import Kafka as KafkaConfig
from driftline.schemas.loading import parse_config
from driftline.streams.cluster import Cluster
from driftline.streams.errors import SetupError
from driftline.streams.retention import check_retention, needs
from driftline.streams.topic_creation import create_topics, wanted_topics
from tests.conftest import CreateTopics, Kafka

DAY_MS = 86_400_000


def config(prefix: str, ages: str = "[1h, 45d]") -> Config:
    text = f"topics: {{prefix: {prefix}, partitions: 1}}\npredictions: p\nlabels: l\nmodels: {{m: {{labels: {{ages: {ages}}}}}}}\n"
    return parse_config(text, name="x")


def check(kafka: Kafka, prefix: str, names: list[str], ages: str = "[1h, 45d]") -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    check_retention(admin, Cluster("c", {}, dict.fromkeys(names, 1)), config(prefix, ages))


def test_topics_as_created_are_accepted_whatever_the_ages(kafka: Kafka, topic_prefix: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    long = config(topic_prefix, "[400d]")
    created = create_topics(admin, wanted_topics(long.topics, greatest_age_ms=long.greatest_age_ms))
    check(kafka, topic_prefix, created, "[400d]")


@pytest.mark.parametrize("name", ["waiting", "labels"])
def test_a_topic_that_forgets_before_the_greatest_age_is_refused(
    kafka: Kafka, topic_prefix: str, create_topics: CreateTopics, name: str
) -> None:
    names = create_topics(name, config={"retention.ms": str(30 * DAY_MS)})
    with pytest.raises(SetupError) as refused:
        check(kafka, topic_prefix, names)
    assert refused.value.exit_code == 2
    assert f'topic "{topic_prefix}.{name}"' in refused.value.message
    assert "it keeps 30 days; the greatest of labels.ages is 45 days" in refused.value.message
    assert refused.value.hint == f"kafka-configs --alter --topic {topic_prefix}.{name} --add-config retention.ms={90 * DAY_MS}"
    check(kafka, topic_prefix, names, "[1h, 20d]")


def test_observations_must_outlive_three_base_checkpoints(kafka: Kafka, topic_prefix: str, create_topics: CreateTopics) -> None:
    names = create_topics("observations", config={"retention.ms": "120000"})
    with pytest.raises(SetupError, match=r"observations.*for 3 min at least, it keeps 2 min; .*base checkpoints"):
        check(kafka, topic_prefix, names)


def test_a_compacted_topic_is_refused(kafka: Kafka, topic_prefix: str, create_topics: CreateTopics) -> None:
    names = create_topics("waiting", config={"cleanup.policy": "compact"})
    with pytest.raises(SetupError, match="compacted"):
        check(kafka, topic_prefix, names)


def test_a_topic_kept_for_ever_is_accepted(kafka: Kafka, topic_prefix: str, create_topics: CreateTopics) -> None:
    check(kafka, topic_prefix, create_topics("waiting", "labels", "observations", config={"retention.ms": "-1"}))


def test_without_labels_or_with_measured_ages_only_the_observations_matter() -> None:
    alone = parse_config("predictions: p\nmodels: {m: {}}\n", name="x")
    assert [need.topic for need in needs(alone)] == ["driftline.observations"]
    assert [need.topic for need in needs(config("d", "[auto]"))] == ["d.observations"]
    loose = alone.model_copy(update={"kafka": KafkaConfig(guarantee="at_least_once")})
    assert list(needs(loose)) == []
