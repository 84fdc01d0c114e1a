"""Stopped half way, saved, everything lost, brought back: the drift events are those of a run that never stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.conftest import CreateTopics, Kafka
from tests.e2e.programs import Reader, driftline, produce, write_config
from tests.savepoint.installation import Installation

T0 = 1_700_000_000_000
ROWS, HALF, CHANGE = 4_000, 2_100, 1_900
"""The change begins before the stop, so that episodes are open across it."""


@pytest.fixture
def sources(create_topics: CreateTopics) -> list[str]:
    return create_topics("in", "labels", config={"retention.ms": "-1"})


def installation(kafka: Kafka, redis_url: str, prefix: str, ours: str, sources: list[str], folder: Path) -> Installation:
    """Two of them on the same sources publish the same events, ids included: those go by the sources' topics."""
    watched = "features: {x: numeric, c: categorical}, segments: {c: {}}, labels: {ages: [5m]}, window: 300"
    name, models = f"{prefix}-{ours}", f"{{m: {{{watched}, baseline: {{learn: 500, settle: 0s}}}}}}"
    path = write_config(
        folder / f"{ours}.yml", kafka, redis_url, name, models, ours=name, predictions=sources[0], labels=sources[1]
    )
    driftline("topics", "create", path)
    return Installation(path, kafka.bootstrap, redis_url, f"{prefix}-{ours}")


def publish(kafka: Kafka, sources: list[str], first: int, last: int) -> None:
    """Rows by their numbers, each a second after the one before; labels come 100 s after, many before their row's half."""
    draw = np.random.default_rng(3)
    x, u, c = draw.normal(0, 1, ROWS), draw.random(ROWS), draw.choice(["a", "b"], ROWS)
    rows, labels = [], []
    for i in range(first, last):
        changed = i >= CHANGE
        score = 0.2 + 0.1 * float(np.tanh(x[i]))
        features = {"x": float(x[i]) + 1.5 * changed, "c": str(c[i])}
        event = {"id": f"i{i}", "model": "m", "time": T0 + i * 1_000, "features": features, "score": score}
        rows.append((T0 + i * 1_000, orjson.dumps(event)))
        y = int(u[i] < (1 - score if changed else score))
        labels.append((T0 + i * 1_000 + 100_000, orjson.dumps({"id": f"i{i}", "label": y})))
    produce(kafka.bootstrap, sources[0], rows)
    produce(kafka.bootstrap, sources[1], labels)


def ledgers(kafka: Kafka, topic: str) -> tuple[list[bytes], list[bytes]]:
    """The bytes of the events of predictions and of outcomes, each in order; how the two mix depends on how fast workers are."""
    reader = Reader(kafka.bootstrap, topic)
    split: tuple[list[bytes], list[bytes]] = ([], [])
    for message in reader.look():
        value = message.value() or b""
        outcome = orjson.loads(value)["series"].startswith(("outcome:", "stream:label", "stream:join", "panel:outcomes"))
        split[outcome].append(value)
    reader.close()
    return split


def test_an_imported_savepoint_goes_on_as_if_nothing_had_stopped(
    kafka: Kafka, redis_url: str, topic_prefix: str, sources: list[str], tmp_path: Path
) -> None:
    saved = installation(kafka, redis_url, topic_prefix, "a", sources, tmp_path)
    other = installation(kafka, redis_url, topic_prefix, "b", sources, tmp_path)
    publish(kafka, sources, 0, HALF)
    driftline("run", saved.config, "--no-alert", "--until-idle", "1", "--at-end", "wait")
    half = ledgers(kafka, f"{saved.prefix}.drift")
    saved.done("export", "-o", tmp_path / "s.savepoint")
    assert {row["fit"] for row in saved.done("inspect", "-o", "json")} == {"fits", "nothing"}
    saved.wipe()
    saved.done("import", tmp_path / "s.savepoint")
    publish(kafka, sources, HALF, ROWS)
    log = driftline("run", saved.config, "--no-alert", "--until-idle", "1").stderr.decode()
    assert log.count("state=new") == 0
    driftline("run", other.config, "--no-alert", "--until-idle", "1")

    ran, never_stopped = ledgers(kafka, f"{saved.prefix}.drift"), ledgers(kafka, f"{other.prefix}.drift")
    assert ran == never_stopped
    assert all(0 < len(before) < len(whole) for before, whole in zip(half, ran, strict=True))
