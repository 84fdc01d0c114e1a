"""What other programs read: drift events, alerts, incidents, snapshots, dead letters; and the prediction and label they send.

JSON on the wire; times are Unix milliseconds in fields that end in `_ms`, RFC 3339 in CloudEvents headers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Severity = Literal["info", "warning", "critical"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction as `driftline.publish` sends it; other shapes are mapped by the configuration."""

    id: Name
    time: str | int | float | None = None
    model: Name
    version: str | None = None
    features: dict[str, float | str | bool | list[float] | None]
    score: float | list[float] | None = None
    class_: str | int | None = msgspec.field(default=None, name="class")
    latency_ms: float | None = None
    error: str | bool | None = None
    sample_weight: float | None = None
    segments: dict[str, str] | None = None


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """The truth about an earlier prediction, joined by `id`."""

    id: Name
    time: str | int | float | None = None
    label: float | str | bool
    model: str | None = None


class Position(msgspec.Struct, frozen=True):
    """A source record: the prediction or label topic, never one of ours."""

    topic: Name
    partition: Count
    offset: Count


class Since(msgspec.Struct, frozen=True):
    """Where a change began: the last indexed record at or before it.

    Attributes
    ----------
    earliest_ms, latest_ms : ends of the 95 % interval of when it began, where its detector has one; `earliest_ms` is None too where
        that is further back than records are indexed.
    """

    position: Position
    time_ms: int
    earliest_ms: int | None = None
    latest_ms: int | None = None


class BinShare(msgspec.Struct, frozen=True):
    """One bin of the evidence: its share in the baseline and in the window, and what it adds to PSI."""

    bin: str
    expected: float
    observed: float
    contribution: float


class Statistic(msgspec.Struct, frozen=True):
    """The window under one statistic: its value, what chance alone would make of it, and how likely that much is by chance.

    Over bins, categories and 0/1: ``psi``, ``chi_squared``, ``kl``, ``jensen_shannon``, ``hellinger``. Over the order of
    numbers: ``ks``, ``wasserstein``, ``cramer_von_mises``.
    """

    name: Name
    value: float
    size: float
    null_level: float
    n_eff: float
    p: Share | None


class Effect(msgspec.Struct, frozen=True):
    """How large: ``psi`` (sum), ``mean`` (baseline standard deviations), ``rate`` (relative change), ``mmd`` (joint distance of a block).

    A baseline rate below the monitor's `rate_floor` counts as that.
    """

    kind: Literal["psi", "mean", "rate", "mmd", "silence"]
    size: float


class Suspended(msgspec.Struct, frozen=True, kw_only=True):
    """Why a budget of false alarms does not cover a series now: its values depend on each other, or on the hour of the day.

    Values `lag` apart have this correlation, beyond that of values eight times as far apart; one value in `one_in` is judged. Where
    the cause is the hour, `lag` and `one_in` are the values of a day, and the correlation is the hours' share of the variance.
    """

    lag: Annotated[int, msgspec.Meta(ge=1)]
    correlation: float
    one_in: Annotated[int, msgspec.Meta(ge=2)]
    cause: Literal["dependence", "hour_effect"] = "dependence"


class MovedShare(msgspec.Struct, frozen=True):
    """A segment value's share in the baseline and in the window."""

    segment: dict[str, str]
    expected: Share
    observed: Share


class TrafficParts(msgspec.Struct, frozen=True):
    """An effect over all rows in two parts, on the scale of `effect.size`.

    `mix` is what the shares of the values of segment key `by` make of it, `within` what changed within them. Of means and rates they
    add up to it; of PSI `mix` is the baseline weighted to the window's shares against the baseline, `within` the window against that.
    """

    by: Name
    mix: float
    within: float
    moved: list[MovedShare]


class VersionSeen(msgspec.Struct, frozen=True):
    """A further version of the model, and the event time of its first row."""

    version: Name
    time_ms: int


class SeriesDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One series in which rows are not as what they were compared with.

    `p` is the chance of that without a difference, times all series that were looked at.
    """

    series: Name
    effect: Effect
    value: float | None
    baseline_value: float | None
    median: float | None
    baseline_median: float | None
    n: Count
    p: Share


class ChangedAgain(msgspec.Struct, frozen=True, kw_only=True):
    """A further change of a series whose episode is open, against the level since the one before; the event's `since` dates it.

    Its `value_before` and `effect` are as the event's `value` and `effect`, which are against the baseline.
    """

    number: Annotated[int, msgspec.Meta(ge=2)]
    value_before: float
    effect: Effect
    median_before: float | None = None
    correlation_before: float | None = None


class DriftEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change in one series of one model: it opens an episode, adds evidence to it, or ends it."""

    id: Name
    kind: Literal["drift", "evidence", "recovery", "version_seen", "baseline", "baseline_mismatch", "version_shift"]
    environment: Name
    model: Name
    version: str | None
    monitor: Name
    series: Name
    segment: dict[str, str] | None
    episode: Name
    detector: str
    statistic: float | None
    threshold: float | None
    value: float | None
    baseline_value: float | None
    effect: Effect | None
    direction: Literal["up", "down"] | None
    severity: Severity
    n: Count
    window: Count
    baseline: str | None
    position: Position
    since: Since | None
    time_ms: int
    record_time_ms: int
    bins: list[BinShare]
    statistics: list[Statistic] = []
    reason: str | None = None
    historical: bool = False
    provisional: bool = False
    age_ms: Count | None = None
    state: Literal["rebuilt"] | None = None
    suspended: Suspended | None = None
    median: float | None = None
    baseline_median: float | None = None
    pair_correlation: float | None = None
    baseline_correlation: float | None = None
    cause: Literal["traffic_mix"] | None = None
    traffic: TrafficParts | None = None
    differences: list[SeriesDifference] = []
    near: VersionSeen | None = None
    again: ChangedAgain | None = None


class SeriesLevel(msgspec.Struct, frozen=True, kw_only=True):
    """One series in a snapshot; a quantity the series does not have is null."""

    series: Name
    n: Count
    mean: float | None
    baseline_mean: float | None
    psi: float | None
    psi_threshold: float | None
    rate: float | None
    baseline_rate: float | None
    statistic: float | None
    threshold: float | None
    open: bool
    psi_null: float | None = None
    statistics: list[Statistic] = []
    suspended: Suspended | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one panel scope every `snapshot_every` events."""

    environment: Name
    model: Name
    version: str | None
    panel: Literal["features", "scores", "outcomes"]
    segment: dict[str, str] | None
    state: Literal["learning", "watching"]
    rows: Count
    learn_rows: Count
    baseline: str | None
    position: Position
    time_ms: int
    series: list[SeriesLevel]
    age_ms: Count | None = None
    mismatched: list[Name] = []


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of one alert; key = fingerprint, readers ignore a `seq` not above the last of the same episode."""

    fingerprint: Name
    episode: Name
    seq: Count
    environment: Name
    model: Name
    monitor: Name
    series: Name
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
    incident: Name | None = None


class LevelSince(msgspec.Struct, frozen=True, kw_only=True):
    """The level since a change, as it was at `time_ms`, when that was found; of `n` values."""

    value: float | None
    effect: Effect | None
    n: Count
    time_ms: int


class Blamed(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of an incident, with the figures that set its severity.

    `since_change` stands where these are of a whole window, in which the rows since the change may be few.
    """

    fingerprint: Name
    episode: Name
    monitor: Name
    series: Name
    segment: dict[str, str] | None
    condition: Literal["firing", "resolved"]
    severity: Severity
    effect: Effect | None
    value: float | None
    baseline_value: float | None
    direction: Literal["up", "down"] | None
    starts_at_ms: int
    detected_at_ms: int
    ends_at_ms: int | None
    cause: Literal["traffic_mix"] | None = None
    near: VersionSeen | None = None
    changes: Count = 1
    changed_at_ms: int | None = None
    since_change: LevelSince | None = None


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts of one model whose changes began together, as one; key = id, readers ignore a `seq` not above the last."""

    id: Name
    seq: Count
    environment: Name
    model: Name
    condition: Literal["firing", "resolved"]
    severity: Severity
    max_severity: Severity
    hint: Literal["suspected_concept"] | None
    starts_at_ms: int
    uncertain_ms: Count
    detected_at_ms: int
    ends_at_ms: int | None
    duration_ms: Count | None
    observed_at_ms: int
    reason: str | None
    owner: str | None
    summary: str
    alerts: Count
    firing: Count
    blamed: list[Blamed]
    more: Count
    historical: bool = False


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One step in an alert's life, or (condition null) a note beside it: a new version, a new baseline; append-only."""

    fingerprint: Name
    episode: Name
    seq: Count
    model: Name
    change: Literal["opened", "severity", "evidence", "resolved", "version_seen", "baseline", "baseline_mismatch", "version_shift"]
    from_severity: Severity | None
    severity: Severity
    condition: Literal["firing", "resolved"] | None
    reason: str | None
    time_ms: int
    drift_event: Name
    incident: Name | None = None


CLOUD_EVENT_TYPES = {
    DriftEvent: "dev.driftline.drift.v1",
    Alert: "dev.driftline.alert.v1",
    Incident: "dev.driftline.incident.v1",
    Transition: "dev.driftline.transition.v1",
}
