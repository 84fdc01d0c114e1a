"""The products of pairs of columns, from rows (`pairs.py` says what they are for)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftline.detectors.kernels.coding import PADDED_EDGES, multiply
from driftline.detectors.pairs import Factor
from driftline.detectors.spec import N_CODES, Float64, Int64, PanelRows, ordered_codes


class Products:
    """The products of some pairs, from rows; row i of the output is row i of the input, whatever the batch."""

    def __init__(self, pairs: Sequence[tuple[Factor, Factor]]) -> None:
        self._names = [(first.name, second.name) for first, second in pairs]
        factors = [factor for pair in pairs for factor in pair]
        self._edges: Float64 = np.full((len(factors), PADDED_EDGES), np.inf)
        self._low: Float64 = np.full(len(factors), np.inf)
        self._high: Float64 = np.full(len(factors), -np.inf)
        self._scores: Float64 = np.full((len(factors), N_CODES), np.nan)
        for i, factor in enumerate(factors):
            self._edges[i, : len(factor.edges)] = factor.edges
            if factor.low is not None and factor.high is not None:
                self._low[i], self._high[i] = factor.low, factor.high
            if factor.scores:
                self._scores[i, ordered_codes("numeric", len(factor.edges) + 1)] = factor.scores

    def values(self, rows: PanelRows) -> Float64:
        """Shape (n, pairs); NaN where either value is missing, invalid or not applicable."""
        place = {name: i for i, name in enumerate(rows.numeric_names)}
        take: Int64 = np.array([place.get(name, -1) for pair in self._names for name in pair], np.int64)
        numeric = np.ascontiguousarray(rows.numeric, np.float64)
        out: Float64 = multiply(numeric, take, self._edges, self._low, self._high, self._scores)
        for p, pair in enumerate(self._names):
            for name in pair:
                if name in rows.not_applicable:
                    out[rows.not_applicable[name], p] = np.nan
                if rows.invalid is not None and name in place:
                    out[rows.invalid[rows.invalid[:, 1] == place[name], 0], p] = np.nan
        return out
