"""The observations topic of a real Kafka in the place of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from confluent_kafka import Producer

from driftline.cli.main import cli
from driftline.schemas.loading import load_config
from tests.backtest.conftest import record
from tests.cli.streams_for_tests import COLUMN_OPTIONS, config_text
from tests.conftest import Kafka


def backtest(*options: str) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["backtest", *options, "--changes", "shift", "--starts", "1", "--no-suggest", "-o", "json"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)["models"]["fraud"]
    return found


def test_the_observations_topic_gives_what_the_file_gives(kafka: Kafka, topic_prefix: str, stream: Path, tmp_path: Path) -> None:
    path = tmp_path / "fraud.yml"
    path.write_text(config_text(labels=True, bootstrap=kafka.bootstrap, prefix=topic_prefix))
    assert CliRunner().invoke(cli, ["topics", "create", str(path), "--sources"]).exit_code == 0
    records = record(load_config(str(path)), stream).records
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for one in records:
        producer.produce(one.topic_, one.value_, one.key_, one.partition_)
    assert producer.flush(60) == 0
    from_topic = backtest("--topic", "-c", str(path))
    assert from_topic == backtest(str(stream), "-c", str(path), *COLUMN_OPTIONS)
    assert from_topic["rows"] == 6_000
    # all of it was written within the last hour: the range is that of the records, not of the events in them
    assert backtest("--topic", "-c", str(path), "--from", "-1h")["runs"] == from_topic["runs"]
    nothing = CliRunner().invoke(cli, ["backtest", "--topic", "-c", str(path), "--to", "-1h"])
    assert nothing.exit_code == 2
    assert "no rows of fraud" in nothing.stderr
