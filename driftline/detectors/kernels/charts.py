"""Control charts for many series: CUSUM and EWMA around a mean that is known.

Both see values less their target, in standard deviations. CUSUM (Page 1954, Biometrika 41, section 4.1) with allowance k:

    S+ = max(0, S+ + z - k),   S- = max(0, S- - z - k),   alarm when either is above h

EWMA (Roberts 1959, Technometrics 1) with weight w, in the standard deviations it has in the long run:

    Z = (1 - w) Z + w z,       alarm when |Z| / sqrt(w / (2 - w)) is above L

A chart begins anew with the value after an alarm. Page-Hinkley is the CUSUM of a mean that is not known.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.page_hinkley import MODES

COUNT, MEAN, RISING, FALLING, RISING_SINCE, FALLING_SINCE, FIRED = range(7)
"""Columns of `sums`: values seen and their mean; both sums, or the level above and below the target; the count when each was
last not above 0, which dates a change; and the alarm flag."""

ALLOWANCE = 0.25
"""Half the shift, in standard deviations, that CUSUM finds first."""
WEIGHT = 0.01
"""Of the newest value in EWMA: a memory of 100 values, best for shifts of a quarter to half a standard deviation."""

_FIELDS = 7
_COUNT_MOST = 2.0**53
"""Where a count of doubles stops counting."""


@inlined
def _enter(q: int, x: float, sums: Float64Array) -> float:
    """Count one value; begins anew after an alarm. Returns the count."""
    if sums[q, FIRED] != 0.0:
        for k in range(_FIELDS):
            sums[q, k] = 0.0
    count = sums[q, COUNT] + 1.0
    sums[q, COUNT] = count
    sums[q, MEAN] += (x - sums[q, MEAN]) / count
    return float(count)


@inlined
def _judge(q: int, rising: float, falling: float, count: float, sums: Float64Array, limit: float, mode: int) -> float:
    """Keep both sides; the statistic with the sign of the change at an alarm, else 0."""
    sums[q, RISING] = rising
    sums[q, FALLING] = falling
    if rising <= 0.0:
        sums[q, RISING_SINCE] = count
    if falling <= 0.0:
        sums[q, FALLING_SINCE] = count
    up = mode >= 0 and rising > limit
    down = mode <= 0 and falling > limit
    if not (up or down):
        return 0.0
    sums[q, FIRED] = 1.0
    return rising if up and (rising >= falling or not down) else -falling


@inlined
def _cusum_push(q: int, x: float, z: float, sums: Float64Array, allowance: float, limit: float, mode: int) -> float:
    count = _enter(q, x, sums)
    return float(_judge(q, max(0.0, sums[q, RISING] + z - allowance), max(0.0, sums[q, FALLING] - z - allowance), count, sums, limit, mode))


@inlined
def _ewma_push(q: int, x: float, z: float, sums: Float64Array, weight: float, limit: float, mode: int) -> float:
    count = _enter(q, x, sums)
    level = sums[q, RISING] + weight * (z / np.sqrt(weight / (2.0 - weight)) - sums[q, RISING])
    return float(_judge(q, level, -level, count, sums, limit, mode))


@kernel
def _update(
    values: Float64Array,
    scopes: Int32Array,
    active: UInt8Array,
    sums: Float64Array,
    target: Float64Array,
    scale: Float64Array,
    setting: Float64Array,
    limit: Float64Array,
    mode: NDArray[np.int8],
    ewma: bool,
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
                z = (x - target[scope, c]) / scale[scope, c]
                if ewma:
                    statistic = _ewma_push(q, x, z, sums, setting[scope, c], limit[scope, c], mode[scope, c])
                else:
                    statistic = _cusum_push(q, x, z, sums, setting[scope, c], limit[scope, c], mode[scope, c])
                if statistic != 0.0:
                    since = sums[q, RISING_SINCE] if statistic > 0.0 else sums[q, FALLING_SINCE]
                    direction = 1 if statistic > 0.0 else -1
                    write_alarm(out[written], i, scope, c, abs(statistic), limit[scope, c], direction, int(sums[q, COUNT] - since))
                    written += 1
        slot = 0
    return written, values.shape[0], 0


class _ChartBank:
    """One chart for each (scope, column).

    Parameters
    ----------
    setting : of the chart, > 0, (n_scopes, n_columns) or broadcast to it
    threshold : above it is an alarm
    target, scale : the mean, and the standard deviation, > 0, of the values without drift
    mode : "both", "up" or "down", or an array of `MODES` values
    active : (n_scopes, n_columns), 0 = this series has no chart
    """

    _magic: ClassVar[bytes]
    _version: ClassVar[int] = 1
    _ewma: ClassVar[bool]

    def __init__(
        self,
        n_scopes: int,
        n_columns: int,
        *,
        setting: ArrayLike,
        threshold: ArrayLike,
        target: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        mode: str | NDArray[np.int8] = "both",
        active: ArrayLike | None = None,
    ) -> None:
        if isinstance(mode, str) and mode not in MODES:
            raise ValueError(f'expected mode "both", "up" or "down", got "{mode}"')
        self.n_scopes, self.n_columns = n_scopes, n_columns
        self.setting = per_series(setting, n_scopes, n_columns)
        self.threshold = per_series(threshold, n_scopes, n_columns)
        self.target = per_series(target, n_scopes, n_columns)
        self.scale = per_series(scale, n_scopes, n_columns)
        self.mode = per_series(MODES[mode] if isinstance(mode, str) else mode, n_scopes, n_columns).astype(np.int8)
        self.active = all_active(n_scopes, n_columns, active)
        self.sums = np.zeros((n_scopes * n_columns, _FIELDS))

    def update(self, values: Float64Array, scopes: Int32Array) -> Alarms:
        """Add a batch of rows (n, C) to their scopes (n, S); NaN and infinities are skipped."""
        values, scopes = checked_rows(values, scopes, np.float64, self.n_columns, self.n_scopes)

        def step(out: Alarms, row: int, slot: int) -> tuple[int, int, int]:
            return _update(
                values, scopes, self.active, self.sums, self.target, self.scale, self.setting, self.threshold, self.mode,
                self._ewma, out, row, slot,
            )  # fmt: skip

        return drain(step, values.shape[0], self.n_columns)

    def running(self, scope: int) -> tuple[Float64Array, Float64Array]:
        """Statistic and threshold of each series of a scope now."""
        sums = self.sums[scope * self.n_columns : (scope + 1) * self.n_columns]
        up, down = self.mode[scope] >= 0, self.mode[scope] <= 0
        found = np.maximum(np.where(up, sums[:, RISING], 0.0), np.where(down, sums[:, FALLING], 0.0))
        return np.where(self.active[scope] == 0, 0.0, found), self.threshold[scope]

    def take(self, scope: int, column: int, other: Self, from_scope: int, from_column: int) -> None:
        """Go on with one series of another bank: its sums, under the thresholds of this one."""
        self.sums[scope * self.n_columns + column] = other.sums[from_scope * other.n_columns + from_column]

    def export(self, scope: int) -> bytes:
        """The state of one scope."""
        return pack(self._magic, self._version, self.n_columns, [self.sums[scope * self.n_columns : (scope + 1) * self.n_columns]])

    def restore(self, scope: int, blob: bytes) -> None:
        """Continue one scope from `export`, as if it had never stopped.

        Raises
        ------
        ValueError : of another kind or version, or sums that no values lead to
        """
        (flat,) = unpack(blob, self._magic, self._version, self.n_columns, ["<f8"], [self.n_columns * _FIELDS])
        sums = flat.reshape(self.n_columns, _FIELDS)
        count, places = sums[:, COUNT, None], sums[:, [RISING_SINCE, FALLING_SINCE]]
        # the negated form refuses NaN
        if not np.all((count >= 0) & (count <= _COUNT_MOST) & (places >= 0) & (places <= count)):
            raise ValueError(f"damaged state of {self._magic.decode()}: counts that no values lead to")
        self.sums[scope * self.n_columns : (scope + 1) * self.n_columns] = sums


class CusumBank(_ChartBank):
    """CUSUM of each series; `setting` is the allowance k, in standard deviations."""

    _magic, _ewma = b"DCUS", False


class EwmaBank(_ChartBank):
    """EWMA of each series; `setting` is the weight w of the newest value, at most 1."""

    _magic, _ewma = b"DEWM", True
