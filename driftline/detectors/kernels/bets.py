"""The alternatives that an e-detector bets on, and what a value is worth to each of them.

Two forms of the factor L. Scores, standard normal when nothing changed (`conformal`), under a tolerance d, s = exp(d / sqrt 2):

    location  exp(lam (z - sign(lam) d) - lam^2 s^2 / 2)                             lam = +-1/8, 1/4, 1/2, 1, 2
    wider     (1/v) exp((1 - 1/v^2) z^2 / (2 s^2) - (v^2 - 1) d^2 / (2 s^2))         v = sqrt 2, 2
    narrower  (1/v) exp((1 - 1/v^2) z^2 s^2 / 2)                                     v = 1/sqrt 2, 1/2

Each has mean at most 1 under every normal law with |mean| <= d and |ln sd| <= d / sqrt 2, the sd whose Kullback-Leibler
divergence is that of the mean d; a shift may have another d than the spread. Zeros and ones, or values in [0, 1], with
mean p0 when nothing changed:

    bounded   1 + lam (x - p),  lam = (p1 - p) / (p (1 - p)),  p the end of [p0 / (1 + d), p0 (1 + d)] on the bet's side,
              near 1 the same of the misses

Worths x >= -b of a row to a witness (`witness`), in units of their sd, of mean at most d when nothing changed, |x| of 1 the most:

    worth     1 + lam (x - d) / (b + d)                                              lam = .96, 1/2, 1/4, 1/8, 1/16, 1/32

so a change below the tolerance, however certain, spends no budget.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.bank import Float64Array, UInt8Array
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.portable import portable_exp

BETS: Final = 14
"""Alternatives of a monitor at most."""
SHIFTS: Final = (0.125, 0.25, 0.5, 1.0, 2.0)
SPREADS: Final = (math.sqrt(2.0), 2.0, math.sqrt(0.5), 0.5)
"""Alternatives of scores: shifts up, the same shifts down, spreads; three exponentials and their powers serve all of them."""
FIRST_SPREAD: Final = 2 * len(SHIFTS)
SPREAD_BETS: Final = len(SPREADS)
RATES: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 0.75, 0.5, 0.25)
"""Alternatives of a rate as multiples of it; near 1 the misses are divided by them instead."""
BOUNDED_BETS: Final = len(RATES)
WORTH_STAKES: Final = (0.96, 0.5, 0.25, 0.125, 0.0625, 0.03125)
"""Of what may be lost: at .96 nothing that comes takes a stake to 0."""
SHIFT_WEIGHT: Final = 0.8
DIRECTIONS: Final = {"both": 0, "up": 1, "down": -1}

SCORES: Final = 0
BOUNDED: Final = 1
WORTHS: Final = 2
"""Forms: standard normal scores, values in [0, 1] of a known mean, or worths to a witness, of a mean that is bounded above."""

_SCORE_MOST: Final = 8.0


class Bets(NamedTuple):
    """Constants of all monitors M."""

    weights: Float64Array  # (M, BETS), of each monitor 1 together
    directions: NDArray[np.int8]  # (M, BETS) the side of a bet, 0 for spreads and unused ones
    shift: Float64Array  # (M, 5) constants of the bets on shifts, both sides alike
    spread: Float64Array  # (M, 6) 1 / (8 s^2), s^2 / 2, and constants of the bets on spreads
    line: Float64Array  # (M, 2, BETS) constant and slope of bounded bets
    unit: Float64Array  # (M, 4) mean and 1 / sd of a value when nothing changed, and the ends of what its mean may be then, in sd


@inlined
def score_factors(z: float, shift: Float64Array, spread: Float64Array, out: Float64Array) -> None:
    """L of every alternative for one score; `spread` is (1 / (8 s^2), s^2 / 2) and four constants."""
    z = min(max(z, -_SCORE_MOST), _SCORE_MOST)
    up = portable_exp(0.125 * z)
    down = 1.0 / up
    for k in range(5):
        out[k] = up * shift[k]
        out[5 + k] = down * shift[k]
        up *= up
        down *= down
    wider = portable_exp(z * z * spread[0])
    narrower = portable_exp(-z * z * spread[1])
    out[10] = spread[2] * wider * wider
    out[11] = spread[3] * wider * wider * wider
    out[12] = spread[4] * narrower
    out[13] = spread[5] * narrower * narrower * narrower


def bet_name(form: int, bet: int) -> str:
    """What an alternative stands for, for people."""
    if form == WORTHS:
        return f"stake {WORTH_STAKES[bet]:g}"
    if form == BOUNDED:
        return f"rate x{RATES[bet]:g}"
    if bet < 2 * len(SHIFTS):
        return f"shift {'+' if bet < len(SHIFTS) else '-'}{SHIFTS[bet % len(SHIFTS)]:g} sd"
    return f"spread x{SPREADS[bet - 2 * len(SHIFTS)]:.2g}"


def bets_of(form: UInt8Array, tolerance: Float64Array, base: Float64Array, side: Float64Array, spread: Float64Array) -> Bets:
    """The bets of monitors, from arrays of shape (M,); see `EDetectorBank`; of worths `base` is the sd and `spread` the least, negated.

    Raises
    ------
    ValueError : a tolerance below 0, a mean that is not between 0 and 1
    """
    if not (np.all(tolerance >= 0.0) and np.all(spread >= 0.0) and np.all((base > 0.0) & (base < 1.0))):
        raise ValueError("expected tolerances of at least 0 and means between 0 and 1")
    n = len(form)
    bets = Bets(
        weights=np.zeros((n, BETS)),
        directions=np.zeros((n, BETS), np.int8),
        shift=np.zeros((n, len(SHIFTS))),
        spread=np.zeros((n, 2 + len(SPREADS))),
        line=np.zeros((n, 2, BETS)),
        unit=np.zeros((n, 4)),
    )
    for m in range(n):
        if form[m] == WORTHS:
            sd, least, allowed = float(base[m]), float(spread[m]), float(tolerance[m])
            bets.directions[m, : len(WORTH_STAKES)] = 1
            for k, lam in enumerate(WORTH_STAKES):
                bets.line[m, :, k] = 1.0 - lam * allowed / (least + allowed), lam * sd / (least + allowed)
            bets.unit[m] = 0.0, 1.0, -allowed / sd, allowed / sd
        elif form[m] == SCORES:
            bets.directions[m, :5], bets.directions[m, 5:10] = 1, -1
            bets.shift[m], bets.spread[m] = _score_constants(float(tolerance[m]), float(spread[m]))
            bets.unit[m] = 0.0, 1.0, -tolerance[m], tolerance[m]
        else:
            bets.directions[m, : len(RATES)] = [1 if r > 1.0 else -1 for r in RATES]
            write_rate_bets(float(base[m]), float(tolerance[m]), float(spread[m]), bets.line[m], bets.unit[m])
        bets.weights[m] = _weights(int(form[m]), bets.directions[m], int(side[m]))
    return bets


def _weights(form: int, directions: NDArray[np.int8], side: int) -> Float64Array:
    """Weights of the alternatives, which sum to 1."""
    weights = np.where(directions != 0, 1.0, 0.0)
    if side != 0:
        weights[directions != side] = 0.0
    elif form == SCORES:
        weights *= SHIFT_WEIGHT / weights.sum()
        weights[2 * len(SHIFTS) :] = (1.0 - SHIFT_WEIGHT) / len(SPREADS)
        return weights
    total: float = weights.sum()
    return weights / total


def _score_constants(d: float, spread: float) -> tuple[Float64Array, Float64Array]:
    square = math.exp(math.sqrt(2.0) * spread)
    shift = np.array([math.exp(-lam * d - 0.5 * lam * lam * square) for lam in SHIFTS])
    wider = [math.exp(-(v * v - 1.0) * d * d / (2.0 * square)) / v for v in SPREADS[:2]]
    return shift, np.array([0.125 / square, 0.5 * square, *wider, *(1.0 / v for v in SPREADS[2:])])


@kernel
def times(rate: float, factor: float) -> float:
    """A rate changed by a factor; near 1 its misses change by the inverse, so that it stays a rate."""
    if factor >= 1.0:
        return min(rate * factor, 1.0 - (1.0 - rate) / factor)
    return max(rate * factor, 1.0 - (1.0 - rate) / factor)


@kernel
def write_rate_bets(base: float, up: float, down: float, line: Float64Array, unit: Float64Array) -> None:
    """Constant and slope of 1 + lam (x - p) for each alternative to a rate, (2, BETS), and its unit (4,).

    `up` and `down` are what is tolerated, relative to the rate; near 1 to that of misses.
    """
    for k, rate in enumerate(RATES):
        edge = 1.0 + up if rate > 1.0 else 1.0 / (1.0 + down)
        p = times(base, edge)
        lam = (times(p, rate) - p) / (p * (1.0 - p))
        line[0, k], line[1, k] = 1.0 - lam * p, lam
    sd = math.sqrt(base * (1.0 - base))
    unit[0], unit[1] = base, 1.0 / sd
    unit[2], unit[3] = (times(base, 1.0 / (1.0 + down)) - base) / sd, (times(base, 1.0 + up) - base) / sd
