"""Two label ages of one model on a real Kafka: a join each, and what each of them knew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from driftline.streams.observation import LABELLED, UNLABELLED
from tests.conftest import CreateTopics, Kafka
from tests.e2e.programs import Reader, driftline, produce, write_config

T0 = 1_700_000_000_000
ROWS = 3_000
AGES_MS = (300_000, 3_600_000)


def test_each_age_has_an_outcome_of_every_prediction_with_the_label_known_by_then(
    kafka: Kafka, redis_url: str, topic_prefix: str, create_topics: CreateTopics, tmp_path: Path
) -> None:
    predictions, labels = create_topics("in", "labels", config={"retention.ms": "-1"})
    models = "{m: {features: {x: numeric}, labels: {ages: [5m, 1h]}, window: 200, snapshot_every: 500, baseline: {learn: 500}}}"
    config = write_config(tmp_path / "ages.yml", kafka, redis_url, topic_prefix, models, predictions=predictions, labels=labels)
    driftline("topics", "create", config)
    draw = np.random.default_rng(8)
    times = [T0 + i * 1_000 for i in range(ROWS)]
    delays = [int(delay) if came else None for delay, came in zip(draw.exponential(600_000, ROWS), draw.random(ROWS) < 0.9, strict=True)]
    events = [{"id": f"i{i}", "model": "m", "time": time, "features": {"x": 1.0}, "score": 0.5} for i, time in enumerate(times)]
    produce(kafka.bootstrap, predictions, zip(times, map(orjson.dumps, events), strict=True))
    arrivals = sorted((times[i] + delay, i) for i, delay in enumerate(delays) if delay is not None)
    produce(kafka.bootstrap, labels, [(at, orjson.dumps({"id": f"i{i}", "time": at, "label": i % 2})) for at, i in arrivals])

    driftline("run", config, "--no-alert", "--until-idle", "1")

    reader = Reader(kafka.bootstrap, f"{topic_prefix}-ours.observations")
    found: dict[int, list[tuple[int, int, float | None]]] = {age: [] for age in AGES_MS}
    for batch in reader.observations("outcomes"):
        assert batch.age_ms is not None
        assert batch.label is not None
        assert batch.label_state is not None
        for offset, state, label in zip(batch.offset.tolist(), batch.label_state.tolist(), batch.label.tolist(), strict=True):
            found[batch.age_ms].append((offset, state, label if state == LABELLED else None))
    reader.close()
    known = {age: [delay is not None and delay <= age for delay in delays] for age in AGES_MS}
    expected = {age: [(i, LABELLED, float(i % 2)) if known[age][i] else (i, UNLABELLED, None) for i in range(ROWS)] for age in AGES_MS}
    assert found == expected
    assert sum(known[AGES_MS[0]]) < 0.5 * ROWS < 0.85 * ROWS < sum(known[AGES_MS[1]])

    snapshots = Reader(kafka.bootstrap, f"{topic_prefix}-ours.snapshots")
    rows = {}
    for snapshot in (orjson.loads(message.value() or b"") for message in snapshots.look()):
        rows[snapshot["panel"], snapshot["age_ms"]] = snapshot["rows"]
    snapshots.close()
    assert rows == {("features", None): ROWS, ("scores", None): ROWS, ("outcomes", AGES_MS[0]): ROWS, ("outcomes", AGES_MS[1]): ROWS}
