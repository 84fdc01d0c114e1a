"""One stream with a change, recorded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.backtest.recording import Recorder, Recording
from driftline.cli.columns import ColumnOptions
from driftline.cli.records import record_batches
from driftline.schemas.config import Config
from driftline.schemas.loading import load_config
from driftline.streams.counters import MemoryCounters
from tests.cli.streams_for_tests import config_text, write_transactions

ROWS, CHANGE = 6_000, 4_000
COLUMNS = ColumnOptions(
    id="txn_id", time="ts", label="is_fraud", label_time="label_at", label_delay=None, model=None, version=None, score="score",
    score_from=None, class_=None, latency=None, weight=None, features=None, drop=None, segments=(), start=None, interval="1s", seed=0,
    rows=None,
)  # fmt: skip


def record(config: Config, path: Path) -> Recording:
    """A file as ingest and join read it."""
    recorder = Recorder(config, MemoryCounters())
    for records in record_batches(config, str(path), COLUMNS)[1]:
        recorder.feed(records)
    return recorder.finish(mature=True)


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 rows, a second each; `amount` moves up by one sd at row 4,000."""
    path = write_transactions(tmp_path_factory.mktemp("stream") / "change.csv", ROWS, shift_at=CHANGE)
    (path.parent / "fraud.yml").write_text(config_text(labels=True))
    return path


@pytest.fixture(scope="session")
def config(stream: Path) -> Config:
    return load_config(str(stream.parent / "fraud.yml"))


@pytest.fixture(scope="session")
def recording(stream: Path, config: Config) -> Recording:
    return record(config, stream)
