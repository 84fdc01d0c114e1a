"""Whether rows are as a reference says, asked once: for each series how far off they are, and how sure that is.

A detector watches for ever and pays for it; this looks at a first window alone. What differs has an effect of at least the
series' `warning` size with sampling noise taken off, to either side, and is certain: the smaller p of chi-squared over the cells
and of Cramer-von Mises over the order (`evidence.py`, which allows for values that depend on each other, in the window or by what the
reference knows of its own) is below `ALPHA` over the number of looks (Bonferroni). With independent rows that are as the reference a
comparison is wrong once in 1 / `ALPHA` times at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from driftline.detectors.baseline import Baseline
from driftline.detectors.dependence import CELLS, RANKS, dependence_of
from driftline.detectors.episodes import Scratch, new_scratch
from driftline.detectors.evidence import statistics_of
from driftline.detectors.kernels.jit import kernel
from driftline.detectors.kernels.psi import PsiArrays
from driftline.detectors.layout import lay_out
from driftline.detectors.levels import (
    M_BASE,
    M_CERTAIN,
    M_EFFECT,
    M_N,
    M_VALUE,
    MEAN_EFFECT,
    MEASURE_FIELDS,
    PSI_EFFECT,
    RATE_EFFECT,
    measure_window,
)
from driftline.detectors.medians import median_of
from driftline.detectors.panel_watch import Watch
from driftline.detectors.ring import Windows
from driftline.detectors.season import DAY, HOUR_MS, WAYS, hours_of, places_of
from driftline.detectors.spec import Column, EffectKind, Float64, PanelRows, PanelSpec, ordered_codes
from driftline.detectors.tables import Tables

ALPHA: Final = 1e-3
"""Chance that rows which are as the reference are said to differ somewhere."""
ROWS_LEAST: Final = 200
"""Fewer rows tell nothing that is worth a word: a mean is known to .07 sd from so many."""
RATE_BY_HOUR: Final = 4.0
"""Nights have a half or a third of a day's rate in most streams; training data that was sampled by label has ten times it."""

_DAY_MS: Final = DAY * HOUR_MS
_EFFECTS: Final[tuple[EffectKind, ...]] = ("psi", "mean", "rate")
_DECIDING: Final = ("chi_squared", "cramer_von_mises")


@dataclass(frozen=True, slots=True)
class Difference:
    """One series that differs.

    Attributes
    ----------
    column, series : by name. `effect` as the effect's kind has it: PSI, baseline standard deviations, relative change of a rate.
    certain : the effect with sampling noise taken off. `critical`: it passes the series' `critical` size on a side that is watched.
    p : chance of rows so far off if they were as the reference, beside all that was looked at.
    """

    column: str
    series: str
    effect_kind: EffectKind
    effect: float
    certain: float
    critical: bool
    value: float
    baseline_value: float
    median: float | None
    baseline_median: float | None
    n: int
    p: float


def looks(spec: PanelSpec, baseline: Baseline) -> int:
    """Series that are compared."""
    return len(lay_out(_bare(spec, ROWS_LEAST), baseline).series)


def compare(spec: PanelSpec, baseline: Baseline, chunks: Sequence[PanelRows], *, looks: int) -> list[Difference]:
    """The series in which some rows differ from a reference, in the panel's order; none where there are too few rows.

    Where values go by the hour, the reference is that of the hours of these rows. It has no rates by the hour, so that where its values
    go by the hour a rate of rows of less than a day must be `RATE_BY_HOUR` times as large or as small to differ.

    Parameters
    ----------
    looks : series that are looked at, here and elsewhere, as one question.
    """
    rows = sum(chunk.n for chunk in chunks)
    if rows < ROWS_LEAST:
        return []
    watch = Watch(_bare(spec, rows), _at_hours(baseline, chunks))
    for chunk in chunks:
        watch.update(chunk, None)
    found = differences(watch, looks=looks)
    by_hour = any(scope == 0 for scope, _ in baseline.season)
    if by_hour and max(int(chunk.time_ms.max()) for chunk in chunks) - min(int(chunk.time_ms.min()) for chunk in chunks) < _DAY_MS:
        found = [one for one in found if one.effect_kind != "rate" or not 1.0 / RATE_BY_HOUR < 1.0 + one.certain < RATE_BY_HOUR]
    return found


def differences(watch: Watch, *, looks: int) -> list[Difference]:
    """The series of all rows whose window differs from the reference, in the panel's order.

    Parameters
    ----------
    looks : as of `compare`.
    """
    t, layout = watch.tables, watch.layout
    measured = np.zeros((len(layout.series), 3, MEASURE_FIELDS))
    _measure_all(t, watch.windows, watch.psi.arrays, new_scratch(t), measured)
    found = []
    for q, series in enumerate(layout.series):
        if not t.watched[0, q]:
            continue
        kinds = [RATE_EFFECT] if not t.is_value[q] else [MEAN_EFFECT, PSI_EFFECT] if t.has_mean[q] else [PSI_EFFECT]
        kind = max(kinds, key=lambda one: abs(measured[q, one, M_CERTAIN]))
        certain = float(measured[q, kind, M_CERTAIN])
        if abs(certain) < series.warning:
            continue
        c = layout.column_of[q]
        counts = watch.psi.arrays.counts[0, t.series_lane[q]].astype(np.int64)
        dependence = dependence_of(t, watch.windows, 0, q, counts)
        if t.is_value[q] or layout.references[c].kind == "binary":
            known = layout.worth_one(0, c, int(measured[q, kind, M_N]))
            dependence[[CELLS, RANKS]] = np.maximum(dependence[[CELLS, RANKS]], known)
        chances = [one.p for one in statistics_of(counts, dependence, layout, t, 0, q) if one.name in _DECIDING and one.p is not None]
        p = min(chances, default=1.0) * len(chances) * max(looks, 1)
        if p > ALPHA:
            continue
        reference, before = layout.references[c], layout.counts[0, c]
        wrong_side = kind != PSI_EFFECT and t.direction[q] * certain < 0.0
        found.append(
            Difference(
                reference.name, series.name, _EFFECTS[kind], float(measured[q, kind, M_EFFECT]), certain,
                abs(certain) >= series.critical and not wrong_side, float(measured[q, kind, M_VALUE]), float(measured[q, kind, M_BASE]),
                median_of(counts, reference) if t.is_value[q] else None, median_of(before, reference) if t.is_value[q] else None,
                int(measured[q, kind, M_N]), p,
            )
        )  # fmt: skip
    return found


def _bare(spec: PanelSpec, rows: int) -> PanelSpec:
    """The columns and series alone, over so many rows; a run of equal values is no level, and neither is what rows are worth to a block's
    witness, which depends on the rows before them.
    """

    def bare(column: Column) -> Column:
        series = (replace(one, detectors=(), window=rows) for one in column.series if one.flag != "constant" and not column.joint)
        return replace(column, series=tuple(series))

    factory = spec.column_factory
    return replace(
        spec,
        columns=None if spec.columns is None else tuple(bare(column) for column in spec.columns),
        column_factory=None if factory is None else lambda name, kind: bare(factory(name, kind)),
        pairs=tuple(bare(pair) for pair in spec.pairs),
        segments={},
        window=rows,
        budget=None,
        whole=True,
    )


def _at_hours(baseline: Baseline, chunks: Sequence[PanelRows]) -> Baseline:
    """The baseline with each column that goes by the hour as it is at the hours of these rows."""
    seasons = {c: season for (s, c), season in baseline.season.items() if s == 0}
    counts = baseline.counts[:1].copy()
    places = np.concatenate([places_of(hours_of(chunk.time_ms)) for chunk in chunks])
    for c, season in seasons.items():
        column = baseline.columns[c]
        by_hour = season.by_code(column.kind, column.n_bins)
        size = by_hour.sum(axis=1)
        at = np.bincount(places[:, WAYS.index(season.period)], minlength=season.period) * (size > 0)
        if not at.sum():
            continue
        # Weighted to the rows' hours; as many values as those hours have, not more than the baseline knows.
        weight = np.divide(at, at.sum() * np.maximum(size, 1))
        weighted = (weight[:, None] * by_hour).sum(axis=0) * int(size[at > 0].sum())
        # What is no value (missing, invalid) is not counted by the hour, and stands in the same proportion to the values.
        own = ordered_codes(column.kind, column.n_bins)
        share = int(size[at > 0].sum()) / int(counts[0, c, own].sum())
        kept = np.rint(share * counts[0, c])
        kept[own] = np.rint(weighted)[own]
        counts[0, c] = kept.astype(np.int64)
    memory = {place: one for place, one in baseline.memory.items() if place[0] == 0}
    dependence = {place: one for place, one in baseline.dependence.items() if place[0] == 0}
    return Baseline(
        baseline.columns, {}, counts, rows=baseline.rows, thinning=baseline.thinning, memory=memory, dependence=dependence
    )  # fmt: skip


@kernel
def _measure_all(t: Tables, st: Windows, psi: PsiArrays, scratch: Scratch, out: Float64) -> None:
    counts, m = scratch.counts[0], scratch.m[0]
    for q in range(out.shape[0]):
        m[:, :] = 0.0
        measure_window(t, 0, q, psi.counts, st.runs_within, counts, m, scratch.merged)
        for kind in range(3):
            for field in range(MEASURE_FIELDS):
                out[q, kind, field] = m[kind, field]
