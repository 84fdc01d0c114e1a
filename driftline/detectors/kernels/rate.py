"""Rates of 0/1 series by betting: a Shiryaev-Roberts e-detector with a promised run length.

Under a rate of at most p0 each factor L = 1 + lam (x - p0), lam = (p1 - p0) / (p0 (1 - p0)) > 0, has mean at
most 1, whatever the past; so with R = (R + 1) L, R - rows is a supermartingale and R reaches c after c rows or
more on average, without any assumption of independence (Shin, Ramdas and Rinaldo 2023, "E-detectors", theorem
2.4 of arXiv 2203.03532). The statistic is the mean of R over three alternatives p1. For falls the bet is on
1 - x. The CUSUM form max(M, 1) L keeps the same promise and is never above it: its real run length is tens of
times what was asked for, which costs delay. It is carried along only to date a change: the product of factors
since row k is largest where M last left 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.detectors.kernels.bank import (
    Alarms,
    Float64Array,
    Int32Array,
    Int64Array,
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

N_CODES = 67

BETS = 3
"""Alternatives a side."""

RISES = (1.5, 2.0, 4.0)
"""Alternatives above the base rate, as multiples of it."""

FALLS = (0.75, 0.5, 0.25)
"""Alternatives below it; a rise near 1 is bet as a fall of the misses, paired with `RISES`."""

DIRECTIONS = {"both": 0, "up": 1, "down": -1}

_SMALLEST = 1e-9
_MAGIC = b"DRAT"
_VERSION = 2


def rate_bound(hits: int, rows: int, direction: int, errors: float = 2.0) -> float:
    """The base rate to bet against, `errors` standard errors to the safe side of hits / rows.

    An estimated rate that is too low makes every later row evidence of a rise: the promise then needs the
    upper end of what the reference allows (the lower one for falls). Wilson (1927), JASA 22: it stays sensible
    without a single hit, where hits / rows has no width.

    Parameters
    ----------
    direction : 1 for the upper end, -1 for the lower one
    """
    if rows <= 0 or not 0 <= hits <= rows:
        raise ValueError(f"expected 0 <= hits <= rows and rows > 0, got {hits} of {rows}")
    floored = max(hits / rows, 0.5 / rows) if direction > 0 else min(hits / rows, 1 - 0.5 / rows)
    square = errors * errors
    centre = (floored + square / (2 * rows)) / (1 + square / rows)
    half = errors * math.sqrt(floored * (1 - floored) / rows + square / (4.0 * rows * rows)) / (1 + square / rows)
    bound = centre + half if direction > 0 else centre - half
    return min(max(bound, _SMALLEST), 1 - _SMALLEST)


@inlined
def rate_push(
    factors: Float64Array, stakes: Float64Array, peaks: Float64Array, starts: Int64Array, s: int, k: int, side: int, hit: int, seen: int
) -> float:
    """One row of one side of one series; the mean of R over the alternatives.

    `factors` (s, k, side, bet, hit) holds L, `stakes` R, `peaks` the largest product of factors up to this row,
    `starts` the count of rows before that product begins.
    """
    total = 0.0
    for bet in range(BETS):
        factor = factors[s, k, side, bet, hit]
        peak = peaks[s, k, side, bet]
        if peak <= 1.0:
            peak = 1.0
            starts[s, k, side, bet] = seen
        peaks[s, k, side, bet] = peak * factor
        stake = (stakes[s, k, side, bet] + 1.0) * factor
        stakes[s, k, side, bet] = stake
        total += stake
    return total / BETS


@inlined
def _restart(stakes: Float64Array, peaks: Float64Array, s: int, k: int) -> None:
    for side in range(2):
        for bet in range(BETS):
            stakes[s, k, side, bet] = 0.0
            peaks[s, k, side, bet] = 1.0


@inlined
def _largest(peaks: Float64Array, s: int, k: int, side: int) -> int:
    best = 0
    for bet in range(1, BETS):
        if peaks[s, k, side, bet] > peaks[s, k, side, best]:
            best = bet
    return best


@kernel
def _update(
    codes: UInt8Array,
    scopes: Int32Array,
    active: UInt8Array,
    column_of: Int64Array,
    hits: NDArray[np.int8],
    factors: Float64Array,
    stakes: Float64Array,
    peaks: Float64Array,
    starts: Int64Array,
    seen: Int64Array,
    limits: Float64Array,
    sides: NDArray[np.int8],
    out: Alarms,
    row: int,
    slot: int,
) -> tuple[int, int, int]:
    """From (row, slot) until the batch ends or `out` may not hold another row; alarms written and where it stopped."""
    n_series = column_of.shape[0]
    written = 0
    for i in range(row, codes.shape[0]):
        for j in range(slot, scopes.shape[1]):
            s = scopes[i, j]
            if s < 0:
                continue
            if written + n_series > out.shape[0]:
                return written, i, j
            for k in range(n_series):
                hit = hits[k, codes[i, column_of[k]]]
                if hit < 0 or not active[s, k]:
                    continue
                before = seen[s, k]
                seen[s, k] = before + 1
                up = rate_push(factors, stakes, peaks, starts, s, k, 0, hit, before) if sides[s, k] >= 0 else 0.0
                down = rate_push(factors, stakes, peaks, starts, s, k, 1, hit, before) if sides[s, k] <= 0 else 0.0
                if up >= limits[s, k] or down >= limits[s, k]:
                    side = 0 if up >= down else 1
                    back = before + 1 - starts[s, k, side, _largest(peaks, s, k, side)]
                    write_alarm(out[written], i, s, k, max(up, down), limits[s, k], 1 - 2 * side, back)
                    written += 1
                    _restart(stakes, peaks, s, k)
        slot = 0
    return written, codes.shape[0], 0


class RateBank:
    """One betting test for each (scope, series); a series is a 0/1 reading of a column's codes.

    The alarm's `column` is the series' index, `statistic` and `threshold` are in rows of run length.

    Parameters
    ----------
    column_of : (n_series,) the column of codes each series reads
    hits : int8 (n_series, 67): 1 = hit, 0 = miss, -1 = the row does not count
    rate_up, rate_down : base rates to bet against, (n_scopes, n_series) or broadcast to it; from an estimate
        take `rate_bound`, which keeps the promise. Both may be the same when the rate is known
    run_length : mean rows between false alarms, at least
    direction : "up", "down" or "both", or an array of `DIRECTIONS` values; both sides share the run length
    active : (n_scopes, n_series), 0 = no test
    """

    def __init__(
        self,
        n_scopes: int,
        *,
        column_of: ArrayLike,
        hits: ArrayLike,
        rate_up: ArrayLike,
        rate_down: ArrayLike,
        run_length: ArrayLike,
        direction: str | NDArray[np.int8] = "both",
        active: ArrayLike | None = None,
    ) -> None:
        self.column_of = np.array(column_of, np.int64)
        self.hits = np.array(hits, np.int8)
        self.n_scopes, self.n_series = n_scopes, len(self.column_of)
        if self.hits.shape != (self.n_series, N_CODES):
            raise ValueError(f"expected hits of shape ({self.n_series}, {N_CODES}), got {self.hits.shape}")
        chosen = DIRECTIONS[direction] if isinstance(direction, str) else direction
        self.sides = per_series(chosen, n_scopes, self.n_series).astype(np.int8)
        self.limits = per_series(run_length, n_scopes, self.n_series) * np.where(self.sides == 0, 2.0, 1.0)
        self.active = all_active(n_scopes, self.n_series, active)
        self.factors = np.stack(
            [
                _factors(per_series(rate_up, n_scopes, self.n_series), rises=True),
                _factors(per_series(rate_down, n_scopes, self.n_series), rises=False),
            ],
            axis=2,
        )
        self.stakes = np.zeros((n_scopes, self.n_series, 2, BETS))
        self.peaks = np.ones((n_scopes, self.n_series, 2, BETS))
        self.starts = np.zeros((n_scopes, self.n_series, 2, BETS), np.int64)
        self.seen = np.zeros((n_scopes, self.n_series), np.int64)

    def update(self, codes: UInt8Array, scopes: Int32Array) -> Alarms:
        """Add a batch of rows of codes (n, C) to their scopes (n, S)."""
        codes, scopes = checked_rows(codes, scopes, np.uint8, np.shape(codes)[-1], self.n_scopes)
        if codes.size and int(codes.max()) >= N_CODES:
            raise ValueError(f"expected codes below {N_CODES}, got {int(codes.max())}")
        if self.n_series and int(self.column_of.max()) >= codes.shape[1]:
            raise ValueError(f"expected more than {int(self.column_of.max())} columns, got {codes.shape[1]}")

        def step(out: Alarms, row: int, slot: int) -> tuple[int, int, int]:
            return _update(
                codes, scopes, self.active, self.column_of, self.hits, self.factors, self.stakes, self.peaks,
                self.starts, self.seen, self.limits, self.sides, out, row, slot,
            )  # fmt: skip

        return drain(step, codes.shape[0], self.n_series)

    def reset(self, scope: int, series: int | None = None) -> None:
        """Start one test anew, or all tests of a scope."""
        chosen = slice(None) if series is None else series
        self.stakes[scope, chosen] = 0.0
        self.peaks[scope, chosen] = 1.0
        self.starts[scope, chosen] = 0
        self.seen[scope, chosen] = 0

    def take(self, scope: int, series: int, other: RateBank, from_scope: int, from_series: int) -> None:
        """Go on with one series of another bank; a side that was not watched there has no evidence yet."""
        self.seen[scope, series] = other.seen[from_scope, from_series]
        for side, sign in enumerate((1, -1)):
            if other.sides[from_scope, from_series] * sign < 0:
                continue
            for mine, theirs in ((self.stakes, other.stakes), (self.peaks, other.peaks), (self.starts, other.starts)):
                mine[scope, series, side] = theirs[from_scope, from_series, side]

    def export(self, scope: int) -> bytes:
        """The state of one scope."""
        return pack(_MAGIC, _VERSION, self.n_series, [self.seen[scope], self.stakes[scope], self.peaks[scope], self.starts[scope]])

    def restore(self, scope: int, blob: bytes) -> None:
        """Continue one scope from `export`, as if it had never stopped.

        Raises
        ------
        ValueError : of another kind or version, or no state that rows can lead to
        """
        n = self.n_series
        sides = n * 2 * BETS
        seen, stakes, peaks, starts = unpack(blob, _MAGIC, _VERSION, n, ["<i8", "<f8", "<f8", "<i8"], [n, sides, sides, sides])
        sound = np.all(np.isfinite(stakes) & (stakes >= 0.0) & np.isfinite(peaks) & (peaks >= 0.0))
        if not (sound and np.all(seen >= 0) and np.all((starts >= 0) & (starts <= np.repeat(seen, 2 * BETS)))):
            raise ValueError("damaged state of DRAT: evidence or counts that no rows lead to")
        self.seen[scope] = seen
        self.stakes[scope] = stakes.reshape(n, 2, BETS)
        self.peaks[scope] = peaks.reshape(n, 2, BETS)
        self.starts[scope] = starts.reshape(n, 2, BETS)


def _factors(rates: Float64Array, *, rises: bool) -> Float64Array:
    """L for a miss and a hit, (scopes, series, bet, 2)."""
    if not np.all((rates >= 0) & (rates <= 1)):
        raise ValueError("expected base rates from 0 to 1")
    known = np.clip(rates, _SMALLEST, 1 - _SMALLEST)
    base = known if rises else 1 - known
    factors = np.empty((*rates.shape, BETS, 2))
    for bet, (rise, fall) in enumerate(zip(RISES, FALLS, strict=True)):
        bet_on = np.minimum(base * rise, 1 - (1 - base) * fall)
        with_event, without = bet_on / base, (1 - bet_on) / (1 - base)
        factors[..., bet, 1] = with_event if rises else without
        factors[..., bet, 0] = without if rises else with_event
    return factors
