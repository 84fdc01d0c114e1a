"""Builds a baseline from rows; live learning and files go through this one path, so equal rows give an equal id.

Memory is bounded: up to `EXACT_ROWS` rows are kept and everything is exact. Beyond that every second kept row is
dropped, again and again, so that rows 0, k, 2k, ... remain, k the smallest power of two that fits: the same rows
however the input is cut. Bins and counts are then those of the kept rows (their number is the baseline's `rows`, k its
`thinning`); with 500,000 rows or more a share of .5 is known to .0007.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from driftline.detectors.autoregression_fit import VALUES_MIN, fit
from driftline.detectors.baseline import Baseline, ColumnReference, scope_names
from driftline.detectors.block_fit import block_reference, left_of
from driftline.detectors.coding import RowCoder, scores
from driftline.detectors.kernels.jit import compiled
from driftline.detectors.pairs import Factor
from driftline.detectors.products import Products
from driftline.detectors.quantiles import numeric_reference, reference_with_means
from driftline.detectors.runs_fit import find as find_runs
from driftline.detectors.scopes import Scopes, Texts
from driftline.detectors.season import hour_scores, hours_of, places_of
from driftline.detectors.season_fit import find, own_scores
from driftline.detectors.spec import (
    MAX_BINS,
    N_CODES,
    OTHER_SEGMENT,
    BaselineError,
    Column,
    Float64,
    Grouping,
    Int32,
    Int64,
    Kind,
    PanelRows,
    PanelSpec,
    UInt8,
    ordered_codes,
)
from driftline.detectors.witnesses import Witnesses

EXACT_ROWS: Final = 1_000_000
"""Rows kept whole: 20 numeric columns take 160 MB."""

ORDERED_ROWS: Final = 50_000
"""The first rows, in which a memory is looked for: thinned rows have lost it. A correlation is known to .005 from so many."""

OTHERS_MAX: Final = 10_000
"""Known values beyond the ranked ones that are remembered, to tell a rare value from an unseen one."""


class BaselineBuilder:
    """Takes rows, gives a baseline.

    Parameters
    ----------
    columns : what to measure; None = every column of the rows, by name.
    segments : key -> most values with counts of their own.
    column_factory : says the kind and tails of a discovered column.
    pairs : products and blocks beside discovered columns, where all factors are numbers.
    grouping : whether values are counted by the hour, and by which; auto = where the hours differ.
    """

    def __init__(
        self,
        columns: Sequence[Column] | None,
        segments: Mapping[str, int],
        *,
        column_factory: Callable[[str, Kind], Column] | None = None,
        pairs: tuple[Column, ...] = (),
        sensitive: frozenset[str] = frozenset(),
        hash_key: bytes = b"",
        exact_rows: int = EXACT_ROWS,
        grouping: Grouping = "auto",
    ) -> None:
        self._grouping = grouping
        self._columns = columns
        self._factory = column_factory
        self._pairs = pairs
        self._segments = dict(segments)
        self._sensitive = sensitive
        self._hash_key = hash_key
        self._exact_rows = exact_rows
        # Of the rows that are still whole at the first thinning, only so many are there however the input is cut.
        self._ordered_rows = min(ORDERED_ROWS, exact_rows)
        self._chunks: list[PanelRows] = []
        self._first: list[PanelRows] | None = None
        self._stride = 1
        self.seen = 0
        self._kept = 0
        self._taken = 0

    @classmethod
    def of(cls, spec: PanelSpec) -> BaselineBuilder:
        """The builder of what a panel compares with."""
        return cls(
            spec.columns, spec.segments, column_factory=spec.column_factory, pairs=spec.pairs, sensitive=spec.sensitive,
            hash_key=spec.hash_key, grouping=spec.grouping,
        )  # fmt: skip

    def go_on_under(self, spec: PanelSpec) -> None:
        """Build from the same rows what another specification asks for; they have every column and segment key of it."""
        self._columns, self._factory, self._pairs = spec.columns, spec.column_factory, spec.pairs
        self._segments = dict(spec.segments)

    def take_new_chunks(self) -> list[PanelRows]:
        """The pieces of rows that came since the last call, as they are kept; for checkpoints, before any thinning."""
        new = self._chunks[self._taken :]
        self._taken = len(self._chunks)
        return new

    @property
    def rows(self) -> list[PanelRows]:
        """The rows that are kept."""
        return self._chunks

    def add(self, rows: PanelRows) -> None:
        """Take rows; they are copied."""
        first = -self.seen % self._stride
        self.seen += rows.n
        if first < rows.n:
            self._chunks.append(pick(rows, np.arange(first, rows.n, self._stride)))
            self._kept += self._chunks[-1].n
        while self._kept > self._exact_rows:
            self._thin()

    def _thin(self) -> None:
        """Drop every second kept row."""
        if self._first is None:
            self._first = _head(self._chunks, self._ordered_rows)
        self._stride *= 2
        before, thinned = 0, []
        for chunk in self._chunks:
            thinned.append(pick(chunk, np.arange(-before % 2, chunk.n, 2)))
            before += chunk.n
        self._chunks = [chunk for chunk in thinned if chunk.n]
        self._kept = sum(chunk.n for chunk in self._chunks)

    def finish(self) -> Baseline:
        """The baseline of all rows taken so far.

        Raises
        ------
        BaselineError : no rows.
        """
        if not self._kept:
            raise BaselineError("no rows to build a baseline from")
        ordered = _head(self._chunks if self._first is None else self._first, self._ordered_rows)
        references = [self._reference(column, ordered) for column in self._wanted()]
        blocks = [(column.name, column.block) for column in references if column.block is not None]
        segments = {key: self._admitted(key, most) for key, most in self._segments.items()}
        counts = np.zeros((len(scope_names(segments)), len(references), N_CODES), np.int64)
        coder = RowCoder(references, hash_key=self._hash_key)
        scopes = Scopes(segments, sensitive=self._sensitive, hash_key=self._hash_key)
        witnesses = Witnesses(blocks)
        coded = [(coder.encode(chunk, witnesses.update(chunk))[0], scopes.encode(chunk), chunk.time_ms) for chunk in self._chunks]
        for codes, own, _ in coded:
            count_codes(codes, own, counts)
        score: Float64 = np.full(counts.shape, np.nan)
        for c, reference in enumerate(references):
            # A binary column has no values, only flags; what a block's rows are worth has no scale but its own.
            scored = reference.kind != "binary" and reference.block is None
            for s in np.flatnonzero(counts[:, c].sum(axis=1) >= VALUES_MIN) if scored else ():
                score[s, c] = scores(counts[s, c], reference.n_bins, reference.kind)
        season = find(coded, score, references, self._grouping)
        del coded
        pieces = [(coder.encode(chunk)[0], scopes.encode(chunk), places_of(hours_of(chunk.time_ms))) for chunk in ordered]
        memory, left = fit(pieces, hour_scores(score, own_scores(season, references, score)))
        # What goes by the hour has shares of draws by the hour, which are not told apart.
        kinds = {(s, c): references[c].n_bins for s, c in memory if references[c].kind == "categorical" and (s, c) not in season}
        memory, left = find_runs(pieces, kinds, memory, left)
        left = dict(sorted((left | left_of(references, ordered)).items()))
        return Baseline(
            tuple(references), segments, counts, rows=self._kept, thinning=self._stride, memory=memory, dependence=left, season=season
        )

    def _wanted(self) -> Sequence[Column]:
        if self._columns is not None:
            return self._columns
        present: dict[str, list[int]] = {}
        for chunk in self._chunks:
            for i, name in enumerate(chunk.numeric_names):
                present.setdefault(name, [0, 0])[0] += int(np.count_nonzero(~np.isnan(chunk.numeric[:, i])))
            for name, (codes, _) in chunk.categorical.items():
                present.setdefault(name, [0, 0])[1] += int(np.count_nonzero(codes >= 0))
        # A column that comes as numbers and as texts is what it mostly is; the rest of its values is invalid.
        kinds: dict[str, Kind] = {name: "categorical" if texts > numbers else "numeric" for name, (numbers, texts) in present.items()}
        made = self._factory or Column
        pairs = [pair for pair in self._pairs if all(kinds.get(name) == "numeric" for name in pair.factors)]
        return [*(made(name, kinds[name]) for name in sorted(kinds)), *pairs]

    def _reference(self, column: Column, ordered: Sequence[PanelRows] = ()) -> ColumnReference:
        if column.joint:
            return block_reference(column, self._chunks, ordered)
        if column.factors:
            return self._product(column.name, column.factors)
        name = column.name
        if column.kind == "categorical":
            return self._categories(name)
        values = self._numbers(name)
        finite = values[np.isfinite(values)]
        if column.kind == "binary":
            ones = float(np.count_nonzero(finite >= 0.5))
            atom = max(ones, len(finite) - ones) / len(finite) if len(finite) else 0.0
            return ColumnReference(name=name, kind="binary", atom=atom)
        return numeric_reference(name, finite, column.tails)

    def _product(self, name: str, names: tuple[str, ...]) -> ColumnReference:
        """The reference of a pair: of its products over the rows that have both values."""
        factors = (self._factor(names[0]), self._factor(names[1]))
        products = Products([factors])
        values = np.concatenate([products.values(chunk)[:, 0] for chunk in self._chunks])
        return replace(reference_with_means(name, values), factors=factors)

    def _factor(self, name: str) -> Factor:
        """What the values of a column score, whether it is watched by itself or not."""
        reference = self._reference(Column(name, "numeric"))
        if reference.low is None:
            return Factor(name)
        coder = RowCoder([reference])
        counts = sum(np.bincount(coder.encode(chunk)[0][:, 0], minlength=N_CODES) for chunk in self._chunks)
        own = scores(np.asarray(counts, np.int64), reference.n_bins, "numeric")[ordered_codes("numeric", reference.n_bins)]
        return Factor(name, reference.edges, reference.low, reference.high, tuple(own.tolist()))

    def _numbers(self, name: str) -> Float64:
        parts = []
        for chunk in self._chunks:
            if name not in chunk.numeric_names:
                continue
            place = list(chunk.numeric_names).index(name)
            counted = np.ones(chunk.n, bool)
            if name in chunk.not_applicable:
                counted &= ~chunk.not_applicable[name]
            if chunk.invalid is not None:
                counted[chunk.invalid[chunk.invalid[:, 1] == place, 0]] = False
            parts.append(chunk.numeric[counted, place])
        return np.concatenate(parts) if parts else np.zeros(0)

    def _categories(self, name: str) -> ColumnReference:
        sensitive = name in self._sensitive
        texts = Texts(sensitive=sensitive, key=self._hash_key)
        counted: Counter[str] = Counter()
        for chunk in self._chunks:
            if name not in chunk.categorical:
                continue
            codes, values = chunk.categorical[name]
            valid = codes >= 0
            if name in chunk.not_applicable:
                valid &= ~chunk.not_applicable[name]
            if chunk.invalid is not None:
                place = len(chunk.numeric_names) + list(chunk.categorical).index(name)
                valid[chunk.invalid[chunk.invalid[:, 1] == place, 0]] = False
            _tally(counted, codes[valid], texts.shown(values))
        ranked = _ranked(counted)
        others = sorted(ranked[MAX_BINS:])
        total = sum(counted.values())
        return ColumnReference(
            name=name,
            kind="categorical",
            atom=counted[ranked[0]] / total if ranked else 0.0,
            categories=tuple(ranked[:MAX_BINS]),
            others=tuple(others[:OTHERS_MAX]),
            complete=len(others) <= OTHERS_MAX,
            sensitive=sensitive,
        )

    def _admitted(self, key: str, most: int) -> tuple[str, ...]:
        texts = Texts(sensitive=key in self._sensitive, key=self._hash_key)
        counted: Counter[str] = Counter()
        for chunk in self._chunks:
            if key in chunk.segments:
                codes, values = chunk.segments[key]
                _tally(counted, codes[codes >= 0], texts.shown(values))
        # A value that is itself called "other" shares that scope: two scopes of one name could not be told apart.
        counted.pop(OTHER_SEGMENT, None)
        return tuple(_ranked(counted)[:most])


def _tally(counted: Counter[str], codes: Int32, values: list[str]) -> None:
    for code, count in zip(*(part.tolist() for part in np.unique(codes, return_counts=True)), strict=True):
        counted[values[code]] += count


def _ranked(counted: Counter[str]) -> list[str]:
    """By count, ties by value, so that the order of arrival never shows."""
    return sorted(counted, key=lambda value: (-counted[value], value))


@compiled
def count_codes(codes: UInt8, scopes: Int32, counts: Int64) -> None:
    """Add coded rows to the counts of their scopes."""
    for row in range(codes.shape[0]):
        for k in range(scopes.shape[1]):
            scope = scopes[row, k]
            for c in range(codes.shape[1]):
                counts[scope, c, codes[row, c]] += 1


def pick(rows: PanelRows, kept: Int64) -> PanelRows:
    """A copy of some rows (indices ascending), with dictionaries cut down to the values in use."""
    invalid = rows.invalid
    if invalid is not None:
        place: Int64 = np.full(rows.n, -1, np.int64)
        place[kept] = np.arange(len(kept))
        inside = place[invalid[:, 0]] >= 0
        invalid = np.stack([place[invalid[inside, 0]], invalid[inside, 1]], axis=1).astype(np.int32)
    return PanelRows(
        n=len(kept),
        numeric=rows.numeric[kept],
        numeric_names=list(rows.numeric_names),
        categorical={name: _compact(codes[kept], values) for name, (codes, values) in rows.categorical.items()},
        source=rows.source[kept],
        offset=rows.offset[kept],
        time_ms=rows.time_ms[kept],
        invalid=invalid if invalid is not None and len(invalid) else None,
        not_applicable={name: mask[kept] for name, mask in rows.not_applicable.items()},
        segments={key: _compact(codes[kept], values) for key, (codes, values) in rows.segments.items()},
        vectors={name: vector[kept] for name, vector in rows.vectors.items()},
    )


def _head(chunks: Sequence[PanelRows], rows: int) -> list[PanelRows]:
    """The first rows, at most so many."""
    out = []
    for chunk in chunks:
        if rows > 0:
            out.append(chunk.slice(0, min(chunk.n, rows)))
            rows -= chunk.n
    return out


def _compact(codes: Int32, values: list[str]) -> tuple[Int32, list[str]]:
    used, inverse = np.unique(codes, return_inverse=True)
    missing = bool(len(used)) and used[0] < 0
    return (inverse - int(missing)).astype(np.int32), [values[code] for code in used.tolist() if code >= 0]
