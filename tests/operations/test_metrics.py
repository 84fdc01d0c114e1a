"""The table of metrics keeps the rules that dashboards and alert rules rely on."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from driftline.streams import metrics as table
from driftline.streams.metrics import METRICS, Metric, Metrics, metrics_page

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_a_metric_is_named_by_the_rules(metric: Metric) -> None:
    assert re.fullmatch(r"driftline_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert metric.kind != "histogram" or metric.unit in metric.name, "a histogram's name says its unit"
    assert not {"id", "user", "prediction_id", "fingerprint", "model_version"} & set(metric.labels)
    assert metric.help.endswith(".")


def test_every_metric_of_the_module_is_in_the_table_once() -> None:
    defined = [value for value in vars(table).values() if isinstance(value, Metric)]
    assert sorted(m.name for m in defined) == sorted(m.name for m in METRICS)
    assert len({m.name for m in METRICS}) == len(METRICS)


def test_two_workers_in_one_process_count_apart_and_nothing_is_global() -> None:
    before = {family.name for family in REGISTRY.collect()}
    one, two = Metrics(), Metrics()
    one.add(table.RECORDS, 3, "labels", "ok")
    assert one.value(table.RECORDS, "labels", "ok") == 3
    assert two.value(table.RECORDS, "labels", "ok") == 0
    assert {family.name for family in REGISTRY.collect()} == before


def test_every_metric_can_be_written_and_read_back() -> None:
    metrics = Metrics()
    for metric in METRICS:
        labels = ["x"] * len(metric.labels)
        write = {"counter": metrics.add, "gauge": metrics.set, "histogram": metrics.observe}[metric.kind]
        write(metric, 1, *labels)
        assert metrics.value(metric, *labels) == 1


def test_many_values_are_counted_as_one_by_one() -> None:
    values = np.concatenate([np.random.default_rng(3).lognormal(6, 4, 500), table.LABEL_DELAY.buckets, [0.0, -5.0, 1e9]])
    one, many = Metrics(), Metrics()
    for value in values.tolist():
        one.observe(table.LABEL_DELAY, value, "fraud")
    for part in np.array_split(values, 7):
        many.observe_all(table.LABEL_DELAY, part, "fraud")
    many.observe_all(table.LABEL_DELAY, np.empty(0), "fraud")
    of_delay = [
        {
            s.labels.get("le", s.name): s.value
            for f in m.registry.collect()
            if f.name == table.LABEL_DELAY.name
            for s in f.samples
            if "created" not in s.name
        }
        for m in (one, many)
    ]
    assert of_delay[1] == pytest.approx(of_delay[0], rel=1e-12)
    assert len(of_delay[0]) == len(table.LABEL_DELAY.buckets) + 3


def test_series_beyond_the_cap_are_dropped_and_counted() -> None:
    metrics = Metrics()
    for i in range(table.SERIES_CAP + 5):
        metrics.set(table.SCORE, 1.0, "m", "fraud", f"feature:{i}", "all")
    assert metrics.value(table.SERIES_LIMITED, "driftline_score") == 5
    assert metrics.value(table.SCORE, "m", "fraud", "feature:0", "all") == 1
    assert metrics.value(table.SCORE, "m", "fraud", f"feature:{table.SERIES_CAP}", "all") == 0

    metrics.drop(table.SCORE, "m", "fraud", "feature:0", "all")
    metrics.set(table.SCORE, 2.0, "m", "fraud", "late", "all")
    assert metrics.value(table.SCORE, "m", "fraud", "late", "all") == 2


def test_a_dropped_label_set_is_gone_from_the_page() -> None:
    metrics = Metrics()
    metrics.set(table.LAG, 5, "fraud.predictions", 3)
    metrics.drop(table.LAG, "fraud.predictions", 3)
    assert metrics.registry.get_sample_value("driftline_consumer_lag_records", {"stream": "fraud.predictions", "partition": "3"}) is None


def test_the_docs_page_is_fresh() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_page(), "run: make docs"
