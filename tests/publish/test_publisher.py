"""The publisher: it never blocks or raises, and it counts whatever does not arrive."""

from __future__ import annotations

import decimal
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from driftline.publish import Publisher
from driftline.schemas.events import Label, Prediction
from driftline.streams.partitioner import partition_for

NOWHERE = "127.0.0.1:1"
CreateTopics = Callable[..., list[str]]


class Kafka(Protocol):
    bootstrap: str


def read(bootstrap: str, topic: str, partitions: int, count: int) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[Any] = []
    for _ in range(200):
        found += [message for message in consumer.consume(100, 0.1) if message.error() is None]
        if len(found) >= count:
            break
    consumer.close()
    return found


def send(publisher: Publisher, number: int, **fields: Any) -> bool:
    return publisher.prediction(id=f"id-{number}", model="fraud", features={"amount": 1.5}, score=0.5, **fields)


def test_broker_away_fills_the_queue_then_drops_and_counts_each() -> None:
    publisher = Publisher(NOWHERE, "predictions", queue_max=1_000)
    taken = sum(send(publisher, number) for number in range(3_000))
    assert (taken, publisher.dropped, publisher.pending) == (1_000, 2_000, 1_000)
    assert (publisher.delivered, publisher.failed) == (0, 0)
    assert publisher.close(timeout=0.1) == 1_000


def test_records_that_expire_in_the_queue_are_counted_as_failed() -> None:
    publisher = Publisher(NOWHERE, "predictions", properties={"message.timeout.ms": 100, "linger.ms": 1})
    for number in range(10):
        send(publisher, number)
    assert publisher.flush(30) == 0
    assert (publisher.failed, publisher.delivered, publisher.dropped) == (10, 0, 0)
    publisher.close()


def test_what_close_gives_up_is_counted_as_failed() -> None:
    publisher = Publisher(NOWHERE, "predictions")
    for number in range(500):
        send(publisher, number)
    assert publisher.close(timeout=0) == 500
    assert (publisher.failed, publisher.pending, publisher.delivered, publisher.dropped) == (500, 0, 0, 0)


def test_record_after_close_is_dropped() -> None:
    publisher = Publisher(NOWHERE, "predictions")
    publisher.close(timeout=0)
    assert not send(publisher, 1)
    assert publisher.dropped == 1


def test_value_that_cannot_be_encoded_is_counted_and_not_raised() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

    publisher = Publisher(NOWHERE, "predictions")
    assert not publisher.prediction(id="1", model="m", features={"a": Hostile()})
    assert not publisher.prediction(id="1", model="m", features={"a": 1 << 80})
    assert not publisher.prediction(id="\ud800", model="m", features={})
    assert not publisher.label(id="1", label=True)   # made without a labels topic
    assert publisher.failed == 4
    publisher.close(timeout=0)


def test_record_beyond_the_size_limit_is_counted_as_failed() -> None:
    publisher = Publisher(NOWHERE, "predictions")
    assert not publisher.prediction(id="1", model="m", features={"a": "x" * 2_000_000})
    assert publisher.failed == 1
    publisher.close(timeout=0)


@pytest.mark.parametrize(("arguments", "message"), [
    (("", "p"), "bootstrap"), (("b:1", None), "topic"), (("b:1", "p", None, {"properties": {"no.such": 1}}), "no.such"),
    (("b:1", "p", None, {"queue_max": 0}), "queue_max"),
])
def test_wrong_construction_is_an_error_that_names_what_is_wrong(arguments: tuple[Any, ...], message: str) -> None:
    *positional, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(ValueError, match=message):
        Publisher(*positional, **options)


def test_import_brings_in_nothing_else_of_ours_and_no_numpy() -> None:
    code = (
        "import sys; import driftline.publish; "
        "print([name for name in sys.modules if name.split('.')[0] in ('driftline', 'numpy', 'faust', 'pydantic', 'msgspec')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "['driftline', 'driftline.publish']"


def test_forked_child_sends_with_a_producer_of_its_own() -> None:
    code = f"""
import os
from driftline.publish import Publisher
publisher = Publisher({NOWHERE!r}, "predictions")
publisher.prediction(id="1", model="m", features={{}})
child = os.fork()
if child == 0:
    publisher.prediction(id="2", model="m", features={{}})
    os._exit(publisher.pending)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), publisher.pending, flush=True)
os._exit(0)
"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert found.stdout.split() == ["1", "1"]


def test_round_trip_keeps_every_field_and_turns_what_is_no_json_into_null(kafka: Kafka, create_topics: CreateTopics) -> None:
    predictions, labels = create_topics("p", "l")
    with Publisher(kafka.bootstrap, predictions, labels) as publisher:
        publisher.prediction(
            id=np.int64(7), model="fraud", version="3", score=np.float32(0.5), class_="yes", latency_ms=np.float64(3.25), error=False,
            features={"a": np.float64("nan"), "b": math.inf, "c": np.int32(4), "d": "x", "e": None, "f": np.bool_(True),
                      "g": decimal.Decimal("1.5"), "h": np.float16(2.0)},
            segments={"country": "BR"}, sample_weight=0.1, time=1_700_000_000_000,
        )
        publisher.label(id=7, label=np.bool_(True), time="2026-01-01T00:00:00Z")
    assert (publisher.delivered, publisher.dropped, publisher.failed) == (2, 0, 0)
    [sent] = read(kafka.bootstrap, predictions, 1, 1)
    assert json.loads(sent.value()) == {
        "id": "7", "time": 1_700_000_000_000, "model": "fraud", "version": "3", "score": 0.5, "class": "yes", "latency_ms": 3.25,
        "error": False, "features": {"a": None, "b": None, "c": 4, "d": "x", "e": None, "f": True, "g": 1.5, "h": 2.0},
        "segments": {"country": "BR"}, "sample_weight": 0.1,
    }
    assert sent.key() == b"7"
    [truth] = read(kafka.bootstrap, labels, 1, 1)
    assert json.loads(truth.value()) == {"id": "7", "time": "2026-01-01T00:00:00Z", "label": True}
    assert truth.key() == sent.key()


def test_records_keep_the_published_contract(kafka: Kafka, create_topics: CreateTopics) -> None:
    predictions, labels = create_topics("p", "l")
    with Publisher(kafka.bootstrap, predictions, labels) as publisher:
        publisher.prediction(id="a", model="fraud", features={"x": 1.0}, score=[0.2, 0.8], class_=1)
        publisher.label(id="a", label=1.0, model="fraud")
    [sent] = read(kafka.bootstrap, predictions, 1, 1)
    [truth] = read(kafka.bootstrap, labels, 1, 1)
    assert msgspec.json.decode(sent.value(), type=Prediction).score == [0.2, 0.8]
    assert msgspec.json.decode(truth.value(), type=Label).label == 1.0


def test_prediction_and_label_of_an_id_go_to_the_partition_of_its_murmur2(kafka: Kafka, create_topics: CreateTopics) -> None:
    predictions, labels = create_topics("p", "l", partitions=4)
    with Publisher(kafka.bootstrap, predictions, labels) as publisher:
        for number in range(40):
            send(publisher, number)
            publisher.label(id=f"id-{number}", label=0)
    for topic in (predictions, labels):
        found = {message.key().decode(): message.partition() for message in read(kafka.bootstrap, topic, 4, 40)}
        assert found == {f"id-{number}": partition_for(f"id-{number}", 4) for number in range(40)}
