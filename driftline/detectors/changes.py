"""The change detectors of a panel: which bank watches which series, on what input, at which threshold.

Every bank sees each series' values one after another, and nothing of the episodes, so batch cuts do not show. What a
detector is fed:

- a series of values: the standardised score of the value's bin under the scope's own reference, or the raw value;
- a 0/1 series: 0 or 1. Page-Hinkley's parameters are then scaled by the series' standard deviation, and it is left out
  where the rate is within .05 of 0 or 1: there two events in a row already look like a shift of the mean.

Categorical columns have no mean: ADWIN, Page-Hinkley and river's detectors pass over their series of values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from driftline.detectors import calibration
from driftline.detectors.kernels.adwin import AdwinBank
from driftline.detectors.kernels.bank import Alarms
from driftline.detectors.kernels.jit import compiled
from driftline.detectors.kernels.page_hinkley import COUNT, DRIFTLINE_DELTA, FALLING, HIGHEST, LOWEST, MODES, RISING, PageHinkleyBank
from driftline.detectors.kernels.rate import DIRECTIONS, RateBank, rate_bound
from driftline.detectors.layout import SKIP, Layout
from driftline.detectors.openers import E_DETECTOR
from driftline.detectors.spec import ColumnDetector, Float64, Int32, Int64, Series, SpecError, UInt8
from driftline.detectors.tables import Tables
from driftline.detectors.windows import CHANGE

RATE_MARGIN: Final = 0.05
"""Page-Hinkley watches 0/1 series whose rate is at least this far from 0 and 1."""

_SCORE: Final = 0
_RAW: Final = 1
_FLAG: Final = 2

_THRESHOLDS: Final = {"adwin": ("delta",), "page_hinkley": ("threshold", "mode", "min_instances")}
"""Parameters that decide when a detector speaks, not what it remembers."""

Watch = tuple[int, int]
"""A series and the place of a detector in it."""
Feed = tuple[int, int, int]
"""Kind of input, column, series (0 but for flags)."""


class ValueBank(Protocol):
    """A bank that is fed numbers."""

    def update(self, values: Float64, scopes: Int32) -> Alarms: ...
    def export(self, scope: int) -> bytes: ...
    def restore(self, scope: int, blob: bytes) -> None: ...
    def take(self, scope: int, column: int, other: Any, from_scope: int, from_column: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Fed:
    """A bank, the feeds it takes and whose alarms its columns are."""

    bank: ValueBank
    feeds: Int64
    watches: Sequence[Watch]


class ChangeDetectors:
    """All change detectors of a panel."""

    def __init__(self, layout: Layout, tables: Tables) -> None:
        self._layout, self._tables = layout, tables
        self._n_scopes = len(layout.counts)
        self._feeds: dict[Feed, int] = {}
        self._fed: list[_Fed] = []
        groups: dict[tuple[Any, ...], list[tuple[Watch, ColumnDetector]]] = {}
        rated: list[Watch] = []
        for q, series in enumerate(layout.series):
            for place, detector in enumerate(series.detectors):
                if detector.name in ("psi", E_DETECTOR) or series.flag == "constant":
                    _refuse_parameters(series, detector, allowed=())
                elif detector.name == "rate":
                    _refuse_parameters(series, detector, allowed=())
                    if series.flag is not None:
                        rated.append((q, place))
                elif series.flag is not None or tables.has_mean[q]:
                    groups.setdefault(_group(series, detector), []).append(((q, place), detector))
        makers: dict[str, Callable[..., ValueBank]] = {"adwin": self._adwin, "page_hinkley": self._page_hinkley, "river": self._river}
        for (family, *_), members in groups.items():
            feeds = np.array([self._feed(layout, q, detector) for (q, _), detector in members], np.int64)
            self._fed.append(_Fed(makers[family](members), feeds, [watch for watch, _ in members]))
        self._rated = rated
        self._rates = self._rate_bank(layout, rated) if rated else None
        self._kinds = np.array([feed[0] for feed in self._feeds], np.int64)
        self._columns = np.array([feed[1] for feed in self._feeds], np.int64)
        self._series = np.array([feed[2] for feed in self._feeds], np.int64)

    def update(self, codes: UInt8, values: Float64, scopes: Int32) -> Alarms:
        """Take a batch; alarms of dtype CHANGE by row, scope, series, detector."""
        parts = []
        for k in range(scopes.shape[1] if self._fed else 0):
            column = np.ascontiguousarray(scopes[:, k : k + 1])
            fed = np.empty((len(codes), len(self._feeds)))
            _fill_feeds(codes, values, column, self._kinds, self._columns, self._series, self._tables.score, self._tables.flags, fed)
            for member in self._fed:
                alarms = member.bank.update(_chosen(fed, member.feeds), column)
                # ADWIN keeps values from before the change in its window, and river tells no start at all.
                parts.append(_by_series(alarms, member.watches, dated=isinstance(member.bank, PageHinkleyBank)))
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
        """Running statistic and threshold, both finite, of the detectors that have one (Page-Hinkley, rate), by series."""
        out: dict[int, list[tuple[float, float]]] = {}
        for member in self._fed:
            if isinstance(member.bank, PageHinkleyBank):
                bank = member.bank
                sums = bank.sums.reshape(self._n_scopes, -1, bank.sums.shape[1])[scope]
                drift = np.maximum(
                    np.where(bank.mode[scope] >= 0, sums[:, RISING] - sums[:, LOWEST], 0.0),
                    np.where(bank.mode[scope] <= 0, sums[:, HIGHEST] - sums[:, FALLING], 0.0),
                )
                drift[(sums[:, COUNT] < 1) | (bank.active[scope] == 0)] = 0.0
                for (q, _), value, limit in zip(member.watches, drift.tolist(), bank.threshold[scope].tolist(), strict=True):
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

    def _active(self, members: list[tuple[Watch, ColumnDetector]]) -> UInt8:
        return np.stack([self._tables.watched[:, q] for (q, _), _ in members], axis=1)

    def _adwin(self, members: list[tuple[Watch, ColumnDetector]]) -> ValueBank:
        options = {name: value for name, value in members[0][1].params.items() if name != "delta"}
        deltas = [d.params.get("delta") or calibration.adwin_delta(self._layout.series[q].run_length) for (q, _), d in members]
        return AdwinBank(self._n_scopes, len(members), delta=deltas, active=self._active(members), **options)

    def _page_hinkley(self, members: list[tuple[Watch, ColumnDetector]]) -> ValueBank:
        n = len(members)
        delta, threshold, alpha = np.empty((self._n_scopes, n)), np.empty((self._n_scopes, n)), np.empty(n)
        active = self._active(members).copy()
        mode = np.empty(n, np.int8)
        for m, ((q, _), detector) in enumerate(members):
            series, params = self._layout.series[q], detector.params
            drift = float(params.get("delta", DRIFTLINE_DELTA))
            mode[m] = MODES[params.get("mode", series.direction)]
            sides = 2 if mode[m] == 0 else 1
            if "threshold" in params:
                limit = float(params["threshold"])
            else:
                limit = calibration.page_hinkley_threshold(series.run_length, drift, sides=sides)
            scale = np.ones(self._n_scopes)
            if series.flag is not None:
                rate = self._tables.rate[:, q]
                scale = np.array([math.sqrt(p * (1.0 - p)) for p in rate.tolist()])
                active[:, m] &= (rate >= RATE_MARGIN) & (rate <= 1.0 - RATE_MARGIN)
            delta[:, m], threshold[:, m], alpha[m] = drift * scale, limit * scale, float(params.get("alpha", 1.0))
        least = int(members[0][1].params.get("min_instances", 30))
        return PageHinkleyBank(
            self._n_scopes, n, threshold=threshold, delta=delta, alpha=alpha, mode=mode, min_instances=least, active=active
        )

    def _river(self, members: list[tuple[Watch, ColumnDetector]]) -> ValueBank:
        # river takes a second to import; most panels have none of its detectors.
        from driftline.detectors.river_bank import RiverBank

        named = [(detector.name.removeprefix("river."), dict(detector.params)) for _, detector in members]
        try:
            return RiverBank(self._n_scopes, named, active=self._active(members))
        except ValueError as error:
            raise SpecError(f'series "{self._layout.series[members[0][0][0]].name}" or a later one: {error}') from error

    def _rate_bank(self, layout: Layout, rated: list[Watch]) -> RateBank:
        t = self._tables
        indexes = [q for q, _ in rated]
        hits = t.flags[indexes].astype(np.int8)
        hits[t.flags[indexes] == SKIP] = -1
        up, down = np.empty((self._n_scopes, len(rated))), np.empty((self._n_scopes, len(rated)))
        for scope in range(self._n_scopes):
            for m, q in enumerate(indexes):
                rows = int(t.size[scope, q])
                events = round(t.rate[scope, q] * rows)
                up[scope, m], down[scope, m] = rate_bound(events, rows, 1), rate_bound(events, rows, -1)
        return RateBank(
            self._n_scopes,
            column_of=[layout.column_of[q] for q in indexes],
            hits=hits,
            rate_up=up,
            rate_down=down,
            run_length=[layout.series[q].run_length for q in indexes],
            direction=np.array([DIRECTIONS[layout.series[q].direction] for q in indexes], np.int8),
            active=t.watched[:, indexes],
        )


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


def _group(series: Series, detector: ColumnDetector) -> tuple[Any, ...]:
    """Detectors with equal keys share a bank: what a bank has only once must be equal."""
    params = detector.params
    if detector.name == "adwin":
        _refuse_parameters(series, detector, allowed=("delta", "clock", "max_buckets", "min_window_length", "grace_period"))
        return ("adwin", *sorted((name, value) for name, value in params.items() if name != "delta"))
    if detector.name == "page_hinkley":
        _refuse_parameters(series, detector, allowed=("delta", "threshold", "alpha", "mode", "min_instances"))
        return ("page_hinkley", params.get("min_instances", 30))
    if detector.name.startswith("river."):
        return ("river",)
    raise SpecError(
        f'series "{series.name}": unknown detector "{detector.name}"; '
        "known are psi, adwin, page_hinkley, rate, e_detector and river.<class of river.drift>"
    )


def _refuse_parameters(series: Series, detector: ColumnDetector, *, allowed: Sequence[str]) -> None:
    unknown = sorted(set(detector.params) - set(allowed))
    if unknown:
        names = ", ".join(allowed) or "none"
        raise SpecError(f'series "{series.name}": detector {detector.name}: unknown parameter "{unknown[0]}"; it takes {names}')


def _by_series(alarms: Alarms, watches: Sequence[Watch], *, dated: bool) -> Alarms:
    out = np.zeros(len(alarms), CHANGE)
    out["dated"] = dated
    if not len(alarms):
        return out
    table = np.array(watches, np.int32)
    for name in ("row", "scope", "direction", "statistic", "threshold", "back"):
        out[name] = alarms[name]
    out["series"] = table[alarms["column"], 0]
    out["detector"] = table[alarms["column"], 1]
    return out


def _chosen(fed: Float64, feeds: Int64) -> Float64:
    if len(feeds) == fed.shape[1] and bool((feeds == np.arange(len(feeds))).all()):
        return fed
    return np.ascontiguousarray(fed[:, feeds])


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
