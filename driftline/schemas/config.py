"""The configuration model: one YAML file, every field with its unit and default.

`loading.py` reads the file and reports every error at once; this module only says what a valid file is.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

Severity = Literal["info", "warning", "critical"]
TimeUnit = Literal["auto", "iso", "s", "ms", "us"]
FeatureKind = Literal["numeric", "categorical"]
Direction = Literal["up", "down", "both"]

TOPIC_PATTERN = r"^[A-Za-z0-9._-]{1,249}$"
"""Kafka's own rule for topic names."""

_DURATION = re.compile(r"^\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|m|h|d|w)\s*$", re.ASCII)
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION_MAX_MS = 100 * 365 * 86_400_000


def parse_duration_ms(value: object) -> int:
    """Milliseconds of ``"250ms"``, ``"10s"``, ``"5m"``, ``"24h"``, ``"45d"``, ``"2w"``; an integer is milliseconds.

    Raises
    ------
    ValueError : anything else; the message names the accepted forms.
    """
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is not None:
        value = round(float(match[1]) * _DURATION_MS[match[2]])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _DURATION_MAX_MS:
        raise ValueError('expected a duration such as "10s", "5m", "24h" or "45d"')
    return value


def check_start(value: str) -> str:
    """`value` itself when it says where to start reading.

    Raises
    ------
    ValueError : neither ``now``, ``earliest``, a negative duration nor an ISO time with a zone.
    """
    if value in ("now", "earliest"):
        return value
    try:
        if value.startswith("-"):
            parse_duration_ms(value[1:])
            return value
        if datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None:
            return value
    except ValueError:
        pass
    raise ValueError('expected "now", "earliest", "-24h" (any duration) or an ISO time with a zone such as "2026-01-31T00:00:00Z"')


_DURATION_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d|w)\s*$"}]}

DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), WithJsonSchema(_DURATION_SCHEMA)]
TopicName = Annotated[str, Field(pattern=TOPIC_PATTERN)]


class Section(BaseModel):
    """A part of the file; unknown keys are refused and nothing is coerced from text silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SecretRef(Section):
    """A secret by reference: the environment variable or the file that holds it; never the value itself."""

    env: str | None = None
    file: str | None = None


class Kafka(Section):
    """How to reach Kafka."""

    bootstrap: str = "localhost:9092"
    properties: dict[str, str | int | float | bool | SecretRef] = Field(
        default_factory=dict, description="any librdkafka property; secrets as {env: NAME} or {file: PATH}"
    )
    guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    group_prefix: str = Field("driftline", description="prefix of consumer groups and transactional ids")
    group_protocol: Literal["classic", "consumer"] = "classic"
    commit_interval: DurationMs = Field(100, ge=10, le=5_000, description="time between commits of a busy worker")
    commit_rows: int = Field(20_000, ge=1, description="most input records in one commit")
    transaction_timeout: DurationMs = Field(15_000, ge=1_000)


class Redis(Section):
    """How to reach Redis."""

    url: str | SecretRef = "redis://localhost:6379/0"
    key_prefix: str = "driftline"


class Topics(Section):
    """Names of our own topics; `prefix` starts every one of them."""

    prefix: str = Field("driftline", pattern=r"^[A-Za-z0-9._-]{1,200}$")
    partitions: int = Field(4, ge=1, le=10_000, description="partitions of observations, waiting and labels")
    replication: int = Field(1, ge=1, description="replication factor of created topics")


class Fields(Section):
    """Where an event keeps what Driftline needs.

    A path is dotted (``payload.txn.id``); ``header:NAME`` reads a record header, ``key`` the record key,
    ``topic`` the topic's name, ``const:VALUE`` a fixed value. ``features`` is the object (or the list of
    ``{name, value}``, or the unnamed vector when ``feature_names`` is given) that holds the features;
    an empty string means the top level of the event.
    """

    id: str = "id"
    time: str | None = Field("time", description="event time; null = record time")
    time_unit: TimeUnit = "auto"
    model: str = "model"
    version: str | None = "version"
    features: str = "features"
    feature_names: list[str] | None = None
    score: str | None = "score"
    class_: str | None = Field("class", alias="class")
    latency_ms: str | None = "latency_ms"
    error: str | None = Field("error", description="true or non-empty when the service failed")
    weight: str | None = Field("sample_weight", description="the producer's sampling weight")

    model_config = ConfigDict(populate_by_name=True)


class LabelFields(Section):
    """Where a label event keeps its id, time, model and value."""

    id: str = "id"
    time: str | None = "time"
    time_unit: TimeUnit = "auto"
    model: str | None = Field(None, description="path of the model's name; null = the id alone joins")
    value: str = "label"


class PredictionSource(Section):
    """A topic of predictions and how to read it."""

    topic: TopicName
    fields: Fields = Field(default_factory=Fields)
    max_skew: DurationMs = Field(600_000, description="event time may lead record time by at most this")
    max_age: DurationMs = Field(30 * 86_400_000, description="event time may trail record time by at most this")


class LabelSource(Section):
    """A topic of labels and how to read it."""

    topic: TopicName
    fields: LabelFields = Field(default_factory=LabelFields)


class Feature(Section):
    """One feature: its kind, and its path if it is not under `fields.features`."""

    kind: FeatureKind
    path: str | None = None
    sensitive: bool = Field(False, description="only keyed hashes of the values appear in bins and events")


class Segment(Section):
    """One segment key: a feature's name or a path; the top `max` values get series of their own."""

    path: str | None = Field(None, description="default: the feature of this name, else the event's field of this name")
    max: int = Field(50, ge=1, le=10_000)
    sensitive: bool = False


def _auto() -> list[int | Literal["auto"]]:
    return ["auto"]


class Labels(Section):
    """How labels join: at fixed ages, in prediction order."""

    ages: list[DurationMs | Literal["auto"]] = Field(default_factory=_auto, min_length=1, max_length=4)
    absent: float | str | None = Field(None, description="the label of a prediction that none came for by its age")
    min_join: float = Field(0.5, ge=0, le=1, description="share of predictions with a label below which an event is raised")


class BaselineSource(Section):
    """The reference: a file made by `driftline baseline build`, or the first `learn` live events."""

    file: str | None = None
    learn: int = Field(5_000, ge=100, le=1_000_000, description="events to learn from when there is no file")
    settle: DurationMs = Field(86_400_000, description="event time for which a learned baseline is provisional: severity at most info")


class DetectorSpec(Section):
    """A detector by name with its parameters, for example ``{name: adwin, delta: 0.002, input: raw}``."""

    name: str = Field(description="psi, adwin, page_hinkley, rate, river.ADWIN or any class of river.drift")
    input: Literal["score", "raw"] = Field("score", description="score = standardised by the baseline")
    params: dict[str, Any] = Field(default_factory=dict)


class Levels(Section):
    """Effect sizes from which an event is a warning or critical; below `warning` it is info."""

    warning: float = Field(0.1, ge=0)
    critical: float = Field(0.25, ge=0)


class Monitor(Section):
    """Which series are watched, by what, and how loud."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    series: list[str] = Field(min_length=1, description='globs over series names, e.g. "feature:*", "score", "outcome:log_loss"')
    detectors: list[DetectorSpec] = Field(default_factory=lambda: _detectors("psi", "adwin", "page_hinkley", "rate"), min_length=1)
    window: int | None = Field(None, ge=30, le=1_000_000, description="events; default: the model's window")
    run_length: float = Field(1e8, ge=100, description="mean events between false alarms, per series and detector")
    severity: Levels = Field(default_factory=Levels)
    direction: Direction | None = None
    enabled: bool = True


class Model(Section):
    """One model: what it sends and how it is watched."""

    owner: str | None = None
    task: Literal["binary", "multiclass", "regression"] = "binary"
    features: dict[str, Feature] | None = Field(None, description="null = learned from the first events")
    classes: list[str] | None = Field(None, description="names of a probability vector's entries, in order; multiclass only")
    decision: float | None = Field(0.5, description="score from which the answer is yes; binary only")
    segments: dict[str, Segment] = Field(default_factory=dict)
    labels: Labels = Field(default_factory=Labels)
    baseline: BaselineSource = Field(default_factory=BaselineSource)
    window: int = Field(5_000, ge=30, le=1_000_000, description="events in a sliding window")
    series_max: int = Field(20_000, ge=1, description="refuse a file that implies more series than this")
    snapshot_every: int = Field(1_000, ge=10, description="events between snapshots of a panel")
    freshness: DurationMs | None = Field(300_000, description="silence of this length is an event; null = never")
    monitors: list[Monitor] | None = Field(None, description="null = `DEFAULT_MONITORS`")


class Http(Section):
    """Health and metrics: the first processor listens on `port`, the next ones on the ports after it; 0 = off."""

    host: str = "127.0.0.1"
    port: int = Field(9464, ge=0, le=65_000)


class Config(Section):
    """A whole file."""

    version: Literal[1] = 1
    environment: str = Field("default", pattern=r"^[A-Za-z0-9._-]+$")
    kafka: Kafka = Field(default_factory=Kafka)
    redis: Redis = Field(default_factory=Redis)
    topics: Topics = Field(default_factory=Topics)
    start: Annotated[str, AfterValidator(check_start)] = Field("-24h", description="now, earliest, -24h (any duration) or an ISO time")
    unknown_models: Literal["skip", "dead_letter"] = "skip"
    predictions: list[PredictionSource] = Field(min_length=1)
    labels: list[LabelSource] = Field(default_factory=list)
    models: dict[str, Model] = Field(min_length=1)
    http: Http = Field(default_factory=Http)


def _detectors(*names: str) -> list[DetectorSpec]:
    return [DetectorSpec(name=name) for name in names]


DEFAULT_MONITORS: tuple[Monitor, ...] = (
    Monitor(id="feature_drift", series=["feature:*"], detectors=_detectors("psi", "adwin", "page_hinkley")),
    Monitor(id="data_quality", series=["quality:*"], detectors=_detectors("rate"), severity=Levels(warning=0.2, critical=1.0)),
    Monitor(id="score_drift", series=["score", "class", "confidence", "entropy"], detectors=_detectors("psi", "adwin", "page_hinkley")),
    Monitor(
        id="decision_rate",
        series=["decision", "class_share:*"],
        detectors=_detectors("rate"),
        severity=Levels(warning=0.2, critical=0.5),
    ),
    Monitor(id="performance", series=["outcome:*"], detectors=_detectors("psi", "adwin", "page_hinkley", "rate")),
    Monitor(id="service", series=["service:*"], detectors=_detectors("adwin", "page_hinkley", "rate")),
    Monitor(id="stream", series=["stream:*"], detectors=_detectors("rate", "page_hinkley")),
)
"""What a model without `monitors` gets; the first monitor whose globs match a series owns it."""
