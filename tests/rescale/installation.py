"""A busy installation, and what it wrote: the input of the tests of `driftline state rescale`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.streams.observation import decode
from tests.savepoint.installation import Installation

T0 = 1_700_000_000_000
ROWS, FIRST, CHANGE, SECOND = 6_400, 2_400, 3_400, 4_200
"""It is stopped twice. At the first stop two models learn their references, at the second episodes are open since the change."""
MODELS = ("a", "b", "c", "d")
"""`c` and `d` come on a topic of two partitions."""
_OUTCOMES = ("outcome:", "stream:label", "stream:join", "panel:outcomes")


@dataclass(frozen=True)
class Sources:
    """The users' topics: one of a single partition, one of two, and that of the labels, of two."""

    one: str
    two: str
    labels: str


def config_text(bootstrap: str, redis_url: str, name: str, partitions: int, sources: Sources, ages: str = "2m, 5m") -> str:
    """An installation whose topics, groups and keys begin with a name."""
    watched = f"features: {{x: numeric, c: categorical}}, segments: {{c: {{}}}}, labels: {{ages: [{ages}]}}, window: 300"
    river = "monitors: [{id: r, series: [\"feature:x\"], detectors: [{name: adwin}, {name: river.KSWIN}]}, {id: all, series: [\"*\"]}]"
    models = dict.fromkeys(MODELS, f"{{{watched}, baseline: {{learn: 500, settle: 0s}}}}")
    models["b"] = f"{{{watched}, baseline: {{learn: 700, settle: 0s}}, {river}}}"
    models["d"] = f"{{{watched}, baseline: {{learn: 750, settle: 0s}}}}"
    return (
        f'kafka: {{bootstrap: "{bootstrap}"}}\nredis: {{url: "{redis_url}", key_prefix: "{name}"}}\n'
        f'topics: {{prefix: "{name}", partitions: {partitions}}}\nhttp: {{port: 0}}\n'
        f"predictions: [{{topic: {sources.one}}}, {{topic: {sources.two}}}]\nlabels: {sources.labels}\n"
        "models:\n" + "".join(f"  {model}: {spec}\n" for model, spec in models.items())
    )


def installation(folder: Path, bootstrap: str, redis_url: str, name: str, partitions: int, sources: Sources, **change: str) -> Installation:
    path = folder / f"{name}.yml"
    path.write_text(config_text(bootstrap, redis_url, name, partitions, sources, **change))
    return Installation(path, bootstrap, redis_url, name)


def publish(bootstrap: str, sources: Sources, first: int, last: int) -> None:
    """Rows by their numbers, each a second after the one before; their labels when they come, before a stop or after it.

    Some never have one, have it before they are there, have two that contradict each other, or come twice themselves.
    """
    draw = np.random.default_rng(5)
    x, u, delay, fate = draw.normal(0, 1, ROWS), draw.random(ROWS), draw.exponential(60, ROWS), draw.random(ROWS)
    c = draw.choice(["p", "q"], ROWS)
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2})
    labels: list[tuple[int, int, bytes]] = []
    for i in range(ROWS):
        model, at = MODELS[i % 4], T0 + i * 1_000
        changed = i >= CHANGE
        score = 0.2 + 0.1 * float(np.tanh(x[i]))
        features = {"x": float(x[i]) + 1.5 * changed, "c": str(c[i])}
        event = orjson.dumps({"id": f"i{i}", "model": model, "time": at, "features": features, "score": score})
        topic, partition = (sources.one, 0) if model in "ab" else (sources.two, i // 4 % 2)
        if first <= i < last:
            for _ in range(2 if fate[i] > 0.95 else 1):
                producer.produce(topic, event, partition=partition, timestamp=at)
        y = int(u[i] < (1 - score if changed else score))
        if fate[i] < 0.08:
            continue
        came = at - 30_000 if fate[i] < 0.13 else at + round(delay[i] * 1_000)
        labels.append((came, i, orjson.dumps({"id": f"i{i}", "label": y})))
        if 0.13 <= fate[i] < 0.18:
            labels.append((came + 20_000, i, orjson.dumps({"id": f"i{i}", "label": 1 - y})))
    begin, end = (T0 + row * 1_000 if 0 < row < ROWS else sign * (1 << 60) for row, sign in ((first, -1), (last, 1)))
    for came, i, value in sorted(labels):
        if begin <= came < end:
            producer.produce(sources.labels, value, partition=i % 2, timestamp=came)
    assert producer.flush(60) == 0


def records(bootstrap: str, topic: str) -> list[Message]:
    """What committed readers see of a topic, partition by partition."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    numbers = sorted(client.list_topics(topic, timeout=30).topics[topic].partitions)
    settings = {"group.id": "reader", "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, "isolation.level": "read_committed", "log_level": 2, **settings})
    found: dict[int, list[Message]] = {number: [] for number in numbers}
    unread = set(numbers)
    consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
    while unread:
        for message in consumer.consume(1_000, 1.0):
            error = message.error()
            if error is None:
                found[message.partition() or 0].append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition() or 0)
            else:
                raise AssertionError(error)
    consumer.close()
    return [message for number in numbers for message in found[number]]


def rows(bootstrap: str, *names: str) -> Counter[tuple[Any, ...]]:
    """Every row of the observations of these installations together: of predictions what they said, of outcomes what was known."""
    found: Counter[tuple[Any, ...]] = Counter()
    for name in names:
        for message in records(bootstrap, f"{name}.observations"):
            batch = decode(message.value() or b"")
            if not len(batch):
                continue
            places = [(*batch.sources[source], offset) for source, offset in zip(batch.source.tolist(), batch.offset.tolist(), strict=True)]
            score = batch.score
            assert score is not None
            if batch.kind == "predictions":
                assert batch.numeric is not None
                found.update(("p", batch.model, *p, s, *x) for p, s, x in zip(places, score.tolist(), batch.numeric.tolist(), strict=True))
                continue
            assert batch.label is not None
            assert batch.label_state is not None
            assert batch.delay_ms is not None
            label, delay = (np.nan_to_num(column, nan=-1).tolist() for column in (batch.label, batch.delay_ms))
            known = zip(batch.label_state.tolist(), label, delay, strict=True)
            found.update(("o", batch.model, batch.age_ms, *p, s, *k) for p, s, k in zip(places, score.tolist(), known, strict=True))
    return found


def events(bootstrap: str, *names: str) -> dict[str, list[bytes]]:
    """By model the drift events of its predictions, in order; those of models whose order one partition determines."""
    found: dict[str, list[bytes]] = {model: [] for model in ("a", "b")}
    for name in names:
        for message in records(bootstrap, f"{name}.drift"):
            value = message.value() or b""
            event = orjson.loads(value)
            if event["model"] in found and not event["series"].startswith(_OUTCOMES):
                found[event["model"]].append(value)
    return found


def alerts(bootstrap: str, name: str) -> dict[str, tuple[str, str, str]]:
    """Each alert as its topic has it last, of the predictions of those models."""
    found = {}
    for message in records(bootstrap, f"{name}.alerts"):
        alert = orjson.loads(message.value() or b"")
        if alert["model"] in "ab" and not alert["series"].startswith(_OUTCOMES):
            found[alert["fingerprint"]] = (alert["model"], alert["series"], alert["condition"])
    return found
