"""When did it change: the likelihood ratio over all starts of a change of the mean, exactly, in memory of its logarithm.

Functional pruning (Romano, Eckley, Fearnhead and Rigaill 2023, Journal of Machine Learning Research 24, algorithm 3;
arXiv 2110.08205). With S_t the sum of the first t values, a start tau can be the likeliest start of a rise at some later
time only if (tau, S_tau) is a corner of the lower convex hull of all those points; where the mean before the change is not above
0, only if besides no later point lies lower. For falls the same with -S. That holds for every law of one parameter (Ward, Romano,
Eckley and Fearnhead 2024, Statistics and Computing 34, arXiv 2302.04743), so the same corners serve zeros and ones.

What the mean before was is known to lie in a band: 0 alone, or anywhere, or within what is no change (`Before`). With m0 and m1
the means before and since tau, m that of all n values, c0 and c the points of the band nearest to m0 and m, and D(m, c) the
divergence of one value of mean m from one of mean c, (m - c)^2 / 2 or that of zeros and ones, the log likelihood ratio is

    (n - tau) D(m1, c0) - n (D(m, c0) - D(m, c))        m1 above the band (above c0 where it has no end), else there is no rise

The mean before is estimated, so a change that is hardly beyond the band is dated to its start and not to its last stretch that was;
the mean since is beyond the band, so no date reaches back through a long stretch within it. That may leave out the corner next to
the likeliest start, which is then between corners: in one case of a hundred of rates with a wide band, 2.4 of ratio below at most.

The interval around the likeliest start holds every tau whose log likelihood ratio is within `INTERVAL_DEPTH` of the
largest. Near a change both sides of that ratio are random walks with negative drift, whose maxima exceed x with
probability exp(-x): so it holds the true start with probability (1 - exp(-x))^2 (Siegmund 1988, International
Statistical Review 56). Between two corners the path lies above the hull, so the hull bounds the ratio from above there,
and the interval read off it is never shorter than the one over all starts.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.kernels.bank import Float64Array, Int32Array, pack, unpack
from driftline.detectors.kernels.hulls import HULL_TYPES, Hulls, hull_arrays, hull_push, new_hulls, restore_hulls
from driftline.detectors.kernels.jit import inlined, kernel, portable_log

INTERVAL_DEPTH: Final = 3.676
"""-ln(1 - sqrt(.95)): intervals of 95 %."""
_MAGIC = b"DFOC"
_VERSION = 1


class Before(NamedTuple):
    """What the mean of values before a change may be.

    Attributes
    ----------
    low, high : ends of the band; 0 and 0 = known, no ends = unknown.
    rate : the mean of zeros and ones from which the values are counted in units of `sd`; 0 = values of unit variance.
    """

    low: float
    high: float
    rate: float
    sd: float


KNOWN: Final = Before(0.0, 0.0, 0.0, 1.0)
UNKNOWN: Final = Before(-math.inf, math.inf, 0.0, 1.0)


class Dating(NamedTuple):
    """Where a change of the mean most likely began.

    Attributes
    ----------
    back : the monitor's values since then, at least 1
    earliest, latest : ends of the 95 % interval, as `back` is counted; `earliest` is the larger number
    shift : mean since then less the mean before, in the values' unit
    ratio : log likelihood ratio against no change
    """

    back: int
    earliest: int
    latest: int
    shift: float
    ratio: float


@inlined
def _divergence(mean: float, other: float, b: Before) -> float:
    """Of one value from one of another mean; means in units of `b`."""
    if b.rate <= 0.0:
        return 0.5 * (mean - other) * (mean - other)
    p = min(max(b.rate + mean * b.sd, 0.0), 1.0)
    q = b.rate + other * b.sd
    found = 0.0
    if p > 0.0:
        found += p * portable_log(p / q)
    if p < 1.0:
        found += (1.0 - p) * portable_log((1.0 - p) / (1.0 - q))
    return found


@inlined
def _turned(b: Before, side: int) -> Before:
    """What a side sees: falls are rises of the negative values."""
    if side == 0:
        return b
    # Of zeros and ones the misses.
    return Before(-b.high, -b.low, 1.0 - b.rate if b.rate > 0.0 else b.rate, b.sd)


@inlined
def _ratio(n: int, s: float, at: float, height: float, b: Before) -> float:
    """Log likelihood ratio of a rise after `at`; 0 where there is none."""
    after = n - at
    since, whole = (s - height) / after, s / n
    same = min(max(whole, b.low), b.high)
    before = min(max(height / at, b.low), b.high) if at > 0.0 else same
    if since <= (b.high if b.high < math.inf else before):
        return 0.0
    return after * _divergence(since, before, b) - n * (_divergence(whole, before, b) - _divergence(whole, same, b))


@inlined
def _rises(n: int, s: float, at: int, height: float, b: Before) -> bool:
    """Whether the mean since a point is above the band."""
    return s - height > b.high * (n - at) or b.high == math.inf


@inlined
def _outer(n: int, s: float, low: int, bottom: float, high: int, top: float, level: float, b: Before, first: bool) -> int:
    """The first, or last, start from a corner (low, bottom) to the next at which the bound reaches a level; -1 = nowhere.

    Along a side of the hull the bound is convex (n D(S / n, c) is, and so is the largest of several), so from an end below a level
    to an end above it is crossed once.
    """
    slope = (top - bottom) / (high - low)
    near, far = (low, high) if first else (high, low)
    if not _rises(n, s, far, bottom + slope * (far - low), b):
        return -1
    if not _rises(n, s, near, bottom + slope * (near - low), b):
        # Rises along a side are a piece of it.
        none, some = near, far
        while abs(some - none) > 1:
            middle = (none + some) // 2
            if _rises(n, s, middle, bottom + slope * (middle - low), b):
                some = middle
            else:
                none = middle
        near = some
    if _ratio(n, s, float(near), bottom + slope * (near - low), b) >= level:
        return near
    if _ratio(n, s, float(far), bottom + slope * (far - low), b) < level:
        return -1
    while abs(far - near) > 1:
        middle = (far + near) // 2
        if _ratio(n, s, float(middle), bottom + slope * (middle - low), b) >= level:
            far = middle
        else:
            near = middle
    return far


@inlined
def _outer_of(n: int, s: float, m: int, side: int, k: int, level: float, b: Before, first: bool, h: Hulls) -> int:
    """`_outer` between a corner of a monitor's hull and the next."""
    return _outer(n, s, h.at[m, side, k], h.sums[m, side, k], h.at[m, side, k + 1], h.sums[m, side, k + 1], level, b, first)


@inlined
def focus_best(m: int, b: Before, h: Hulls, only: int) -> tuple[float, int, int]:
    """The largest log likelihood ratio now, its side and its corner; `only` = 1 of rises, -1 of falls, 0 of both."""
    best, where, which = 0.0, 0, 0
    for side in range(2):
        if only != 0 and only != 1 - 2 * side:
            continue
        s = h.total[m] if side == 0 else -h.total[m]
        seen = _turned(b, side)
        for k in range(h.size[m, side]):
            found = _ratio(h.seen[m], s, float(h.at[m, side, k]), h.sums[m, side, k], seen)
            if found > best:
                best, where, which = found, side, k
    return best, where, which


@inlined
def _earliest(n: int, s: float, m: int, side: int, which: int, level: float, b: Before, h: Hulls) -> int:
    """The first start at which the ratio may reach a level, up to a corner at which it does."""
    first: int = h.at[m, side, 0]
    if first > 0 and b.high < math.inf:
        if _ratio(n, s, 0.0, 0.0, b) >= level:
            return 0
        # No earlier point lies lower than the oldest corner, so the ratio is at most what it would be at that height.
        found = _outer(n, s, 1, h.sums[m, side, 0], first, h.sums[m, side, 0], level, b, True) if first > 1 else -1
        if found >= 0:
            return found
    for k in range(which):
        found = _outer_of(n, s, m, side, k, level, b, True, h)
        if found >= 0:
            return found
    return int(h.at[m, side, which])


@inlined
def focus_date(m: int, b: Before, depth: float, h: Hulls, only: int) -> tuple[float, int, int, int, float]:
    """Ratio, values since the likeliest start and since the ends of its interval, and the shift; all 0 without a sign of one."""
    n = h.seen[m]
    best, side, which = focus_best(m, b, h, only)
    if best <= 0.0:
        return 0.0, 0, 0, 0, 0.0
    sign = 1.0 if side == 0 else -1.0
    s, start, level = sign * h.total[m], h.at[m, side, which], best - depth
    before = h.sums[m, side, which]
    shift = sign * (s - before) / (n - start)
    if b.high == math.inf:
        shift -= sign * before / start
    if level <= 0.0:
        return best, n - start, n, 1, shift
    seen = _turned(b, side)
    latest = start
    for k in range(h.size[m, side] - 2, which - 1, -1):
        found = _outer_of(n, s, m, side, k, level, seen, False, h)
        if found >= 0:
            latest = found
            break
    return best, n - start, n - _earliest(n, s, m, side, which, level, seen, h), n - latest, shift


@kernel
def _update(values: Float64Array, monitors: Int32Array, bounded: bool, h: Hulls) -> None:
    for i in range(values.shape[0]):
        for w in range(values.shape[1]):
            m = monitors[i, w]
            if m >= 0 and np.isfinite(values[i, w]):
                hull_push(m, values[i, w], bounded, h)


@kernel
def _first_above(values: Float64Array, threshold: float, before: Before, h: Hulls, start: int) -> int:
    """The first place from `start` at which the ratio of monitor 0 is above the threshold; the length if none is."""
    for i in range(start, values.shape[0]):
        if np.isfinite(values[i]):
            hull_push(0, values[i], before.high < math.inf, h)
            if focus_best(0, before, h, 0)[0] > threshold:
                return i
    return len(values)


@kernel
def date_of(m: int, before: Before, depth: float, h: Hulls) -> tuple[float, int, int, int, float]:
    """`focus_date`, from Python."""
    return focus_date(m, before, depth, h, 0)


class FocusBank:
    """The hulls of monitors whose changes are to be dated.

    Parameters
    ----------
    known : the mean before a change is 0, as that of scores; else it is estimated with the change
    """

    def __init__(self, n_monitors: int, *, known: bool = True) -> None:
        self.n_monitors, self.known = n_monitors, known
        self._before = KNOWN if known else UNKNOWN
        self.hulls = new_hulls(n_monitors)

    def update(self, values: Float64Array, monitors: Int32Array) -> None:
        """Take rows of values of unit variance (n, W) and whose they are; NaN, infinities and -1 are skipped."""
        values = np.ascontiguousarray(values, np.float64)
        monitors = np.ascontiguousarray(monitors, np.int32)
        if values.ndim != 2 or values.shape != monitors.shape:
            raise ValueError(f"expected values and monitors of one shape (n, W), got {values.shape} and {monitors.shape}")
        if monitors.size and int(monitors.max()) >= self.n_monitors:
            raise ValueError(f"expected monitors below {self.n_monitors}, got {int(monitors.max())}")
        _update(values, monitors, self.known, self.hulls)

    def first_above(self, values: Float64Array, threshold: float, start: int = 0) -> int:
        """Feed monitor 0 with a series from `start` until its ratio is above a threshold; that place, or the length."""
        return int(_first_above(np.ascontiguousarray(values, np.float64), threshold, self._before, self.hulls, start))

    def date(self, monitor: int, depth: float = INTERVAL_DEPTH) -> Dating | None:
        """The likeliest change since the last reset; None when there is no sign of one.

        Parameters
        ----------
        depth : how far below the largest log likelihood ratio the interval reaches
        """
        ratio, back, earliest, latest, shift = date_of(monitor, self._before, depth, self.hulls)
        return Dating(back, earliest, latest, shift, ratio) if ratio > 0.0 else None

    def reset(self, monitor: int) -> None:
        """Forget a monitor's values."""
        h = self.hulls
        h.seen[monitor], h.total[monitor], h.size[monitor] = 0, 0.0, 0

    def export(self) -> bytes:
        """The state of all monitors."""
        return pack(_MAGIC, _VERSION, self.n_monitors, hull_arrays(self.hulls))

    def restore(self, blob: bytes) -> None:
        """Continue from `export`, as if it had never stopped.

        Raises
        ------
        ValueError : of another kind, version or number of monitors, or corners that no values lead to
        """
        restore_hulls(self.hulls, unpack(blob, _MAGIC, _VERSION, self.n_monitors, list(HULL_TYPES)))
