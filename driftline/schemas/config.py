"""The configuration model: one YAML file, every field with its unit and default.

`loading.py` reads the file and reports every error at once; this module only says what a valid file is.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from driftline.schemas.after_change import Relearn
from driftline.schemas.section import Section
from driftline.schemas.values import DurationMs, TimeMs, TopicName, check_false_alarms, check_start

Severity = Literal["info", "warning", "critical"]
TimeUnit = Literal["auto", "iso", "s", "ms", "us"]
FeatureKind = Literal["numeric", "categorical", "vector"]
Direction = Literal["up", "down", "both"]


class SecretRef(Section):
    """A secret by reference: the environment variable or the file that holds it; never the value itself."""

    env: str | None = Field(None, description="environment variable that holds it")
    file: str | None = Field(None, description="file that holds it; a newline at its end does not count")


class Kafka(Section):
    """How to reach Kafka."""

    bootstrap: str = Field("localhost:9092", description="host:port of one or more brokers, comma-separated")
    properties: dict[str, str | int | float | bool | SecretRef] = Field(
        default_factory=dict, description="any librdkafka property; secrets as {env: NAME} or {file: PATH}"
    )
    guarantee: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once", description="at_least_once commits without transactions: after a crash events may come twice, with the same id"
    )
    group_prefix: str = Field("driftline", description="prefix of consumer groups and transactional ids; default: that of the topics")
    group_protocol: Literal["classic", "consumer"] = Field("classic", description="consumer = the protocol of KIP-848, brokers from 4.0")
    commit_interval: DurationMs = Field(100, ge=10, le=5_000, description="least time from one commit to the next")
    commit_interval_behind: DurationMs = Field(
        500, ge=10, le=5_000, description="the same while a worker is behind by four commits' worth: fewer commits cost less"
    )
    commit_rows: int = Field(20_000, ge=1, description="most input records in one commit")
    transaction_timeout: DurationMs = Field(
        15_000, ge=1_000, description="after it the broker aborts a dead worker's transaction; a paused worker stalls readers up to this"
    )


class Redis(Section):
    """How to reach Redis."""

    url: str | SecretRef = Field(
        "redis://localhost:6379/0", description="redis://, rediss:// (TLS) or unix://; a secret reference where it holds a password"
    )
    username: str | None = Field(None, description="ACL user; null = default")
    password: SecretRef | None = Field(None, description="of the user, as {env: NAME} or {file: PATH}; any characters")
    ca_file: str | None = Field(None, description="rediss: authorities to trust beside the system's, PEM")
    certificate_file: str | None = Field(None, description="rediss: this client's certificate, PEM, where the server asks for one")
    key_file: str | None = Field(None, description="rediss: its key, PEM, without a password")
    key_prefix: str = Field("driftline", description="starts every key")


class Topics(Section):
    """Names of our own topics; `prefix` starts every one of them."""

    prefix: str = Field("driftline", pattern=r"^[A-Za-z0-9._-]{1,200}$", description="starts the name of each of our topics, before a dot")
    partitions: int = Field(4, ge=1, le=10_000, description="partitions of all of our topics but dlq, which has one")
    replication: int = Field(1, ge=1, description="replication factor of created topics")


class Fields(Section):
    """Where an event keeps what Driftline needs.

    A path is dotted (``payload.txn.id``); ``header:NAME`` reads a record header, ``key`` the record key,
    ``topic`` the topic's name, ``const:VALUE`` a fixed value. ``features`` is the object (or the list of
    ``{name, value}``, or the unnamed vector when ``feature_names`` is given) that holds the features;
    an empty string means the top level of the event.
    """

    id: str = Field("id", description="the prediction's id, text or integer; labels name it")
    time: str | None = Field("time", description="event time; null = record time")
    time_unit: TimeUnit = Field("auto", description="of numeric times; auto goes by magnitude")
    model: str = Field("model", description="the model's name")
    version: str | None = Field("version", description="the model's version; score and outcome series are kept per version")
    features: str = Field("features", description="the object, list or vector of features; empty = the top level")
    feature_names: list[str] | None = Field(None, description="names of an unnamed vector, in order")
    score: str | None = Field("score", description="probability, regression output, or vector of probabilities")
    class_: str | None = Field("class", alias="class", description="the class answered")
    latency_ms: str | None = Field("latency_ms", description="time the service took, in milliseconds")
    error: str | None = Field("error", description="true or non-empty when the service failed")
    weight: str | None = Field("sample_weight", description="the producer's sampling weight")

    model_config = ConfigDict(populate_by_name=True)


class LabelFields(Section):
    """Where a label event keeps its id, time, model and value."""

    id: str = Field("id", description="id of the prediction that this label is for")
    time: str | None = Field("time", description="informative; the join goes by record time")
    time_unit: TimeUnit = Field("auto", description="of numeric times; auto goes by magnitude")
    model: str | None = Field(
        None,
        description="path of the model's name; null = the id alone joins, and with several models the join keeps each label "
        "for the age, or 10m if that is longer, as it may be another model's too",
    )
    value: str = Field("label", description="0 and 1, true and false, a number, or a class")


class PredictionSource(Section):
    """A topic of predictions and how to read it."""

    topic: TopicName = Field(description="a topic of yours")
    fields: Fields = Field(default_factory=Fields, description="where an event keeps what is needed")
    max_skew: DurationMs = Field(
        600_000,
        description="event time may lead record time by at most this, else record time stands for it; "
        "a record time that leads all before it by more (by more than 1m at least) counts only if the next record confirms it",
    )
    max_age: DurationMs = Field(
        30 * 86_400_000, description="event time may trail record time by at most this, else record time stands for it"
    )


class LabelSource(Section):
    """A topic of labels and how to read it."""

    topic: TopicName = Field(description="a topic of yours")
    fields: LabelFields = Field(default_factory=LabelFields, description="where an event keeps what is needed")


class Feature(Section):
    """One feature: its kind, and its path if it is not under `fields.features`."""

    kind: FeatureKind = Field(description="numeric, categorical, or vector: a list of numbers, such as an embedding, for a block")
    length: int | None = Field(None, ge=2, le=4_096, description="numbers of a vector; a list of another length is invalid")
    path: str | None = Field(None, description="default: its name under the source's fields.features")
    sensitive: bool = Field(False, description="its values leave ingest only as hashes keyed by hash_key; categorical features only")
    accepted: str | None = Field(
        None, description="your word that what it is like now is right, for example a date and why; another text, another reference"
    )
    after_change: Literal["keep"] | Relearn | None = Field(None, description="as the model's, for this feature; null = the model's")


class Block(Section):
    """Features that are watched jointly, for a change that none of them shows by itself."""

    features: list[str] = Field(min_length=1, max_length=256, description="two or more numeric features, in any order, or one vector")


class Segment(Section):
    """One segment key: a feature's name or a path; the top `max` values get series of their own."""

    path: str | None = Field(
        None, description="default: the feature of this name, else the event's field of this name, else segments.NAME (driftline.publish)"
    )
    max: int = Field(50, ge=1, le=10_000, description="values with series of their own; the rest share other")
    sensitive: bool = Field(False, description="its values leave ingest only as hashes keyed by hash_key")


def _auto() -> list[int | Literal["auto"]]:
    return ["auto"]


class Labels(Section):
    """How labels join: at fixed ages, in prediction order."""

    ages: list[DurationMs | Literal["auto"]] = Field(
        default_factory=_auto,
        min_length=1,
        max_length=4,
        description="how old a prediction is when the label known by then counts; auto = the delay's 95th percentile, measured once",
    )
    absent: float | str | None = Field(None, description="the label of a prediction that none came for by its age")
    min_join: float = Field(0.5, ge=0, le=1, description="share of predictions with a label below which an event is raised; 0 = never")

    @property
    def join_watched(self) -> bool:
        """Whether `min_join` is judged: where `absent` gives the rest a label, few are normal unless the file says otherwise."""
        return self.min_join > 0 and (self.absent is None or "min_join" in self.model_fields_set)


class BaselineSource(Section):
    """The reference: a file made by `driftline baseline build`, or the first `learn` live events."""

    file: str | None = Field(None, description="relative to this file; null = learn")
    learn: int = Field(5_000, ge=100, le=1_000_000, description="events to learn from without a file, and for what is not in it or unfit")
    compare: bool = Field(True, description="compare the file with the first 1000 rows (200 to window, if less), learn what does not fit")
    season: Literal["auto", "hour_of_day", "hour_of_week", "none"] = Field(
        "auto", description="under false_alarms, judge values against the reference's of their hour (UTC); auto = where its hours differ"
    )
    accepted: str | None = Field(
        None, description="your word that what the model gets and answers now is right; another text, other references of all its series"
    )
    settle: DurationMs = Field(86_400_000, description="event time for which a learned baseline is provisional: severity at most info")


class Expected(Section):
    """A time in which rows are known to be unlike the others: they are counted and joined, and no series sees them."""

    from_: TimeMs = Field(alias="from", description="event time of the first such row, ISO with a zone")
    to: TimeMs = Field(description="event time of the first row after it, ISO with a zone")
    reason: str = Field("", description="for people")


class DetectorSpec(Section):
    """A detector by name with its parameters, for example ``{name: adwin, delta: 0.002, input: raw}``."""

    name: str = Field(description="psi, adwin, page_hinkley, cusum, ewma, rate, river.ADWIN or any class of river.drift")
    input: Literal["score", "raw"] = Field("score", description="score = standardised by the baseline")
    params: dict[str, Any] = Field(default_factory=dict, description="the detector's parameters; they may also stand beside name")
    alert: bool = Field(False, description="under false_alarms: it opens episodes too, not covered by the budget")


def _detectors(*names: str) -> list[DetectorSpec]:
    return [DetectorSpec(name=name) for name in names]


def _all_detectors() -> list[DetectorSpec]:
    return _detectors("psi", "adwin", "page_hinkley", "rate")


class Levels(Section):
    """Effect sizes from which an event is a warning or critical; below `warning` it is info."""

    warning: float = Field(
        0.1, ge=0, description="effect size: PSI, standard deviations, or change of a rate (if not set, rates 0.2, blocks 0.02)"
    )
    critical: float = Field(0.25, ge=0, description="effect size, at least warning (if not set, rates 1, blocks 0.1)")
    rate_floor: float = Field(0.01, gt=0, le=1, description="a change of a rate is relative to the baseline's, or to this if that is less")

    @property
    def of_rates(self) -> tuple[float, float]:
        """Warning and critical of 0/1 series: what is set, else 20 % and a doubling."""
        return self._instead(0.2, 1.0)

    @property
    def of_blocks(self) -> tuple[float, float]:
        """Warning and critical of blocks: what is set, else what all features that move by .03 and .17 standard deviations make."""
        return self._instead(0.02, 0.1)

    def _instead(self, warning: float, critical: float) -> tuple[float, float]:
        """What is set, else these."""
        critical = self.critical if "critical" in self.model_fields_set else critical
        return self.warning if "warning" in self.model_fields_set else min(warning, critical), critical


class Monitor(Section):
    """Which series are watched, by what, and how loud."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="unique in the model; part of every alert's fingerprint")
    series: list[str] = Field(min_length=1, description='globs over series names, e.g. "feature:*", "score", "outcome:log_loss"')
    detectors: list[DetectorSpec] = Field(
        default_factory=_all_detectors, min_length=1, description="rate applies to 0/1 series, the others to values"
    )
    window: int | None = Field(None, ge=30, le=1_000_000, description="events; default: the model's window")
    run_length: float = Field(1e8, ge=100, description="mean events between false alarms, per series and detector")
    severity: Levels = Field(default_factory=Levels, description="effect sizes that make an event a warning or critical")
    direction: Direction | None = Field(None, description="null = up for losses, latency and data quality, else both")
    enabled: bool = Field(True, description="false = its series go unwatched")


class Model(Section):
    """One model: what it sends and how it is watched."""

    owner: str | None = Field(None, description="a team or person; stands in alerts")
    task: Literal["binary", "multiclass", "regression"] = Field("binary", description="what the score and the label are")
    features: dict[str, Feature] | None = Field(None, description="null = learned from the first events")
    correlations: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        default_factory=list, description="pairs of numeric features whose correlation is watched beside them, for example [[amount, age]]"
    )
    blocks: dict[str, Block] = Field(
        default_factory=dict, description="groups of numeric features that are watched jointly, for example {card: [amount, age, n_items]}"
    )
    classes: list[str] | None = Field(None, description="names of a probability vector's entries, in order; multiclass only")
    decision: float | None = Field(0.5, description="score from which the answer is yes; binary only")
    segments: dict[str, Segment] = Field(default_factory=dict, description="values that get series of their own")
    unit: str | None = Field(
        None,
        description="what a row is of, for example the card or the user: a feature's name, a path, or segments.NAME (driftline.publish); "
        "at most one row of each is watched in `unit_window`, as rows of one unit are no independent evidence",
    )
    unit_window: Annotated[DurationMs, Field(ge=1_000)] = Field(
        3_600_000, description="event time in which one row of a unit is enough; the first such time only learns who is there"
    )
    labels: Labels = Field(default_factory=Labels, description="how labels join")
    baseline: BaselineSource = Field(default_factory=BaselineSource, description="what is compared with")
    expected: list[Expected] = Field(default_factory=list, description="times that say nothing of the others, such as a sale")
    after_change: Literal["keep"] | Relearn = Field(
        "keep", description="what becomes of a reference after a change that stays: kept, or learned anew, {relearn_after: 20000}"
    )
    window: int = Field(5_000, ge=30, le=1_000_000, description="events in a sliding window")
    false_alarms: Annotated[str, AfterValidator(check_false_alarms)] | None = Field(
        None,
        description='at most so many over all series, for example "1 per week" or "1 per 100000 events"; '
        "null = each detector goes by its run_length",
    )
    series_max: int = Field(20_000, ge=1, description="refuse a file that implies more series than this")
    snapshot_every: int = Field(5_000, ge=10, description="events between snapshots of a panel, and of each segment value in it")
    freshness: DurationMs | None = Field(300_000, description="silence of this length is an event; null = never")
    # 3 days: a nightly batch and a weekend without traffic are not the end of a version or segment value.
    stale: Annotated[DurationMs, Field(ge=1_000)] | None = Field(
        259_200_000, description="an open episode whose version or segment value had no events so long is closed; null = never"
    )
    # 5 minutes: a rolling deployment takes that long, and who is called to one of two changes so close looks at both.
    gather: DurationMs = Field(
        300_000, description="alerts whose changes began within so long of each other, beside what their dates are off by, are one incident"
    )
    monitors: list[Monitor] | None = Field(
        None, description="null = the default monitors; the first whose globs match a series owns it"
    )


class Http(Section):
    """Health and metrics: the first processor listens on `port`, the next ones on the ports after it; 0 = off."""

    host: str = Field("127.0.0.1", description="interface")
    port: int = Field(9464, ge=0, le=65_000, description="of the first processor; 0 = off")
    stalled_after: Annotated[DurationMs, Field(ge=1_000)] = Field(
        60_000, description="a partition with records to do that nothing is committed of for so long makes /readyz fail, and is logged"
    )


_DECISIVE = frozenset({"environment", "unknown_models", "predictions", "labels", "models"})


class Config(Section):
    """A whole file."""

    version: Literal[1] = Field(1, description="of this format")
    environment: str = Field(
        "default", pattern=r"^[A-Za-z0-9._-]+$", description="this installation, for example production; part of every event id"
    )
    kafka: Kafka = Field(default_factory=Kafka, description="how to reach Kafka")
    redis: Redis = Field(default_factory=Redis, description="how to reach Redis")
    topics: Topics = Field(default_factory=Topics, description="our own topics")
    start: Annotated[str, AfterValidator(check_start)] = Field("-24h", description="now, earliest, -24h (any duration) or an ISO time")
    unknown_models: Literal["skip", "dead_letter"] = Field(
        "skip", description="events of models that this file does not name: count them, or dead-letter them"
    )
    hash_key: SecretRef | None = Field(
        None, description="key of the hashes that stand for sensitive values, as {env: NAME} or {file: PATH}; another key, other hashes"
    )
    predictions: list[PredictionSource] = Field(min_length=1, description="topics of predictions")
    labels: list[LabelSource] = Field(default_factory=list, description="topics of labels; none = no outcome series")
    models: dict[str, Model] = Field(min_length=1, description="by the name that stands in the events")
    http: Http = Field(default_factory=Http, description="health and metrics")

    @property
    def decisive(self) -> bytes:
        """What decides outcomes and events, as JSON; how services are reached, and secrets, are not in it. `under` reads it."""
        return self.model_dump_json(include=set(_DECISIVE), exclude_unset=True, by_alias=True).encode()

    @property
    def digest(self) -> str:
        """12 hex digits of `decisive` and of the defaults that fill it."""
        # Both: whether a level was set or is the default makes a difference for rates.
        return hashlib.sha256(self.model_dump_json(include=set(_DECISIVE)).encode() + self.decisive).hexdigest()[:12]

    def under(self, decisive: bytes) -> Config:
        """The same file with what decided outcomes and events at another time.

        Raises
        ------
        ValueError : not of `decisive`, or of a release with other keys.
        """
        rest = json.loads(self.model_dump_json(exclude=set(_DECISIVE), exclude_unset=True, by_alias=True))
        return Config.model_validate_json(json.dumps(rest | json.loads(decisive)))

    @property
    def greatest_age_ms(self) -> int:
        """The greatest label age that stands in the file; 0 without labels or where all are measured."""
        ages = [age for model in self.models.values() for age in model.labels.ages if age != "auto"]
        return max(ages, default=0) if self.labels else 0


DEFAULT_MONITORS: tuple[Monitor, ...] = (
    Monitor(id="feature_drift", series=["feature:*"], detectors=_detectors("psi", "adwin", "page_hinkley")),
    Monitor(id="correlation_drift", series=["correlation:*"], detectors=_detectors("psi", "adwin", "page_hinkley")),
    Monitor(id="block_drift", series=["block:*"], detectors=_detectors("adwin", "page_hinkley")),
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
