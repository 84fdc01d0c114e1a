"""Page-Hinkley for many series, equal to river's to the last bit.

Page (1954), Biometrika 41, section 2, around a running mean with a fading factor, as river 0.26 computes it;
the maximum of the falling sum starts at -1 there, and here. With `alpha` = 1 and standardised values it is a
two-sided CUSUM; with `alpha` < 1 the drift term cancels (the sum settles at -delta / (1 - alpha)), so
Driftline's own settings use 1.
"""

from __future__ import annotations

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

COUNT, MEAN, RISING, FALLING, LOWEST, HIGHEST, LOWEST_AT, HIGHEST_AT, FIRED = range(9)
"""Columns of `sums`: values seen, their mean, both sums, their extremes, the counts at those, and the alarm flag."""

MODES = {"both": 0, "up": 1, "down": -1}
"""Which change of the mean raises an alarm."""

DRIFTLINE_DELTA = 0.125
"""Half the smallest shift, in standard deviations, that Driftline tunes for."""

_MAGIC = b"DPHK"
_VERSION = 1
_FIELDS = 9
_COUNT_MOST = 2.0**53
"""Where a count of doubles stops counting."""


@inlined
def _clear(q: int, sums: Float64Array) -> None:
    for k in range(_FIELDS):
        sums[q, k] = 0.0
    sums[q, LOWEST] = np.inf
    sums[q, HIGHEST] = -1.0


@inlined
def page_hinkley_push(q: int, x: float, sums: Float64Array, delta: float, threshold: float, alpha: float, mode: int, first: float) -> float:
    """One value of one series; the statistic with the sign of the change at an alarm, else 0."""
    if sums[q, FIRED] != 0.0:
        _clear(q, sums)
    count = sums[q, COUNT] + 1.0
    sums[q, COUNT] = count
    mean = sums[q, MEAN] + (1.0 / count) * (x - sums[q, MEAN])
    sums[q, MEAN] = mean
    deviation = x - mean
    rising = alpha * sums[q, RISING] + deviation - delta
    falling = alpha * sums[q, FALLING] + deviation + delta
    sums[q, RISING] = rising
    sums[q, FALLING] = falling
    if rising < sums[q, LOWEST]:
        sums[q, LOWEST] = rising
        sums[q, LOWEST_AT] = count
    if falling > sums[q, HIGHEST]:
        sums[q, HIGHEST] = falling
        sums[q, HIGHEST_AT] = count
    if count < first:
        return 0.0
    up = rising - sums[q, LOWEST]
    down = sums[q, HIGHEST] - falling
    up_fires = mode >= 0 and up > threshold
    down_fires = mode <= 0 and down > threshold
    if not (up_fires or down_fires):
        return 0.0
    sums[q, FIRED] = 1.0
    if up_fires and (up >= down or not down_fires):
        return float(up)
    return float(-down)


@kernel
def _update(
    values: Float64Array,
    scopes: Int32Array,
    active: UInt8Array,
    sums: Float64Array,
    delta: Float64Array,
    threshold: Float64Array,
    alpha: Float64Array,
    mode: NDArray[np.int8],
    first: float,
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
                statistic = page_hinkley_push(q, x, sums, delta[scope, c], threshold[scope, c], alpha[scope, c], mode[scope, c], first)
                if statistic != 0.0:
                    since = sums[q, LOWEST_AT] if statistic > 0.0 else sums[q, HIGHEST_AT]
                    direction = 1 if statistic > 0.0 else -1
                    write_alarm(out[written], i, scope, c, abs(statistic), threshold[scope, c], direction, int(sums[q, COUNT] - since))
                    written += 1
        slot = 0
    return written, values.shape[0], 0


class PageHinkleyBank:
    """One Page-Hinkley test for each (scope, column).

    Parameters
    ----------
    delta, threshold : in the unit of the values, (n_scopes, n_columns) or broadcast to it; for standardised
        values see `calibration.page_hinkley_threshold`
    alpha : fading factor of both sums
    mode : "both", "up" or "down", or an array of `MODES` values
    min_instances : no alarm before this many values
    active : (n_scopes, n_columns), 0 = this series has no such test
    """

    def __init__(
        self,
        n_scopes: int,
        n_columns: int,
        *,
        threshold: ArrayLike,
        delta: ArrayLike = DRIFTLINE_DELTA,
        alpha: ArrayLike = 1.0,
        mode: str | NDArray[np.int8] = "both",
        min_instances: int = 30,
        active: ArrayLike | None = None,
    ) -> None:
        if isinstance(mode, str) and mode not in MODES:
            raise ValueError(f'expected mode "both", "up" or "down", got "{mode}"')
        self.n_scopes, self.n_columns = n_scopes, n_columns
        self.delta = per_series(delta, n_scopes, n_columns)
        self.threshold = per_series(threshold, n_scopes, n_columns)
        self.alpha = per_series(alpha, n_scopes, n_columns)
        self.mode = per_series(MODES[mode] if isinstance(mode, str) else mode, n_scopes, n_columns).astype(np.int8)
        self.min_instances = min_instances
        self.active = all_active(n_scopes, n_columns, active)
        self.sums = np.zeros((n_scopes * n_columns, _FIELDS))
        for scope in range(n_scopes):
            self.reset(scope)

    def update(self, values: Float64Array, scopes: Int32Array) -> Alarms:
        """Add a batch of rows (n, C) to their scopes (n, S); NaN and infinities are skipped."""
        values, scopes = checked_rows(values, scopes, np.float64, self.n_columns, self.n_scopes)

        def step(out: Alarms, row: int, slot: int) -> tuple[int, int, int]:
            return _update(
                values, scopes, self.active, self.sums, self.delta, self.threshold, self.alpha, self.mode,
                float(self.min_instances), out, row, slot,
            )  # fmt: skip

        return drain(step, values.shape[0], self.n_columns)

    def reset(self, scope: int, column: int | None = None) -> None:
        """Forget one series, or all series of a scope."""
        series = slice(scope * self.n_columns, (scope + 1) * self.n_columns) if column is None else scope * self.n_columns + column
        self.sums[series] = 0.0
        self.sums[series, LOWEST] = np.inf
        self.sums[series, HIGHEST] = -1.0

    def running(self, scope: int) -> tuple[Float64Array, Float64Array]:
        """Statistic and threshold of each series of a scope now; 0 before its first value."""
        sums = self.sums[scope * self.n_columns : (scope + 1) * self.n_columns]
        found = np.maximum(
            np.where(self.mode[scope] >= 0, sums[:, RISING] - sums[:, LOWEST], 0.0),
            np.where(self.mode[scope] <= 0, sums[:, HIGHEST] - sums[:, FALLING], 0.0),
        )
        found[(sums[:, COUNT] < 1) | (self.active[scope] == 0)] = 0.0
        return found, self.threshold[scope]

    def take(self, scope: int, column: int, other: PageHinkleyBank, from_scope: int, from_column: int) -> None:
        """Go on with one series of another bank: its sums, under the thresholds of this one."""
        self.sums[scope * self.n_columns + column] = other.sums[from_scope * other.n_columns + from_column]

    def export(self, scope: int) -> bytes:
        """The state of one scope."""
        return pack(_MAGIC, _VERSION, self.n_columns, [self.sums[scope * self.n_columns : (scope + 1) * self.n_columns]])

    def restore(self, scope: int, blob: bytes) -> None:
        """Continue one scope from `export`, as if it had never stopped.

        Raises
        ------
        ValueError : of another kind or version, or counts that no values lead to
        """
        (flat,) = unpack(blob, _MAGIC, _VERSION, self.n_columns, ["<f8"], [self.n_columns * _FIELDS])
        sums = flat.reshape(self.n_columns, _FIELDS)
        count, places = sums[:, COUNT, None], sums[:, [LOWEST_AT, HIGHEST_AT]]
        # the negated form refuses NaN
        if not np.all((count >= 0) & (count <= _COUNT_MOST) & (places >= 0) & (places <= count)):
            raise ValueError("damaged state of DPHK: counts that no values lead to")
        self.sums[scope * self.n_columns : (scope + 1) * self.n_columns] = sums
