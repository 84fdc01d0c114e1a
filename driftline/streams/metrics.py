"""Every metric in one table, and the object that counts them.

Names, kinds and labels are data: docs/metrics.md is generated from the table, and a test holds the dashboards and the
alert rules to it. A label never carries an id, a user or free text; counts are added once a batch, never per event.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

Kind = Literal["counter", "gauge", "histogram"]
LabelValue: TypeAlias = "str | int"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OPERATION: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
_ROWS: Final = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000)
# Labels take seconds in ads and weeks in fraud.
_LABEL_DELAY: Final = (1, 10, 60, 600, 3_600, 21_600, 86_400, 3 * 86_400, 7 * 86_400, 14 * 86_400, 30 * 86_400, 60 * 86_400)
_ALERTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_DETECTION: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes
    ----------
    unit : of the value: records, seconds, bytes, 1 (a bare number) and so on.
    children_max : label sets at most; more are dropped and counted in `driftline_series_limited_total`.
        8,000 gauges cost 115 ms a scrape, so whatever grows with the number of series is capped.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    children_max: int = 10_000


SERIES_CAP: Final = 1_000

RECORDS = Metric("driftline_records_total", "counter", "records", ("stream", "outcome"),
    "Input rows by stream (predictions, labels) and outcome (ok, historical, invalid, unknown_model, skipped).")
LAG = Metric("driftline_consumer_lag_records", "gauge", "records", ("stream", "partition"),
    "Records between the committed position and the end of the partition; stream is the topic.")
WATERMARK_LAG = Metric("driftline_watermark_lag_seconds", "gauge", "seconds", ("stream", "partition"),
    "Wall time minus the time up to which the partition's rows have been processed.")
PROCESS_SECONDS = Metric("driftline_process_batch_seconds", "histogram", "seconds", ("stage",),
    "Time one batch took in a processor's logic, without Kafka and Redis.", _SECONDS)
BATCH_RECORDS = Metric("driftline_batch_records", "histogram", "records", ("stage",),
    "Records of one batch.", _ROWS)
COMMIT_SECONDS = Metric("driftline_commit_seconds", "histogram", "seconds", ("stage",),
    "Time of one commit: flush, checkpoint, offsets, transaction.", _SECONDS)
BASE_SECONDS = Metric("driftline_base_checkpoint_seconds", "histogram", "seconds", ("stage",),
    "Time to read a task's full state and hand it to the producer; once a minute or a million records a task.", _SECONDS)
BASE_BYTES = Metric("driftline_base_checkpoint_bytes_total", "counter", "bytes", ("stage",),
    "Bytes of full state written to the checkpoints topic.")
LAST_COMMIT = Metric("driftline_last_commit_timestamp_seconds", "gauge", "seconds since 1970", ("stage",),
    "Wall time of the last commit; stands still while nothing comes in.")
PROGRESS = Metric("driftline_partition_progress_timestamp_seconds", "gauge", "seconds since 1970", ("stream", "partition"),
    "Wall time at which the partition last moved on or had nothing to do; stands still while records wait and nothing is committed, "
    "and while the worker's loop hangs. stream is the topic.")
TASKS = Metric("driftline_tasks", "gauge", "tasks", ("stage",),
    "Tasks (partitions) this worker owns.")
REBALANCES = Metric("driftline_rebalances_total", "counter", "rebalances", ("stage",),
    "Times the group gave partitions to this worker or took some away.")
ABORTS = Metric("driftline_aborts_total", "counter", "commits", ("stage", "reason"),
    "Commits given up before they stood; everything in them was done again from the last one that stands.")
DROPPED = Metric("driftline_records_dropped_total", "counter", "records", ("stage",),
    "Records of partitions that had gone to another worker, or that had been handed out before; nothing is lost by it.")
DEAD_LETTERS = Metric("driftline_dead_letters_total", "counter", "records", ("stage", "reason"),
    "Records sent to the dead-letter topic.")
INVALID_VALUES = Metric("driftline_invalid_values_total", "counter", "values", ("model",),
    "Values of the wrong type in rows that were taken; each also counts in its feature's `invalid` bin.")
TIME_REPLACED = Metric("driftline_time_replaced_total", "counter", "records", ("model",),
    "Rows whose event time was missing or could not be true (outside max_age and max_skew), so that the record's time stands for it, "
    "and records whose own time was set back: ahead of the wall, or a lone jump. Without a model: labels.")
FEATURES_DROPPED = Metric("driftline_features_dropped_total", "counter", "values", ("model",),
    "Values of undeclared features that are not watched, as the model already has 500 of them (in each source partition).")
CLASSES_DROPPED = Metric("driftline_classes_dropped_total", "counter", "values", ("model",),
    "Probabilities of classes that are not kept, as the model already has 1,000 undeclared ones (in each source partition).")
UNIT_MISSING = Metric("driftline_unit_missing_total", "counter", "rows", ("model",),
    "Predictions that do not say their `unit`, of a model that has one: each of them is watched.")
VERSIONS_SHARED = Metric("driftline_versions_shared_total", "counter", "rows", ("model",),
    "Predictions of versions beyond a model's first 50, which share one set of panels.")
ROWS_UNWATCHED = Metric("driftline_rows_unwatched_total", "counter", "rows", ("model",),
    "Rows that no series saw: of a `unit` that was watched within `unit_window` (or in the first such time), or in a time of `expected`.")
ROWS_BEHIND = Metric("driftline_rows_behind_total", "counter", "rows", ("model",),
    "Rows whose record time is an hour or more behind the model's time, which never goes back: while no row moves it, a budget of false "
    "alarms allows none (log `time_stands_still`).")

LABEL_JOIN = Metric("driftline_label_join_total", "counter", "rows", ("model", "case"),
    "What became of predictions and labels: joined, implicit, unlabelled, early, duplicate, contradiction, late, orphan, "
    "duplicate_prediction, excess (an id that has 64 labels already).")
LABEL_DELAY = Metric("driftline_label_delay_seconds", "histogram", "seconds", ("model",),
    "From a prediction to its label.", _LABEL_DELAY)
WAITING = Metric("driftline_waiting_labels", "gauge", "labels", ("stream", "partition"),
    "Labels that no prediction has taken yet, in the join's memory and its journal in Redis; stream is the join (its label age).")

DRIFT_EVENTS = Metric("driftline_drift_events_total", "counter", "events", ("monitor", "model", "kind", "severity"),
    "Drift events produced, by kind: drift (an episode opens), evidence, recovery, and the notes baseline, "
    "baseline_mismatch, version_seen and version_shift.")
SCORE = Metric("driftline_score", "gauge", "of the statistic", ("monitor", "model", "subject", "segment"),
    "Statistic of a series at its last drift event; subject is the series.", children_max=SERIES_CAP)
THRESHOLD = Metric("driftline_threshold", "gauge", "of the statistic", ("monitor", "model", "subject", "segment"),
    "Threshold the statistic was held against at the last drift event.", children_max=SERIES_CAP)
EFFECT_SIZE = Metric("driftline_effect_size", "gauge", "1", ("monitor", "model", "subject", "segment"),
    "Effect size at the last drift event; 0 after recovery.", children_max=SERIES_CAP)
SUBJECTS_DRIFTED = Metric("driftline_subjects_drifted", "gauge", "series", ("model",),
    "Series of a model with an open episode on this worker.")
SUBJECTS_SUSPENDED = Metric("driftline_subjects_suspended", "gauge", "series", ("model",),
    "Series of a model that the budget of false alarms does not cover now, as values depend on each other or on the hour; on this worker.")
SUBJECTS_MONITORED = Metric("driftline_subjects_monitored", "gauge", "series", ("model",),
    "Series of a model watched by this worker.")
DETECTION_DELAY = Metric("driftline_detection_delay_seconds", "histogram", "seconds", ("kind",),
    "From the record that a drift event speaks of to the event being produced; not of history.", _DETECTION)

ALERTS = Metric("driftline_alerts", "gauge", "alerts", ("severity", "condition"),
    "Alerts now, by severity and condition.")
ALERT_TRANSITIONS = Metric("driftline_alert_transitions_total", "counter", "transitions", ("monitor", "to", "reason"),
    "Changes of alerts: what they became and why.")
INCIDENTS = Metric("driftline_incidents", "gauge", "incidents", ("severity",),
    "Open incidents now, by severity.")
INCIDENTS_OPENED = Metric("driftline_incidents_opened_total", "counter", "incidents", ("model",),
    "Incidents opened.")
INCIDENT_ALERTS = Metric("driftline_incident_alerts", "histogram", "alerts", ("model",),
    "Alerts of an incident, counted when it resolves.", _ALERTS)

CHECKPOINT_BYTES = Metric("driftline_checkpoint_bytes_total", "counter", "bytes", ("stage",),
    "Bytes of state that checkpoints wrote to Redis.")
REDIS_SECONDS = Metric("driftline_redis_operation_seconds", "histogram", "seconds", ("operation",),
    "Time of one Redis round trip.", _OPERATION)
RECOVERIES = Metric("driftline_recoveries_total", "counter", "recoveries", ("stage", "source"),
    "Tasks opened from state, by where it came from: redis, older, metadata, base, none.")
SERIES_LIMITED = Metric("driftline_series_limited_total", "counter", "updates", ("metric",),
    "Updates dropped because a metric has as many label sets as it may.")
BUILD_INFO = Metric("driftline_build_info", "gauge", "1", ("version",),
    "Always 1; the version is in the label.")

METRICS: tuple[Metric, ...] = (
    RECORDS, LAG, WATERMARK_LAG, PROCESS_SECONDS, BATCH_RECORDS, COMMIT_SECONDS, BASE_SECONDS, BASE_BYTES, LAST_COMMIT, PROGRESS,
    TASKS, REBALANCES, ABORTS, DROPPED,
    DEAD_LETTERS, INVALID_VALUES, TIME_REPLACED, FEATURES_DROPPED, CLASSES_DROPPED, UNIT_MISSING, VERSIONS_SHARED, ROWS_UNWATCHED,
    ROWS_BEHIND,
    LABEL_JOIN, LABEL_DELAY, WAITING, DRIFT_EVENTS, SCORE, THRESHOLD,
    EFFECT_SIZE, SUBJECTS_DRIFTED, SUBJECTS_SUSPENDED, SUBJECTS_MONITORED, DETECTION_DELAY, ALERTS, ALERT_TRANSITIONS,
    INCIDENTS, INCIDENTS_OPENED, INCIDENT_ALERTS,
    CHECKPOINT_BYTES, REDIS_SECONDS, RECOVERIES, SERIES_LIMITED, BUILD_INFO,
)


class Metrics:
    """The counts of one worker.

    Parameters
    ----------
    registry : where the metrics are registered; one a worker. A new one when None, never the global one.

    Notes
    -----
    The labels of a call stand in the order of the table. Children are kept, which makes a call 0.7 instead of 1.9 us;
    a call from any thread is safe.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, version: str = "") -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._families: dict[str, Counter | Gauge | Histogram] = {m.name: self._family(m) for m in METRICS}
        self._children: dict[tuple[str, tuple[LabelValue, ...]], Counter | Gauge | Histogram] = {}
        self._sizes: dict[str, int] = {}
        ProcessCollector(registry=self.registry)   # CPU seconds and resident bytes of this worker
        PlatformCollector(registry=self.registry)
        if version:
            self.set(BUILD_INFO, 1, version)

    def add(self, metric: Metric, amount: float, *labels: LabelValue) -> None:
        """Add to a counter."""
        child = self._child(metric, labels)
        if child is not None:
            assert isinstance(child, Counter)
            child.inc(amount)

    def set(self, metric: Metric, value: float, *labels: LabelValue) -> None:
        """Set a gauge."""
        child = self._child(metric, labels)
        if child is not None:
            assert isinstance(child, Gauge)
            child.set(value)

    def observe(self, metric: Metric, value: float, *labels: LabelValue) -> None:
        """Add one value to a histogram."""
        child = self._child(metric, labels)
        if child is not None:
            assert isinstance(child, Histogram)
            child.observe(value)

    def observe_all(self, metric: Metric, values: npt.NDArray[np.float64], *labels: LabelValue) -> None:
        """Add many values to a histogram: a label delay a row would cost more than the join itself.

        The library has no call for it, so this adds to the sum and the buckets that its own `observe` adds to; a test
        holds the two equal.
        """
        child = self._child(metric, labels)
        if child is not None and len(values):
            assert isinstance(child, Histogram)
            counts = np.bincount(np.searchsorted(metric.buckets, values), minlength=len(metric.buckets) + 1)
            child._sum.inc(float(values.sum()))
            for bucket, count in zip(child._buckets, counts.tolist(), strict=True):
                if count:
                    bucket.inc(count)

    def drop(self, metric: Metric, *labels: LabelValue) -> None:
        """Forget one label set, for instance of a partition that went to another worker."""
        if self._children.pop((metric.name, labels), None) is not None:
            self._sizes[metric.name] -= 1
            self._families[metric.name].remove(*labels)

    def value(self, metric: Metric, *labels: LabelValue) -> float:
        """The value now, 0 when never counted (of a histogram, its number of values)."""
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        found = self.registry.get_sample_value(name, dict(zip(metric.labels, map(str, labels), strict=True)))
        return 0.0 if found is None else found

    def _child(self, metric: Metric, labels: tuple[LabelValue, ...]) -> Counter | Gauge | Histogram | None:
        key = (metric.name, labels)
        child = self._children.get(key)
        if child is None:
            size = self._sizes.get(metric.name, 0)
            if size >= metric.children_max:
                self.add(SERIES_LIMITED, 1, metric.name)
                return None
            child = self._children[key] = self._families[metric.name].labels(*labels)
            self._sizes[metric.name] = size + 1
        return child

    def _family(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "counter":
            return Counter(metric.name, metric.help, metric.labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)
        return Histogram(metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets)


def metrics_page() -> str:
    """docs/metrics.md, generated: `python -m driftline.streams.metrics > docs/metrics.md` (`make docs`)."""
    rows = [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.unit} | {m.help} |"
        for m in METRICS
    ]
    return "\n".join([
        "# Metrics",
        "",
        "Generated from `driftline/streams/metrics.py` by `make docs`; do not edit.",
        "",
        "Each worker serves `GET /metrics` on its own port (`http.port` for ingest, then join, detect and alert on the ports after it).",
        "A label never carries an id, a user or free text.",
        "Beside these, each worker has `process_*` (CPU seconds, resident bytes) and `python_info`.",
        "",
        "| metric | kind | labels | unit | meaning |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ])


if __name__ == "__main__":
    sys.stdout.write(metrics_page())
