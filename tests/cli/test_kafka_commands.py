"""The commands against a real broker and a real Redis."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from driftline.cli.kafka import no_topic
from driftline.cli.main import cli
from driftline.schemas.config import Fields, LabelFields
from driftline.schemas.config import Kafka as KafkaSettings
from driftline.schemas.loading import load_config
from tests.cli.streams_for_tests import COLUMN_OPTIONS, config_text, write_transactions
from tests.conftest import CreateTopics, Kafka

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> Path:
    path = tmp_path / "fraud.yml"
    path.write_text(config_text(labels=True, bootstrap=kafka.bootstrap, redis=redis_url, prefix=topic_prefix))
    return path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def driftline(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "driftline", *arguments]
    return subprocess.run(command, capture_output=True, cwd=ROOT, check=False, timeout=600, env={**os.environ, "NO_COLOR": "1"})


def without_ids(lines: bytes) -> list[str]:
    """Events in a fixed order, without what carries the topic's id."""
    events: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines()]
    return sorted(json.dumps({k: v for k, v in event.items() if k not in ("id", "episode")}, sort_keys=True) for event in events)


def test_topics_create_makes_what_is_missing_and_leaves_the_rest(config: Path, kafka: Kafka, topic_prefix: str) -> None:
    first = invoke("topics", "create", str(config), "--sources", "-o", "json")
    second = invoke("topics", "create", str(config), "--sources", "-o", "json")
    states = [{json.loads(line)["state"] for line in done.stdout.splitlines()} for done in (first, second)]
    existing = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=90).topics
    assert states == [{"created"}, {"exists"}]
    assert {f"{topic_prefix}.drift", f"{topic_prefix}-in.predictions"} <= existing.keys()


def test_publish_refuses_a_topic_that_would_delete_history(config: Path, create_topics: CreateTopics, kafka: Kafka, tmp_path: Path) -> None:
    predictions, labels = create_topics("short-p", "short-l", config={"retention.ms": "604800000"})
    rows = write_transactions(tmp_path / "t.csv", 20)
    target = ["--topic", predictions, "--labels-topic", labels, "-b", kafka.bootstrap]
    command = ["publish", str(rows), "-c", str(config), *COLUMN_OPTIONS, *target]
    refused = invoke(*command)
    allowed = invoke(*command, "--allow-expiry", "-o", "json")
    assert refused.exit_code == 2
    assert "keeps 7.0 days" in refused.stderr
    assert "retention.ms" in refused.stderr
    assert json.loads(allowed.stdout) == {"predictions": 20, "labels": 20, "bad_times": 0}


@pytest.mark.parametrize("target", [["-c", "CONFIG"], ["-c", "CONFIG", "--allow-expiry"], ["--model", "m", "--allow-expiry"]])
def test_publish_names_a_topic_that_is_not_there(
    target: list[str], config: Path, kafka: Kafka, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: object) -> None:
        raise AssertionError("a row was sent to a topic that is not there: the client retries it for half a minute")

    monkeypatch.setattr("driftline.cli.publish._send_batch", send)
    rows = write_transactions(tmp_path / "t.csv", 20)
    words = [str(config) if word == "CONFIG" else word for word in target]
    topics = ["--topic", f"{topic_prefix}-in.predictions", "--labels-topic", f"{topic_prefix}-in.labels", "-b", kafka.bootstrap]
    done = invoke("publish", str(rows), *words, *COLUMN_OPTIONS, *topics)
    assert done.exit_code == 2
    assert f'no topic "{topic_prefix}-in.predictions"' in done.stderr
    assert "topics create" in done.stderr


def test_publish_names_a_labels_topic_that_is_not_there(
    create_topics: CreateTopics, kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> None:
    [predictions] = create_topics("p", config={"retention.ms": "-1"})
    rows = write_transactions(tmp_path / "t.csv", 20)
    target = ["--topic", predictions, "--labels-topic", f"{topic_prefix}.l", "-b", kafka.bootstrap, "--model", "m"]
    done = invoke("publish", str(rows), *COLUMN_OPTIONS, *target)
    assert done.exit_code == 2
    assert f'no topic "{topic_prefix}.l"' in done.stderr


def test_a_missing_topic_is_told_with_the_nearest_names_and_not_with_all(
    config: Path, create_topics: CreateTopics, kafka: Kafka, topic_prefix: str
) -> None:
    create_topics("alerts1", "alerts2", "alerts3", "alerts4", "alerts5", "alerts6", "zzz")
    done = [
        invoke("status", str(config)),
        invoke("tail", "alerts", str(config), "--until-idle", "0"),
        invoke("init", "--from-topic", f"{topic_prefix}.alert", "-b", kafka.bootstrap, "-o", "-"),
    ]
    for result in done:
        listed = result.stderr.partition("topics: ")[2].splitlines()[0].split(", ")
        assert result.exit_code == 2
        assert 1 <= len(listed) <= 5
        assert re.search(r"the nearest of its [\d,]+ topics", result.stderr)
        assert "topics create" in result.stderr
    assert f"{topic_prefix}.alerts6" in done[1].stderr


def test_run_tells_of_missing_topics_once_with_what_creates_all_of_them(config: Path, topic_prefix: str) -> None:
    ran = driftline("run", str(config))
    told = ran.stderr.decode()
    assert ran.returncode == 2
    assert told.count("no such topic") == 1
    assert f'"{topic_prefix}-in.predictions"' in told
    assert f'"{topic_prefix}.drift"' in told
    hint = told.partition("hint: ")[2]
    assert "`driftline topics create CONFIG` creates Driftline's own topics" in hint
    assert f"of your own, {topic_prefix}-in.labels, {topic_prefix}-in.predictions: " in hint
    assert "--sources" in hint


def test_status_shows_open_incidents_first_and_alerts_that_fire_again(config: Path, kafka: Kafka, topic_prefix: str) -> None:
    """The second episode of an alert counts from 1, and the log may hold a state of the first one behind it: that was sent again."""
    invoke("topics", "create", str(config), "--sources")
    client = Producer({"bootstrap.servers": kafka.bootstrap})
    told = {"model": "fraud", "severity": "warning", "starts_at_ms": 0, "summary": "fraud: score changed"}
    alert = told | {"series": "score", "fingerprint": "f", "segment": None}
    over = alert | {"episode": "e1", "seq": 3, "condition": "resolved", "detected_at_ms": 1_000}
    for one in (over, alert | {"episode": "e2", "seq": 1, "condition": "firing", "detected_at_ms": 2_000}, over):
        client.produce(f"{topic_prefix}.alerts", json.dumps(one).encode(), key="f")
    incident = told | {"id": "i", "condition": "firing", "detected_at_ms": 2_000, "alerts": 3, "firing": 1}
    for seq in (1, 2, 1):
        client.produce(f"{topic_prefix}.incidents", json.dumps(incident | {"seq": seq}).encode(), key="i")
    assert client.flush(30) == 0
    status = json.loads(invoke("status", str(config), "-o", "json").stdout)
    assert [(one["id"], one["seq"]) for one in status["incidents"]] == [("i", 2)]
    assert [one["episode"] for one in status["alerts"]] == ["e2"]
    first = invoke("status", str(config)).stdout.splitlines()[:2]
    assert [line.split()[0] for line in first] == ["severity", "warning"]
    assert "1 of 3" in first[1]


def test_a_cluster_without_topics_is_said_to_have_none() -> None:
    assert "it has no topics" in no_topic("p", ["__consumer_offsets"], KafkaSettings()).message
    assert "none of its 1 topics has a similar name" in no_topic("p", ["fraud.predictions"], KafkaSettings()).message


def test_init_reads_a_topic_and_its_labels(config: Path, kafka: Kafka, topic_prefix: str, tmp_path: Path) -> None:
    rows = write_transactions(tmp_path / "t.csv", 300)
    invoke("topics", "create", str(config), "--sources")
    invoke("publish", str(rows), "-c", str(config), *COLUMN_OPTIONS)
    target = tmp_path / "found.yml"
    sources = ["--from-topic", f"{topic_prefix}-in.predictions", "--labels-topic", f"{topic_prefix}-in.labels"]
    done = invoke("init", *sources, "-b", kafka.bootstrap, "-o", str(target))
    assert done.exit_code == 0, done.stderr
    assert invoke("validate", str(target)).exit_code == 0
    text = target.read_text()
    assert [word for word in ("fraud:", "amount: numeric", "country: categorical") if word not in text] == []


def test_init_of_a_topic_takes_a_person_s_word_for_its_fields_and_ids_that_come_again(
    create_topics: CreateTopics, kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> None:
    create_topics("p", "l")
    client = Producer({"bootstrap.servers": kafka.bootstrap})
    for i in range(200):
        event = {"id": f"i{max(i, 3)}", "in": {"x": i / 7, "k": i % 2}, "out": {"p": i / 200, "ok": i % 2}, "alt": f"a{i}"}
        client.produce(f"{topic_prefix}.p", json.dumps(event).encode())
        client.produce(f"{topic_prefix}.l", json.dumps({"id": f"i{i}", "seen": i % 2, "paid": i % 3, "at": "2026-01-01T00:00Z"}).encode())
    assert client.flush(30) == 0
    target = tmp_path / "t.yml"
    source = ["--from-topic", f"{topic_prefix}.p", "-b", kafka.bootstrap, "-o", str(target), "--force"]

    def fields() -> tuple[Fields, LabelFields | None]:
        config = load_config(target)
        return config.predictions[0].fields, config.labels[0].fields if config.labels else None

    assert invoke("init", *source).exit_code == 0
    assert fields()[0].id == "id"
    assert "3 repeated of 200 rows" in target.read_text()
    labels = ["--labels-topic", f"{topic_prefix}.l", "--label", "paid", "--label-time", "at"]
    done = invoke("init", *source, *labels, "--id", "alt", "--score", "p", "--drop", "out.ok")
    assert done.exit_code == 0, done.stderr
    prediction, label = fields()
    assert label is not None
    assert (prediction.id, prediction.score, prediction.features, label.value, label.time) == ("alt", "out.p", "in", "paid", "at")
    assert set(next(iter(load_config(target).models.values())).features or {}) == {"x", "k"}
    refused = invoke("init", *source, *labels[:2], "--label", "pay")
    assert refused.exit_code == 2
    assert re.search(r'no such column in topic ".*\.l".*"paid"', refused.stderr)


def test_run_equals_replay_and_status_and_tail_tell_of_it(config: Path, kafka: Kafka, tmp_path: Path) -> None:
    rows = write_transactions(tmp_path / "stream.csv", 6_000, shift_at=4_000)
    invoke("topics", "create", str(config), "--sources")
    assert invoke("publish", str(rows), "-c", str(config), *COLUMN_OPTIONS).exit_code == 0
    ran = driftline("run", str(config), "--until-idle", "2")
    assert ran.returncode == 0, ran.stderr.decode()
    published = driftline("tail", "drift", str(config), "--from", "earliest", "--until-idle", "0", "-o", "json").stdout
    replayed = driftline("replay", str(rows), "-c", str(config), *COLUMN_OPTIONS, "-o", "json").stdout
    from_topic = driftline("replay", "--topic", "-c", str(config), "-o", "json").stdout
    status = driftline("status", str(config), "-o", "json")
    firing = driftline("status", str(config), "--exit-code", "--severity", "info")
    assert any(b"feature:amount" in line for line in published.splitlines())
    assert from_topic == published
    assert without_ids(replayed) == without_ids(published)
    told = json.loads(status.stdout)
    assert {group["processor"].partition("-")[0] for group in told["groups"] if group["lag"] == 0} == {"ingest", "join", "detect", "alert"}
    assert {model["state"] for model in told["models"]} == {"watching"}
    assert any(alert["series"] == "feature:amount" for alert in told["alerts"])
    assert {alert["incident"] for alert in told["alerts"]} == {incident["id"] for incident in told["incidents"]}
    assert firing.returncode == 3
