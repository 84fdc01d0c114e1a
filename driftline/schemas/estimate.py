"""What a configuration will cost: series, Redis, topics and CPU, before anything runs.

A pure function of the file (and of baselines, where they are known). The figures are for sizing: half or double is as
good as they get, because compression, batch sizes and the machine decide the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from driftline.schemas.config import Config, FeatureKind, Model
from driftline.schemas.series import Group, Series, longest_window, model_series, monitors_of, owners, pair_of
from driftline.schemas.stream_series import INVALID_ROWS, LABEL_SERIES
from driftline.schemas.topics import DRIFT, LABELS, OBSERVATIONS, SNAPSHOTS, WAITING, retention_ms

PanelName = Literal["features", "scores", "outcomes"]

DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Costs:
    """The constants, each with its source; one table, so that a new measurement has one place to go."""

    # Kernels, nanoseconds per value of one series in one scope: prototypes on one x86 core, see docs/benchmarks.md.
    adwin_ns: float = 38.0  # measured 30-45
    page_hinkley_ns: float = 5.0  # measured 3-6
    chart_ns: float = 7.0  # CUSUM and EWMA: 1.0 to 1.4 of Page-Hinkley, measured together
    psi_ns: float = 42.0  # measured 30-55
    rate_ns: float = 10.0  # three bets a side, the order of two Page-Hinkley updates
    e_detector_ns: float = 205.0  # score or residual, self-check, bets and date
    river_ns: float = 2_000.0  # a class of river that RIVER_NS does not have
    ring_ns: float = 6.0  # writing a code, counting it in and the oldest out
    code_ns: float = 25.0  # binary search over at most 60 edges, once a value whatever the scopes; a correlation takes three

    block_us: float = 1.2  # 64 sines and cosines, the witness and its update; a row of a block
    block_value_us: float = 0.0125  # and 64 products for each of its values

    # Fixed work in microseconds: stages of a prototype of ingest, join and detect on a real broker.
    poll_us: float = 3.8  # a prediction and its label through librdkafka, both directions
    decode_us: float = 2.4  # typed decode of a prediction without its features, and of a label
    decode_feature_us: float = 0.13  # (1.9 + 0.8) us for 20 features
    observation_us: float = 1.4  # Arrow batch out
    waiting_us: float = 1.9  # waiting and label rows split by the hash of the id
    join_us: float = 3.3  # label cache and outcome rows, per age
    arrow_read_us: float = 0.6  # an observation row in

    # Redis.
    ring_capacity: int = 2  # a ring holds window + slack, and slack is one window: three commits must fit in it
    ring_header_bytes: int = 16
    traffic_bytes: int = 2  # of a row and segment key, beside the codes of all rows
    checkpoints_kept: int = 3  # blobs of that many checkpoints stand side by side
    adwin_bytes: int = 1_250  # 5 buckets of (sum, variance) in each of about 14 rows (10^5 values), and moments
    page_hinkley_bytes: int = 76
    chart_bytes: int = 60  # CUSUM and EWMA: 7 float64, framed
    psi_bytes: int = 64
    rate_bytes: int = 72
    counts_bytes: int = 268  # 67 codes, int32
    e_detector_bytes: int = 1_700  # 14 bets, 4 starts, about a dozen corners of a hull; self-check and memory are 1,000 of it
    river_bytes: int = 120_000  # 10,000 to 20,000 float64, which are replayed; fewer while it keeps raising alarms
    key_bytes: int = 180  # a Redis key with its name and the server's own overhead
    label_bytes: int = 136  # a label that waits for its prediction: 120 and the id's 16

    # Topics, bytes a row after lz4.
    waiting_row_bytes: int = 60
    label_row_bytes: int = 40
    observation_row_bytes: int = 36  # position, two times, version, class, latency
    numeric_bytes: int = 7  # a float64 of real data under lz4
    vector_value_bytes: int = 4  # a float32, which does not compress
    categorical_bytes: int = 2  # a dictionary code
    outcome_row_bytes: int = 44
    snapshot_series_bytes: int = 95  # about 340 bytes of JSON before compression
    drift_event_bytes: int = 2_400  # 2.1 KB of JSON and headers; too few come at once to be compressed


COSTS: Final = Costs()
RIVER_NS: Final[Mapping[str, float]] = {
    "ADWIN": 1_500.0,
    "DDM": 2_200.0,
    "EDDM": 1_200.0,
    "FHDDM": 1_900.0,
    "HDDMA": 18_000.0,
    "HDDMW": 16_000.0,
    "KSWIN": 500_000.0,
    "PageHinkley": 1_500.0,
}
"""Nanoseconds per value of river 0.26's classes with their defaults, as we call them: processor time of 50,000 values of
a steady stream (KSWIN 2,000) on one x86 core, with the rebuilds from the values kept."""
FEATURES_ASSUMED: Final = 20
"""Features of a model that neither the file nor a baseline names."""
AUTO_AGE_SECONDS: Final = DAY_SECONDS
"""The age assumed for `auto`, which is measured later."""
POSITIVES_ASSUMED: Final = 0.01
"""Share of predictions that a label comes for where `labels.absent` is set; elsewhere all."""


@dataclass(frozen=True, slots=True)
class KnownBaseline:
    """What a baseline tells beyond the file: its features, how many values of each segment key were admitted, and what goes by the hour."""

    features: Mapping[str, FeatureKind]
    segments: Mapping[str, int] = field(default_factory=dict)
    grouping: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """One model.

    Attributes
    ----------
    series_by_group : watched series in one scope; outcomes for one age.
    scopes : all rows, and each segment value and each key's `other`.
    series : watched series over all scopes and ages.
    features_known : False when the features are still to be learned and `FEATURES_ASSUMED` were counted.
    cpu_us : microseconds per prediction with its label.
    """

    model: str
    series_by_group: Mapping[Group, int]
    scopes: int
    series: int
    features: int
    features_known: bool
    ring_bytes: int
    state_bytes: int
    cpu_us: float

    @property
    def redis_bytes(self) -> int:
        """Windows and detectors' state, without waiting labels."""
        return self.ring_bytes + self.state_bytes


@dataclass(frozen=True, slots=True)
class TopicEstimate:
    """One topic of ours: what is appended a day, and what stands in it at full retention (times replication)."""

    topic: str
    bytes_per_day: int
    bytes_kept: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A whole file at a rate of predictions, spread evenly over the models.

    Attributes
    ----------
    waiting_label_bytes : Redis, if every label came at once with its prediction; less the later they come.
        Where `labels.absent` is set only one prediction in a hundred is taken to have one.
    cores : processor cores kept busy at the rate.
    """

    events_per_second: float
    models: tuple[ModelEstimate, ...]
    topics: tuple[TopicEstimate, ...]
    waiting_label_bytes: int

    @property
    def series(self) -> int:
        """Watched series of all models."""
        return sum(model.series for model in self.models)

    @property
    def redis_bytes(self) -> int:
        """All that Redis holds at most."""
        return self.waiting_label_bytes + sum(model.redis_bytes for model in self.models)

    @property
    def topic_bytes_per_day(self) -> int:
        """Appended to topics of ours a day."""
        return sum(topic.bytes_per_day for topic in self.topics)

    @property
    def cpu_us_per_event(self) -> float:
        """Mean over the models."""
        return sum(model.cpu_us for model in self.models) / len(self.models)

    @property
    def cores(self) -> float:
        """Cores kept busy at this rate."""
        return self.cpu_us_per_event * self.events_per_second / 1e6


def estimate(
    config: Config, baselines: Mapping[str, KnownBaseline] | None = None, *, events_per_second: float = 1_000.0, costs: Costs = COSTS
) -> Estimate:
    """The cost of a configuration.

    Parameters
    ----------
    baselines : by model name; a model without one is counted from the file, learned features as `FEATURES_ASSUMED`.
    events_per_second : predictions of all models together.
    """
    known = baselines or {}
    parts = [_Part.of(config, name, model, known.get(name)) for name, model in config.models.items()]
    share = events_per_second / len(parts)
    return Estimate(
        events_per_second=events_per_second,
        models=tuple(part.estimate(config, costs) for part in parts),
        topics=_topics(config, parts, share, costs),
        waiting_label_bytes=round(sum(part.label_seconds * share * costs.label_bytes for part in parts)) if config.labels else 0,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """One model with what the counts need."""

    name: str
    model: Model
    features: Mapping[str, FeatureKind]
    features_known: bool
    scopes: int
    panels: Mapping[PanelName, tuple[Series, ...]]

    @classmethod
    def of(cls, config: Config, name: str, model: Model, known: KnownBaseline | None) -> _Part:
        features: Mapping[str, FeatureKind]
        if known is not None:
            features = known.features
        elif model.features is not None:
            features = {key: feature.kind for key, feature in model.features.items()}
        else:
            features = {f"feature{i}": "numeric" for i in range(FEATURES_ASSUMED)}
        admitted = {} if known is None else known.segments
        scopes = 1 + sum(admitted.get(key, segment.max) + 1 for key, segment in model.segments.items())
        series = model_series(config, model, dict(features))
        owner = owners(series, monitors_of(model))
        watched = [one for one in series if one.name in owner and owner[one.name].enabled]
        panels: dict[PanelName, tuple[Series, ...]] = {
            "features": tuple(s for s in watched if s.group in ("features", "quality") or s.name == INVALID_ROWS),
            "scores": tuple(s for s in watched if s.group in ("scores", "service")),
            "outcomes": tuple(s for s in watched if s.group == "outcomes" or s.name in LABEL_SERIES),
        }
        return cls(name, model, features, known is not None or model.features is not None, scopes, panels)

    @property
    def ages(self) -> int:
        return len(self.model.labels.ages)

    @property
    def labelled(self) -> float:
        return 1.0 if self.model.labels.absent is None else POSITIVES_ASSUMED

    @property
    def label_seconds(self) -> float:
        """How long a prediction's label waits at most, summed over the ages, which keep a cache each."""
        return self.labelled * sum(AUTO_AGE_SECONDS if age == "auto" else int(age) / 1_000 for age in self.model.labels.ages)

    @property
    def window(self) -> int:
        return longest_window(self.model)

    def copies(self, panel: PanelName) -> int:
        return self.ages if panel == "outcomes" else 1

    def estimate(self, config: Config, costs: Costs) -> ModelEstimate:
        groups: dict[Group, int] = {}
        for series in self.panels.values():
            for one in series:
                groups[one.group] = groups.get(one.group, 0) + 1
        columns = sum(self._columns(panel) * self.copies(panel) for panel in self.panels)
        panels = sum(self.copies(panel) for panel, series in self.panels.items() if series)
        row = self.window * costs.ring_capacity
        state = sum(self._state_bytes(series, costs) * self.copies(panel) for panel, series in self.panels.items())
        keys = panels * self.scopes * costs.key_bytes
        traffic = costs.traffic_bytes * len(self.model.segments) * row
        return ModelEstimate(
            model=self.name,
            series_by_group=groups,
            scopes=self.scopes,
            series=self.series_total(),
            features=len(self.features),
            features_known=self.features_known,
            ring_bytes=columns * self.scopes * row + panels * (self.scopes * costs.ring_header_bytes + traffic) + keys,
            state_bytes=(state + columns * costs.counts_bytes) * self.scopes * costs.checkpoints_kept + keys,
            cpu_us=self._cpu_us(config, costs),
        )

    def series_total(self) -> int:
        blocks = sum(bool(one.joint) for one in self.panels["features"])
        return sum(len(series) * self.copies(panel) for panel, series in self.panels.items()) * self.scopes - blocks * (self.scopes - 1)

    def _columns(self, panel: PanelName) -> int:
        return len({one.column for one in self.panels[panel]})

    def _detectors(self, series: Iterable[Series]) -> dict[str, int]:
        """Detector to the number of these series that it watches; ``rate`` watches 0/1 series, ours besides it the others."""
        owner = owners(series, monitors_of(self.model))
        counts: dict[str, int] = {}
        for one in series:
            if self.model.false_alarms is not None and not one.name.endswith(":constant"):
                counts["e_detector"] = counts.get("e_detector", 0) + 1
            for spec in owner[one.name].detectors:
                if spec.name.startswith("river.") or (spec.name == "rate") == one.rate:
                    counts[spec.name] = counts.get(spec.name, 0) + 1
        return counts

    def _state_bytes(self, series: Iterable[Series], costs: Costs) -> int:
        each = {
            "adwin": costs.adwin_bytes,
            "page_hinkley": costs.page_hinkley_bytes,
            "cusum": costs.chart_bytes,
            "ewma": costs.chart_bytes,
            "psi": costs.psi_bytes,
            "rate": costs.rate_bytes,
            "e_detector": costs.e_detector_bytes,
        }
        return sum(each.get(name, costs.river_bytes) * count for name, count in self._detectors(series).items())

    def _cpu_us(self, config: Config, costs: Costs) -> float:
        each = {
            "adwin": costs.adwin_ns,
            "page_hinkley": costs.page_hinkley_ns,
            "cusum": costs.chart_ns,
            "ewma": costs.chart_ns,
            "psi": costs.psi_ns,
            "rate": costs.rate_ns,
            "e_detector": costs.e_detector_ns,
            **{f"river.{name}": ns for name, ns in RIVER_NS.items()},
        }
        scopes_of_a_row = 1 + len(self.model.segments)
        total = costs.poll_us + costs.decode_us + costs.decode_feature_us * len(self.features) + costs.observation_us + costs.arrow_read_us
        if config.labels:
            total += costs.waiting_us + (costs.join_us + costs.arrow_read_us) * self.ages
        for panel, series in self.panels.items():
            columns = self._columns(panel)
            kernels = sum(each.get(name, costs.river_ns) * count for name, count in self._detectors(series).items())
            kernels += columns * costs.ring_ns
            codes = columns + 2 * sum(bool(pair_of(one.name)) for one in series)
            total += sum(costs.block_us + costs.block_value_us * one.joint for one in series if one.joint)
            total += (codes * costs.code_ns + kernels * scopes_of_a_row) * self.copies(panel) / 1_000
        return total


def series_count(config: Config, name: str) -> int:
    """Watched series of a model over all segment values and ages, by the file alone."""
    return _Part.of(config, name, config.models[name], None).series_total()


def _topics(config: Config, parts: list[_Part], share: float, costs: Costs) -> tuple[TopicEstimate, ...]:
    """Topics in the order of the way of an event; `share` is one model's rate."""
    rows = share * DAY_SECONDS
    observations = sum(rows * _observation_bytes(part, costs) for part in parts)
    snapshots = sum(rows / part.model.snapshot_every * _snapshot_bytes(part, costs) for part in parts)
    alarms = sum(rows * part.series_total() * 2 / 1e8 for part in parts)
    sizes = [(OBSERVATIONS, observations), (DRIFT, alarms * costs.drift_event_bytes), (SNAPSHOTS, snapshots)]
    if config.labels:
        outcomes = sum(rows * (costs.outcome_row_bytes + _unit_bytes(part, costs)) * part.ages for part in parts)
        sizes[0] = (OBSERVATIONS, observations + outcomes)
        sizes[1:1] = [
            (WAITING, rows * sum(costs.waiting_row_bytes + _unit_bytes(part, costs) for part in parts)),
            (LABELS, rows * sum(part.labelled for part in parts) * costs.label_row_bytes),
        ]
    return tuple(
        TopicEstimate(
            topic=topic.full_name(config.topics.prefix),
            bytes_per_day=round(size),
            bytes_kept=round(size * retention_ms(topic, config.greatest_age_ms) / 86_400_000) * config.topics.replication,
        )
        for topic, size in sizes
    )


def _observation_bytes(part: _Part, costs: Costs) -> int:
    numeric = sum(kind == "numeric" for kind in part.features.values())
    vectors = [feature.length or 0 for feature in (part.model.features or {}).values() if feature.kind == "vector"]
    categorical = len(part.features) - numeric - len(vectors) + len(part.model.segments)
    row = costs.observation_row_bytes + _unit_bytes(part, costs)
    return row + numeric * costs.numeric_bytes + categorical * costs.categorical_bytes + sum(vectors) * costs.vector_value_bytes


def _unit_bytes(part: _Part, costs: Costs) -> int:
    return 0 if part.model.unit is None else costs.numeric_bytes


def _snapshot_bytes(part: _Part, costs: Costs) -> int:
    """Bytes of the snapshots that one round of `snapshot_every` rows leads to: a row is in 1 + keys scopes."""
    series = sum(len(one) * part.copies(panel) for panel, one in part.panels.items())
    return series * (1 + len(part.model.segments)) * costs.snapshot_series_bytes
