"""The order of series, what they come from, and which codes of a column each of them is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from driftline.detectors.autoregression import Autoregression, Dependence, worth_one
from driftline.detectors.baseline import Baseline, ColumnReference
from driftline.detectors.runs import draw_shares
from driftline.detectors.season import HourScores, Season, hour_scores
from driftline.detectors.spec import (
    ABOVE,
    BELOW,
    INVALID,
    MISSING,
    N_CODES,
    OTHER,
    UNSEEN,
    Column,
    Float64,
    Int64,
    PanelSpec,
    Series,
    SpecError,
    UInt8,
    ordered_codes,
)

SKIP: Final = 255
"""In a flag table: this code is no value of the series."""

NEW_SHARE: Final = 0.01
"""Share of new values from which they count as rare ones. Below it what is counted for them beside the others shifts no rank by more."""
NEARLY_ALL: Final = 0.8
"""Share of new values, known from above, from which there is no distribution left to compare."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The order of series and what they come from."""

    columns: tuple[Column, ...]
    references: tuple[ColumnReference, ...]
    series: tuple[Series, ...]
    column_of: tuple[int, ...]
    counts: Int64
    segments: dict[str, tuple[str, ...]]
    memory: dict[tuple[int, int], Autoregression]
    dependence: dict[tuple[int, int], Dependence]
    season: dict[tuple[int, int], Season]

    def hours_matched(self, scope: int, c: int) -> Season | None:
        """The season whose hours windows are compared with; None = with all of the reference.

        A share of values above an edge is told as it is, so that a column which is asked for one stays with all hours.
        """
        told = self.references[c].kind != "numeric" or self.columns[c].tails
        return None if told else self.season.get((scope, c))

    def worth_one(self, scope: int, c: int, n: int) -> float:
        """As `autoregression.worth_one`, of a column's values in a scope."""
        return worth_one(self.memory.get((scope, c)), self.dependence.get((scope, c)), n)


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
        if (reference.factor_names, reference.block is not None) != (column.factors, column.joint) and index is not None:
            raise SpecError(f'column "{column.name}": of other factors in baseline {baseline.id}; build it anew')
        if reference.kind != column.kind:
            raise SpecError(f'column "{column.name}": {column.kind} here, {reference.kind} in baseline {baseline.id}; build it anew')
        references.append(reference)
        place.append(index)
    scopes, segments = _scopes(spec, baseline)
    counts: Int64 = np.zeros((len(scopes), len(columns), N_CODES), np.int64)
    memory: dict[tuple[int, int], Autoregression] = {}
    dependence: dict[tuple[int, int], Dependence] = {}
    season: dict[tuple[int, int], Season] = {}
    for c, index in enumerate(place):
        if index is not None:
            counts[:, c] = baseline.counts[scopes, index]
            memory |= {(i, c): baseline.memory[s, index] for i, s in enumerate(scopes) if (s, index) in baseline.memory}
            dependence |= {(i, c): baseline.dependence[s, index] for i, s in enumerate(scopes) if (s, index) in baseline.dependence}
            season |= {(i, c): baseline.season[s, index] for i, s in enumerate(scopes) if (s, index) in baseline.season}
    series = tuple(series for column in columns for series in column.series)
    column_of = tuple(c for c, column in enumerate(columns) for _ in column.series)
    for column, reference in zip(columns, references, strict=True):
        _check(spec, column, reference)
    return Layout(columns, tuple(references), series, column_of, counts, segments, memory, dependence, season)


def _columns(spec: PanelSpec, baseline: Baseline) -> tuple[Column, ...]:
    if spec.columns is not None:
        return spec.columns
    if spec.column_factory is None:
        raise SpecError("columns: give them, or a column_factory for discovered ones")
    found = [spec.column_factory(column.name, column.kind) for column in baseline.columns if not column.factor_names]
    # A file may hold pairs that nobody asks for.
    return (*found, *(pair for pair in spec.pairs if baseline.column(pair.name) is not None))


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


def ranks_room(layout: Layout) -> tuple[HourScores, HourScores]:
    """Where the ranks of a code's values begin under the reference of a scope and hour, and how much room they have; NaN = no level."""
    low: Float64 = np.full((len(layout.counts), len(layout.columns), N_CODES), np.nan)
    width = low.copy()
    for c, reference in enumerate(layout.references):
        order = ordered_codes(reference.kind, reference.n_bins)
        merged = new_are_expected(layout, c)
        low[:, c, order], width[:, c, order] = room(np.array([values_by_rank(layout, s, c) for s in range(len(layout.counts))]))
        if merged:
            low[:, c, UNSEEN], width[:, c, UNSEEN] = low[:, c, OTHER], width[:, c, OTHER]
    own_low: dict[tuple[int, int], Float64] = {}
    own_width: dict[tuple[int, int], Float64] = {}
    for (s, c), season in layout.season.items():
        reference = layout.references[c]
        codes: Int64 = np.array(ordered_codes(reference.kind, reference.n_bins))
        counts = season.by_code(reference.kind, reference.n_bins)[:, codes]
        known = np.flatnonzero(counts.any(axis=1))
        own_low[s, c], own_width[s, c] = (np.tile(pooled[s, c], (season.period, 1)) for pooled in (low, width))
        share = counts.sum(axis=1, keepdims=True) / max(int(layout.counts[s, c, codes].sum()), 1)
        merged = new_are_expected(layout, c)
        begins, has = room(counts + (0.0 if merged else share * left_out(layout, s, c)[codes]))
        own_low[s, c][np.ix_(known, codes)], own_width[s, c][np.ix_(known, codes)] = begins[known], has[known]
        if merged:
            own_low[s, c][known, UNSEEN], own_width[s, c][known, UNSEEN] = own_low[s, c][known, OTHER], own_width[s, c][known, OTHER]
    return hour_scores(low, own_low), hour_scores(width, own_width)


def values_by_rank(layout: Layout, scope: int, c: int) -> Float64:
    """Reference values of each code that has a rank, in the order of ranks, over all hours."""
    order = ordered_codes(layout.references[c].kind, layout.references[c].n_bins)
    counts: Float64 = layout.counts[scope, c, order].astype(np.float64)
    # A value that was never seen has room by what the reference would not have seen without itself.
    return counts if new_are_expected(layout, c) else counts + left_out(layout, scope, c)[order]


def draws_by_rank(layout: Layout, scope: int, c: int) -> Float64 | None:
    """Of categories that come in runs: of the draws of each code, as many as were seen to begin a run; None where they do not.

    In the order of ranks. What is new has room by those that began one run, as of values (`left_out`).
    """
    memory = layout.memory.get((scope, c))
    share = draw_shares(memory.runs) if memory is not None and memory.runs else None
    if memory is None or share is None:
        return None
    draws = share * sum(memory.runs)
    if not new_are_expected(layout, c):
        n, others = layout.references[c].n_bins, len(layout.references[c].others)
        here = layout.counts[scope, c, :n] == layout.counts[0, c, :n]
        runs: Int64 = np.array(memory.runs, np.int64)
        draws[-1] += int(np.count_nonzero(here & (runs[:n] == 1))) + min(int(runs[n]), others)
    return draws


def room(counts: Float64) -> tuple[Float64, Float64]:
    """Where the ranks of the values in each bin begin and how much room they have, the judged value beside them; (..., bins)."""
    total = counts.sum(axis=-1, keepdims=True) + 1.0
    return (np.cumsum(counts, axis=-1) - counts) / total, (counts + 1.0) / total


def new_are_expected(layout: Layout, c: int) -> bool:
    """Whether a column has so many values that new ones are no news: they count as the rare ones of the reference then.

    Which of the reference's rare values were seen once is not kept, so that the share of new ones is known from above only
    (`left_out`). Series of `unseen` are judged by that share all the same.
    """
    return _new_share(layout, c) > NEW_SHARE


def nearly_all_are_new(layout: Layout, c: int) -> bool:
    """Whether most values of a column are new: session ids or addresses, of which there is no distribution to compare."""
    return _new_share(layout, c) > NEARLY_ALL


def _new_share(layout: Layout, c: int) -> float:
    reference = layout.references[c]
    if reference.kind != "categorical" or not reference.complete:
        return 0.0
    values = int(layout.counts[0, c, ordered_codes("categorical", reference.n_bins)].sum())
    return float(left_out(layout, 0, c)[UNSEEN]) / max(values, 1)


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
