"""When did it change: the likelihood ratio over all starts of a change of the mean, exactly, in memory of its logarithm.

Functional pruning (Romano, Eckley, Fearnhead and Rigaill 2023, Journal of Machine Learning Research 24, algorithm 3;
arXiv 2110.08205). With S_t the sum of the first t values, a start tau can be the likeliest start of a rise at some later
time only if (tau, S_tau) is a corner of the lower convex hull of all those points; with a known mean before the change,
only if besides no later point lies lower. For falls the same with -S. On n values of unit variance, twice the log
likelihood ratio of a change after tau is

    mean before known to be 0   (S_n - S_tau)^2 / (n - tau)
    mean before unknown         (S_n - S_tau - (n - tau) S_n / n)^2 n / (tau (n - tau))

A slack d asks for a mean above d instead of 0, of x - d on the one side and -x - d on the other: where small shifts are
no change, a date must not reach back through them.

The interval around the likeliest start holds every tau whose log likelihood ratio is within `INTERVAL_DEPTH` of the
largest. Near a change both sides of that ratio are random walks with negative drift, whose maxima exceed x with
probability exp(-x): so it holds the true start with probability (1 - exp(-x))^2 (Siegmund 1988, International
Statistical Review 56). Between two corners the path lies above the hull, so the hull bounds the ratio from above there,
and the interval read off it is never shorter than the one over all starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.bank import Float64Array, Int32Array, Int64Array, pack, unpack
from driftline.detectors.kernels.jit import inlined, kernel

CORNERS: Final = 48
"""Corners kept on each side. A hull of n independent values has about ln n; where a path bends steadily and fills
them, the second oldest corner is dropped, which moves only dates near it."""
INTERVAL_DEPTH: Final = 3.676
"""-ln(1 - sqrt(.95)): intervals of 95 %."""
_MAGIC = b"DFOC"
_VERSION = 1
_COUNT_MOST = 2**53


class Hulls(NamedTuple):
    """State of all monitors M: what they have had, and the corners of both sides, oldest first."""

    seen: Int64Array  # (M,)
    total: Float64Array  # (M,)
    size: Int64Array  # (M, 2) corners in use
    at: Int64Array  # (M, 2, CORNERS) the values before each
    sums: Float64Array  # (M, 2, CORNERS) the height of each


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
def _pop(m: int, side: int, t: int, s: float, known: bool, at: Int64Array, sums: Float64Array, size: int) -> int:
    """Corners that stay when the point (t, s) joins."""
    while size > 0:
        last_at, last = at[m, side, size - 1], sums[m, side, size - 1]
        if known and s <= last:
            size -= 1
            continue
        if size == 1:
            break
        before_at, before = at[m, side, size - 2], sums[m, side, size - 2]
        # Slopes compared without a division: equal ones make no corner.
        if (last - before) * (t - last_at) < (s - last) * (last_at - before_at):
            break
        size -= 1
    return size


@inlined
def _height(m: int, side: int, slack: float, h: Hulls) -> float:
    """The sum so far on a side, less the slack of each value."""
    total: float = h.total[m] if side == 0 else -h.total[m]
    return float(total - slack * h.seen[m])


@inlined
def focus_push(m: int, x: float, known: bool, slack: float, h: Hulls) -> None:
    """One value: the point before it may become the start of a change."""
    for side in range(2):
        height = _height(m, side, slack, h)
        kept = _pop(m, side, h.seen[m], height, known, h.at, h.sums, h.size[m, side])
        if kept == CORNERS:
            for k in range(1, CORNERS - 1):
                h.at[m, side, k] = h.at[m, side, k + 1]
                h.sums[m, side, k] = h.sums[m, side, k + 1]
            kept -= 1
        h.at[m, side, kept] = h.seen[m]
        h.sums[m, side, kept] = height
        h.size[m, side] = kept + 1
    h.seen[m] += 1
    h.total[m] += x


@inlined
def _ratio(n: int, s: float, at: float, height: float, known: bool) -> float:
    """Log likelihood ratio of a rise after `at`; 0 where there is none."""
    after = n - at
    if known:
        gain = s - height
        return 0.5 * gain * gain / after if gain > 0.0 else 0.0
    if at <= 0.0:
        return 0.0
    gain = s - height - after * s / n
    return 0.5 * gain * gain * n / (at * after) if gain > 0.0 else 0.0


@inlined
def _outer(
    n: int, s: float, m: int, side: int, k: int, known: bool, level: float, at: Int64Array, sums: Float64Array, first: bool
) -> int:
    """The first, or last, start between a corner and the next at which the bound reaches a level; -1 = nowhere.

    Along a side of the hull the bound is convex (a square over a line, or the sum of two), so from an end below a level
    to an end above it is crossed once.
    """
    low, high = 0 + int(at[m, side, k]), 0 + int(at[m, side, k + 1])
    slope = (sums[m, side, k + 1] - sums[m, side, k]) / (high - low)
    near, far = (low, high) if first else (high, low)
    if _ratio(n, s, float(near), sums[m, side, k] + slope * (near - low), known) >= level:
        return near
    if _ratio(n, s, float(far), sums[m, side, k] + slope * (far - low), known) < level:
        return -1
    while abs(far - near) > 1:
        middle = (far + near) // 2
        if _ratio(n, s, float(middle), sums[m, side, k] + slope * (middle - low), known) >= level:
            far = middle
        else:
            near = middle
    return far


@inlined
def focus_best(m: int, known: bool, slack: float, h: Hulls) -> tuple[float, int, int]:
    """The largest log likelihood ratio now, its side and its corner."""
    best, where, which = 0.0, 0, 0
    for side in range(2):
        s = _height(m, side, slack, h)
        for k in range(h.size[m, side]):
            found = _ratio(h.seen[m], s, float(h.at[m, side, k]), h.sums[m, side, k], known)
            if found > best:
                best, where, which = found, side, k
    return best, where, which


@inlined
def focus_date(m: int, known: bool, slack: float, depth: float, h: Hulls) -> tuple[float, int, int, int, float]:
    """Ratio, values since the likeliest start and since the ends of its interval, and the shift; all 0 without a sign of one."""
    n = h.seen[m]
    best, side, which = focus_best(m, known, slack, h)
    if best <= 0.0:
        return 0.0, 0, 0, 0, 0.0
    sign = 1.0 if side == 0 else -1.0
    s, start, level = _height(m, side, slack, h), h.at[m, side, which], best - depth
    before = sign * (h.sums[m, side, which] + slack * start)
    shift = (h.total[m] - before) / (n - start)
    if not known:
        shift -= before / start
    if level <= 0.0:
        return best, n - start, n, 1, shift
    earliest, latest = start, start
    oldest = _ratio(n, s, float(h.at[m, side, 0]), h.sums[m, side, 0], known)
    if known and oldest >= level:
        # No earlier point lies lower than the oldest corner, so the ratio is at most gain^2 / (2 (n - tau)) there.
        earliest = max(math.ceil(n - (n - h.at[m, side, 0]) * oldest / level), 0)
    else:
        for k in range(which):
            found = _outer(n, s, m, side, k, known, level, h.at, h.sums, True)
            if found >= 0:
                earliest = found
                break
    for k in range(h.size[m, side] - 2, which - 1, -1):
        found = _outer(n, s, m, side, k, known, level, h.at, h.sums, False)
        if found >= 0:
            latest = found
            break
    return best, n - start, n - earliest, n - latest, shift


@inlined
def focus_reset(m: int, h: Hulls) -> None:
    """Forget a monitor's values."""
    h.seen[m] = 0
    h.total[m] = 0.0
    h.size[m, 0] = 0
    h.size[m, 1] = 0


@kernel
def _update(values: Float64Array, monitors: Int32Array, known: bool, h: Hulls) -> None:
    for i in range(values.shape[0]):
        for w in range(values.shape[1]):
            m = monitors[i, w]
            if m >= 0 and np.isfinite(values[i, w]):
                focus_push(m, values[i, w], known, 0.0, h)


@kernel
def _first_above(values: Float64Array, threshold: float, known: bool, h: Hulls, start: int) -> int:
    """The first place from `start` at which the ratio of monitor 0 is above the threshold; the length if none is."""
    for i in range(start, values.shape[0]):
        if np.isfinite(values[i]):
            focus_push(0, values[i], known, 0.0, h)
            if focus_best(0, known, 0.0, h)[0] > threshold:
                return i
    return len(values)


@kernel
def _date(m: int, known: bool, depth: float, h: Hulls) -> tuple[float, int, int, int, float]:
    return focus_date(m, known, 0.0, depth, h)


class FocusBank:
    """The hulls of monitors whose changes are to be dated.

    Parameters
    ----------
    known : the mean before a change is 0, as that of scores; else it is estimated with the change
    """

    def __init__(self, n_monitors: int, *, known: bool = True) -> None:
        self.n_monitors, self.known = n_monitors, known
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
        return int(_first_above(np.ascontiguousarray(values, np.float64), threshold, self.known, self.hulls, start))

    def date(self, monitor: int, depth: float = INTERVAL_DEPTH) -> Dating | None:
        """The likeliest change since the last reset; None when there is no sign of one.

        Parameters
        ----------
        depth : how far below the largest log likelihood ratio the interval reaches
        """
        ratio, back, earliest, latest, shift = _date(monitor, self.known, depth, self.hulls)
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


def new_hulls(n: int) -> Hulls:
    """Hulls of n monitors without values."""
    return Hulls(
        seen=np.zeros(n, np.int64),
        total=np.zeros(n),
        size=np.zeros((n, 2), np.int64),
        at=np.zeros((n, 2, CORNERS), np.int64),
        sums=np.zeros((n, 2, CORNERS)),
    )


def hulls_of(h: Hulls, part: slice) -> Hulls:
    """Those of some monitors; views, no copies."""
    return Hulls(h.seen[part], h.total[part], h.size[part], h.at[part], h.sums[part])


HULL_TYPES: Final = ("<i8", "<f8", "u1", "<i8", "<f8")


def hull_arrays(h: Hulls) -> list[NDArray[Any]]:
    """What a checkpoint keeps: only corners in use."""
    used = np.arange(CORNERS) < h.size[:, :, None]
    return [h.seen, h.total, h.size.astype(np.uint8), h.at[used], h.sums[used]]


def restore_hulls(h: Hulls, arrays: Sequence[NDArray[Any]]) -> None:
    """Write the hulls of `hull_arrays`.

    Raises
    ------
    ValueError : corners that no values lead to; nothing is then written
    """
    seen, total, sizes, at, sums = arrays
    n = len(h.seen)
    size = sizes.astype(np.int64).reshape(n, 2) if len(sizes) == 2 * n else np.full((n, 2), CORNERS + 1)
    used = np.arange(CORNERS) < size[:, :, None]
    sound = len(seen) == len(total) == n and np.all(size <= CORNERS) and len(at) == len(sums) == int(size.sum())
    if not (sound and np.all((seen >= 0) & (seen <= _COUNT_MOST)) and np.all(np.isfinite(total)) and np.all(np.isfinite(sums))):
        raise ValueError("damaged hulls: corners that no values lead to")
    places = np.zeros((n, 2, CORNERS), np.int64)
    places[used] = at
    rising = np.diff(places, axis=2)[used[:, :, 1:]] > 0
    within = (places >= 0) & (places < np.maximum(seen, 1)[:, None, None])
    if not (np.all(rising) and np.all(within[used]) and np.array_equal(size > 0, np.repeat(seen[:, None] > 0, 2, axis=1))):
        raise ValueError("damaged hulls: corners that no values lead to")
    h.seen[:], h.total[:], h.size[:], h.at[:] = seen, total, size, places
    h.sums[:] = 0.0
    h.sums[used] = sums
