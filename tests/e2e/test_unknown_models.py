"""Rows of models that nobody configured, on a real Kafka: the run that skips them says so."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.conftest import Kafka
from tests.e2e.programs import driftline, produce, write_config

T0 = 1_700_000_000_000


def test_a_run_that_ends_says_how_many_rows_were_of_models_it_does_not_know(
    kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "m.yml", kafka, redis_url, topic_prefix, "{m: {features: {x: numeric}}}", labels=None)
    driftline("topics", "create", config, "--sources")
    rows = [{"id": str(i), "model": name, "features": {"x": i}} for i, name in enumerate(["other", "m", "other", "third"])]
    produce(kafka.bootstrap, f"{topic_prefix}.in", [(T0 + i, orjson.dumps(row)) for i, row in enumerate(rows)])
    told = driftline("run", config, "--processors", "ingest,detect", "--until-idle", "1").stderr.decode()
    assert told.count("3 rows of 2 models that the configuration does not name were skipped, such as 'other'") == 1
    assert told.count("unknown_model name='other'") == 1
