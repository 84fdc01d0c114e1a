"""A finished run, more rows, and another run: the second goes on where the first ended, labels and all."""

from __future__ import annotations

from pathlib import Path

import orjson

from driftline.streams.observation import LABELLED, Observations
from tests.conftest import Kafka
from tests.e2e.programs import Reader, driftline, produce, write_config

T0, ROWS = 1_700_000_000_000, 400


def _labelled(batches: list[Observations]) -> dict[int, bool]:
    out: dict[int, bool] = {}
    for batch in batches:
        assert batch.label_state is not None
        out.update(zip(batch.offset.tolist(), (batch.label_state == LABELLED).tolist(), strict=True))
    return out


def test_labels_of_a_later_run_meet_its_predictions(kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    models = "{m: {features: {x: numeric}, labels: {ages: [60s]}}}"
    config = write_config(tmp_path / "m.yml", kafka, redis_url, topic_prefix, models)
    driftline("topics", "create", config, "--sources")
    reader = Reader(kafka.bootstrap, f"{topic_prefix}-ours.observations")
    for turn in range(2):
        own = range(turn * ROWS, (turn + 1) * ROWS)
        predictions = [(T0 + i * 1_000, orjson.dumps({"id": f"i{i}", "model": "m", "features": {"x": i}, "score": 0.5})) for i in own]
        labels = [(T0 + i * 1_000 + 5_000, orjson.dumps({"id": f"i{i}", "label": 1})) for i in own]
        produce(kafka.bootstrap, f"{topic_prefix}.in", predictions)
        produce(kafka.bootstrap, f"{topic_prefix}.labels", labels)
        driftline("run", config, "--processors", "ingest,join", "--until-idle", "2")
        assert _labelled(reader.observations("outcomes")) == dict.fromkeys(range((turn + 1) * ROWS), True)
    reader.close()
