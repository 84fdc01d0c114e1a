"""The levels of a scope's series, for snapshots: one kernel call a scope."""

from __future__ import annotations

from typing import Final

import numpy as np

from driftline.detectors.changes import ChangeDetectors
from driftline.detectors.episodes import E_OPEN, Windows
from driftline.detectors.kernels.jit import compiled
from driftline.detectors.kernels.psi import PsiArrays
from driftline.detectors.levels import MEAN_EFFECT, PSI_EFFECT, RATE_EFFECT, weigh
from driftline.detectors.spec import N_CODES, Float64, Level
from driftline.detectors.tables import Layout, Tables

_N, _MEAN, _PSI, _RATE, _PSI_LIMIT, _PSI_N = range(6)
_FIELDS: Final = 6


def levels_of(layout: Layout, t: Tables, windows: Windows, psi: PsiArrays, changes: ChangeDetectors, scope: int) -> list[Level]:
    """One level a series, in the panel's order."""
    found = np.full((len(layout.series), _FIELDS), np.nan)
    _fill_levels(t, windows, psi, scope, found)
    running = changes.statistics(scope)
    out = []
    for q, (series, values) in enumerate(zip(layout.series, found.tolist(), strict=True)):
        psi_value, psi_limit = _known(values[_PSI]), _known(values[_PSI_LIMIT])
        candidates = list(running.get(q, ()))
        if psi_value is not None and psi_limit is not None:
            candidates.append((psi_value, psi_limit))
        statistic, threshold = max(candidates, key=lambda pair: pair[0] / pair[1], default=(None, None))
        out.append(
            Level(
                series=series.name,
                n=int(values[_N]),
                mean=_known(values[_MEAN]),
                baseline_mean=None if _known(values[_MEAN]) is None else 0.0,
                psi=psi_value,
                psi_threshold=psi_limit,
                rate=_known(values[_RATE]),
                baseline_rate=float(t.rate[scope, q]) if series.flag is not None else None,
                statistic=statistic,
                threshold=threshold,
                open=bool(windows.episodes[scope, q, E_OPEN]),
            )
        )
    return out


def _known(value: float) -> float | None:
    return None if value != value else value


@compiled
def _fill_levels(t: Tables, st: Windows, psi: PsiArrays, s: int, out: Float64) -> None:
    counts = np.zeros(N_CODES, np.int64)
    for q in range(out.shape[0]):
        out[q, _N] = 0.0
        lane = t.series_lane[q]
        for code in range(N_CODES):
            counts[code] = psi.counts[s, lane, code]
        if not t.is_value[q]:
            n, value, _, _, _ = weigh(t, s, q, RATE_EFFECT, counts, st.runs_within[s, lane])
            out[q, _N] = n
            if n > 0:
                out[q, _RATE] = value
            continue
        if t.has_mean[q]:
            n, value, _, _, _ = weigh(t, s, q, MEAN_EFFECT, counts, 0)
            out[q, _N] = n
            if n > 0:
                out[q, _MEAN] = value
        n, value, _, _, _ = weigh(t, s, q, PSI_EFFECT, counts, 0)
        if not t.has_mean[q]:
            out[q, _N] = n
        if t.watched[s, q] and n >= t.psi_least[s, lane]:
            out[q, _PSI] = value
            limit = t.psi_limit[s, lane]
            if np.isfinite(limit):
                out[q, _PSI_LIMIT] = limit * (1.0 / n + 1.0 / t.psi_size[s, t.series_column[q]])
