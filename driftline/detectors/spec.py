"""What a panel watches, what it is fed and what it says: plain values, shared by every module of this package.

Words: a *column* is one watched quantity of a row (a feature, a score, a loss); a *series* is a column seen in one way
(its distribution and mean, or a 0/1 flag derived from it) with the detectors that watch it; a *scope* is all rows, or
the rows of one segment value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from driftline.detectors.explained import BinEvidence, ChangedAgain, TrafficSplit, WindowStatistic

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt16 = npt.NDArray[np.uint16]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Kind = Literal["numeric", "categorical", "binary"]
Direction = Literal["up", "down", "both"]
Severity = Literal["info", "warning", "critical"]
EffectKind = Literal["psi", "mean", "rate", "mmd"]
Grouping = Literal["auto", "hour_of_day", "hour_of_week", "none"]

MAX_BINS: Final = 60
"""Codes 0..59 are quantile bins or categories by rank; 2/60 of the mass is the finest atom that gets a bin of its own."""
BELOW: Final = 62
OTHER: Final = 62
ABOVE: Final = 63
UNSEEN: Final = 63
MISSING: Final = 64
INVALID: Final = 65
NOT_APPLICABLE: Final = 66
N_CODES: Final = 67
OTHER_SEGMENT: Final = "other"
"""The scope of segment values that were not admitted, unseen ones included."""
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")


def ordered_codes(kind: str, n_bins: int) -> list[int]:
    """The codes of values in the order of their ranks, those beyond the reference's range included."""
    inner = range(n_bins)
    return [*inner, OTHER, UNSEEN] if kind == "categorical" else [BELOW, *inner, ABOVE]


class DetectorsError(ValueError):
    """Root of this package's errors."""


class SpecError(DetectorsError):
    """A panel specification that cannot be watched; names the column or series."""


class BaselineError(DetectorsError):
    """A baseline that is damaged, edited, of a newer version, or cannot be built."""


class StateError(DetectorsError):
    """A checkpoint that is damaged, of a newer version, or of another specification."""


@dataclass(frozen=True, slots=True)
class ColumnDetector:
    """A detector by name.

    It is ``psi``, ``adwin``, ``page_hinkley``, ``cusum``, ``ewma``, ``rate``, ``river.<class of river.drift>`` or ``e_detector``,
    which is what the panel's budget covers. `input`: ``score`` feeds the standardised score of the value's bin, ``raw`` the value
    itself. `alert`: under a budget it may open episodes although the budget does not cover it.
    """

    name: str
    input: str = "score"
    params: Mapping[str, Any] = field(default_factory=dict)
    alert: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """One way to look at a column.

    Attributes
    ----------
    flag : None = distribution and mean; ``missing``, ``invalid``, ``out_of_range``, ``unseen``, ``constant``,
        ``one`` (a binary column's share of ones), ``tail:Q`` (above the baseline's Q quantile; Q must stand in the
        column's `tails`), ``value:V`` (category V): a 0/1 series of the column's codes.
    window : rows of a scope that the level is measured over; at most the panel's ring.
    run_length : mean values between false alarms, per detector.
    warning, critical : effect sizes; mean in baseline standard deviations, PSI, rates relative to the baseline's.
    rate_floor : a baseline rate below this counts as this when a change is sized: 1 null more in a thousand is no "+2,000 %".
    owner : whom its events are for, by the caller's own name; an episode ends where another takes the series over.
    """

    name: str
    flag: str | None
    detectors: tuple[ColumnDetector, ...]
    window: int
    run_length: float = 1e8
    direction: Direction = "both"
    warning: float = 0.1
    critical: float = 0.25
    rate_floor: float = 0.01
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One watched quantity.

    Attributes
    ----------
    tails : quantiles that get a bin edge of their own (numeric only).
    factors : two numeric columns of the rows whose product is watched (`pairs.py`), or `joint` any number of them (`blocks.py`).
    own_keys : segment keys that have the column's own values: within one of them nothing of it can change, so they split none of its
        effects (`traffic.py`).
    width : numbers of the vector that it is of; 0 = of none, or of one of any length.
    """

    name: str
    kind: Kind
    series: tuple[Series, ...] = ()
    tails: tuple[float, ...] = ()
    factors: tuple[str, ...] = ()
    joint: bool = False
    own_keys: tuple[str, ...] = ()
    width: int = 0


REFERENCE_ERRORS = 4.0
"""Beyond so many the references of ten thousand series are not by chance."""


@dataclass(frozen=True, slots=True)
class PanelBudget:
    """False alarms that a panel may raise, over all its series and scopes.

    With it, an episode is opened by the series' ``e_detector``; other detectors are evidence in episodes that are open.

    Attributes
    ----------
    per_unit : false alarms that may be spent in a unit of the clock.
    by_rows : the clock counts the panel's rows; otherwise it is the time that rows come with, in milliseconds.
    cap : units that a gap between two values of a series counts at most, unless twice its usual gap is more.
    errors : standard errors of a frozen reference that are no change.
    """

    per_unit: float
    by_rows: bool
    cap: float
    errors: float = REFERENCE_ERRORS


@dataclass(frozen=True, slots=True)
class PanelSpec:
    """What a panel watches.

    Attributes
    ----------
    columns : or None: every numeric and categorical column of the learning rows, in order of name.
    column_factory : makes the Column of a discovered (name, kind); needed when `columns` is None.
    pairs : where columns are discovered, the columns with factors beside them, of factors that turn out to be numeric.
    segments : key -> most values with a scope of their own; the rest, and values never seen, share ``other``.
    window : rows kept per scope; no series' window may be longer.
    learn_rows : rows a baseline is learned from when none is given.
    stale_ms : an episode whose scope had no rows for longer than this ends; None = never.
    budget : false alarms; None = each detector goes by its own run length.
    sensitive : columns and segment keys whose values appear only as keyed hashes, made with `hash_key`.
    grouping : of the baseline that is learned, by the hours of its rows.
    whole : whether the scope of all rows is watched too; not where another panel watches it and this one has a further segment key.
    """

    columns: tuple[Column, ...] | None
    column_factory: Callable[[str, Kind], Column] | None = None
    pairs: tuple[Column, ...] = ()
    segments: Mapping[str, int] = field(default_factory=dict)
    window: int = 5_000
    learn_rows: int = 5_000
    stale_ms: int | None = None
    budget: PanelBudget | None = None
    sensitive: frozenset[str] = frozenset()
    hash_key: bytes = b""
    whole: bool = True
    grouping: Grouping = "auto"


@dataclass(frozen=True, slots=True)
class PanelRows:
    """Rows in stream order.

    Attributes
    ----------
    numeric : shape (n, len(numeric_names)); NaN = missing; binary columns stand here as 0 and 1.
    categorical : name -> (codes into values, -1 = missing; values).
    invalid : shape (m, 2), (row, index into numeric_names + list(categorical)): present, but of the wrong type.
    not_applicable : column -> mask; such a row does not count for the column at all.
    segments : key -> (codes, values); -1 (no value) and keys that are absent go to ``other``.
    source, offset, time_ms : where each row came from; `source` is the caller's own numbering.
    vectors : name -> shape (n, length), for blocks; a row is NaN where it has none. A column of its name stands in `numeric` too.
    """

    n: int
    numeric: Float64
    numeric_names: Sequence[str]
    categorical: Mapping[str, tuple[Int32, list[str]]]
    source: UInt16
    offset: Int64
    time_ms: Int64
    invalid: Int32 | None = None
    not_applicable: Mapping[str, Bool] = field(default_factory=dict)
    segments: Mapping[str, tuple[Int32, list[str]]] = field(default_factory=dict)
    vectors: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def slice(self, start: int, stop: int) -> PanelRows:
        """Rows `start` to `stop`; views, no copies."""
        if start == 0 and stop == self.n:
            return self
        part = np.s_[start:stop]
        invalid = self.invalid
        if invalid is not None:
            inside = (invalid[:, 0] >= start) & (invalid[:, 0] < stop)
            invalid = (invalid[inside] - np.array([start, 0])).astype(np.int32)
        return self._at(part, invalid)

    def take(self, rows: Int64) -> PanelRows:
        """These rows, ascending, as copies."""
        invalid = self.invalid
        if invalid is not None:
            place = np.full(self.n, -1, np.int32)
            place[rows] = np.arange(len(rows), dtype=np.int32)
            kept = place[invalid[:, 0]] >= 0
            invalid = np.column_stack((place[invalid[kept, 0]], invalid[kept, 1]))
        return self._at(rows, invalid)

    def _at(self, part: Any, invalid: Int32 | None) -> PanelRows:
        return PanelRows(
            n=len(self.offset[part]),
            numeric=self.numeric[part],
            numeric_names=self.numeric_names,
            categorical={name: (codes[part], values) for name, (codes, values) in self.categorical.items()},
            source=self.source[part],
            offset=self.offset[part],
            time_ms=self.time_ms[part],
            invalid=invalid,
            not_applicable={name: mask[part] for name, mask in self.not_applicable.items()},
            segments={key: (codes[part], values) for key, (codes, values) in self.segments.items()},
            vectors={name: vector[part] for name, vector in self.vectors.items()},
        )


@dataclass(frozen=True, slots=True)
class Anchor:
    """A row's position. `exact`: this very row; otherwise the last indexed row at or before it."""

    source: int
    offset: int
    time_ms: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Suspended:
    """Why the budget's promise does not cover a series just now, and how it is judged meanwhile.

    Attributes
    ----------
    lag : values so far apart depend on each other, nearer ones perhaps too; `correlation` is theirs when that was found, less that
        of values eight times as far apart.
    one_in : of so many values one is judged.
    cause : the hour of the day makes values a day apart alike: `lag` and `one_in` are the values of a day.
    """

    lag: int
    correlation: float
    one_in: int
    cause: Literal["dependence", "hour_effect"] = "dependence"


@dataclass(frozen=True, slots=True)
class Signal:
    """What a panel says at a row.

    Attributes
    ----------
    kind : ``open`` an episode began; ``evidence`` another detector, or a higher severity (`detector` is then ``severity``);
        ``recovery`` it ended (`detector` is ``level``, or ``stale`` where rows stopped); ``baseline`` learning ended (scope 0, column -1).
    row : index in the rows of this call.
    column : index into `Panel.columns`.
    statistic, threshold : the detector's; at a recovery the level and its band, or the seconds without rows.
    value, baseline_value : the level over `n` values (since the change, at most `window` rows), and the baseline's.
    effect_size : PSI, mean in baseline standard deviations, or change of a rate relative to the baseline's (at least `rate_floor`).
    since : where the change began, when the detector can tell; `between`: the times of the ends of its 95 % interval, in ms, where the
        detector has one. The first is None where it is further back than anchors are kept.
    episode : the row that opened the episode, exactly.
    median, baseline_median, correlation, baseline_correlation : in the series' own unit, over the same rows (`medians.py`).
    suspended : at this row, of a series that a budget covers otherwise. `again`: the evidence is a further change, since `since`.
    traffic : the two parts of the effect, over the same rows; None where it is of a segment value, or no parts can be told.
    """

    kind: Literal["open", "evidence", "recovery", "baseline"]
    row: int
    scope: int
    column: int
    series: str
    detector: str
    statistic: float | None
    threshold: float | None
    value: float | None
    baseline_value: float | None
    effect_kind: EffectKind | None
    effect_size: float | None
    direction: Literal["up", "down"] | None
    severity: Severity
    n: int
    window: int
    since: Anchor | None
    episode: Anchor
    bins: tuple[BinEvidence, ...] = ()
    statistics: tuple[WindowStatistic, ...] = ()
    reason: str | None = None
    suspended: Suspended | None = None
    median: float | None = None
    baseline_median: float | None = None
    correlation: float | None = None
    baseline_correlation: float | None = None
    traffic: TrafficSplit | None = None
    again: ChangedAgain | None = None
    between: tuple[int | None, int] | None = None


class Level(NamedTuple):
    """A series now, for snapshots; None where the series has no such quantity, or none that is finite, or too few values.

    `mean` is the window's mean of the standardised score (the baseline's is 0); `psi_null` is what PSI would be without drift;
    `statistic` and `threshold` are those of the detector nearest to its threshold; `statistics` are of an open episode's window.
    """

    series: str
    n: int
    mean: float | None
    baseline_mean: float | None
    psi: float | None
    psi_null: float | None
    psi_threshold: float | None
    rate: float | None
    baseline_rate: float | None
    statistic: float | None
    threshold: float | None
    open: bool
    statistics: tuple[WindowStatistic, ...] = ()
    suspended: Suspended | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """An open episode whose series, segment or panel is gone: it did not recover, and it must not stay open for ever.

    Attributes
    ----------
    segment : key and value; None = all rows.
    owner : of the series as it was.
    reason : why it ended, for people.
    """

    series: str
    segment: tuple[str, str] | None
    owner: str
    severity: Severity
    window: int
    episode: Anchor
    reason: str


@dataclass(frozen=True, slots=True)
class RingState:
    """The newest rows of one ring of fixed-size records; the same fields as `streams.task.RingWrite`."""

    name: str
    record_bytes: int
    window: int
    head: int
    rows: bytes
    full: bool = False
