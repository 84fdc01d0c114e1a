"""ADWIN for many series: alarms at river's positions, to the last value.

Bifet and Gavalda (2007), "Learning from time-changing data with adaptive windowing", SIAM SDM, section 3, as
river 0.26 computes it: rows of at most `max_buckets` buckets of 2^row values, the variance of the whole window
in the cut, one check every `clock` values, and everything thrown away on the value after an alarm. Sums,
variance and width equal river's to the last bit; the cut takes the portable logarithm, which may differ from
the C library's in the last place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.detectors.kernels.adwin_state import SIZE, START, buckets_fit, gather_buckets, in_use
from driftline.detectors.kernels.bank import (
    Alarms,
    Float64Array,
    Int32Array,
    UInt8Array,
    all_active,
    checked_rows,
    drain,
    pack,
    per_series,
    unpack,
    write_alarm,
)
from driftline.detectors.kernels.jit import inlined, kernel, portable_log

TOTAL, VARIANCE, WIDTH = 0, 1, 2
"""Columns of `moments`: sum, sum of squared deviations, number of values of the window."""

_MAGIC = b"DADW"
_VERSION = 1
_FIRST_ROWS = 8

_SCREEN = 1.0 - 1e-6
_ROUNDING = 4e-15
"""Margins of the test that passes over hopeless cuts: many times the rounding of the exact formula."""
_TINY, _HUGE = 1e-250, 1e250
"""Outside, squares may underflow or overflow and the exact formula decides."""


@kernel
def _clear(q: int, moments: Float64Array, sizes: UInt8Array, depth: Int32Array, ticks: Int32Array, fired: UInt8Array) -> None:
    moments[q, TOTAL] = 0.0
    moments[q, VARIANCE] = 0.0
    moments[q, WIDTH] = 0.0
    sizes[q, 0, SIZE] = 0
    depth[q] = 1
    ticks[q] = 0
    fired[q] = 0


@inlined
def _insert(
    q: int, x: float, moments: Float64Array, sizes: UInt8Array, depth: Int32Array,
    totals: Float64Array, variances: Float64Array, max_buckets: int,
) -> None:  # fmt: skip
    """Add a value as a bucket of one, then merge the two oldest buckets of every overfull row."""
    before = moments[q, WIDTH]
    width = before + 1.0
    total = moments[q, TOTAL]
    if before > 0.0:
        deviation = x - total / before
        moments[q, VARIANCE] += before * deviation * deviation / width
    moments[q, WIDTH] = width
    moments[q, TOTAL] = total + x
    mask = totals.shape[2] - 1
    size = sizes[q, 0, SIZE]
    slot = (sizes[q, 0, START] + size) & mask
    totals[q, 0, slot] = x
    variances[q, 0, slot] = 0.0
    sizes[q, 0, SIZE] = size + 1
    row = 0
    half = 0.5
    scale = 1.0
    while sizes[q, row, SIZE] > max_buckets:
        older = sizes[q, row, START]
        newer = (older + 1) & mask
        t0 = totals[q, row, older]
        t1 = totals[q, row, newer]
        # `scale` is 1/2^row: multiplying by it rounds exactly as dividing by the bucket's length does
        gap = t0 * scale - t1 * scale
        merged = variances[q, row, older] + variances[q, row, newer] + half * gap * gap
        sizes[q, row, START] = (older + 2) & mask
        sizes[q, row, SIZE] -= 2
        row += 1
        if row == depth[q]:
            depth[q] = row + 1
            sizes[q, row, SIZE] = 0
        size = sizes[q, row, SIZE]
        slot = (sizes[q, row, START] + size) & mask
        totals[q, row, slot] = t0 + t1
        variances[q, row, slot] = merged
        sizes[q, row, SIZE] = size + 1
        half *= 2.0
        scale *= 0.5


@inlined
def _drop_oldest(
    q: int, moments: Float64Array, sizes: UInt8Array, depth: Int32Array, totals: Float64Array, variances: Float64Array
) -> None:
    row = depth[q] - 1
    length = float(1 << row)
    oldest = sizes[q, row, START]
    total = totals[q, row, oldest]
    width = moments[q, WIDTH] - length
    moments[q, WIDTH] = width
    moments[q, TOTAL] -= total
    gap = total / length - moments[q, TOTAL] / width
    moments[q, VARIANCE] -= variances[q, row, oldest] + length * width * gap * gap / (length + width)
    sizes[q, row, START] = (oldest + 1) & (totals.shape[2] - 1)
    sizes[q, row, SIZE] -= 1
    if sizes[q, row, SIZE] == 0:
        depth[q] = row


@inlined
def _first_cut(
    q: int, moments: Float64Array, sizes: UInt8Array, depth: Int32Array, totals: Float64Array, delta: float, shortest: float
) -> tuple[float, float]:
    """Mean after minus mean before, and the bound, at the oldest cut that passes it; (0, -1) if none does.

    Most cuts are far from their bound and are passed over by a test without a division: the bound is at least
    sqrt(2 W conf spread / (n0 n1)), the gap of means at most |u0 n1 - u1 n0| / (n0 n1) and a rounding allowance.
    """
    width = moments[q, WIDTH]
    confidence = portable_log(2.0 * portable_log(width) / delta)
    spread = moments[q, VARIANCE] / width
    linear = 2.0 / 3.0 * confidence
    least = _SCREEN * 2.0 * width * confidence * spread
    mask = totals.shape[2] - 1
    n0 = 0.0
    n1 = width
    u0 = 0.0
    u1 = moments[q, TOTAL]
    for row in range(depth[q] - 1, -1, -1):
        length = float(1 << row)
        start = int(sizes[q, row, START])
        count = int(sizes[q, row, SIZE])
        if row == 0:
            count -= 1
        for k in range(start, start + count):
            n0 += length
            n1 -= length
            u0 += totals[q, row, k & mask]
            u1 -= totals[q, row, k & mask]
            left = u0 * n1
            right = u1 * n0
            cross = abs(left - right) + _ROUNDING * (abs(left) + abs(right))
            floor = least * n0 * n1
            if cross * cross < floor and _TINY < floor < _HUGE:
                continue
            if n1 >= shortest and n0 >= shortest:
                gap = u0 / n0 - u1 / n1
                recip = 1.0 / (n0 - shortest + 1.0) + 1.0 / (n1 - shortest + 1.0)
                square = 2.0 * recip * spread * confidence
                # rounding can leave a negative variance at huge offsets: NaN in river, never above it
                if square >= 0.0:
                    bound = math.sqrt(square) + linear * recip
                    if abs(gap) > bound:
                        return -gap, bound
    return 0.0, -1.0


@inlined
def adwin_push(
    q: int, x: float, moments: Float64Array, sizes: UInt8Array, depth: Int32Array, ticks: Int32Array, fired: UInt8Array,
    totals: Float64Array, variances: Float64Array, delta: float, clock: int, max_buckets: int, shortest: float, grace: float,
) -> tuple[float, float]:  # fmt: skip
    """One value of one series; (gap of means, bound) of the strongest cut, bound -1 without an alarm."""
    if fired[q]:
        _clear(q, moments, sizes, depth, ticks, fired)
    _insert(q, x, moments, sizes, depth, totals, variances, max_buckets)
    ticks[q] += 1
    best_gap = 0.0
    best_bound = -1.0
    if ticks[q] == clock:  # river counts on and takes the remainder; the same positions
        ticks[q] = 0
        if moments[q, WIDTH] > grace:
            gap, bound = _first_cut(q, moments, sizes, depth, totals, delta, shortest)
            while bound >= 0.0:
                if best_bound < 0.0 or abs(gap) * best_bound > abs(best_gap) * bound:
                    best_gap = gap
                    best_bound = bound
                _drop_oldest(q, moments, sizes, depth, totals, variances)
                gap, bound = _first_cut(q, moments, sizes, depth, totals, delta, shortest)
            if best_bound >= 0.0:
                fired[q] = 1
    return best_gap, best_bound


@kernel
def _update(
    values: Float64Array,
    scopes: Int32Array,
    active: UInt8Array,
    moments: Float64Array,
    sizes: UInt8Array,
    depth: Int32Array,
    ticks: Int32Array,
    fired: UInt8Array,
    totals: Float64Array,
    variances: Float64Array,
    delta: Float64Array,
    clock: int,
    max_buckets: int,
    shortest: float,
    grace: float,
    out: Alarms,
    row: int,
    slot: int,
) -> tuple[int, int, int]:
    """From (row, slot) until the batch ends or `out` may not hold another row; alarms written and where it stopped."""
    n_columns = values.shape[1]
    written = 0
    for i in range(row, values.shape[0]):
        for j in range(slot, scopes.shape[1]):
            scope = scopes[i, j]
            if scope < 0:
                continue
            if written + n_columns > out.shape[0]:
                return written, i, j
            for c in range(n_columns):
                x = values[i, c]
                if not active[scope, c] or not np.isfinite(x):
                    continue
                q = scope * n_columns + c
                gap, bound = adwin_push(
                    q, x, moments, sizes, depth, ticks, fired, totals, variances, delta[scope, c], clock, max_buckets, shortest, grace
                )
                if bound >= 0.0:
                    write_alarm(out[written], i, scope, c, abs(gap), bound, 1 if gap > 0.0 else -1, int(moments[q, WIDTH]))
                    written += 1
        slot = 0
    return written, values.shape[0], 0


class AdwinBank:
    """One ADWIN for each (scope, column).

    Parameters
    ----------
    delta : confidence of a cut, (n_scopes, n_columns) or broadcast to it; not a false-alarm rate, see
        `calibration.adwin_delta`
    clock : values between checks
    max_buckets : buckets of one size, >= 2
    min_window_length : values both sides of a cut must have
    grace_period : no check up to this width
    active : (n_scopes, n_columns), 0 = this series has no ADWIN
    """

    def __init__(
        self,
        n_scopes: int,
        n_columns: int,
        *,
        delta: ArrayLike,
        clock: int = 32,
        max_buckets: int = 5,
        min_window_length: int = 5,
        grace_period: int = 10,
        active: ArrayLike | None = None,
    ) -> None:
        if not 2 <= max_buckets <= 100:
            raise ValueError(f"expected max_buckets from 2 to 100, got {max_buckets}")
        if clock < 1 or min_window_length < 1:
            raise ValueError(f"expected clock and min_window_length >= 1, got {clock} and {min_window_length}")
        self.n_scopes, self.n_columns = n_scopes, n_columns
        self.delta = per_series(delta, n_scopes, n_columns)
        if not np.all((self.delta > 0) & (self.delta <= 1)):  # above 1 the bound can be negative
            raise ValueError("expected delta above 0 and at most 1")
        self.active = all_active(n_scopes, n_columns, active)
        self.clock, self.max_buckets, self.min_window_length, self.grace_period = clock, max_buckets, min_window_length, grace_period
        series = n_scopes * n_columns
        self.moments = np.zeros((series, 3))
        self.depth, self.ticks = np.ones(series, np.int32), np.zeros(series, np.int32)
        self.fired = np.zeros(series, np.uint8)
        slots = 1 << max_buckets.bit_length()
        self.sizes = np.zeros((series, _FIRST_ROWS, 2), np.uint8)
        self.totals = np.zeros((series, _FIRST_ROWS, slots))
        self.variances = np.zeros((series, _FIRST_ROWS, slots))
        self._widest = 0

    def update(self, values: Float64Array, scopes: Int32Array) -> Alarms:
        """Add a batch of rows (n, C) to their scopes (n, S); NaN and infinities are skipped."""
        values, scopes = checked_rows(values, scopes, np.float64, self.n_columns, self.n_scopes)
        self._reserve(values.shape[0] * scopes.shape[1])

        def step(out: Alarms, row: int, slot: int) -> tuple[int, int, int]:
            return _update(
                values, scopes, self.active, self.moments, self.sizes, self.depth, self.ticks, self.fired,
                self.totals, self.variances, self.delta, self.clock, self.max_buckets,
                float(self.min_window_length), float(self.grace_period), out, row, slot,
            )  # fmt: skip

        return drain(step, values.shape[0], self.n_columns)

    def _reserve(self, more: int) -> None:
        """Rows for windows that grow by `more` values: the last row holds a bucket of 2^row values at least."""
        self._widest += more
        rows = self.sizes.shape[1]
        if self._widest.bit_length() <= rows:
            return
        self._widest = int(self.moments[:, WIDTH].max(initial=0.0)) + more
        missing = self._widest.bit_length() - rows
        if missing > 0:
            missing = max(missing, 2)
            self.sizes = np.pad(self.sizes, ((0, 0), (0, missing), (0, 0)))
            self.totals = np.pad(self.totals, ((0, 0), (0, missing), (0, 0)))
            self.variances = np.pad(self.variances, ((0, 0), (0, missing), (0, 0)))

    def reset(self, scope: int, column: int | None = None) -> None:
        """Forget the window of one series, or of all series of a scope."""
        first = scope * self.n_columns + (column or 0)
        for q in range(first, first + (self.n_columns if column is None else 1)):
            _clear(q, self.moments, self.sizes, self.depth, self.ticks, self.fired)

    def take(self, scope: int, column: int, other: AdwinBank, from_scope: int, from_column: int) -> None:
        """Go on with one series of another bank with the same `clock` and `max_buckets`; this one has had no values."""
        here, there = scope * self.n_columns + column, from_scope * other.n_columns + from_column
        self._reserve(int(other.moments[there, WIDTH]))
        rows = int(other.depth[there])
        for name in ("depth", "fired", "ticks", "moments"):
            getattr(self, name)[here] = getattr(other, name)[there]
        for name in ("sizes", "totals", "variances"):
            getattr(self, name)[here, :rows] = getattr(other, name)[there, :rows]

    def width(self) -> Float64Array:
        """Values in each window (n_scopes, n_columns)."""
        return self.moments[:, WIDTH].reshape(self.n_scopes, self.n_columns).copy()

    def mean(self) -> Float64Array:
        """Mean of each window (n_scopes, n_columns); 0 while it is empty."""
        width = self.moments[:, WIDTH]
        mean = np.divide(self.moments[:, TOTAL], width, out=np.zeros_like(width), where=width > 0)
        return mean.reshape(self.n_scopes, self.n_columns)

    def export(self, scope: int) -> bytes:
        """The state of one scope; only buckets in use, oldest first, and no variances of single values."""
        first, last = scope * self.n_columns, (scope + 1) * self.n_columns
        rows, buckets, single = in_use(first, last, self.sizes, self.depth)
        sizes, totals, variances = np.empty(rows, np.uint8), np.empty(buckets), np.empty(buckets - single)
        gather_buckets(first, last, self.sizes, self.depth, self.totals, self.variances, sizes, totals, variances)
        series = slice(first, last)
        depth = self.depth[series].astype(np.uint8)
        arrays: list[NDArray[Any]] = [depth, self.fired[series], self.ticks[series], self.moments[series], sizes, totals, variances]
        return pack(_MAGIC, _VERSION, self.n_columns, arrays)

    def restore(self, scope: int, blob: bytes) -> None:
        """Continue one scope from `export`, as if it had never stopped.

        Raises
        ------
        ValueError : of another kind or version, or buckets that no values lead to; the state is then unchanged
        """
        n = self.n_columns
        dtypes = ["u1", "u1", "<i4", "<f8", "u1", "<f8", "<f8"]
        depth, fired, ticks, moments, sizes, totals, variances = unpack(blob, _MAGIC, _VERSION, n, dtypes, [n, n, n, 3 * n, *[None] * 3])
        width = moments[WIDTH::3]
        in_range = np.all((ticks >= 0) & (ticks < self.clock)) and np.all(sizes <= self.max_buckets)
        if not in_range or not buckets_fit(depth, sizes, width, len(totals), len(variances)):
            raise ValueError("damaged state of DADW: buckets that no values lead to")
        self._reserve(int(width.max(initial=0.0)))
        series = slice(scope * self.n_columns, (scope + 1) * self.n_columns)
        self.depth[series], self.fired[series], self.ticks[series] = depth, fired, ticks
        self.moments[series] = moments.reshape(-1, 3)
        self._widest = int(self.moments[:, WIDTH].max(initial=0.0))
        for array in (self.sizes, self.totals, self.variances):
            array[series] = 0
        rows = np.arange(self.sizes.shape[1]) < self.depth[series, None]
        packed = np.zeros(rows.shape, np.uint8)
        packed[rows] = sizes
        self.sizes[series, :, SIZE] = packed
        used = np.arange(self.totals.shape[2]) < packed[:, :, None]
        self.totals[series][used] = totals
        self.variances[series][:, 1:][used[:, 1:]] = variances
