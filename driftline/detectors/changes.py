"""The change detectors of a panel: which bank watches which series, on what input, at which threshold.

Every bank sees each series' values one after another, and nothing of the episodes, so batch cuts do not show. What a
detector is fed:

- a series of values: the standardised score of the value's bin under the scope's own reference, or the raw value; where values
  go by the hour, of the bin in which it would be among those of all hours (`matched.py`);
- a 0/1 series: 0 or 1. Page-Hinkley, CUSUM and EWMA then go by the rate's standard deviation, and are left out where the
  rate is within .05 of 0 or 1: there two events in a row already look like a shift of the mean.

Categorical columns have no mean: all of these but PSI pass over their series of values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from driftline.detectors.banks import DATING_BANKS, Banks, ValueBank, Watch, group_of, refuse_parameters
from driftline.detectors.kernels.bank import Alarms
from driftline.detectors.kernels.jit import compiled
from driftline.detectors.layout import SKIP, Layout
from driftline.detectors.openers import E_DETECTOR
from driftline.detectors.spec import ColumnDetector, Float64, Int32, Int64, Series, SpecError, UInt8
from driftline.detectors.tables import Tables
from driftline.detectors.window_dates import BY_MEAN, DATED
from driftline.detectors.windows import CHANGE

_SCORE: Final = 0
_RAW: Final = 1
_FLAG: Final = 2

_THRESHOLDS: Final = {
    "adwin": ("delta",),
    "page_hinkley": ("threshold", "mode", "min_instances"),
    "cusum": ("threshold", "mode"),
    "ewma": ("threshold", "mode"),
}
"""Parameters that decide when a detector speaks, not what it remembers."""

Feed = tuple[int, int, int]
"""Kind of input, column, series (0 but for flags)."""


@dataclass(frozen=True, slots=True)
class _Fed:
    """A bank, the feeds it takes and whose alarms its columns are; feeds None = all, as they stand."""

    bank: ValueBank
    feeds: Int64 | None
    watches: Sequence[Watch]


class ChangeDetectors:
    """All change detectors of a panel."""

    def __init__(self, layout: Layout, tables: Tables) -> None:
        self._layout, self._tables = layout, tables
        banks = Banks(layout, tables)
        self._feeds: dict[Feed, int] = {}
        self._fed: list[_Fed] = []
        groups: dict[tuple[Any, ...], list[tuple[Watch, ColumnDetector]]] = {}
        rated: list[Watch] = []
        for q, series in enumerate(layout.series):
            for place, detector in enumerate(series.detectors):
                if detector.name in ("psi", E_DETECTOR) or series.flag == "constant":
                    refuse_parameters(series, detector, allowed=())
                elif detector.name == "rate":
                    refuse_parameters(series, detector, allowed=())
                    if series.flag is not None:
                        rated.append((q, place))
                elif series.flag is not None or tables.has_mean[q]:
                    groups.setdefault(group_of(series, detector), []).append(((q, place), detector))
        taken = [[self._feed(layout, q, detector) for (q, _), detector in members] for members in groups.values()]
        for ((family, *_), members), feeds in zip(groups.items(), taken, strict=True):
            own = None if feeds == list(range(len(self._feeds))) else np.array(feeds, np.int64)
            self._fed.append(_Fed(banks.makers[family](members), own, [watch for watch, _ in members]))
        self._rated = rated
        self._rates = banks.rate(rated) if rated else None
        self._kinds = np.array([feed[0] for feed in self._feeds], np.int64)
        self._columns = np.array([feed[1] for feed in self._feeds], np.int64)
        self._series = np.array([feed[2] for feed in self._feeds], np.int64)

    def update(self, codes: UInt8, matched: UInt8, values: Float64, scopes: Int32) -> Alarms:
        """Take a batch; alarms of dtype CHANGE by row, scope, series, detector.

        Parameters
        ----------
        codes, values : shape (n, C). `matched` : those of `matched.py`, (n, K or 1, C), for scores. `scopes` : (n, K).
        """
        parts = []
        for k in range(scopes.shape[1] if self._fed else 0):
            column = np.ascontiguousarray(scopes[:, k : k + 1])
            fed = np.empty((len(codes), len(self._feeds)))
            own = np.ascontiguousarray(matched[:, min(k, matched.shape[1] - 1)])
            _fill_feeds(own, values, column, self._kinds, self._columns, self._series, self._tables.score, self._tables.flags, fed)
            for member in self._fed:
                alarms = member.bank.update(_chosen(fed, member.feeds), column)
                # ADWIN keeps values from before the change in its window, and river tells no start at all.
                parts.append(_by_series(alarms, member.watches, dated=isinstance(member.bank, DATING_BANKS)))
        if self._rates is not None:
            parts.append(_by_series(self._rates.update(codes, scopes), self._rated, dated=True))
        return sorted_changes(parts)

    def export(self, scope: int) -> list[bytes]:
        """The state of one scope, a bank each."""
        blobs = [member.bank.export(scope) for member in self._fed]
        return blobs if self._rates is None else [*blobs, self._rates.export(scope)]

    def restore(self, scope: int, blobs: Sequence[bytes]) -> None:
        """Go on from `export`.

        Raises
        ------
        ValueError : damaged, or of other detectors.
        """
        banks = [member.bank for member in self._fed] + ([] if self._rates is None else [self._rates])
        if len(blobs) != len(banks):
            raise ValueError(f"expected the state of {len(banks)} banks, got {len(blobs)}")
        for bank, blob in zip(banks, blobs, strict=True):
            bank.restore(scope, blob)

    def carry(self, other: ChangeDetectors, scopes: Sequence[tuple[int, int]], series: Mapping[int, int]) -> None:
        """Go on with the detectors of another panel that are as they were; the rest begin anew.

        Parameters
        ----------
        scopes : this panel's and the other's, in pairs.
        series : this panel's to the other's.
        """
        there = other._members()
        for (q, detector, copy), (bank, column) in self._members().items():
            found = there.get((series[q], detector, copy)) if q in series else None
            if found is None:
                continue
            for scope, from_scope in scopes:
                bank.take(scope, column, found[0], from_scope, found[1])

    def _members(self) -> dict[tuple[int, str, int], tuple[Any, int]]:
        """Bank and column of every detector: by series, what shapes its state, and which of several equal ones it is."""
        out: dict[tuple[int, str, int], tuple[Any, int]] = {}
        banks: list[tuple[Any, Sequence[Watch]]] = [(member.bank, member.watches) for member in self._fed]
        if self._rates is not None:
            banks.append((self._rates, self._rated))
        for bank, watches in banks:
            for column, (q, place) in enumerate(watches):
                out[(q, *places_of(self._layout.series[q])[place])] = (bank, column)
        return out

    def statistics(self, scope: int) -> dict[int, list[tuple[float, float]]]:
        """Running statistic and threshold, both finite, of the detectors that have one, by series."""
        out: dict[int, list[tuple[float, float]]] = {}
        for member in self._fed:
            if isinstance(member.bank, DATING_BANKS):
                found, limits = member.bank.running(scope)
                for (q, _), value, limit in zip(member.watches, found.tolist(), limits.tolist(), strict=True):
                    if 0 < limit < math.inf and math.isfinite(value):
                        out.setdefault(q, []).append((value, limit))
        if self._rates is not None:
            stakes = self._rates.stakes[scope].mean(axis=2).max(axis=1)
            for (q, _), value, limit in zip(self._rated, stakes.tolist(), self._rates.limits[scope].tolist(), strict=True):
                if limit < math.inf and math.isfinite(value):
                    out.setdefault(q, []).append((value, limit))
        return out

    def _feed(self, layout: Layout, q: int, detector: ColumnDetector) -> int:
        series, c = layout.series[q], layout.column_of[q]
        if detector.input not in ("score", "raw"):
            raise SpecError(f'series "{series.name}": detector {detector.name}: input: expected score or raw, got "{detector.input}"')
        if series.flag is not None:
            feed = (_FLAG, c, q)
        else:
            feed = (_RAW if detector.input == "raw" else _SCORE, c, 0)
        return self._feeds.setdefault(feed, len(self._feeds))


def places_of(series: Series) -> list[tuple[str, int]]:
    """What shapes the state of each detector of a series, and which of several equal ones it is.

    Thresholds do not: a detector goes on under another one.
    """
    out: list[tuple[str, int]] = []
    for detector in series.detectors:
        params = {name: value for name, value in detector.params.items() if name not in _THRESHOLDS.get(detector.name, ())}
        shape = json.dumps([detector.name, detector.input, params], sort_keys=True, default=str)
        out.append((shape, sum(shape == before for before, _ in out)))
    return out


def sorted_changes(parts: Sequence[Alarms]) -> Alarms:
    """Alarms of dtype CHANGE by row, scope, series, detector."""
    if not any(map(len, parts)):
        return np.zeros(0, CHANGE)
    changes = np.concatenate(parts)
    order = np.lexsort((changes["detector"], changes["series"], changes["scope"], changes["row"]))
    return changes[order]


def _by_series(alarms: Alarms, watches: Sequence[Watch], *, dated: bool) -> Alarms:
    out = np.zeros(len(alarms), CHANGE)
    if not len(alarms):
        return out
    out["dated"] = DATED if dated else BY_MEAN
    table = np.array(watches, np.int32)
    for name in ("row", "scope", "direction", "statistic", "threshold"):
        out[name] = alarms[name]
    out["back" if dated else "within"] = alarms["back"]
    out["series"] = table[alarms["column"], 0]
    out["detector"] = table[alarms["column"], 1]
    return out


def _chosen(fed: Float64, feeds: Int64 | None) -> Float64:
    return fed if feeds is None else np.ascontiguousarray(fed[:, feeds])


@compiled
def _fill_feeds(
    codes: UInt8,
    values: Float64,
    scopes: Int32,
    kinds: Int64,
    columns: Int64,
    series: Int64,
    score: Float64,
    flags: UInt8,
    out: Float64,
) -> None:
    """What each feed is on each row; NaN where the row has no value for it."""
    for i in range(codes.shape[0]):
        scope = scopes[i, 0]
        for m in range(kinds.shape[0]):
            c = columns[m]
            if kinds[m] == _SCORE:
                out[i, m] = score[scope, c, codes[i, c]]
            elif kinds[m] == _RAW:
                out[i, m] = values[i, c]
            else:
                flag = flags[series[m], codes[i, c]]
                out[i, m] = np.nan if flag == SKIP else float(flag)
