"""Redis flushed between two runs: the base checkpoint in Kafka brings the state back; without one the operator decides."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import redis
from confluent_kafka import Producer

from tests.conftest import CreateTopics, Kafka
from tests.e2e.programs import Reader, driftline, produce, write_config

T0 = 1_700_000_000_000
ROWS = 2_000  # more than the metadata of an offset can hold of their state


@pytest.fixture
def config(kafka: Kafka, redis_url: str, topic_prefix: str, create_topics: CreateTopics, tmp_path: Path) -> Path:
    """An installation whose ingest has read everything."""
    predictions, labels = create_topics("in", "labels", config={"retention.ms": "-1"})
    models = "{m: {features: {x: numeric}, labels: {ages: [5m]}, window: 200, baseline: {learn: 500}}}"
    path = write_config(tmp_path / "m.yml", kafka, redis_url, topic_prefix, models, predictions=predictions, labels=labels)
    driftline("topics", "create", path)
    times = [T0 + i * 1_000 for i in range(ROWS)]
    events = [{"id": f"i{i}", "model": "m", "time": time, "features": {"x": i % 7}, "score": 0.5} for i, time in enumerate(times)]
    produce(kafka.bootstrap, predictions, zip(times, map(orjson.dumps, events), strict=True))
    produce(kafka.bootstrap, labels, [(time + 60_000, orjson.dumps({"id": f"i{i}", "label": i % 2})) for i, time in enumerate(times)])
    driftline("run", path, "--processors", "ingest", "--until-idle", "1")
    return path


def flush(url: str, prefix: str) -> None:
    client: redis.Redis = redis.Redis.from_url(url)
    keys = list(client.scan_iter(f"*{prefix}*", count=10_000))
    assert keys
    client.delete(*keys)
    client.close()


def forget_bases(bootstrap: str, topic: str) -> None:
    """As if the topic of checkpoints had been lost as well."""
    reader = Reader(bootstrap, topic)
    keys = {message.key() for message in reader.look()}
    reader.close()
    assert keys
    producer = Producer({"bootstrap.servers": bootstrap})
    for key in keys:
        producer.produce(topic, None, key, partition=0)
    assert producer.flush(30) == 0


@pytest.mark.parametrize(("processor", "topic"), [("join", "observations"), ("detect", "drift")])
def test_state_comes_back_from_kafka_and_is_rebuilt_only_when_told_to(
    processor: str, topic: str, config: Path, kafka: Kafka, redis_url: str, topic_prefix: str
) -> None:
    command: list[str | Path] = ["run", config, "--processors", processor, "--until-idle", "1"]
    reader = Reader(kafka.bootstrap, f"{topic_prefix}-ours.{topic}")

    def written() -> list[str]:
        """What the processor has published, as far as it is the same each time it is made."""
        if processor == "join":
            return [f"{batch.age_ms} {offset}" for batch in reader.observations("outcomes") for offset in batch.offset.tolist()]
        events = [orjson.loads(message.value() or b"") for message in reader.look()]
        return [f"{event['kind']} {event['series']} {event['position']['offset']}" for event in events]

    driftline(*command)
    first = written()
    assert len(first) >= (ROWS if processor == "join" else 2)

    flush(redis_url, topic_prefix)
    log = driftline(*command).stderr.decode()
    assert "checkpoint_replaced" in log
    assert "by=base" in log
    assert written() == first

    flush(redis_url, topic_prefix)
    forget_bases(kafka.bootstrap, f"{topic_prefix}-ours.checkpoints")
    refused = driftline(*command, code=1).stderr.decode()
    assert "Kafka holds no base checkpoint" in refused
    assert "--on-lost-state=rebuild-from-earliest" in refused
    assert written() == first

    told = driftline(*command, "--on-lost-state", "rebuild-from-earliest").stderr.decode()
    assert "state_rebuilt" in told
    assert written() == first + first
    reader.close()
