"""What `status` says of a lag, beside its number."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.cli.main import cli
from driftline.cli.status import _explain
from driftline.schemas.loading import parse_config
from tests.cli.streams_for_tests import config_text
from tests.conftest import Kafka

CONFIG = "predictions: p\nlabels: l\nmodels: {m: {labels: {ages: [1h, auto]}}}\n"


@pytest.mark.parametrize(
    ("processor", "lag", "idle", "note"),
    [
        ("join-3600000ms", 40, [5, 900], "trails by its label age, 60 min"),
        ("join-3600000ms", 40, [600, 900], "trails by its label age, 60 min; topics idle for 10 min: only ticks are added"),
        ("join-auto", 40, [None, 259_200], "trails by its label age, as measured; topics idle for 3 d: only ticks are added"),
        ("join-auto", 0, [600, 600], None),
        ("detect", 40, [600, 600], None),
    ],
)
def test_a_lag_that_is_no_backlog_is_explained(processor: str, lag: int, idle: list[int | None], note: str | None) -> None:
    row: dict[str, Any] = {"processor": processor, "lag": lag}
    _explain([row], [{"idle_seconds": seconds} for seconds in idle], parse_config(CONFIG, name="c.yml"))
    assert row["note"] == note


def test_a_topic_says_when_it_had_its_last_record(kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    config = tmp_path / "c.yml"
    config.write_text(config_text(labels=True, bootstrap=kafka.bootstrap, redis=redis_url, prefix=topic_prefix))
    assert CliRunner().invoke(cli, ["topics", "create", str(config), "--sources"]).exit_code == 0
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for time_ms in (1_700_000_060_000, 1_700_000_000_000):
        producer.produce(f"{topic_prefix}-in.predictions", b"{}", timestamp=time_ms)
    assert producer.flush(30) == 0
    told = orjson.loads(CliRunner().invoke(cli, ["status", str(config), "-o", "json"]).stdout)["sources"]
    assert [(row["topic"], row["last_ms"]) for row in told] == [
        (f"{topic_prefix}-in.predictions", 1_700_000_060_000), (f"{topic_prefix}-in.labels", None),
    ]  # fmt: skip
    lines = CliRunner().invoke(cli, ["status", str(config)]).stdout.splitlines()
    top = next(i for i, line in enumerate(lines) if line.split() == ["topic", "last", "record", "idle"])
    assert "2023-11-14 22:14:20  for " in lines[top + 1]
    assert lines[top + 2].endswith("no record")


@pytest.mark.parametrize("rows", [3, 40])
def test_beside_a_lag_stands_the_time_of_the_next_record(
    kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path, rows: int
) -> None:
    """Of a few records, which are counted by reading, and of many; of a producer's time and of the broker's."""
    config = tmp_path / "c.yml"
    config.write_text(config_text(labels=True, bootstrap=kafka.bootstrap, redis=redis_url, prefix=topic_prefix))
    assert CliRunner().invoke(cli, ["topics", "create", str(config), "--sources"]).exit_code == 0
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    began_ms = int(time.time() * 1_000) - 3_600_000
    for i in range(rows + 2):
        producer.produce(f"{topic_prefix}-in.predictions", b"{}", partition=0, timestamp=began_ms + 60_000 * i)
        producer.produce(f"{topic_prefix}.observations", b"{}", partition=0, timestamp=began_ms)
    assert producer.flush(30) == 0
    for group, topic, taken in (("ingest", "-in.predictions", 2), ("detect", ".observations", 2), ("alert", ".drift", 0)):
        client = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"{topic_prefix}.{group}"})
        client.commit(offsets=[TopicPartition(f"{topic_prefix}{topic}", 0, taken)], asynchronous=False)
        client.close()
    told = orjson.loads(CliRunner().invoke(cli, ["status", str(config), "-o", "json"]).stdout)["groups"]
    found = {row["processor"]: row for row in told}
    assert [found[name]["lag"] for name in ("ingest", "detect", "alert", "join-1800000ms")] == [rows, rows, 0, None]
    assert (found["ingest"]["next_ms"], found["ingest"]["next_dated"]) == (began_ms + 120_000, True)
    assert abs(found["detect"]["next_ms"] / 1_000 - time.time()) < 60
    assert not found["detect"]["next_dated"]
    assert found["alert"]["next_ms"] is found["join-1800000ms"]["next_ms"] is None
    shown = CliRunner().invoke(cli, ["status", str(config)]).stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if f"{topic_prefix}." in line}
    assert re.search(rf" {rows}  dated 5[89] min ago", lines["ingest"]), shown
    assert re.search(rf" {rows}  written \d+ s ago", lines["detect"]), shown
    assert re.search(r" 0  -", lines["alert"]), shown


def test_without_a_right_to_dead_letters_the_rest_is_told(kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    config = tmp_path / "c.yml"
    config.write_text(config_text(labels=True, bootstrap=kafka.bootstrap, redis=redis_url, prefix=topic_prefix))
    assert CliRunner().invoke(cli, ["topics", "create", str(config), "--sources"]).exit_code == 0
    # To a user without any right to it, a topic is not there.
    admin, topic = AdminClient({"bootstrap.servers": kafka.bootstrap}), f"{topic_prefix}.dlq"
    admin.delete_topics([topic])[topic].result(60)
    done = CliRunner().invoke(cli, ["status", str(config)])
    assert done.exit_code == 0, done.stderr
    assert "dead letters: their topic cannot be read by this user" in done.stdout
    assert "no alert fires" in done.stdout


def test_rows_of_models_that_the_file_does_not_name_are_told_with_a_name(
    kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    config = tmp_path / "c.yml"
    config.write_text(config_text(labels=True, bootstrap=kafka.bootstrap, redis=redis_url, prefix=topic_prefix))
    assert CliRunner().invoke(cli, ["topics", "create", str(config), "--sources"]).exit_code == 0
    assert "unknown models" not in CliRunner().invoke(cli, ["status", str(config)]).stdout
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for name in ["fraud", "shop\x1b[2J", "fraud", "bank", "shop\x1b[2J"]:
        producer.produce(f"{topic_prefix}-in.predictions", orjson.dumps({"id": "1", "model": name}))
    producer.produce(f"{topic_prefix}-in.predictions", b"no json")
    assert producer.flush(30) == 0
    (line,) = [line for line in CliRunner().invoke(cli, ["status", str(config)]).stdout.splitlines() if "unknown models" in line]
    assert line == (
        f"unknown models: 3 of the newest 6 records of {topic_prefix}-in.predictions are of 'shop\\x1b[2J' and 1 more, "
        "which the configuration does not name: they are skipped"
    )
    told = orjson.loads(CliRunner().invoke(cli, ["status", str(config), "-o", "json"]).stdout)["unknown_models"]
    assert told == [{"topic": f"{topic_prefix}-in.predictions", "rows": 3, "of": 6, "models": ["shop\x1b[2J", "bank"]}]
