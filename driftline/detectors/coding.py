"""From values to codes: quantile bins by binary search, categories by remapped dictionaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

from driftline.detectors.baseline import ColumnReference
from driftline.detectors.kernels.coding import PADDED_EDGES, code_numbers
from driftline.detectors.products import Products
from driftline.detectors.scopes import Texts
from driftline.detectors.spec import (
    INVALID,
    MISSING,
    N_CODES,
    NOT_APPLICABLE,
    OTHER,
    UNSEEN,
    Float64,
    Int64,
    PanelRows,
    UInt8,
    ordered_codes,
)

SCORE_MAX: Final = 4.0
"""Largest |standardised score|. Ranks of 5,000 reference rows reach 3.7; without the cap the rare value of a
nearly constant column would score 1/sqrt(share) and two of them would look like a shift of the mean."""


class RowCoder:
    """Codes the columns of a baseline; row i of the outputs is row i of the input, whatever the batch."""

    def __init__(self, columns: Sequence[ColumnReference], *, hash_key: bytes = b"") -> None:
        self._columns = tuple(columns)
        self._edges = np.full((len(columns), PADDED_EDGES), np.inf)
        self._low = np.full(len(columns), np.inf)
        self._high = np.full(len(columns), -np.inf)
        self._categories: dict[int, tuple[dict[str, int], int, Texts]] = {}
        self._pairs = [c for c, column in enumerate(columns) if column.factors]
        self._products = Products([column.factors for column in columns if column.factors])
        self._blocks = [c for c, column in enumerate(columns) if column.block is not None]
        self._texts = [c for c, column in enumerate(columns) if column.kind == "categorical"]
        self._numbers = [(c, column.name) for c, column in enumerate(columns) if column.kind != "categorical" and not column.factor_names]
        self._place = {column.name: c for c, column in enumerate(columns)}
        for c, column in enumerate(self._columns):
            if column.kind == "categorical":
                known = dict.fromkeys(column.others, OTHER) | {value: code for code, value in enumerate(column.categories)}
                unknown = UNSEEN if column.complete else OTHER
                self._categories[c] = (known, unknown, Texts(sensitive=column.sensitive, key=hash_key))
                continue
            self._edges[c, : len(column.edges)] = column.edges
            if column.kind == "binary":
                self._edges[c, 0] = 0.5
                self._low[c], self._high[c] = 0.0, 1.0
            elif column.low is not None and column.high is not None:
                self._low[c], self._high[c] = column.low, column.high

    def encode(self, rows: PanelRows, worths: Float64 | None = None) -> tuple[UInt8, Float64]:
        """Codes and values, both of shape (n, columns).

        A value is NaN where there is no finite number: missing, invalid, not applicable, infinite, or a category.

        Parameters
        ----------
        worths : (n, blocks), of the rows to the witness of each block (`blocks.py`); needed where there are any.
        """
        codes: UInt8 = np.full((rows.n, len(self._columns)), MISSING, np.uint8)
        values: Float64 = np.full((rows.n, len(self._columns)), np.nan)
        place = {name: i for i, name in enumerate(rows.numeric_names)}
        take: Int64 = np.full(len(self._columns), -1, np.int64)
        for c, name in self._numbers:
            take[c] = place.get(name, -1)
        code_numbers(np.ascontiguousarray(rows.numeric, np.float64), take, self._edges, self._low, self._high, codes, values)
        if self._pairs:
            self._code_made(self._pairs, self._products.values(rows), codes, values)
        if self._blocks:
            self._code_made(self._blocks, np.full((rows.n, len(self._blocks)), np.nan) if worths is None else worths, codes, values)
        for c in range(len(self._columns)) if rows.categorical else self._texts:
            self._code_other_kind(rows, c, self._columns[c], place, codes)
        self._mark(rows, codes, values)
        return codes, values

    def _code_made(self, columns: list[int], made: Float64, codes: UInt8, values: Float64) -> None:
        """Where a factor has no value there is nothing made of it: the factor's own series say what is wrong with it."""
        codes[:, columns] = NOT_APPLICABLE
        take: Int64 = np.full(len(self._columns), -1, np.int64)
        take[columns] = np.arange(len(columns))
        code_numbers(made, take, self._edges, self._low, self._high, codes, values)

    def _code_other_kind(self, rows: PanelRows, c: int, column: ColumnReference, place: dict[str, int], codes: UInt8) -> None:
        """Categories; and columns that come as the other kind than the baseline's, whose values are all invalid."""
        texts = rows.categorical.get(column.name)
        if column.kind != "categorical":
            if texts is not None and column.name not in place:
                codes[:, c] = np.where(texts[0] < 0, MISSING, INVALID)
            return
        if texts is not None:
            known, unknown, hidden = self._categories[c]
            table = np.array([known.get(value, unknown) for value in hidden.shown(texts[1])] + [MISSING], np.uint8)
            codes[:, c] = table[texts[0]]
        elif column.name in place:
            codes[:, c] = np.where(np.isnan(rows.numeric[:, place[column.name]]), MISSING, INVALID)

    def _mark(self, rows: PanelRows, codes: UInt8, values: Float64) -> None:
        index = self._place
        if rows.invalid is not None and len(rows.invalid):
            names = [*rows.numeric_names, *rows.categorical]
            target = np.array([index.get(name, -1) for name in names], np.int64)
            columns = target[rows.invalid[:, 1]]
            kept = columns >= 0
            codes[rows.invalid[kept, 0], columns[kept]] = INVALID
            values[rows.invalid[kept, 0], columns[kept]] = np.nan
        for name, mask in rows.not_applicable.items():
            if name in index:
                codes[mask, index[name]] = NOT_APPLICABLE
                values[mask, index[name]] = np.nan


def worth_scores(reference: ColumnReference) -> Float64:
    """The score of each code of a block: the mean worth of its bin, less that of the whole reference, in standard deviations."""
    out: Float64 = np.full(N_CODES, np.nan)
    if reference.low is not None and reference.high is not None:
        by_code = (reference.low, *reference.means, reference.high)
        out[ordered_codes("numeric", reference.n_bins)] = (np.array(by_code) - (reference.mean or 0.0)) / reference.unit
    return out


def scores(counts: Int64, n_bins: int, kind: str) -> Float64:
    """The standardised score of each code under a reference's counts; NaN where a code carries no level.

    A code's score is the normal quantile of its mid-rank, shifted and scaled to mean 0 and variance 1 over the
    reference, capped at `SCORE_MAX`. So a mean of scores is a shift in standard deviations for normal data and keeps
    its scale for any other; one giant outlier counts as one value of the outer bin.

    Parameters
    ----------
    counts : shape (N_CODES,), one scope and column.
    """
    out: Float64 = np.full(N_CODES, np.nan)
    order = ordered_codes(kind, n_bins)
    total = int(sum(int(counts[code]) for code in order))
    if not total:
        return out
    normal = NormalDist()
    before = 0
    raw: dict[int, float] = {}
    for code in order:
        count = int(counts[code])
        raw[code] = normal.inv_cdf((before + 0.5 * count + 0.5) / (total + 1))
        before += count
    mean = math.fsum(int(counts[code]) * z for code, z in raw.items()) / total
    variance = math.fsum(int(counts[code]) * (z - mean) ** 2 for code, z in raw.items()) / total
    # One bin holds everything: there is no scale; what falls outside still scores its rank.
    scale = math.sqrt(variance) if variance > 0 else 1.0
    for code, z in raw.items():
        out[code] = min(max((z - mean) / scale, -SCORE_MAX), SCORE_MAX)
    return out
