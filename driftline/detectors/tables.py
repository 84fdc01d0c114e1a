"""What the kernels look up: everything that follows from a specification and a baseline, as arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.baseline import Baseline, ColumnReference
from driftline.detectors.calibration import psi_threshold
from driftline.detectors.coding import scores
from driftline.detectors.kernels.jit import portable_log
from driftline.detectors.openers import covered, openers
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
    SpecError,
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
SKIP: Final = 255
"""In a flag table: this code is no value of the series."""

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
    group: UInt8  # (S, C, N_CODES)
    share: Float64  # (S, C, G) smoothed reference shares
    log_share: Float64  # (S, C, G)
    groups: Int64  # (S, C) groups in use
    freedom: Float64  # (S, C) groups with reference values, less one
    psi_size: Float64  # (S, C) reference values behind PSI
    psi_limit: Float64  # (S, L) threshold divided by (1/n + 1/m)
    psi_least: Int64  # (S, L) values in the window from which PSI is judged
    run_limit: Int64  # (S, C) length of a run that is an alarm, 0 = none
    budgeted: Int64  # (Q,) the place of the detector that the budget covers, -1 = none
    opens: Int64  # (Q,) bits of the detectors that may open an episode
    run_by_code: UInt8  # (C,) runs compare codes, not values
    log_half: Float64  # (longest window + 2,) ln(k + 1/2)


PROOF_SHARE: Final = 0.5
"""A change that a detector of run length r finds shows about ln r by then; half of it leaves room for the date's error."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The order of series and what they come from."""

    columns: tuple[Column, ...]
    references: tuple[ColumnReference, ...]
    series: tuple[Series, ...]
    column_of: tuple[int, ...]
    counts: Int64
    segments: dict[str, tuple[str, ...]]


def lay_out(spec: PanelSpec, baseline: Baseline) -> Layout:
    """Match a specification with a baseline.

    A column the baseline lacks keeps its place and is not watched.

    Raises
    ------
    SpecError : a column of another kind, a segment key the baseline lacks, or a series that cannot be.
    """
    columns = _columns(spec, baseline)
    references = []
    place = []
    for column in columns:
        index = baseline.column(column.name)
        reference = ColumnReference(name=column.name, kind=column.kind) if index is None else baseline.columns[index]
        if reference.kind != column.kind:
            raise SpecError(f'column "{column.name}": {column.kind} here, {reference.kind} in baseline {baseline.id}; build it anew')
        references.append(reference)
        place.append(index)
    scopes, segments = _scopes(spec, baseline)
    counts: Int64 = np.zeros((len(scopes), len(columns), N_CODES), np.int64)
    for c, index in enumerate(place):
        if index is not None:
            counts[:, c] = baseline.counts[scopes, index]
    series = tuple(series for column in columns for series in column.series)
    column_of = tuple(c for c, column in enumerate(columns) for _ in column.series)
    for column, reference in zip(columns, references, strict=True):
        _check(spec, column, reference)
    return Layout(columns, tuple(references), series, column_of, counts, segments)


def _columns(spec: PanelSpec, baseline: Baseline) -> tuple[Column, ...]:
    if spec.columns is not None:
        return spec.columns
    if spec.column_factory is None:
        raise SpecError("columns: give them, or a column_factory for discovered ones")
    return tuple(spec.column_factory(column.name, column.kind) for column in baseline.columns)


def _scopes(spec: PanelSpec, baseline: Baseline) -> tuple[list[int], dict[str, tuple[str, ...]]]:
    for key in spec.segments:
        if key not in baseline.segments:
            raise SpecError(f'segment "{key}": baseline {baseline.id} has no counts for it; build it with this segment key')
    segments = {key: baseline.segments[key] for key in spec.segments}
    names = baseline.scope_names
    wanted = [0] + [i for key in segments for i, name in enumerate(names) if name is not None and name[0] == key]
    return wanted, segments


def _check(spec: PanelSpec, column: Column, reference: ColumnReference) -> None:
    if sum(series.flag is None for series in column.series) > 1:
        raise SpecError(f'column "{column.name}": at most one series of values, others need a flag')
    for series in column.series:
        if not 30 <= series.window <= spec.window:
            raise SpecError(f'series "{series.name}": window: expected 30 to {spec.window} (the panel\'s), got {series.window}')
        if len(series.detectors) > 60:
            raise SpecError(f'series "{series.name}": expected at most 60 detectors, got {len(series.detectors)}')
        flag_codes(series, column, reference)


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
        bounds=np.array([(s.warning, s.critical) for s in layout.series], np.float64).reshape(-1, 2),
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


def _fill_column(tables: Tables, layout: Layout, c: int, column: Column) -> None:
    reference = layout.references[c]
    for scope in range(len(layout.counts)):
        counts = layout.counts[scope, c]
        tables.score[scope, c] = scores(counts, reference.n_bins, column.kind)
        group, used = psi_groups(counts, reference)
        tables.group[scope, c] = group
        merged = np.zeros(GROUPS_MAX, np.int64)
        for code in range(NOT_APPLICABLE):
            merged[group[code]] += counts[code]
        total = int(merged.sum())
        tables.groups[scope, c] = used
        tables.freedom[scope, c] = max(int(np.count_nonzero(merged)) - 1, 1)
        tables.psi_size[scope, c] = max(total, 1)
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
        tables.size[scope, q] = max(valued, 1)
        watched = valued >= least and scope >= first_scope
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


def left_out(layout: Layout, scope: int, c: int) -> Float64:
    """Reference values that would have another code had the reference not had them, by that code; shape (N_CODES,).

    What is out of range or never seen is so by the reference itself, which therefore has none of it. Each value judged by the
    others: the least and the largest lie beyond them, and a category that came once was never seen. So a new value has never
    been seen with about the share of those that came once (Good 1953, Biometrika 40).
    """
    counts, reference = layout.counts[:, c], layout.references[c]
    out: Float64 = np.zeros(N_CODES)
    if reference.kind == "categorical" and reference.complete:
        once = counts[0, : reference.n_bins] == 1
        # Of those without a code of their own only the number is known, and that they are the rarest.
        out[UNSEEN] = int(counts[scope, : reference.n_bins][once].sum()) + min(int(counts[scope, OTHER]), len(reference.others))
    elif reference.kind == "numeric" and reference.low is not None:
        codes = [*range(reference.n_bins), BELOW, ABOVE]
        out[[BELOW, ABOVE]] = int(counts[scope, codes].sum()) / max(int(counts[0, codes].sum()), 1)
    return out


def flag_codes(series: Series, column: Column, reference: ColumnReference) -> UInt8:
    """Which codes are 1, 0 or no value of a series.

    Raises
    ------
    SpecError : an unknown flag, or one that the column cannot have.
    """
    flag = series.flag
    out: UInt8 = np.full(N_CODES, SKIP, np.uint8)
    out[:MISSING] = 0
    if flag is None or flag == "constant":
        return out
    if flag in ("missing", "invalid"):
        code = MISSING if flag == "missing" else INVALID
        out[MISSING : INVALID + 1] = 0
        out[code] = 1
    elif flag == "out_of_range" and column.kind == "numeric":
        out[[BELOW, ABOVE]] = 1
    elif flag == "unseen" and column.kind == "categorical":
        out[UNSEEN] = 1
    elif flag == "one" and column.kind == "binary":
        out[[1, ABOVE]] = 1
    elif flag.startswith("value:") and column.kind == "categorical":
        value = flag.removeprefix("value:")
        if value in reference.categories:
            out[reference.categories.index(value)] = 1
    elif flag.startswith("tail:") and column.kind == "numeric":
        out[_tail(series, column, reference) : BELOW] = 1
        out[ABOVE] = 1
    else:
        raise SpecError(f'series "{series.name}": flag "{flag}" does not fit a {column.kind} column')
    return out


def _tail(series: Series, column: Column, reference: ColumnReference) -> int:
    """The first code above the tail's edge."""
    try:
        quantile = float((series.flag or "").removeprefix("tail:"))
    except ValueError:
        raise SpecError(f'series "{series.name}": flag "{series.flag}": expected tail:Q with a number Q') from None
    if quantile not in column.tails:
        raise SpecError(f'series "{series.name}": quantile {quantile:g} is not in the tails of column "{column.name}"')
    edge = reference.tails.get(f"{quantile:g}")
    if edge is None or reference.high is None or edge >= reference.high:
        return reference.n_bins
    return 1 + reference.edges.index(edge)


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
