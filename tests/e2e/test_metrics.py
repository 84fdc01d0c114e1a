"""A running worker tells what its page of metrics promises: no metric that nobody sets."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import numpy as np
import orjson
from prometheus_client.parser import text_string_to_metric_families

from driftline.streams import metrics as table
from driftline.streams.local.process import free_port
from driftline.streams.metrics import METRICS
from tests.conftest import Kafka
from tests.e2e.programs import Reader, driftline, produce, running, write_config

TROUBLE = {
    metric.name
    for metric in (
        table.ABORTS, table.DROPPED, table.FEATURES_DROPPED, table.CLASSES_DROPPED, table.VERSIONS_SHARED, table.SERIES_LIMITED,
        table.ROWS_UNWATCHED, table.UNIT_MISSING, table.ROWS_BEHIND,
    )
}  # fmt: skip
"""Counts of what does not happen here."""
ROWS, SHIFTED = 4_500, range(1_500, 2_500)
"""It goes back, so that an incident resolves."""


def samples(port: int) -> set[str]:
    """Names of the metrics of ours that have a sample on a worker's page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    return {family.name for family in families if family.samples}


def test_every_metric_has_a_sample_somewhere(kafka: Kafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    port = free_port(4)
    watched = "features: {x: numeric}, window: 200, snapshot_every: 500, baseline: {learn: 1000, settle: 0s}, labels: {ages: [1s]}"
    config = write_config(tmp_path / "live.yml", kafka, redis_url, topic_prefix, f"{{m: {{{watched}}}}}", port=port)
    driftline("topics", "create", config, "--sources")
    rng = np.random.default_rng(4)
    drift = Reader(kafka.bootstrap, f"{topic_prefix}-ours.drift")
    with running(tmp_path / "log", config, "--start", "earliest") as program:
        program.ready(3)
        start = time.time_ns() // 1_000_000  # what is older than the workers is history, and has no detection delay
        predictions, labels = [], []
        for i in range(ROWS):
            x = rng.normal() + 3 * (i in SHIFTED)
            event = {
                "id": f"i{i}",
                "model": "m",
                "features": {"x": "seven" if i == 10 else x},
                "score": 0.5,
                "time": 5 if i == 11 else start + i,
            }
            predictions.append((start + i, orjson.dumps(event)))
            labels.append((start + i + 100, orjson.dumps({"id": f"i{i}", "label": int(i % 2)})))
        produce(kafka.bootstrap, f"{topic_prefix}.in", [*predictions, (start + ROWS, b"no JSON")])
        produce(kafka.bootstrap, f"{topic_prefix}.labels", labels)
        program.until(lambda: any(orjson.loads(m.value() or b"{}")["kind"] == "drift" for m in drift.look()))
        wanted = {m.name.removesuffix("_total") for m in METRICS if m.name not in TROUBLE}
        found: set[str] = set()

        def told() -> bool:
            found.update(*(samples(port + worker) for worker in range(4)))
            return found >= wanted

        try:
            program.until(told)
        except AssertionError:
            assert sorted(wanted - found) == [], "nobody sets these"
        assert program.stop() == 0
    drift.close()
