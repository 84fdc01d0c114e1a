"""Which series a model has and who watches them: from the configuration to the panels' columns.

A panel is a set of columns with one baseline: ``features`` (across versions), ``scores`` (per version) and
``outcomes`` (per version and label age). The first monitor whose globs match a series owns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, Literal

from driftline.detectors.openers import E_DETECTOR
from driftline.detectors.spec import Column, ColumnDetector, Direction, Kind, PanelBudget, PanelSpec, Series
from driftline.schemas.budget import REFERENCE_ERRORS, parse_false_alarms, parts, version_share
from driftline.schemas.config import DEFAULT_MONITORS, Config, Fields, Model, Monitor
from driftline.schemas.effects import Setting, settings
from driftline.schemas.places import keys_of_feature
from driftline.schemas.series import block_series, correlation_series, longest_window
from driftline.schemas.stream_series import INVALID_ROWS, LABEL_DELAY, LABELLED_ROWS

PanelKind = Literal["features", "scores", "outcomes"]

_UP_SERIES: Final = (
    "quality:*",
    "service:*",
    "outcome:log_loss",
    "outcome:absolute_error",
    "outcome:miss",
    "outcome:false_alarm",
    "outcome:wrong",
    LABEL_DELAY,
    INVALID_ROWS,
)
_DOWN_SERIES: Final = (LABELLED_ROWS,)
LATENCY_TAILS: Final = (0.95, 0.99)
RIVER_BINARY: Final = frozenset({"river.DDM", "river.EDDM", "river.FHDDM", "river.HDDM_A", "river.HDDM_W", "river.HDDMA", "river.HDDMW"})
CLASSES_WATCHED: Final = 20
"""Most classes with a share series of their own; the class column itself covers the rest."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What is watched of one model.

    Attributes
    ----------
    monitors : in the file's order; disabled ones stay in the list so that their series go unwatched, not to others.
    settings : what decides the meaning of its series, for comparison with a later start.
    topics : of predictions; None = not known, any may come.
    labelled : whether any topic of labels is configured.
    gone : why it gets no more rows; empty = it does.
    sources : where the events of each source keep what is read.
    """

    name: str
    model: Model
    monitors: tuple[Monitor, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    topics: frozenset[str] | None = None
    labelled: bool = True
    gone: str = ""
    sources: tuple[Fields, ...] = ()

    @classmethod
    def of(cls, name: str, model: Model, config: Config | None = None) -> ModelPlan:
        monitors = tuple(model.monitors) if model.monitors is not None else DEFAULT_MONITORS
        if config is None:
            return cls(name, model, monitors)
        topics = frozenset(source.topic for source in config.predictions)
        sources = tuple(source.fields for source in config.predictions)
        return cls(name, model, monitors, settings(config, name), topics, bool(config.labels), sources=sources)

    @classmethod
    def of_former(cls, name: str) -> ModelPlan:
        """Of a model that the configuration no longer names: it watches nothing."""
        return cls(name, Model(), (), gone="closed because the model is no longer configured, not because it recovered")

    def left_out(self, kind: PanelKind, age_ms: int | None) -> str:
        """Why a panel gets no more rows under this configuration; empty = it does."""
        if self.gone or kind != "outcomes":
            return self.gone
        if not self.labelled:
            return "closed because no labels are configured any more, not because it recovered"
        if ("auto" if age_ms is None else age_ms) in self.model.labels.ages:
            return ""
        return "closed because labels.ages no longer has this age, not because it recovered"

    def monitor_of(self, series: str) -> Monitor | None:
        """The monitor that owns a series, or None when nobody watches it."""
        for monitor in self.monitors:
            if any(fnmatchcase(series, glob) for glob in monitor.series):
                return monitor if monitor.enabled else None
        return None

    def panel(self, kind: PanelKind, *, rank: int = 1) -> PanelSpec:
        """The columns of one panel; feature names that are not configured are learned with the baseline.

        Parameters
        ----------
        rank : counted from 1, which version of its kind and age this panel is of.
        """
        model = self.model
        pairs: tuple[Column, ...] = ()
        if kind == "features":
            pairs = (*(self.correlation(*pair) for pair in model.correlations), *map(self.block, model.blocks))
        if kind == "features":
            declared = model.features
            own = (*(self.feature(n, f.kind) for n, f in (declared or {}).items()), *pairs, self._invalid_rows())
            columns = None if declared is None else own
        else:
            columns = tuple(self._score_columns() if kind == "scores" else self._outcome_columns())
        return PanelSpec(
            columns=columns,
            column_factory=self.learned if kind == "features" else None,
            pairs=pairs,
            segments={key: segment.max for key, segment in model.segments.items()},
            window=longest_window(model),
            learn_rows=model.baseline.learn,
            stale_ms=model.stale,
            budget=self._budget(kind, rank),
            grouping=model.baseline.season,
        )

    def _budget(self, kind: PanelKind, rank: int) -> PanelBudget | None:
        """The part of the model's budget that one panel may spend."""
        if self.model.false_alarms is None:
            return None
        allowed = parse_false_alarms(self.model.false_alarms)
        # Every age has a ledger of its own, and all have the same share: which one this is does not matter.
        ages = self.model.labels.ages if self.labelled else ()
        share = next((part.share for part in parts(ages) if part.panel == kind), 0.0)
        share *= version_share(rank) if kind != "features" else 1.0
        return PanelBudget(allowed.per_unit * share, allowed.by_events, allowed.cap, REFERENCE_ERRORS)

    def relearn_after(self, kind: PanelKind, column: str) -> int | None:
        """Values judged since a change from which on a column learns its reference anew; None = it is kept."""
        declared = (self.model.features or {}).get(column) if kind == "features" else None
        said = self.model.after_change if declared is None or declared.after_change is None else declared.after_change
        return None if said == "keep" else said.relearn_after

    @property
    def lengths(self) -> dict[str, int]:
        """The declared length of each vector."""
        return {name: feature.length for name, feature in (self.model.features or {}).items() if feature.length is not None}

    def learned(self, name: str, kind: Kind) -> Column:
        """The column of a feature that the configuration does not name."""
        return self._invalid_rows() if name == INVALID_ROWS else self.feature(name, kind)

    def feature(self, name: str, kind: Kind | Literal["vector"]) -> Column:
        """One feature's distribution and mean, and the rates of what is wrong with it; of a vector those rates alone."""
        keys = keys_of_feature(self.model, self.sources, name)
        if kind == "vector":
            series = [self.series(f"quality:{name}:{flag}", flag) for flag in ("missing", "invalid")]
            return Column(name=name, kind="binary", series=_watched(series), own_keys=keys, width=self.lengths[name])
        last = "unseen" if kind == "categorical" else "out_of_range"
        flags = ("missing", "invalid", last, "constant")
        series = [self.series(f"feature:{name}", None), *(self.series(f"quality:{name}:{flag}", flag) for flag in flags)]
        return Column(name=name, kind=kind, series=_watched(series), own_keys=keys)

    def correlation(self, first: str, second: str) -> Column:
        """The product of two features' standardised values."""
        name, (first, second) = correlation_series(first, second), sorted((first, second))
        return Column(name=name, kind="numeric", series=_watched([self.series(name, None)]), factors=(first, second))

    def block(self, name: str) -> Column:
        """What the values of a block are together."""
        series = self.series(block_series(name), None)
        if series is not None:
            monitor = self.monitor_of(series.name)
            assert monitor is not None
            warning, critical = monitor.severity.of_blocks
            # A distance has one side.
            series = replace(series, warning=warning, critical=critical, direction="up")
        factors = tuple(sorted(self.model.blocks[name].features))
        width = self.lengths.get(factors[0], 0)
        return Column(name=block_series(name), kind="numeric", series=_watched([series]), factors=factors, joint=True, width=width)

    def series(self, name: str, flag: str | None) -> Series | None:
        """A series with the detectors of its monitor; None when it is not watched."""
        monitor = self.monitor_of(name)
        if monitor is None:
            return None
        detectors = tuple(
            ColumnDetector(name=d.name, input=d.input, params=d.params, alert=d.alert) for d in monitor.detectors if _fits(d.name, flag)
        )
        if self.model.false_alarms is not None and flag != "constant":
            detectors = (*detectors, ColumnDetector(E_DETECTOR))
        warning, critical = (monitor.severity.warning, monitor.severity.critical) if flag is None else monitor.severity.of_rates
        return Series(
            name=name,
            flag=flag,
            detectors=detectors,
            window=monitor.window or self.model.window,
            run_length=monitor.run_length,
            direction=monitor.direction or _default_direction(name),
            warning=warning,
            critical=critical,
            rate_floor=monitor.severity.rate_floor,
            owner=monitor.id,
        )

    def _invalid_rows(self) -> Column:
        return Column(name=INVALID_ROWS, kind="binary", series=_watched([self.series(INVALID_ROWS, "one")]))

    def _score_columns(self) -> list[Column]:
        numeric = ["score"] if self.model.task != "multiclass" else ["confidence", "entropy"]
        columns = [Column(name=n, kind="numeric", series=_watched([self.series(n, None)])) for n in numeric]
        if self.model.task != "regression":
            shares = [self.series(f"class_share:{c}", f"value:{c}") for c in self._classes()]
            columns.append(Column(name="class", kind="categorical", series=_watched([self.series("class", None), *shares])))
        if self.model.task == "binary" and self.model.decision is not None:
            columns.append(self._binary("decision"))
        latency = [self.series("service:latency", None)]
        latency += [self.series(f"service:latency_p{round(tail * 100)}", f"tail:{tail}") for tail in LATENCY_TAILS]
        columns.append(Column(name="service:latency", kind="numeric", series=_watched(latency), tails=LATENCY_TAILS))
        columns.append(self._binary("service:error"))
        return columns

    def _outcome_columns(self) -> list[Column]:
        task = self.model.task
        numeric = {
            "binary": ["outcome:log_loss", "outcome:residual"],
            "multiclass": ["outcome:log_loss"],
            "regression": ["outcome:error", "outcome:absolute_error"],
        }[task]
        binary = {"binary": ["outcome:miss", "outcome:false_alarm"], "multiclass": ["outcome:wrong"], "regression": []}[task]
        columns = [Column(name=n, kind="numeric", series=_watched([self.series(n, None)])) for n in [*numeric, LABEL_DELAY]]
        columns += [self._binary(n) for n in [*binary, LABELLED_ROWS]]
        if task == "multiclass":
            shares = [self.series(f"outcome:class:{c}", f"value:{c}") for c in self._classes()]
            columns.append(Column(name="outcome:class", kind="categorical", series=_watched([self.series("outcome:class", None), *shares])))
        return columns

    def _binary(self, name: str) -> Column:
        return Column(name=name, kind="binary", series=_watched([self.series(name, "one")]))

    def _classes(self) -> Sequence[str]:
        return (getattr(self.model, "classes", None) or [])[:CLASSES_WATCHED]


def _watched(series: Sequence[Series | None]) -> tuple[Series, ...]:
    return tuple(s for s in series if s is not None)


def _fits(detector: str, flag: str | None) -> bool:
    """Whether a detector applies: `rate` and river's detectors of errors to 0/1 series, ours to the rest, river's others to both."""
    if detector in RIVER_BINARY:
        return flag is not None
    return detector.startswith("river.") or (detector == "rate") == (flag is not None)


def _default_direction(series: str) -> Direction:
    if any(fnmatchcase(series, glob) for glob in _UP_SERIES):
        return "up"
    return "down" if series in _DOWN_SERIES else "both"
