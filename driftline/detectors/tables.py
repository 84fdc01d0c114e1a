"""What the kernels look up: everything that follows from a specification and a baseline, as arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.baseline import ColumnReference
from driftline.detectors.calibration import psi_threshold
from driftline.detectors.coding import scores, worth_scores
from driftline.detectors.kernels.jit import portable_log
from driftline.detectors.layout import SKIP, Layout, flag_codes, left_out, nearly_all_are_new, new_are_expected
from driftline.detectors.openers import covered, openers
from driftline.detectors.season import compared
from driftline.detectors.spec import (
    ABOVE,
    BELOW,
    INVALID,
    MISSING,
    N_CODES,
    NOT_APPLICABLE,
    OTHER,
    UNSEEN,
    Column,
    Float64,
    Int64,
    PanelSpec,
    Series,
    UInt8,
)

PSI_GROUPS: Final = 10
"""Equal-mass groups PSI is summed over: its null law holds from about 10 values a group, and 20 groups double the
threshold for no more power against shifts of a mean (statistics.md 4)."""
GROUPS_MAX: Final = 20
CATEGORY_GROUPS: Final = 12
CATEGORY_SHARE_MIN: Final = 0.02
"""Categories rarer than this share one group; their terms are too skewed for the chi-squared law."""
NO_GROUP: Final = 255

REFERENCE_MIN: Final = 200
"""A scope with fewer reference values of a column does not watch it: at 200 the binned scores of a null stream raise
30 times the alarms asked for (statistics.md 1.5), below that there is no scale at all. A panel whose whole reference is
smaller watches from half of that."""

RUN_MIN: Final = 100
"""Shortest run of equal values that counts as constant: producers do send bursts of one card or one page."""

UP: Final = 1
DOWN: Final = -1
_DIRECTION: Final = {"up": UP, "down": DOWN, "both": 0}


class Tables(NamedTuple):
    """Axes: S scopes, C columns, L lanes (a column and a window), Q series, G groups."""

    lane_column: Int64  # (L,)
    lane_window: Int64  # (L,)
    psi_series: Int64  # (L,) the series whose distribution the lane carries, -1 = none
    psi_detector: Int64  # (L,) its PSI detector's place in the series, -1 = none
    series_lane: Int64  # (Q,)
    series_column: Int64  # (Q,)
    direction: Int64  # (Q,) UP, DOWN or 0
    bounds: Float64  # (Q, 2) warning, critical
    rate_floor: Float64  # (Q,) the least a change of a rate is relative to
    proof: Float64  # (Q,) log likelihood ratio against the baseline that a change of a mean must show to open
    flags: UInt8  # (Q, N_CODES) 0, 1 or SKIP; a value series has 0 where it has a score
    is_value: UInt8  # (Q,) distribution and mean
    has_mean: UInt8  # (Q,) a value series whose mean means something
    is_run: UInt8  # (Q,) constant
    watched: UInt8  # (S, Q)
    score: Float64  # (S, C, N_CODES)
    rate: Float64  # (S, Q) the reference's rate
    size: Float64  # (S, Q) the reference's number of values of the series
    compared: Float64  # (S, Q) those that a window is compared with: of its hours, where values go by the hour
    group: UInt8  # (S, C, N_CODES)
    share: Float64  # (S, C, G) smoothed reference shares
    log_share: Float64  # (S, C, G)
    groups: Int64  # (S, C) groups in use
    freedom: Float64  # (S, C) groups with reference values, less one
    psi_size: Float64  # (S, C) reference values behind PSI; of the hours of its shortest window, where values go by the hour
    psi_limit: Float64  # (S, L) threshold divided by (1/n + 1/m)
    psi_least: Int64  # (S, L) values in the window from which PSI is judged
    run_limit: Int64  # (S, C) length of a run that is an alarm, 0 = none
    budgeted: Int64  # (Q,) the place of the detector that the budget covers, -1 = none
    opens: Int64  # (Q,) bits of the detectors that may open an episode
    run_by_code: UInt8  # (C,) runs compare codes, not values
    log_half: Float64  # (longest window + 2,) ln(k + 1/2)


PROOF_SHARE: Final = 0.5
"""A change that a detector of run length r finds shows about ln r by then; half of it leaves room for the date's error."""


def build_tables(spec: PanelSpec, layout: Layout) -> Tables:
    """The arrays for a layout; a pure function of it."""
    lanes = sorted({(layout.column_of[q], series.window) for q, series in enumerate(layout.series)})
    lane_of = {lane: i for i, lane in enumerate(lanes)}
    n_scopes, n_columns, n_series = len(layout.counts), len(layout.columns), len(layout.series)
    tables = Tables(
        lane_column=np.array([c for c, _ in lanes], np.int64),
        lane_window=np.array([w for _, w in lanes], np.int64),
        psi_series=np.full(len(lanes), -1, np.int64),
        psi_detector=np.full(len(lanes), -1, np.int64),
        series_lane=np.array([lane_of[layout.column_of[q], s.window] for q, s in enumerate(layout.series)], np.int64),
        series_column=np.array(layout.column_of, np.int64),
        direction=np.array([_DIRECTION[s.direction] for s in layout.series], np.int64),
        bounds=np.array([_bounds(layout, q) for q in range(len(layout.series))], np.float64).reshape(-1, 2),
        rate_floor=np.array([s.rate_floor for s in layout.series], np.float64),
        proof=np.array([PROOF_SHARE * math.log(s.run_length) for s in layout.series], np.float64),
        flags=np.zeros((n_series, N_CODES), np.uint8),
        is_value=np.array([s.flag is None for s in layout.series], np.uint8),
        has_mean=np.zeros(n_series, np.uint8),
        is_run=np.array([s.flag == "constant" for s in layout.series], np.uint8),
        watched=np.zeros((n_scopes, n_series), np.uint8),
        score=np.full((n_scopes, n_columns, N_CODES), np.nan),
        rate=np.zeros((n_scopes, n_series)),
        size=np.zeros((n_scopes, n_series)),
        compared=np.zeros((n_scopes, n_series)),
        group=np.full((n_scopes, n_columns, N_CODES), NO_GROUP, np.uint8),
        share=np.zeros((n_scopes, n_columns, GROUPS_MAX)),
        log_share=np.zeros((n_scopes, n_columns, GROUPS_MAX)),
        groups=np.zeros((n_scopes, n_columns), np.int64),
        freedom=np.zeros((n_scopes, n_columns)),
        psi_size=np.zeros((n_scopes, n_columns)),
        psi_limit=np.full((n_scopes, len(lanes)), np.inf),
        psi_least=np.full((n_scopes, len(lanes)), np.iinfo(np.int64).max),
        run_limit=np.zeros((n_scopes, n_columns), np.int64),
        budgeted=np.array([covered(spec, series) for series in layout.series], np.int64),
        opens=np.array([openers(spec, series) for series in layout.series], np.int64),
        run_by_code=np.array([column.kind == "categorical" for column in layout.columns], np.uint8),
        log_half=np.array([portable_log(k + 0.5) for k in range(spec.window + 2)]),
    )
    for c, column in enumerate(layout.columns):
        _fill_column(tables, layout, c, column)
    for q, series in enumerate(layout.series):
        _fill_series(tables, layout, q, series, first_scope=0 if spec.whole else 1)
    return tables


def _bounds(layout: Layout, q: int) -> tuple[float, float]:
    """Warning and critical in the unit of a series' scores."""
    series, unit = layout.series[q], layout.references[layout.column_of[q]].unit
    return series.warning / unit, series.critical / unit


def _fill_column(tables: Tables, layout: Layout, c: int, column: Column) -> None:
    reference = layout.references[c]
    for scope in range(len(layout.counts)):
        counts = layout.counts[scope, c]
        tables.score[scope, c] = scores(counts, reference.n_bins, column.kind) if reference.block is None else worth_scores(reference)
        group, used = psi_groups(counts, reference)
        if new_are_expected(layout, c):
            # Rare and new values are one group: which of them a row has is a matter of chance.
            group[UNSEEN] = group[OTHER]
        tables.group[scope, c] = group
        merged = np.zeros(GROUPS_MAX, np.int64)
        for code in range(NOT_APPLICABLE):
            merged[group[code]] += counts[code]
        total = int(merged.sum())
        tables.groups[scope, c] = used
        tables.freedom[scope, c] = max(int(np.count_nonzero(merged)) - 1, 1)
        windows = [series.window for series in column.series] or [1]
        tables.psi_size[scope, c] = compared(layout.hours_matched(scope, c), max(total, 1), min(windows))
        for g in range(used):
            share = (int(merged[g]) + 0.5) / (total + 0.5 * used)
            tables.share[scope, c, g] = share
            tables.log_share[scope, c, g] = portable_log(share)


def _fill_series(tables: Tables, layout: Layout, q: int, series: Series, *, first_scope: int) -> None:
    c = layout.column_of[q]
    reference = layout.references[c]
    lane = int(tables.series_lane[q])
    tables.flags[q] = flag_codes(series, layout.columns[c], reference)
    tables.has_mean[q] = series.flag is None and reference.kind != "categorical"
    least = reference_least(layout.counts)
    for scope in range(len(layout.counts)):
        counts = layout.counts[scope, c]
        valued = int(counts[tables.flags[q] != SKIP].sum())
        tables.size[scope, q] = tables.compared[scope, q] = max(valued, 1)
        if series.flag is None:
            tables.compared[scope, q] = compared(layout.hours_matched(scope, c), max(valued, 1), series.window)
        if series.flag is None and nearly_all_are_new(layout, c):
            continue
        # A witness is of all rows.
        watched = valued >= least and scope >= first_scope and (reference.block is None or scope == 0)
        tables.watched[scope, q] = watched
        if series.flag == "constant":
            tables.run_limit[scope, c] = run_limit(counts, series.run_length) if watched else 0
        elif series.flag is not None:
            hits = float(counts[tables.flags[q] == 1].sum()) + float(left_out(layout, scope, c)[tables.flags[q] == 1].sum())
            tables.rate[scope, q] = min(hits / max(valued, 1), 1.0)
    if series.flag is None:
        tables.psi_series[lane] = q
        _fill_psi(tables, layout, q, series)


def _fill_psi(tables: Tables, layout: Layout, q: int, series: Series) -> None:
    lane, c = int(tables.series_lane[q]), layout.column_of[q]
    names = [detector.name for detector in series.detectors]
    if "psi" in names:
        tables.psi_detector[lane] = names.index("psi")
    for scope in range(len(layout.counts)):
        counts = layout.counts[scope, c]
        applicable = int(counts[:NOT_APPLICABLE].sum())
        bins = int(tables.freedom[scope, c]) + 1
        if not applicable or not tables.watched[scope, q]:
            continue
        # A window of rows holds so many values of a column that does not apply to every row.
        window = max(round(series.window * applicable / int(counts.sum())), 1)
        size = float(tables.psi_size[scope, c])
        if "psi" in names:
            limit = psi_threshold(series.run_length, window, max(bins, 2), size)
            tables.psi_limit[scope, lane] = limit / (1.0 / window + 1.0 / size)
        # Half a window: the null law needs about 10 values a group, the run length a window that is near its full size.
        tables.psi_least[scope, lane] = min(max(10 * bins, window // 2), window)


def reference_least(counts: Int64) -> int:
    """Values of a column a scope's reference must have: see `REFERENCE_MIN`."""
    whole = int(counts[0].sum(axis=1).max()) if counts.shape[1] else 0
    return max(min(REFERENCE_MIN, whole // 2), 1)


def run_limit(counts: Int64, run_length: float) -> int:
    """The run of equal values that a reference shows once in `run_length` values, at least `RUN_MIN`; 0 = never.

    No value is commoner than the commonest code, so a run of L equal independent values has a chance below share^(L-1).
    """
    present = int(counts[:MISSING].sum())
    share = int(counts[:MISSING].max()) / present
    if share >= 1.0:
        return 0
    return max(RUN_MIN, 1 + math.ceil(math.log(run_length) / -math.log(share)))


def psi_groups(counts: Int64, reference: ColumnReference) -> tuple[UInt8, int]:
    """The group of each code and the number of groups.

    Numeric: about `PSI_GROUPS` groups of equal mass, values beyond the range in the outer ones. Categories: one each
    for the most frequent, one for the rest, one each for OTHER and UNSEEN. Missing and invalid have groups of their own.
    """
    out: UInt8 = np.full(N_CODES, NO_GROUP, np.uint8)
    if reference.kind == "categorical":
        used = _category_groups(counts, reference.n_bins, out)
    elif reference.kind == "binary":
        out[[0, BELOW]], out[[1, ABOVE]] = 0, 1
        used = 2
    else:
        used = _equal_mass_groups(counts, [BELOW, *range(reference.n_bins), ABOVE], out)
    out[MISSING], out[INVALID] = used, used + 1
    # Codes no row can have still need a group: a hostile or newer checkpoint may hold them.
    out[:MISSING][out[:MISSING] == NO_GROUP] = 0
    return out, used + 2


def _equal_mass_groups(counts: Int64, order: Sequence[int], out: UInt8) -> int:
    left = int(sum(int(counts[code]) for code in order))
    group, mass = 0, 0
    for position, code in enumerate(order):
        out[code] = group
        mass += int(counts[code])
        # The last code has no group after it; BELOW alone is never one.
        if position in (0, len(order) - 1) or mass == 0:
            continue
        rest = sum(int(counts[later]) for later in order[position + 1 :])
        if group < PSI_GROUPS - 1 and rest > 0 and mass * (PSI_GROUPS - group) >= left:
            left -= mass
            group, mass = group + 1, 0
    if group == 0:
        # A constant column: whatever is not that value must show.
        out[BELOW], out[ABOVE] = 1, 2
        return 3
    return group + 1


def _category_groups(counts: Int64, n_bins: int, out: UInt8) -> int:
    total = int(counts[:MISSING].sum())
    ranked = sorted(range(n_bins), key=lambda code: (-int(counts[code]), code))
    own = [code for code in ranked[:CATEGORY_GROUPS] if int(counts[code]) >= CATEGORY_SHARE_MIN * total]
    for group, code in enumerate(own):
        out[code] = group
    used = len(own)
    rest = [code for code in range(n_bins) if code not in own]
    if rest:
        out[rest] = used
        used += 1
    out[OTHER], out[UNSEEN] = used, used + 1
    return used + 2
