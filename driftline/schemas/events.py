"""What other programs read: drift events, alerts, snapshots, dead letters; and the prediction and label they send.

JSON on the wire; times are Unix milliseconds in fields that end in `_ms`, RFC 3339 in CloudEvents headers.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Severity = Literal["info", "warning", "critical"]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction as `driftline.publish` sends it; other shapes are mapped by the configuration."""

    id: str
    time: str | int | float | None = None
    model: str
    version: str | None = None
    features: dict[str, float | str | bool | None]
    score: float | list[float] | None = None
    class_: str | int | None = msgspec.field(default=None, name="class")
    latency_ms: float | None = None
    error: str | bool | None = None
    sample_weight: float | None = None
    segments: dict[str, str] | None = None


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """The truth about an earlier prediction, joined by `id`."""

    id: str
    time: str | int | float | None = None
    label: float | str | bool
    model: str | None = None


class Position(msgspec.Struct, frozen=True):
    """A source record: the prediction or label topic, never one of ours."""

    topic: str
    partition: int
    offset: int


class Since(msgspec.Struct, frozen=True):
    """Where a change began: the last indexed record at or before it."""

    position: Position
    time_ms: int


class BinShare(msgspec.Struct, frozen=True):
    """One bin of the evidence: its share in the baseline and in the window, and what it adds to PSI."""

    bin: str
    expected: float
    observed: float
    contribution: float


class Effect(msgspec.Struct, frozen=True):
    """How large: ``psi`` (sum), ``mean`` (baseline standard deviations), ``rate`` (relative change)."""

    kind: Literal["psi", "mean", "rate", "silence"]
    size: float


class DriftEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change in one series of one model: it opens an episode, adds evidence to it, or ends it."""

    id: str
    kind: Literal["drift", "evidence", "recovery", "version_seen", "baseline"]
    environment: str
    model: str
    version: str | None
    monitor: str
    series: str
    segment: dict[str, str] | None
    episode: str
    detector: str
    statistic: float | None
    threshold: float | None
    value: float | None
    baseline_value: float | None
    effect: Effect | None
    direction: Literal["up", "down"] | None
    severity: Severity
    n: int
    window: int
    baseline: str | None
    position: Position
    since: Since | None
    time_ms: int
    record_time_ms: int
    bins: list[BinShare]
    reason: str | None = None
    historical: bool = False
    provisional: bool = False


class SeriesLevel(msgspec.Struct, frozen=True, kw_only=True):
    """One series in a snapshot; a quantity the series does not have is null."""

    series: str
    n: int
    mean: float | None
    baseline_mean: float | None
    psi: float | None
    psi_threshold: float | None
    rate: float | None
    baseline_rate: float | None
    statistic: float | None
    threshold: float | None
    open: bool


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one panel scope every `snapshot_every` events."""

    environment: str
    model: str
    version: str | None
    panel: Literal["features", "scores", "outcomes"]
    segment: dict[str, str] | None
    state: Literal["learning", "watching"]
    rows: int
    learn_rows: int
    baseline: str | None
    position: Position
    time_ms: int
    series: list[SeriesLevel]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of one alert; key = fingerprint, readers ignore a `seq` not above the last of the same episode."""

    fingerprint: str
    episode: str
    seq: int
    environment: str
    model: str
    monitor: str
    series: str
    segment: dict[str, str] | None
    condition: Literal["firing", "resolved"]
    severity: Severity
    max_severity: Severity
    starts_at_ms: int
    detected_at_ms: int
    ends_at_ms: int | None
    observed_at_ms: int
    owner: str | None
    summary: str
    evidence: dict[str, Any]
    historical: bool = False


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One step in an alert's life, or (condition null) a note beside it: a new version, a new baseline; append-only."""

    fingerprint: str
    episode: str
    seq: int
    model: str
    change: Literal["opened", "severity", "evidence", "resolved", "version_seen", "baseline"]
    from_severity: Severity | None
    severity: Severity
    condition: Literal["firing", "resolved"] | None
    reason: str | None
    time_ms: int
    drift_event: str


CLOUD_EVENT_TYPES = {
    DriftEvent: "dev.driftline.drift.v1",
    Alert: "dev.driftline.alert.v1",
    Transition: "dev.driftline.transition.v1",
}
