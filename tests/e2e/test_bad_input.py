"""Bad input on a real Kafka: it ends as a row or a dead letter, and never as somebody else's problem."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from driftline.schemas.dead_letter import DeadLetter
from driftline.streams.observation import decode
from tests.conftest import CreateTopics, Kafka

T0 = 1_700_000_000_000
ROWS, CHANGE = 3_000, 2_000
CODECS = ("gzip", "snappy", "lz4", "zstd")

Event = dict[str, Any]


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """In the form that confluent-kafka reads them, which is one of those its types allow."""
    return list(message.headers() or [])  # type: ignore[arg-type]


def event(i: int, model: str = "m", **more: Any) -> Event:
    return {"id": f"{model}-{i}", "model": model, "time": T0 + i * 1_000, "score": 0.5, "features": {"a": 1.0, "b": "x"}, **more}


def driftline(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "driftline", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=600)
    assert done.returncode == code, done.stderr.decode()[-3_000:]
    return done


def produce(kafka: Kafka, topic: str, values: Iterable[bytes | None], *, codec: str = "none") -> None:
    """A record a second, so that what is made of them does not depend on when the test runs."""
    limits = {"message.max.bytes": 20_000_000, "compression.type": codec, "linger.ms": 50}
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 2, **limits})
    failed: list[str] = []
    for i, value in enumerate(values):
        producer.produce(
            topic, value, b"key", partition=0, timestamp=T0 + i * 1_000,
            on_delivery=lambda error, _: failed.append(str(error)) if error else None,
        )  # fmt: skip
        producer.poll(0)
    producer.flush(30)
    assert failed == []


def read(kafka: Kafka, topic: str) -> list[Message]:
    """What stands in partition 0 of a topic, as a committed reader sees it."""
    settings = {"group.id": "reader", "isolation.level": "read_committed", "enable.partition.eof": True, "log_level": 2}
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "enable.auto.commit": False, **settings})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Message] = []
    while (message := consumer.poll(30)) is not None and message.error() is None:
        found.append(message)
    assert message is not None, f"no end of {topic} within 30 s"
    consumer.close()
    return found


def write_config(path: Path, kafka: Kafka, redis_url: str, prefix: str, body: str) -> Path:
    path.write_text(
        f"environment: test\nkafka: {{bootstrap: \"{kafka.bootstrap}\", group_prefix: {prefix}}}\n"
        f"redis: {{url: \"{redis_url}\", key_prefix: {prefix}}}\ntopics: {{prefix: {prefix}, partitions: 1}}\nhttp: {{port: 0}}\n{body}"
    )
    return path


MODEL = "{features: {a: numeric, b: categorical}, window: 200, snapshot_every: 1000, baseline: {learn: 500, settle: 0s}}"


def two_models(*, broken: bool) -> list[bytes]:
    """Two models in turns. `good` has a shift; from CHANGE on `bad` sends `a` as text, where `broken`."""
    draw = np.random.default_rng(4)
    values = []
    for i in range(ROWS):
        model = ("good", "bad")[i % 2]
        a: Any = float(draw.normal()) + (2.0 if model == "good" and i >= CHANGE else 0.0)
        if model == "bad" and broken and i >= CHANGE:
            a = f"{a:.2f} EUR"
        values.append(orjson.dumps(event(i, model, features={"a": a, "b": ("x", "y")[i % 3 == 0]})))
    return values


def test_a_field_that_changes_its_type_is_named_and_the_other_model_does_not_notice(
    kafka: Kafka, redis_url: str, topic_prefix: str, create_topics: CreateTopics, tmp_path: Path
) -> None:
    drift: dict[bool, list[Event]] = {}
    for broken in (False, True):
        name = "broken" if broken else "fine"
        prefix = f"{topic_prefix}-{name}"
        (source,) = create_topics(name, config={"retention.ms": "-1"})
        body = f"predictions: {source}\nmodels: {{good: {MODEL}, bad: {MODEL}}}\n"
        config = write_config(tmp_path / f"{name}.yml", kafka, redis_url, prefix, body)
        driftline("topics", "create", config)
        produce(kafka, source, two_models(broken=broken))
        driftline("run", config, "--processors", "ingest,detect", "--until-idle", "1")
        drift[broken] = [orjson.loads((m.value() or b"").replace(source.encode(), b"in")) for m in read(kafka, f"{prefix}.drift")]

    named = {e["series"]: e for e in reversed(drift[True]) if e["model"] == "bad" and e["kind"] == "drift"}
    assert "quality:a:invalid" in named
    assert CHANGE < named["quality:a:invalid"]["position"]["offset"] < CHANGE + 100
    assert {name for name in named if ":b" in name} == set()
    good = {broken: [_without_ids(e) for e in found if e["model"] == "good"] for broken, found in drift.items()}
    assert any(b"feature:a" in line for line in good[False])
    assert good[True] == good[False]


def _without_ids(event: Event) -> bytes:
    """The event but for what carries the source topic's id, which is another one in each run."""
    return orjson.dumps({name: value for name, value in event.items() if name not in ("id", "episode")})


def damaged() -> dict[str, bytes | None]:
    """One message for each way to be wrong."""
    whole = orjson.dumps(event(1))
    return {
        "truncated": whole[:-20],
        "huge": b'{"id":"h","model":"m","features":{"a":' + b"9" * 5_000_000,
        "huge text": orjson.dumps(event(2, features={"a": 1.0, "b": "x" * 700_000})),
        "deep": b'{"id":"d","model":"m","features":' + b"[" * 100_000,
        "deep and closed": b'{"id":"d2","model":"m","features":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
        "latin-1": '{"id":"é","model":"m","features":{"b":"naïve"}}'.encode("latin-1"),
        "utf-16": '{"id":"u","model":"m"}'.encode("utf-16"),
        "duplicate keys": b'{"id":"k1","id":"k2","model":"m","model":"m","features":{"a":1,"a":"x"},"features":{"a":2}}',
        "empty": b"",
        "tombstone": None,
        "not an object": b"[1,2,3]",
        "nan": b'{"id":"n","model":"m","score":NaN,"features":{"a":Infinity,"b":"x"}}',
        "overflow": b'{"id":"o","model":"m","score":1e999,"features":{"a":-1e999}}',
        "wrong types": orjson.dumps(event(3, score="high", features={"a": {"b": 1}, "b": 7}, version=[1], latency_ms="slow")),
        "no id": b'{"model":"m","features":{}}',
        "unknown model": orjson.dumps(event(4, "nobody")),
        "schema framing": b"\x00\x00\x00\x00\x07" + whole,
        "null": b"null",
        "nul bytes": b"\x00" * 50,
        "surrogate": b'{"id":"s","model":"m","features":{"b":"\\ud800"}}',
        "dated 1970": orjson.dumps(event(5, time=0)),
        "dated 2999": orjson.dumps(event(6, time="2999-01-01T00:00:00Z")),
    }


DEAD = {
    "truncated": "decode", "huge": "decode", "deep": "decode", "latin-1": "decode", "empty": "empty",
    "tombstone": "empty", "not an object": "decode", "no id": "id", "unknown model": "unknown_model", "schema framing": "schema_framing",
    "null": "decode",
}  # fmt: skip
ROW = ("huge text", "utf-16", "duplicate keys", "wrong types", "dated 1970", "dated 2999")


def test_every_message_ends_as_a_row_or_a_dead_letter_and_compressed_topics_are_read(
    kafka: Kafka, redis_url: str, topic_prefix: str, create_topics: CreateTopics, tmp_path: Path
) -> None:
    forever = {"retention.ms": "-1", "max.message.bytes": "20000000"}
    bad, labels, *compressed = create_topics("in.bad", "in.labels", *(f"in.{codec}" for codec in CODECS), config=forever)
    messages = damaged()
    good = [orjson.dumps(event(100 + i)) for i in range(50)]
    produce(kafka, bad, [*messages.values(), *good])
    odd_labels: list[bytes | None] = [value for value in messages.values() if value is None or len(value) < 100_000]
    produce(kafka, labels, [*odd_labels, *(orjson.dumps({"id": f"m-{100 + i}", "label": i % 2}) for i in range(50))])
    for codec, topic in zip(CODECS, compressed, strict=True):
        produce(kafka, topic, [orjson.dumps(event(1_000 + i)) for i in range(200)], codec=codec)
    sources = ", ".join(f"{{topic: {topic}}}" for topic in (bad, *compressed))
    model = f"{MODEL[:-1]}, labels: {{ages: [5m]}}}}"
    body = f"unknown_models: dead_letter\npredictions: [{sources}]\nlabels: {labels}\nmodels: {{m: {model}}}\n"
    config = write_config(tmp_path / "bad.yml", kafka, redis_url, f"{topic_prefix}-ours", body)
    driftline("topics", "create", config)
    driftline("run", config, "--no-alert", "--until-idle", "1")

    rows: dict[str, list[int]] = {}
    outcomes: set[tuple[str, int]] = set()
    for message in read(kafka, f"{topic_prefix}-ours.observations"):
        batch = decode(message.value() or b"")
        for source, offset in zip(batch.source.tolist(), batch.offset.tolist(), strict=True):
            if batch.kind == "predictions":
                rows.setdefault(batch.sources[source][0], []).append(offset)
            elif batch.kind == "outcomes":
                outcomes.add((batch.sources[source][0], offset))
    letters = [DeadLetter.from_headers(headers_of(m)) for m in read(kafka, f"{topic_prefix}-ours.dlq")]
    dead = {letter.offset: letter for letter in letters if letter.topic == bad}
    names = list(messages)

    assert sorted([*rows[bad], *dead]) == list(range(len(messages) + len(good)))
    assert {names[offset]: letter.reason for offset, letter in dead.items() if names[offset] in DEAD} == DEAD
    assert [name for name in ROW if names.index(name) in dead] == []
    assert {topic: len(set(rows[topic])) for topic in compressed} == dict.fromkeys(compressed, 200)
    assert {letter.offset for letter in letters if letter.topic == labels} >= {0, odd_labels.index(None)}
    assert outcomes >= {(bad, len(messages) + i) for i in range(50)}


def test_topics_that_do_not_exist_are_named_with_the_command_that_creates_them(
    kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    body = f"predictions: {topic_prefix}.nowhere\nmodels: {{m: {{}}}}\n"
    config = write_config(tmp_path / "none.yml", kafka, redis_url, f"{topic_prefix}-ours", body)
    told = driftline("run", config, "--processors", "ingest", code=2).stderr.decode()
    assert f'"{topic_prefix}.nowhere"' in told
    assert f'"{topic_prefix}-ours.observations"' in told
    assert "driftline topics create" in told
