"""Whether what an e-detector is fed depends on what came before, and how far apart values must be to be judged all the same.

The values of a monitor are looked at with five strides, b = 1, 4, 16, 64, 256: every b-th of them. Of each such sequence

    near = sum (x_i - x_{i-1})^2 / 2,        far = sum (x_i - x_{i-8})^2 / 2,        c = 1 - near / far

over up to 4,096 of its values, older ones forgotten by halves. Neighbours that are independent, or as alike as values eight
times as far apart, have c = 0; c estimates (rho_b - rho_8b) / (1 - rho_8b), rho the autocorrelation. Differences make it
blind to the level: a change that lasts is one step among them, and no dependence. Without dependence c has standard deviation
sqrt(2 / n) over n differences. A stride is refused where

    far - near > far (.05 + 4 sqrt(2 / n)) + 3        looked at with every eighth value from n = 64 on

.05 is what the bets' tolerance of a wider spread covers, and 3 keeps single coincidences of rare ones out. It is taken back
where c < .05 over at least half of the values that are remembered. The monitor judges one value in b, b four times the
greatest refused stride; 1 where none is. Of a stride that n < 64 differences have been seen of it judges nothing.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.autoregression import STRIDES
from driftline.detectors.kernels.bank import Float64Array, Int64Array, UInt8Array
from driftline.detectors.kernels.jit import inlined, kernel

STRIDE_BITS: Final = 2
FAR: Final = 8
REMEMBERED: Final = (4_096, 4_096, 2_048, 1_024, 512)
"""Differences of each stride: 4,096 values to 131,072."""
ALLOWED: Final = 0.05
_LEAST: Final = 64
_ERRORS: Final = 4.0
_COINCIDENCES: Final = 3.0
_STEP_MOST: Final = 4.0
"""A difference counts at most this: one step of eight standard deviations must not look like a memory."""


_SMALL: Final = 1e-300


class Checks(NamedTuple):
    """What values change; axes M monitors, L strides."""

    last: Float64Array  # (M, L, FAR) the last values of the sequence
    sums: Float64Array  # (M, L, 3) near, far, and differences in them
    taken: Int64Array  # (M, L) values of the sequence
    refused: UInt8Array  # (M, L)
    level: Int64Array  # (M,) one value in 4 to the power of this is judged
    found: Float64Array  # (M,) c of the greatest refused stride when the level last changed
    values: Int64Array  # (M,)
    suspended: Int64Array  # (M,) of them that came while a stride was refused


def new_checks(n: int) -> Checks:
    """Of monitors without values."""
    return Checks(
        last=np.zeros((n, STRIDES, FAR)),
        sums=np.zeros((n, STRIDES, 3)),
        taken=np.zeros((n, STRIDES), np.int64),
        refused=np.zeros((n, STRIDES), np.uint8),
        level=np.zeros(n, np.int64),
        found=np.zeros(n),
        values=np.zeros(n, np.int64),
        suspended=np.zeros(n, np.int64),
    )


@inlined
def _half_square(d: float) -> float:
    d = min(abs(d), _STEP_MOST)
    return 0.5 * d * d


@inlined
def _decide(m: int, j: int, st: Checks) -> None:
    near, far, n = st.sums[m, j, 0], st.sums[m, j, 1], st.sums[m, j, 2]
    if not st.refused[m, j]:
        if n >= _LEAST and far - near > far * (ALLOWED + _ERRORS * math.sqrt(2.0 / n)) + _COINCIDENCES:
            st.refused[m, j] = 1
    elif n >= 0.5 * REMEMBERED[j] and far - near < far * ALLOWED:
        st.refused[m, j] = 0
    level = 0
    for k in range(STRIDES):
        if st.refused[m, k]:
            level = k + 1
    if level != st.level[m]:
        st.level[m] = level
        st.found[m] = 1.0 - st.sums[m, level - 1, 0] / max(st.sums[m, level - 1, 1], _SMALL) if level else 0.0


@inlined
def check_push(m: int, x: float, st: Checks) -> bool:
    """One value of one monitor; whether it is one of those that are judged."""
    place = st.values[m]
    st.values[m] = place + 1
    for j in range(STRIDES):
        if place & ((1 << (STRIDE_BITS * j)) - 1):
            break
        i = st.taken[m, j]
        if i >= FAR:
            st.sums[m, j, 0] += _half_square(x - st.last[m, j, (i - 1) % FAR])
            st.sums[m, j, 1] += _half_square(x - st.last[m, j, i % FAR])
            st.sums[m, j, 2] += 1.0
            if st.sums[m, j, 2] >= REMEMBERED[j]:
                for k in range(3):
                    st.sums[m, j, k] *= 0.5
        st.last[m, j, i % FAR] = x
        st.taken[m, j] = i + 1
        if (i + 1) % FAR == 0:
            _decide(m, j, st)
    st.suspended[m] += st.level[m] > 0
    level = st.level[m]
    # A stride that has not been looked at yet may be as bad as the one that was refused.
    known = level == 0 or level == STRIDES or st.sums[m, level, 2] >= _LEAST
    return bool(known and place & ((1 << (STRIDE_BITS * level)) - 1) == 0)


@kernel
def check_sequence(x: Float64Array, m: int, st: Checks) -> None:
    """Values of one monitor one after another."""
    for i in range(x.shape[0]):
        check_push(m, x[i], st)


def stride_of(level: int) -> int:
    """One value in so many is judged."""
    return 1 << (STRIDE_BITS * level)


def unsound(checks: Checks) -> bool:
    """Whether no values lead to these checks."""
    floats = all(bool(np.isfinite(array).all()) for array in (checks.last, checks.sums, checks.found))
    counts = all(bool((array >= 0).all()) for array in (checks.sums, checks.taken, checks.values, checks.suspended))
    places: Int64Array = np.arange(1, STRIDES + 1, dtype=np.int64)
    levels = np.where(checks.refused > 0, places, 0).max(axis=1, initial=0)
    return not (floats and counts and bool((checks.refused <= 1).all()) and np.array_equal(levels, checks.level))
