"""Values with a memory: sums for a fit, residuals, and their bins.

x_t = sum_k phi_k x_{t-k} + e_t. Values of one series follow each other whatever rows without a value lie between them, and
`past` holds the last ones, the newest first. The fit and the residuals that are judged later go through the same lines.
"""

from __future__ import annotations

import numpy as np

from driftline.detectors.autoregression import EDGES_KEPT, ORDER_MOST
from driftline.detectors.kernels.bank import Float64Array, Int32Array, Int64Array, UInt8Array
from driftline.detectors.kernels.jit import inlined, kernel, portable_log


@inlined
def residual(x: float, coefficients: Float64Array, past: Float64Array, order: int) -> float:
    """What the values before do not tell."""
    e = x
    for k in range(order):
        e -= coefficients[k] * past[k]
    return e


@inlined
def remember(x: float, past: Float64Array, order: int) -> None:
    """Put a value before the others."""
    for k in range(order - 1, 0, -1):
        past[k] = past[k - 1]
    past[0] = x


@inlined
def bin_of(x: float, edges: Float64Array) -> int:
    """The number of edges below x."""
    place = 0
    for step in (32, 16, 8, 4, 2, 1):
        place += step * int(edges[place + step - 1] < x)
    return place


@kernel
def add_products(
    codes: UInt8Array,
    scopes: Int32Array,
    places: Int64Array,
    score: Float64Array,
    first: Int64Array,
    way: Int64Array,
    past: Float64Array,
    seen: Int64Array,
    products: Float64Array,
) -> None:
    """Add rows to the sums of x_t x_{t-k}, k = 0 .. ORDER_MOST, of each scope and column.

    Parameters
    ----------
    places : of the rows' hours. `score`, `first`, `way`: (T, codes), NaN = no value, and (S, C) (`season.HourScores`).
    past : (S, C, ORDER_MOST). `seen`: (S, C) values so far. `products`: (S, C, ORDER_MOST + 1)
    """
    for i in range(codes.shape[0]):
        for j in range(scopes.shape[1]):
            s = scopes[i, j]
            for c in range(codes.shape[1]):
                x = score[first[s, c] + places[i, way[s, c]], codes[i, c]]
                if x != x:
                    continue
                products[s, c, 0] += x * x
                for k in range(min(seen[s, c], ORDER_MOST)):
                    products[s, c, 1 + k] += x * past[s, c, k]
                remember(x, past[s, c], ORDER_MOST)
                seen[s, c] += 1


@kernel
def collect_residuals(
    codes: UInt8Array,
    c: int,
    scopes: Int32Array,
    places: Int64Array,
    score: Float64Array,
    first: Int64Array,
    way: Int64Array,
    order: Int64Array,
    coefficients: Float64Array,
    past: Float64Array,
    seen: Int64Array,
    start: Int64Array,
    out: Float64Array,
) -> None:
    """Write the residuals of one column of rows, those of a scope one after another from its `start`; order -1 = not asked for."""
    for i in range(codes.shape[0]):
        for j in range(scopes.shape[1]):
            s = scopes[i, j]
            x = score[first[s, c] + places[i, way[s, c]], codes[i, c]]
            if order[s] < 0 or x != x:
                continue
            if seen[s] >= order[s]:
                out[start[s] + seen[s] - order[s]] = residual(x, coefficients[s], past[s], order[s])
            remember(x, past[s], order[s])
            seen[s] += 1


@kernel
def fit_order(products: Float64Array, n: int, least: float, coefficients: Float64Array, trial: Float64Array) -> int:
    """Fill the coefficients of the order whose Bayesian information criterion n ln v_p + p ln n is least; 0 = no memory.

    Levinson's recursion on the autocovariances, which gives a stationary process for any values (Durbin 1960; Schwarz 1978
    for the criterion). Without a memory an order above 0 is chosen about once in 300 fits of 5,000 values, and its
    coefficients are then near 0.

    Parameters
    ----------
    products : (ORDER_MOST + 1,) sums over n values
    least : variance below which a prediction is rounding
    coefficients, trial : (ORDER_MOST,), written; zeros beyond the order
    """
    best, order = 0.0, 0
    variance = products[0]
    penalty = portable_log(float(n))
    for k in range(ORDER_MOST):
        coefficients[k], trial[k] = 0.0, 0.0
    if not variance > least:
        return 0
    for p in range(ORDER_MOST):
        gap = products[p + 1]
        for k in range(p):
            gap -= trial[k] * products[p - k]
        reflection = gap / variance
        for k in range((p + 1) // 2):
            a, b = trial[k], trial[p - 1 - k]
            trial[k] = a - reflection * b
            trial[p - 1 - k] = b - reflection * a
        trial[p] = reflection
        variance *= 1.0 - reflection * reflection
        if not variance > least:
            break
        criterion = n * portable_log(variance / products[0]) + (p + 1) * penalty
        if criterion < best:
            best, order = criterion, p + 1
            for k in range(order):
                coefficients[k] = trial[k]
    return order


def padded_edges(edges: tuple[float, ...]) -> Float64Array:
    """Edges as `bin_of` reads them."""
    out: Float64Array = np.full(EDGES_KEPT, np.inf)
    out[: len(edges)] = edges
    return out
