"""Values of a series that has changed, ranked among those since its change: a reference that is learned while an episode is open.

From the first value after the alarm on the values of a monitor go to a reference of its own. The first ones give the edges of its
bins (of zeros and ones: the rate that is expected), all later ones are counted, and from so many on each is ranked among those
before it (`conformal`) and judged. Edges depend on no value that is counted and every value joins the counts after it was
ranked, so the ranks are independent and uniform while the values since the alarm are exchangeable: exactly, for a reference of any
size. A monitor bets on one series of scores at a time, so its part of the budget is what it was.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.kernels.autoregression import bin_of
from driftline.detectors.kernels.bank import Float64Array, Int16Array, Int32Array, Int64Array, UInt8Array
from driftline.detectors.kernels.bets import Bets, write_rate_bets
from driftline.detectors.kernels.conformal import BINS, SCORE_MOST, UInt64Array, conformal_rank
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.portable import normal_quantile, uniform
from driftline.detectors.spec import BELOW, N_CODES

EDGE_VALUES: Final = 192
"""Values whose quantiles are the edges: three a bin; more would only make the state larger while they are gathered."""
LEARN_VALUES: Final = 1_000
"""Values after the alarm until the first one is judged, edges included."""
RATE_HITS: Final = 10
"""Ones, and zeros, from which a rate is known well enough to bet on multiples of it."""
RATE_MOST: Final = 4
"""Parts of what is learned after which a rate is bet on with fewer: one that has fallen to nothing shows no ones."""

RAW: Final = 0
SCORE: Final = 1
RATE: Final = 2
"""What is ranked: the value itself; its score against the baseline, where that has taken off a memory or an hour, or the values are
categories; or zeros and ones."""

_SALT: Final = np.uint64(0xD1B54A32D192ED03)
"""Ties among scores are broken by other numbers than those that are in the scores."""


class Followed(NamedTuple):
    """References that are being learned or judged against; axes M monitors, K places for them."""

    place: Int32Array  # (M,) the place of a monitor's reference, -1 = it is judged against the baseline
    monitor: Int64Array  # (K,)
    column: Int64Array  # (K,)
    slot: Int64Array  # (K,) the place of its scope among those of a row
    form: UInt8Array  # (K,) RAW, SCORE or RATE
    own: UInt64Array  # (K,) the key of the series for its random numbers
    warning: Float64Array  # (K, 2) of a rate: the relative change that is none, and the floor it is relative to
    learn: Int64Array  # (K,) values before the first that is judged
    taken: Int64Array  # (K,) values so far
    judged: Int64Array  # (K,) of them that were judged
    changes: Int64Array  # (K,) changes of the episode so far, its own included
    counting: UInt8Array  # (K,) edges, or the rate, are known
    share: Float64Array  # (K,) of a rate: ones while it is gathered, then the rate that is expected
    room: Float64Array  # (K, EDGE_VALUES) values while they are gathered, then edges, padded with infinities
    counts: Int64Array  # (K, BINS)
    codes: Int64Array  # (K, N_CODES) values by their code in the baseline


class Rows(NamedTuple):
    """What a reference needs of the rows beside their scores."""

    codes: UInt8Array  # (n, J, C) by the row's place among its scopes; J = 1 where they are the same for all
    values: Float64Array  # (n, C)
    keys: UInt64Array  # (n,)
    changes: Int16Array  # (n, W) MISSING times the code before and the own one where draws are judged, else -1; (0, 0) = nowhere


def new_followed(n_monitors: int, places: int) -> Followed:
    """Room for so many references, none of them in use."""
    return Followed(
        place=np.full(n_monitors, -1, np.int32),
        monitor=np.zeros(places, np.int64),
        column=np.zeros(places, np.int64),
        slot=np.zeros(places, np.int64),
        form=np.zeros(places, np.uint8),
        own=np.zeros(places, np.uint64),
        warning=np.zeros((places, 2)),
        learn=np.full(places, LEARN_VALUES, np.int64),
        taken=np.zeros(places, np.int64),
        judged=np.zeros(places, np.int64),
        changes=np.zeros(places, np.int64),
        counting=np.zeros(places, np.uint8),
        share=np.zeros(places),
        room=np.full((places, EDGE_VALUES), np.inf),
        counts=np.zeros((places, BINS), np.int64),
        codes=np.zeros((places, N_CODES), np.int64),
    )


def no_rows() -> Rows:
    """For monitors of which none is followed."""
    codes: UInt8Array = np.zeros((0, 1, 0), np.uint8)
    return Rows(codes, np.zeros((0, 0)), np.zeros(0, np.uint64), np.zeros((0, 0), np.int16))


@kernel
def begin(k: int, f: Followed) -> None:
    """Forget what a reference has learned."""
    f.taken[k] = 0
    f.judged[k] = 0
    f.counting[k] = 0
    f.share[k] = 0.0
    for b in range(EDGE_VALUES):
        f.room[k, b] = np.inf
    for b in range(BINS):
        f.counts[k, b] = 0
    for code in range(N_CODES):
        f.codes[k, code] = 0


@kernel
def _take_edges(room: Float64Array) -> None:
    """Put the quantiles of the values that were gathered in their place."""
    for i in range(1, EDGE_VALUES):
        x = room[i]
        j = i
        while j > 0 and room[j - 1] > x:
            room[j] = room[j - 1]
            j -= 1
        room[j] = x
    used = 0
    for b in range(1, BINS):
        edge = room[(EDGE_VALUES * b + BINS - 1) // BINS - 1]
        if used == 0 or edge > room[used - 1]:
            room[used] = edge
            used += 1
    for b in range(used, EDGE_VALUES):
        room[b] = np.inf


@kernel
def bet_on_rate(k: int, f: Followed, bets: Bets) -> None:
    """Let the monitor of a rate bet against the rate that is expected since the change, with the tolerance it had."""
    tolerance = f.warning[k, 0] * max(1.0, f.warning[k, 1] / f.share[k])
    write_rate_bets(f.share[k], tolerance, tolerance, bets.line[f.monitor[k]], bets.unit[f.monitor[k]])


@inlined
def _gather(k: int, y: float, f: Followed, bets: Bets) -> None:
    """One value for the edges, or for the rate."""
    n = f.taken[k]
    if f.form[k] != RATE:
        f.room[k, n - 1] = y
        if n == EDGE_VALUES:
            _take_edges(f.room[k])
            f.counting[k] = 1
        return
    f.share[k] += y
    known = f.share[k] >= RATE_HITS and n - f.share[k] >= RATE_HITS
    if n >= EDGE_VALUES and (known or n >= RATE_MOST * f.learn[k]):
        f.share[k] = (f.share[k] + 0.5) / (n + 1.0)
        f.counting[k] = 1
        bet_on_rate(k, f, bets)


@inlined
def follow(k: int, i: int, x: float, f: Followed, rows: Rows, bets: Bets) -> float:
    """The score of a value against what came since the change, or 0 or 1; -inf while that is learned.

    Parameters
    ----------
    x : what the value is against the baseline; where it is no value it stays, and +inf forgets what was learned.
    """
    if x != x:
        return x
    if x == np.inf:
        begin(k, f)
        return x
    code = rows.codes[i, min(f.slot[k], rows.codes.shape[1] - 1), f.column[k]]
    y = x
    if f.form[k] == RAW:
        y = rows.values[i, f.column[k]]
        if y != y:
            y = -np.inf if code == BELOW else np.inf
    f.codes[k, code] += 1
    f.taken[k] += 1
    if not f.counting[k]:
        _gather(k, y, f, bets)
        return -np.inf
    b = int(y) if f.form[k] == RATE else bin_of(y, f.room[k])
    total = f.counts[k, 0] + f.counts[k, 1] if f.form[k] == RATE else f.taken[k] - 1 - EDGE_VALUES
    p = conformal_rank(f.counts[k], total, b, uniform(rows.keys[i] ^ f.own[k] ^ _SALT))
    f.counts[k, b] += 1
    if f.taken[k] <= f.learn[k]:
        return -np.inf
    f.judged[k] += 1
    if f.form[k] == RATE:
        return 1.0 if p >= 1.0 - f.share[k] else 0.0
    return min(max(normal_quantile(p), -SCORE_MOST), SCORE_MOST)
