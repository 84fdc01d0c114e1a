"""The levels of a scope's series, for snapshots: one kernel call a scope."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from driftline.detectors.dependence import dependence_of
from driftline.detectors.episodes import E_OPEN, OPEN, Scratch, new_scratch
from driftline.detectors.evidence import statistics_of
from driftline.detectors.explained import WindowStatistic
from driftline.detectors.kernels.jit import kernel
from driftline.detectors.kernels.psi import PsiArrays
from driftline.detectors.layout import Layout
from driftline.detectors.levels import M_BASE, M_N, M_VALUE, MEAN_EFFECT, PSI_EFFECT, RATE_EFFECT, measure_window
from driftline.detectors.ring import Windows
from driftline.detectors.spec import Float64, Level, Suspended
from driftline.detectors.tables import Tables

STATISTICS_MAX: Final = 100
"""Open series of a scope that are shown with statistics, the first in the panel's order: a wide model that drifts as a whole
must not make a snapshot larger than its topic takes, nor cost more than a few milliseconds."""

_N, _MEAN, _PSI, _RATE, _PSI_LIMIT, _PSI_NULL = range(6)
_FIELDS: Final = 6

Running = Sequence[tuple[float, float]]
"""Statistics and their thresholds."""


def levels_of(
    layout: Layout, t: Tables, windows: Windows, psi: PsiArrays, running: Mapping[int, Running], held: Mapping[int, Suspended], s: int
) -> list[Level]:
    """One level a series, in the panel's order; `running` has the statistics of detectors by series, `held` what is suspended."""
    found = np.full((len(layout.series), _FIELDS), np.nan)
    _fill_levels(t, windows, psi, new_scratch(t), s, found)
    n, means, psis, rates, psi_limits, psi_nulls = (_known(column) for column in found.T.tolist())
    open_ = (windows.episodes[s, :, E_OPEN] == OPEN).tolist()
    base_rates = _known(t.rate[s].tolist())
    explained = set(np.flatnonzero(open_)[:STATISTICS_MAX].tolist())
    out = []
    for q, series in enumerate(layout.series):
        candidates = list(running.get(q, ()))
        psi_value, psi_limit = psis[q], psi_limits[q]
        if psi_value is not None and psi_limit is not None:
            candidates = [*candidates, (psi_value, psi_limit)]
        statistic, threshold = max(candidates, key=_nearness) if candidates else (None, None)
        mean, base_rate = means[q], base_rates[q] if series.flag is not None else None
        mean = None if mean is None else mean * layout.references[layout.column_of[q]].unit
        base_mean = None if mean is None else 0.0
        count = int(n[q] or 0)
        statistics: tuple[WindowStatistic, ...] = ()
        if q in explained:
            counts = psi.counts[s, t.series_lane[q]].astype(np.int64)
            statistics = statistics_of(counts, dependence_of(t, windows, s, q, counts), layout, t, s, q)
        out.append(
            Level(
                series.name, count, mean, base_mean, psi_value, psi_nulls[q], psi_limit, rates[q], base_rate, statistic, threshold,
                open_[q], statistics, held.get(q),
            )
        )  # fmt: skip
    return out


def _nearness(pair: tuple[float, float]) -> float:
    return pair[0] / pair[1]


def _known(column: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in column]


@kernel
def _fill_levels(t: Tables, st: Windows, psi: PsiArrays, scratch: Scratch, s: int, out: Float64) -> None:
    counts, m = scratch.counts[0], scratch.m[0]
    for q in range(out.shape[0]):
        lane = t.series_lane[q]
        measure_window(t, s, q, psi.counts, st.runs_within, counts, m, scratch.merged)
        kind = RATE_EFFECT
        if t.is_value[q]:
            kind = MEAN_EFFECT if t.has_mean[q] else PSI_EFFECT
        out[q, _N] = m[kind, M_N]
        if kind != PSI_EFFECT and m[kind, M_N] > 0:
            out[q, _MEAN if kind == MEAN_EFFECT else _RATE] = m[kind, M_VALUE]
        n = m[PSI_EFFECT, M_N]
        if t.is_value[q] and t.watched[s, q] and n >= t.psi_least[s, lane]:
            out[q, _PSI] = m[PSI_EFFECT, M_VALUE]
            out[q, _PSI_NULL] = m[PSI_EFFECT, M_BASE]
            limit = t.psi_limit[s, lane]
            if np.isfinite(limit):
                out[q, _PSI_LIMIT] = limit * (1.0 / n + 1.0 / t.psi_size[s, t.series_column[q]])
