"""Write driftline.json: `make docs` (python dashboards/grafana/generate.py > dashboards/grafana/driftline.json).

Each panel's description states the question it answers and the next step.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_SOURCE = {"type": "prometheus", "uid": "driftline-prometheus"}
_COLUMNS = 24
_HEIGHT = 8

Panel = dict[str, Any]


def series(title: str, description: str, unit: str, *queries: tuple[str, str], kind: str = "timeseries") -> Panel:
    """A panel of queries with their legends."""
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list"}} if kind == "timeseries" else {},
        "targets": [
            {"refId": chr(65 + i), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for i, (query, legend) in enumerate(queries)
        ],
    }


def quantile(q: float, metric: str, by: str) -> str:
    """A quantile of a histogram over five minutes."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket[5m])))"


ROWS: list[tuple[str, list[Panel]]] = [
    ("Now", [
        series("Open incidents", "What is wrong now? Next: driftline tail incidents says what changed since when.", "short",
               ("sum by (severity) (driftline_incidents)", "{{severity}}"), kind="stat"),
        series("Incidents", "How often, and how many alerts each? Next: a longer gather, where one change makes several.", "short",
               ("sum by (model) (increase(driftline_incidents_opened_total[1h]))", "opened {{model}}"),
               (quantile(0.5, "driftline_incident_alerts", "model"), "alerts each, p50 {{model}}")),
        series("Open alerts", "What fires now? Next: driftline tail alerts, or the row below for the model.", "short",
               ('sum by (severity) (driftline_alerts{condition="firing"})', "{{severity}}"), kind="stat"),
        series("Drift events", "Which models change? Next: driftline tail drift shows value, threshold and bins.", "short",
               ('sum by (model, severity) (increase(driftline_drift_events_total{kind="drift"}[5m]))', "{{model}} {{severity}}")),
        series("Alert transitions", "Do alerts flap? Next: longer windows or higher severity levels for that monitor.", "short",
               ("sum by (monitor, to) (increase(driftline_alert_transitions_total[5m]))", "{{monitor}} {{to}}")),
        series("Detection delay", "How long from a record to its drift event? Next: lag and commit time, below.", "s",
               (quantile(0.5, "driftline_detection_delay_seconds", "kind"), "p50 {{kind}}"),
               (quantile(0.99, "driftline_detection_delay_seconds", "kind"), "p99 {{kind}}")),
    ]),
    ("Models", [
        series("Largest effects", "Which series moved most? The legend names series and segment; 0 means it recovered.", "short",
               ('topk(20, driftline_effect_size{model=~"$model"})', "{{model}} {{subject}} {{segment}}")),
        series("Statistic over threshold", "How far beyond its threshold was each series at its last event?", "short",
               ('topk(20, driftline_score{model=~"$model"} / driftline_threshold{model=~"$model"})', "{{model}} {{subject}} {{segment}}")),
        series("Series with an open episode", "One broken feature, or everything? Everything points to the data pipeline. "
               "Suspended ones have values that depend on each other: the budget does not cover them.", "percentunit",
               ('sum by (model) (driftline_subjects_drifted{model=~"$model"})'
                ' / sum by (model) (driftline_subjects_monitored{model=~"$model"})', "{{model}}"),
               ('sum by (model) (driftline_subjects_suspended{model=~"$model"})'
                ' / sum by (model) (driftline_subjects_monitored{model=~"$model"})', "{{model}} suspended")),
        series("Invalid values and times", "Does a producer send wrong types? The series quality:<feature>:invalid names the field. "
               "Or times that cannot be true? They are replaced by the record's. Or too many names? Only 500 are watched.", "short",
               ('sum by (model) (rate(driftline_invalid_values_total{model=~"$model"}[5m]))', "{{model}} values"),
               ('sum by (model) (rate(driftline_time_replaced_total{model=~"$model"}[5m]))', "{{model}} times replaced"),
               ('sum by (model) (rate(driftline_features_dropped_total{model=~"$model"}[5m]))', "{{model}} of names not watched"),
               ('sum by (model) (rate(driftline_classes_dropped_total{model=~"$model"}[5m]))', "{{model}} of classes not kept"),
               ('sum by (model) (rate(driftline_rows_unwatched_total{model=~"$model"}[5m]))', "{{model}} of rows not watched"),
               ('sum by (model) (rate(driftline_unit_missing_total{model=~"$model"}[5m]))', "{{model}} rows that say no unit"),
               ('sum by (model) (rate(driftline_rows_behind_total{model=~"$model"}[5m]))', "{{model}} rows behind the model's time"),
               ('sum by (model) (rate(driftline_versions_shared_total{model=~"$model"}[5m]))', "{{model}} rows of versions beyond 50")),
    ]),
    ("Labels", [
        series("What became of predictions and labels", "Do labels arrive and match? Orphans: ids differ. Late: raise the age.", "short",
               ('sum by (case) (rate(driftline_label_join_total{model=~"$model"}[5m]))', "{{case}}")),
        series("Share of predictions with a label", "Is performance watched on enough rows?", "percentunit",
               ('driftline:label_join:ratio_rate1h{model=~"$model"}', "{{model}}")),
        series("Label delay", "How late do labels come? The configured age should lie above p95.", "s",
               (quantile(0.5, "driftline_label_delay_seconds", "model"), "p50 {{model}}"),
               (quantile(0.95, "driftline_label_delay_seconds", "model"), "p95 {{model}}")),
        series("Labels waiting", "Do the labels not yet due grow without bound? They are in the join's memory and in Redis.", "short",
               ("sum by (stream) (driftline_waiting_labels)", "{{stream}}")),
    ]),
    ("Service", [
        series("Records", "What comes in, and what of it is refused?", "short", ("driftline:records:rate5m", "{{stream}} {{outcome}}")),
        series("Lag", "Is it keeping up? Next: more workers, up to one a partition.", "short",
               ("sum by (stream) (driftline_consumer_lag_records)", "{{stream}}")),
        series("Standing still", "Does one partition stand still among others that move? Next: GET /readyz of its worker.", "s",
               ("topk(20, time() - max by (stream, partition) (driftline_partition_progress_timestamp_seconds))",
                "{{stream}}/{{partition}}")),
        series("Behind in time", "How old is what is being processed now?", "s",
               ("max by (stream) (driftline_watermark_lag_seconds)", "{{stream}}")),
        series("Commit", "Are transactions or Redis slow?", "s",
               (quantile(0.5, "driftline_commit_seconds", "stage"), "p50 {{stage}}"),
               (quantile(0.99, "driftline_commit_seconds", "stage"), "p99 {{stage}}"),
               (quantile(0.99, "driftline_base_checkpoint_seconds", "stage"), "p99 base {{stage}}")),
        series("Batch: time and rows", "What does one batch cost?", "short",
               (quantile(0.99, "driftline_process_batch_seconds", "stage"), "p99 seconds {{stage}}"),
               (quantile(0.5, "driftline_batch_records", "stage"), "p50 rows {{stage}}")),
        series("Redis", "Is Redis slow, or far away?", "s",
               (quantile(0.99, "driftline_redis_operation_seconds", "operation"), "p99 {{operation}}")),
        series("Checkpoints", "How many bytes of state a second go to Redis?", "Bps",
               ("sum by (stage) (rate(driftline_checkpoint_bytes_total[5m]))", "{{stage}}"),
               ("sum by (stage) (rate(driftline_base_checkpoint_bytes_total[5m]))", "base {{stage}}")),
        series("CPU", "Cores used by each processor.", "short",
               ('sum by (processor) (rate(process_cpu_seconds_total{job="driftline"}[1m]))', "{{processor}}")),
        series("Memory", "Resident bytes of each processor.", "bytes",
               ('sum by (processor) (process_resident_memory_bytes{job="driftline"})', "{{processor}}")),
        series("Tasks and rebalances", "Who has the partitions, and does the group settle?", "short",
               ("sum by (stage) (driftline_tasks)", "tasks {{stage}}"),
               ("sum by (stage) (increase(driftline_rebalances_total[5m]))", "rebalances {{stage}}")),
        series("Dead letters", "What cannot be read? Next: driftline.dlq has bytes, position and reason.", "short",
               ("sum by (stage, reason) (increase(driftline_dead_letters_total[5m]))", "{{stage}} {{reason}}")),
        series("Commits given up", "Do workers fight over partitions or wait for Redis? Nothing is lost; work is done again.", "short",
               ("sum by (stage, reason) (increase(driftline_aborts_total[5m]))", "aborted {{stage}} {{reason}}"),
               ("sum by (stage) (increase(driftline_records_dropped_total[5m]))", "records dropped {{stage}}")),
        series("Recoveries", "Where did restarted tasks take their state from? Anything but redis is worth a look.", "short",
               ("sum by (stage, source) (increase(driftline_recoveries_total[5m]))", "{{stage}} {{source}}")),
    ]),
]


def dashboard() -> dict[str, Any]:
    """The dashboard: rows of panels, four a line."""
    panels: list[Panel] = []
    y = 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1}, "panels": []})
        y += 1
        width = _COLUMNS // 4
        for i, panel in enumerate(row):
            panels.append({**panel, "gridPos": {"x": i % 4 * width, "y": y + i // 4 * _HEIGHT, "w": width, "h": _HEIGHT}})
        y += (len(row) + 3) // 4 * _HEIGHT
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    query = "label_values(driftline_drift_events_total, model)"
    variable = {
        "name": "model", "type": "query", "datasource": _SOURCE, "query": {"query": query, "refId": "model"}, "refresh": 2,
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]},
    }
    marks = {
        "name": "alerts", "enable": True, "datasource": _SOURCE, "iconColor": "red", "step": "15s",
        "expr": "sum by (monitor, to) (increase(driftline_alert_transitions_total[15s])) > 0", "titleFormat": "{{monitor}} {{to}}",
    }
    return {
        "uid": "driftline", "title": "Driftline", "tags": ["driftline"], "schemaVersion": 39, "version": 1, "editable": False,
        "time": {"from": "now-1h", "to": "now"}, "refresh": "10s", "timezone": "browser",
        "templating": {"list": [variable]}, "annotations": {"list": [marks]}, "panels": panels,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
