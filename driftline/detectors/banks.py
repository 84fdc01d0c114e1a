"""The banks behind a panel's detectors: which detectors share one, and what each series' parameters become in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np

from driftline.detectors import calibration
from driftline.detectors.kernels.adwin import AdwinBank
from driftline.detectors.kernels.bank import Alarms
from driftline.detectors.kernels.charts import ALLOWANCE, WEIGHT, CusumBank, EwmaBank
from driftline.detectors.kernels.page_hinkley import DRIFTLINE_DELTA, MODES, PageHinkleyBank
from driftline.detectors.kernels.rate import DIRECTIONS, RateBank, rate_bound
from driftline.detectors.layout import SKIP, Layout
from driftline.detectors.spec import ColumnDetector, Float64, Int32, Series, SpecError, UInt8
from driftline.detectors.tables import Tables

CHART_PARAMETERS: Final = {"cusum": ("allowance", "threshold", "mode"), "ewma": ("weight", "threshold", "mode")}
RATE_MARGIN: Final = 0.05
"""Page-Hinkley, CUSUM and EWMA watch 0/1 series whose rate is at least this far from 0 and 1."""

Watch = tuple[int, int]
"""A series and the place of a detector in it."""


class ValueBank(Protocol):
    """A bank that is fed numbers."""

    def update(self, values: Float64, scopes: Int32) -> Alarms: ...
    def export(self, scope: int) -> bytes: ...
    def restore(self, scope: int, blob: bytes) -> None: ...
    def take(self, scope: int, column: int, other: Any, from_scope: int, from_column: int) -> None: ...


DATING_BANKS = (PageHinkleyBank, CusumBank, EwmaBank)
"""Banks that tell where a change began, and how near they are to their threshold."""


class Banks:
    """Makes them, for a layout.

    Attributes
    ----------
    makers : by what `group_of` begins with.
    """

    def __init__(self, layout: Layout, tables: Tables) -> None:
        self.layout, self.tables = layout, tables
        self._n_scopes = len(layout.counts)
        self.makers: dict[str, Callable[[list[tuple[Watch, ColumnDetector]]], ValueBank]] = {
            "adwin": self._adwin,
            "page_hinkley": self._page_hinkley,
            "cusum": self._cusum,
            "ewma": self._ewma,
            "river": self._river,
        }

    def _active(self, members: list[tuple[Watch, ColumnDetector]]) -> UInt8:
        return np.stack([self.tables.watched[:, q] for (q, _), _ in members], axis=1)

    def _adwin(self, members: list[tuple[Watch, ColumnDetector]]) -> ValueBank:
        options = {name: value for name, value in members[0][1].params.items() if name != "delta"}
        deltas = [d.params.get("delta") or calibration.adwin_delta(self.layout.series[q].run_length) for (q, _), d in members]
        return AdwinBank(self._n_scopes, len(members), delta=deltas, active=self._active(members), **options)

    def _page_hinkley(self, members: list[tuple[Watch, ColumnDetector]]) -> ValueBank:
        n = len(members)
        delta, threshold, alpha = np.empty((self._n_scopes, n)), np.empty((self._n_scopes, n)), np.empty(n)
        active = self._active(members).copy()
        mode = np.empty(n, np.int8)
        for m, ((q, _), detector) in enumerate(members):
            series, params = self.layout.series[q], detector.params
            drift = float(params.get("delta", DRIFTLINE_DELTA))
            mode[m] = MODES[params.get("mode", series.direction)]
            sides = 2 if mode[m] == 0 else 1
            if "threshold" in params:
                limit = float(params["threshold"])
            else:
                limit = calibration.page_hinkley_threshold(series.run_length, drift, sides=sides)
            _, scale, usable = self._standard(q)
            active[:, m] &= usable
            delta[:, m], threshold[:, m], alpha[m] = drift * scale, limit * scale, float(params.get("alpha", 1.0))
        least = int(members[0][1].params.get("min_instances", 30))
        return PageHinkleyBank(
            self._n_scopes, n, threshold=threshold, delta=delta, alpha=alpha, mode=mode, min_instances=least, active=active
        )

    def _standard(self, q: int) -> tuple[Float64, Float64, UInt8]:
        """Mean and standard deviation of what a series is fed, and whether they mean anything; shape (S,) each."""
        if self.layout.series[q].flag is None:
            return np.zeros(self._n_scopes), np.ones(self._n_scopes), np.ones(self._n_scopes, np.uint8)
        rate = self.tables.rate[:, q]
        usable = (rate >= RATE_MARGIN) & (rate <= 1.0 - RATE_MARGIN)
        return rate, np.array([math.sqrt(p * (1.0 - p)) for p in rate.tolist()]), usable.astype(np.uint8)

    def _cusum(self, members: list[tuple[Watch, ColumnDetector]]) -> ValueBank:
        return CusumBank(self._n_scopes, len(members), **self._chart(members, "allowance", ALLOWANCE, calibration.cusum_threshold))

    def _ewma(self, members: list[tuple[Watch, ColumnDetector]]) -> ValueBank:
        return EwmaBank(self._n_scopes, len(members), **self._chart(members, "weight", WEIGHT, calibration.ewma_threshold))

    def _chart(
        self, members: list[tuple[Watch, ColumnDetector]], name: str, default: float, threshold: Callable[..., float]
    ) -> dict[str, Any]:
        """What a bank of charts takes: each around the mean of its scope's reference, with room for the error of that."""
        shape = (self._n_scopes, len(members))
        setting, limit, target, scale = (np.ones(shape) for _ in range(4))
        active = self._active(members).copy()
        mode = np.empty(len(members), np.int8)
        for m, ((q, _), detector) in enumerate(members):
            series, params = self.layout.series[q], detector.params
            wanted = float(params.get(name, default))
            mode[m] = MODES[params.get("mode", series.direction)]
            target[:, m], spread, usable = self._standard(q)
            scale[:, m] = np.where(usable, spread, 1.0)
            active[:, m] &= usable
            for scope in np.flatnonzero(active[:, m]).tolist():
                setting[scope, m] = wanted
                if "threshold" in params:
                    limit[scope, m] = float(params["threshold"])
                    continue
                size, sides = float(self.tables.size[scope, q]), 2 if mode[m] == 0 else 1
                if name == "allowance":
                    # A small segment is known less well: it is watched for larger shifts.
                    setting[scope, m] = max(wanted, 2.0 * calibration.MEAN_ERRORS / math.sqrt(size))
                limit[scope, m] = threshold(series.run_length, setting[scope, m], sides=sides, reference_n=size)
        return {"setting": setting, "threshold": limit, "target": target, "scale": scale, "mode": mode, "active": active}

    def _river(self, members: list[tuple[Watch, ColumnDetector]]) -> ValueBank:
        # river takes a second to import; most panels have none of its detectors.
        from driftline.detectors.river_bank import RiverBank

        named = [(detector.name.removeprefix("river."), dict(detector.params)) for _, detector in members]
        try:
            return RiverBank(self._n_scopes, named, active=self._active(members))
        except ValueError as error:
            raise SpecError(f'series "{self.layout.series[members[0][0][0]].name}" or a later one: {error}') from error

    def rate(self, rated: list[Watch]) -> RateBank:
        """The bank of the 0/1 series that `rate` watches; it is fed codes."""
        t = self.tables
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
            column_of=[self.layout.column_of[q] for q in indexes],
            hits=hits,
            rate_up=up,
            rate_down=down,
            run_length=[self.layout.series[q].run_length for q in indexes],
            direction=np.array([DIRECTIONS[self.layout.series[q].direction] for q in indexes], np.int8),
            active=t.watched[:, indexes],
        )


def group_of(series: Series, detector: ColumnDetector) -> tuple[Any, ...]:
    """Detectors with equal keys share a bank: what a bank has only once must be equal."""
    params = detector.params
    if detector.name == "adwin":
        refuse_parameters(series, detector, allowed=("delta", "clock", "max_buckets", "min_window_length", "grace_period"))
        return ("adwin", *sorted((name, value) for name, value in params.items() if name != "delta"))
    if detector.name == "page_hinkley":
        refuse_parameters(series, detector, allowed=("delta", "threshold", "alpha", "mode", "min_instances"))
        return ("page_hinkley", params.get("min_instances", 30))
    if detector.name in CHART_PARAMETERS:
        refuse_parameters(series, detector, allowed=CHART_PARAMETERS[detector.name])
        if detector.input == "raw":
            raise SpecError(f'series "{series.name}": {detector.name} sees standardised scores, not raw values, whose mean a segment lacks')
        return (detector.name,)
    if detector.name.startswith("river."):
        return ("river",)
    raise SpecError(
        f'series "{series.name}": unknown detector "{detector.name}"; '
        "known are psi, adwin, page_hinkley, cusum, ewma, rate, e_detector and river.<class of river.drift>"
    )


def refuse_parameters(series: Series, detector: ColumnDetector, *, allowed: Sequence[str]) -> None:
    unknown = sorted(set(detector.params) - set(allowed))
    if unknown:
        names = ", ".join(allowed) or "none"
        raise SpecError(f'series "{series.name}": detector {detector.name}: unknown parameter "{unknown[0]}"; it takes {names}')
