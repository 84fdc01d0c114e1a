"""Random Fourier features of rows, and a witness that learns from past rows how they differ from a reference.

With z the standardised values of a row and w_j fixed random directions, H of them,

    phi(z) = (cos w_1 z .. cos w_H z, sin w_1 z .. sin w_H z) / sqrt H,      |phi| = 1

(Rahimi and Recht 2007, NeurIPS 20, in the form with both sine and cosine, whose kernel estimate has the smaller variance for near
points, Sutherland and Schneider 2015, UAI 31). With mu the mean of phi over the reference and theta an average of phi - mu over past
rows with weights that fall by `RATE` a row, u = theta / |theta|, a row is worth

    x = <u, phi - mu> / (1 + max(<u, mu>, 0))

so x >= -1, and E x <= |E phi - mu| whatever u is, as long as u is of past rows alone. |E phi - mu| is the maximum mean discrepancy
of the kernel cos w_j (z - z') averaged over j, about exp(-|z - z'|^2 / 2 d) (Gretton et al. 2012, JMLR 13).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.blocks import FEATURES, FREQUENCIES, RATE
from driftline.detectors.kernels.bank import Float64Array, Int64Array
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.portable import normal_quantile, portable_cos_sin, uniform

CLIP: Final = 8.0
"""A standardised value counts at most this: beyond it a cosine says nothing, and its argument stays small."""

_COUNT_MOST: Final = 2**53
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Frame(NamedTuple):
    """What a reference fixes; d values, H directions."""

    location: Float64Array  # (d,)
    inverse: Float64Array  # (d,) 1 / scale
    directions: Float64Array  # (d, H) a row for each value, so that the inner loop runs over neighbours
    mean: Float64Array  # (2 H,) mu
    every: Int64Array  # (1,) one row in so many is judged and learned from


class Witness(NamedTuple):
    """What rows change."""

    theta: Float64Array  # (2 H,)
    profile: Float64Array  # (2, d) averages of standardised values and of their squares, as theta is one
    counts: Int64Array  # (2,) rows that have all values, and those of them that were judged


def new_witness(d: int) -> Witness:
    """Of no rows."""
    return Witness(np.zeros(FEATURES), np.zeros((2, d)), np.zeros(2, np.int64))


def directions(key: int, d: int) -> Float64Array:
    """Normal directions of variance 1 / d from a hash of the key, the same in every process and release; shape (d, H)."""
    out = np.empty((d, FREQUENCIES))
    _fill_directions(np.uint64(key), 1.0 / math.sqrt(d), out)
    return out


@kernel
def _fill_directions(key: np.uint64, scale: float, out: Float64Array) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = normal_quantile(uniform(key + np.uint64(i * out.shape[1] + j + 1) * _GOLDEN)) * scale


@inlined
def _standardise(row: Float64Array, frame: Frame, z: Float64Array) -> bool:
    """Fill the standardised values of a row; False = one is missing."""
    for i in range(row.shape[0]):
        x = row[i]
        if x != x:
            return False
        # Ends far apart may overflow on the way: infinity is clipped as what it is.
        z[i] = min(max((x - frame.location[i]) * frame.inverse[i], -CLIP), CLIP)
    return True


@inlined
def _features(z: Float64Array, directions: Float64Array, phi: Float64Array) -> None:
    """Fill phi; the sums run in the order of values, for each direction by itself, so no width of a processor shows."""
    n = directions.shape[1]
    for j in range(n):
        phi[j] = 0.0
    for i in range(z.shape[0]):
        x = z[i]
        for j in range(n):
            phi[j] += x * directions[i, j]
    scale = 1.0 / math.sqrt(n)
    for j in range(n):
        cosine, sine = portable_cos_sin(phi[j])
        phi[j] = cosine * scale
        phi[n + j] = sine * scale


@kernel
def fill_features(rows: Float64Array, frame: Frame, z: Float64Array, phi: Float64Array) -> int:
    """Standardised values and features of the rows that have all values, one after another; their number."""
    n = 0
    for t in range(rows.shape[0]):
        if _standardise(rows[t], frame, z[n]):
            _features(z[n], frame.directions, phi[n])
            n += 1
    return n


@kernel
def add_moments(values: Float64Array, sums: Float64Array) -> None:
    """Add values and their squares, row by row: the sum does not show how rows were cut; `values` (n, k), `sums` (2, k)."""
    for t in range(values.shape[0]):
        for i in range(values.shape[1]):
            sums[0, i] += values[t, i]
            sums[1, i] += values[t, i] * values[t, i]


@kernel
def lagged(centred: Float64Array, lag: int) -> tuple[float, float]:
    """Mean and mean square of <phi_t, phi_{t + lag}> over consecutive rows of features less their mean."""
    total, squares = 0.0, 0.0
    n = centred.shape[0] - lag
    for t in range(n):
        product = 0.0
        for j in range(centred.shape[1]):
            product += centred[t, j] * centred[t + lag, j]
        total += product
        squares += product * product
    return total / n, squares / n


@kernel
def run_witness(rows: Float64Array, frame: Frame, st: Witness, z: Float64Array, phi: Float64Array, out: Float64Array) -> None:
    """What each row is worth to the witness of those before it, NaN for rows that are not judged.

    Parameters
    ----------
    rows : (n, d), NaN = missing.
    z, phi : scratch, (d,) and (2 H,).
    """
    for t in range(rows.shape[0]):
        out[t] = np.nan
        if not _standardise(rows[t], frame, z):
            continue
        st.counts[0] += 1
        if (st.counts[0] - 1) % frame.every[0]:
            continue
        _features(z, frame.directions, phi)
        if st.counts[1]:
            out[t] = _worth(phi, frame.mean, st.theta)
        st.counts[1] += 1
        # Until there are so many rows all count alike.
        rate = max(RATE, 1.0 / st.counts[1])
        for j in range(phi.shape[0]):
            st.theta[j] += rate * (phi[j] - frame.mean[j] - st.theta[j])
        for i in range(z.shape[0]):
            st.profile[0, i] += rate * (z[i] - st.profile[0, i])
            st.profile[1, i] += rate * (z[i] * z[i] - st.profile[1, i])


@inlined
def _worth(phi: Float64Array, mean: Float64Array, theta: Float64Array) -> float:
    square, along, level = 0.0, 0.0, 0.0
    for j in range(phi.shape[0]):
        square += theta[j] * theta[j]
        along += theta[j] * (phi[j] - mean[j])
        level += theta[j] * mean[j]
    if not square > 0.0:
        return np.nan
    length = math.sqrt(square)
    return along / (length + max(level, 0.0))


def unsound(st: Witness) -> bool:
    """Whether no rows lead to this state."""
    floats = bool(np.isfinite(st.theta).all() and np.isfinite(st.profile).all())
    sizes = bool((np.abs(st.theta) <= 2.0).all() and (np.abs(st.profile[0]) <= CLIP).all())
    squares = bool((st.profile[1] >= 0.0).all() and (st.profile[1] <= CLIP * CLIP).all())
    return not (floats and sizes and squares and 0 <= int(st.counts[1]) <= int(st.counts[0]) <= _COUNT_MOST)
