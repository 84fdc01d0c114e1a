"""The fit of a memory: autocovariances, order and residuals of every scope and column of a reference, in stream order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from driftline.detectors.autoregression import ORDER_MOST, Autoregression
from driftline.detectors.kernels.autoregression import add_products, collect_residuals, fit_order
from driftline.detectors.spec import Float64, Int32, Int64, UInt8

VALUES_MIN: Final = 200
"""Of a series, for a fit; what a scope must have to be watched in any panel of usual size."""
RESIDUAL_BINS: Final = 60
_VARIANCE_LEAST: Final = 1e-6
"""Of the values'; a series that its past foretells better than this is a formula, and its residuals are rounding."""

Coded = tuple[UInt8, Int32]
"""Codes (n, C) and scopes (n, S) of a piece of the reference."""


def fit(pieces: Sequence[Coded], score: Float64) -> dict[tuple[int, int], Autoregression]:
    """The memories of a reference by (scope, column), of those that have one.

    Parameters
    ----------
    pieces : in stream order, none left out.
    score : (S, C, codes), of a value with each code; NaN = no value.
    """
    n_scopes, n_columns = score.shape[:2]
    past, seen = np.zeros((n_scopes, n_columns, ORDER_MOST)), np.zeros((n_scopes, n_columns), np.int64)
    products = np.zeros((n_scopes, n_columns, ORDER_MOST + 1))
    for codes, scopes in pieces:
        add_products(codes, scopes, score, past, seen, products)
    found: dict[tuple[int, int], Autoregression] = {}
    for c in np.flatnonzero((seen >= VALUES_MIN).any(axis=0)).tolist():
        found |= _fit_column(pieces, score, c, products[:, c], seen[:, c])
    return dict(sorted(found.items()))


def _fit_column(pieces: Sequence[Coded], score: Float64, c: int, products: Float64, seen: Int64) -> dict[tuple[int, int], Autoregression]:
    n_scopes = len(seen)
    order, coefficients, trial = np.zeros(n_scopes, np.int64), np.zeros((n_scopes, ORDER_MOST)), np.zeros(ORDER_MOST)
    for s in range(n_scopes):
        if seen[s] >= VALUES_MIN:
            order[s] = fit_order(products[s], int(seen[s]), _VARIANCE_LEAST * float(products[s, 0]), coefficients[s], trial)
    if not order.any():
        return {}
    kept = np.where(order > 0, seen - order, 0)
    ends = np.cumsum(kept)
    out = np.empty(int(ends[-1]))
    own = np.ascontiguousarray(score[:, c])
    past, taken = np.zeros((n_scopes, ORDER_MOST)), np.zeros(n_scopes, np.int64)
    for codes, scopes in pieces:
        collect_residuals(codes, c, scopes, own, order, coefficients, past, taken, ends - kept, out)
    found = {}
    for s in np.flatnonzero(order).tolist():
        values = np.sort(out[ends[s] - kept[s] : ends[s]])
        sd = math.sqrt(math.fsum((values * values).tolist()) / len(values))
        if sd > 0.0:
            found[s, c] = _described(coefficients[s, : order[s]].tolist(), sd, values)
    return found


def _described(coefficients: list[float], sd: float, ordered: Float64) -> Autoregression:
    n = len(ordered)
    ranks = [-(-n * j // RESIDUAL_BINS) for j in range(1, RESIDUAL_BINS)]
    low, high = float(ordered[0]), float(ordered[-1])
    inner = sorted({float(ordered[rank - 1]) for rank in ranks} - {high})
    edges = (math.nextafter(low, -math.inf), *inner, high)
    counts = np.bincount(np.searchsorted(edges, ordered, side="left"), minlength=len(edges) + 1)
    return Autoregression(tuple(coefficients), sd, edges, tuple(counts.tolist()))
