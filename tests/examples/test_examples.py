"""The examples of `examples/` as a reader would run them, on a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from driftline.schemas.contracts import cloud_event_headers, encode_event
from driftline.schemas.events import Alert, Incident, Label, Prediction

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CreateTopics = Callable[..., list[str]]


class Kafka(Protocol):
    bootstrap: str


def run(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLES / script), *arguments], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(bootstrap: str, topic: str) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    while (message := consumer.poll(20)) is not None and message.error() is None:
        found.append(message)
    consumer.close()
    assert message is not None
    return found


@pytest.mark.parametrize("script", ["publish_predictions.py", "publish_without_driftline.py"])
def test_publishing_examples_send_the_contract(kafka: Kafka, create_topics: CreateTopics, script: str) -> None:
    predictions, labels = create_topics("predictions", "labels")
    run(script, "--bootstrap", kafka.bootstrap, "--predictions", predictions, "--labels", labels, "--count", "50")
    sent = [msgspec.json.decode(message.value(), type=Prediction) for message in read(kafka.bootstrap, predictions)]
    truth = [msgspec.json.decode(message.value(), type=Label) for message in read(kafka.bootstrap, labels)]
    assert [prediction.id for prediction in sent] == [f"txn-{number}" for number in range(50)]
    assert {label.id for label in truth} == {f"txn-{number}" for number in range(0, 50, 2)}
    assert {prediction.model for prediction in sent} == {"fraud"}


def test_both_publishing_examples_send_the_same_fields(kafka: Kafka, create_topics: CreateTopics) -> None:
    topics = create_topics("p1", "l1", "p2", "l2")
    for script, (predictions, labels) in (("publish_predictions.py", topics[:2]), ("publish_without_driftline.py", topics[2:])):
        run(script, "--bootstrap", kafka.bootstrap, "--predictions", predictions, "--labels", labels, "--count", "1")
    ours, plain = (json.loads(read(kafka.bootstrap, topic)[0].value()) for topic in (topics[0], topics[2]))
    assert {**ours, "time": 0} == {**plain, "time": 0}


def alert(seq: int, *, episode: str = "ep1", detected_at_ms: int = 100, **fields: Any) -> Alert:
    values: dict[str, Any] = {
        "fingerprint": "f", "environment": "test", "model": "fraud", "monitor": "m", "series": "s", "segment": None, "condition": "firing",
        "severity": "warning", "max_severity": "warning", "starts_at_ms": 1, "ends_at_ms": None, "observed_at_ms": 2, "owner": None,
        "summary": f"{episode}/{seq}", "evidence": {},
    }
    return Alert(episode=episode, seq=seq, detected_at_ms=detected_at_ms, **{**values, **fields})


def incident(id_: str, seq: int, **fields: Any) -> Incident:
    values: dict[str, Any] = {
        "environment": "test", "model": "fraud", "condition": "firing", "severity": "warning", "max_severity": "warning", "hint": None,
        "starts_at_ms": 1, "uncertain_ms": 0, "detected_at_ms": 2, "ends_at_ms": None, "duration_ms": None, "observed_at_ms": 2,
        "reason": None, "owner": None, "summary": f"{id_}/{seq}", "alerts": 1, "firing": 1, "blamed": [], "more": 1,
    }  # fmt: skip
    return Incident(id=id_, seq=seq, **{**values, **fields})


def test_subscriber_of_incidents_pages_for_what_opens_or_becomes_louder(kafka: Kafka, create_topics: CreateTopics) -> None:
    [topic] = create_topics("incidents")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    loud: dict[str, Any] = {"severity": "critical", "max_severity": "critical"}
    low: dict[str, Any] = {"severity": "info", "max_severity": "info"}
    records = [
        incident("a", 1), incident("a", 1), incident("a", 2), incident("a", 3, **loud), incident("a", 2), incident("b", 1),
        incident("a", 4, **loud | {"severity": "warning"}), incident("a", 5, **loud | {"condition": "resolved"}), incident("a", 4, **loud),
        incident("old", 1, historical=True), incident("old", 2),
        incident("low", 1, **low), incident("low", 2, **low | {"condition": "resolved"}), incident("c", 1, **low), incident("c", 2),
    ]  # fmt: skip
    for told in records:
        headers = cloud_event_headers(told, id=f"{told.id}/{told.seq}", source="/driftline/test", subject="fraud", time_ms=1)
        producer.produce(topic, key=told.id, value=encode_event(told), headers=list(headers))
    producer.flush()
    found = run("subscribe_incidents.py", "--bootstrap", kafka.bootstrap, "--topic", topic, "--group", topic, "--exit-after", "8")
    assert [line.split()[::2] for line in found.splitlines()] == [
        ["page", "a/1"], ["update", "a/2"], ["page", "a/3"], ["page", "b/1"], ["update", "a/4"], ["resolve", "a/5"], ["page", "old/2"],
        ["update", "low/1"], ["update", "low/2"], ["update", "c/1"], ["page", "c/2"],
    ]  # fmt: skip


def test_subscriber_prints_each_change_once_and_no_history(kafka: Kafka, create_topics: CreateTopics) -> None:
    [topic] = create_topics("alerts")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    records = [
        alert(1), alert(1), alert(2, severity="critical"), alert(1), alert(3, condition="resolved"), alert(2),
        alert(1, episode="ep2", detected_at_ms=900), alert(3), alert(1, episode="ep2", detected_at_ms=900),
        alert(1, episode="old", fingerprint="g", historical=True),
    ]
    for event in records:
        headers = cloud_event_headers(event, id=f"{event.episode}/{event.seq}", source="/driftline/test", subject="fraud", time_ms=1)
        producer.produce(topic, key=event.fingerprint, value=encode_event(event), headers=list(headers))
    producer.flush()
    found = run("subscribe_alerts.py", "--bootstrap", kafka.bootstrap, "--topic", topic, "--group", topic, "--exit-after", "8")
    assert [line.split() for line in found.splitlines()] == [
        ["firing", "warning", "ep1/1"], ["firing", "critical", "ep1/2"], ["resolved", "warning", "ep1/3"], ["firing", "warning", "ep2/1"],
    ]
