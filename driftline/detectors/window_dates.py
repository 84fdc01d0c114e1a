"""When a change began, by the rows of the window: for alarms that do not say so themselves.

The split of the window with the largest likelihood ratio, what was before and what came after both unknown: of the mean for
normal values (statistics.md 1.2 C), of their spread, or of the shares of bins. The interval holds every split within
`INTERVAL_DEPTH` of the largest log likelihood ratio, as that of a change that an e-detector dates (`kernels/focus.py`); values
that depend on each other tell less than their number, by the factor that their reference knows.
"""

from __future__ import annotations

import math
from typing import Any, Final

from driftline.detectors.kernels.focus import INTERVAL_DEPTH
from driftline.detectors.kernels.jit import part, portable_log
from driftline.detectors.layout import SKIP
from driftline.detectors.ring import RUN_BIT, Windows
from driftline.detectors.spec import N_CODES, Int64
from driftline.detectors.tables import Tables

BY_MEAN: Final = 0
DATED: Final = 1
BY_BINS: Final = 2
BY_SPREAD: Final = 3
"""Of an alarm: it is to be dated in the window, by the mean of its values; its `back` is an estimate of the change; it is to be dated in
the window by the bins that values lie in; or by their spread, and `back` is an estimate where that shows nothing."""

SPLIT_LEAST: Final = 8.0
"""Log likelihood ratio of a split, beyond half of the parameters, that chance does not reach in most windows."""

_PIECE_LEAST: Final = 8
"""Values on either side of a split by spread: a few that happen to be alike have hardly any."""

Found = tuple[int, int, int]
"""Values since a change, and since the ends of its interval; 0 = not known."""


@part
def date_alarm(t: Tables, st: Windows, s: int, q: int, alarm: Any, counts: Int64) -> Found:
    """When the change began that an alarm is about, as it says or as the window shows.

    Parameters
    ----------
    alarm : of dtype CHANGE.
    counts : scratch, (2, N_CODES).
    """
    dated, back, within = int(alarm["dated"]), int(alarm["back"]), int(alarm["within"])
    if dated == BY_MEAN:
        return date_mean(t, st, s, q, within), 0, 0
    depth = INTERVAL_DEPTH * float(alarm["worth_one"])
    if dated == BY_BINS:
        split, earliest, latest = date_bins(t, st, s, q, within, depth, counts)
        return (split, earliest, latest) if depth > 0.0 else (split, 0, 0)
    if dated == BY_SPREAD:
        found = date_spread(t, st, s, q, within, depth)
        if found[0] > 0:
            return found
    return back, int(alarm["earliest"]), int(alarm["latest"])


@part
def date_mean(t: Tables, st: Windows, s: int, q: int, within: int) -> int:
    """Values since the likeliest change of the mean among the last `within` values of the window (0 = all of it).

    The split that explains most variance, the likelihood ratio of Gaussian data with an unknown mean on both sides
    (statistics.md 1.2 C); one pass over the ring, at an alarm only. The last values of the window that the detector
    has seen are taken as its window: rows it skipped are skipped here.
    """
    c = t.series_column[q]
    rows = min(st.heads[s], t.lane_window[t.series_lane[q]])
    wanted = within if within > 0 else rows
    n = 0
    total = 0.0
    for walked in range(1, rows + 1):
        x = _reading(t, s, c, q, _code(st, s, c, walked))
        if n < wanted and not math.isnan(x):
            n += 1
            total += x
    seen = 0
    after = 0.0
    best = 0
    largest = -1.0
    for walked in range(1, rows + 1):
        x = _reading(t, s, c, q, _code(st, s, c, walked))
        if math.isnan(x) or seen >= n - 1:
            continue
        seen += 1
        after += x
        gap = after - seen * total / n
        gain = gap * gap / (float(seen) * (n - seen))
        if gain > largest:
            largest = gain
            best = seen
    return best


@part
def date_spread(t: Tables, st: Windows, s: int, q: int, within: int, depth: float) -> Found:
    """The likeliest change of the spread among the last `within` values of the window (0 = all of it); 0 = none is seen.

    Normal values about the mean of all, with one variance before and another one since.
    """
    c = t.series_column[q]
    rows = min(st.heads[s], t.lane_window[t.series_lane[q]])
    n, mean, whole = 0, 0.0, 0.0
    for turn in range(2):
        n, total = 0, 0.0
        for walked in range(1, rows + 1):
            x = _reading(t, s, c, q, _code(st, s, c, walked))
            if not math.isnan(x) and (n < within or within == 0):
                n += 1
                total += (x - mean) * (x - mean) if turn else x
        if n < 2 * _PIECE_LEAST:
            return 0, 0, 0
        whole = total
        if turn == 0:
            mean = total / n
    best, earliest, latest, largest = 0, 0, 0, 0.0
    for turn in range(2):
        taken, since = 0, 0.0
        for walked in range(1, rows + 1):
            x = _reading(t, s, c, q, _code(st, s, c, walked))
            if math.isnan(x):
                continue
            if taken == n - _PIECE_LEAST:
                break
            taken += 1
            since += (x - mean) * (x - mean)
            if taken < _PIECE_LEAST or since <= 0.0 or whole - since <= 0.0:
                continue
            ratio = 0.5 * (_spread_of(whole, n) - _spread_of(since, taken) - _spread_of(whole - since, n - taken))
            if turn == 0 and ratio > largest:
                best, largest = taken, ratio
            elif turn == 1 and ratio >= largest - depth:
                earliest, latest = taken, latest if latest > 0 else taken
    if largest < 0.5 + SPLIT_LEAST:
        return 0, 0, 0
    return best, earliest, latest


@part
def _spread_of(squares: float, n: int) -> float:
    """The logarithm of the variance, times the number of values."""
    return float(n) * portable_log(squares / n)


@part
def date_bins(t: Tables, st: Windows, s: int, q: int, within: int, depth: float, counts: Int64) -> Found:
    """The likeliest change of the bins' shares among the last `within` values of the window (0 = all of it).

    Over all bins first; then by zeros and ones of the bin that says most for that split, where that is half of what all say, since
    what the others say by chance only blurs the date.

    Parameters
    ----------
    counts : scratch, (2, N_CODES).
    """
    split, earliest, latest, ratio = _split_bins(t, st, s, q, within, -1, depth, counts)
    # Filled up to the split: what came since, and what came before.
    since, before, bins = 0, 0, 0
    for code in range(N_CODES):
        since += counts[0, code]
        before += counts[1, code]
        bins += counts[0, code] + counts[1, code] > 0
    if ratio < 0.5 * bins + SPLIT_LEAST:
        # What is known to have changed has done so before all of these.
        return since + before, 0, 0
    best, largest = -1, 0.0
    for code in range(N_CODES):
        own, other = counts[0, code], counts[1, code]
        gain = _two(own, since - own) + _two(other, before - other) - _two(own + other, since + before - own - other)
        if gain > largest:
            best, largest = code, gain
    if best >= 0 and largest >= 0.5 * (ratio - 0.5 * bins):
        split, earliest, latest, _ = _split_bins(t, st, s, q, within, best, depth, counts)
    return split, earliest, latest


@part
def _split_bins(t: Tables, st: Windows, s: int, q: int, within: int, only: int, depth: float, counts: Int64) -> tuple[int, int, int, float]:
    """The likeliest split, its interval and its log likelihood ratio, by all bins or by one; `counts` are left as of that split."""
    c = t.series_column[q]
    rows = min(st.heads[s], t.lane_window[t.series_lane[q]])
    best, earliest, latest, largest = 0, 0, 0, 0.0
    for turn in range(3):   # to find the largest, then what is near it, then to stop at the largest
        for code in range(N_CODES):
            counts[0, code] = counts[1, code] = 0
        n, taken = 0, 0
        for walked in range(1, rows + 1):
            code = _code(st, s, c, walked)
            if t.flags[q, code] != SKIP and (n < within or within == 0):
                counts[1, code] += 1
                n += 1
        whole, parts = -_times_log(n), 0.0
        for code in range(N_CODES):
            if only < 0:
                parts += _times_log(counts[1, code])
        if only >= 0:
            parts = _times_log(counts[1, only]) + _times_log(n - counts[1, only])
        whole += parts
        for walked in range(1, rows + 1):
            code = _code(st, s, c, walked)
            if t.flags[q, code] == SKIP:
                continue
            if taken == (best if turn == 2 else n - 1):
                break
            if only < 0:
                parts -= _times_log(counts[0, code]) + _times_log(counts[1, code])
            counts[0, code] += 1
            counts[1, code] -= 1
            taken += 1
            if only < 0:
                parts += _times_log(counts[0, code]) + _times_log(counts[1, code])
            else:
                hits, others = counts[0, only], counts[1, only]
                parts = _times_log(hits) + _times_log(taken - hits) + _times_log(others) + _times_log(n - taken - others)
            ratio = parts - _times_log(taken) - _times_log(n - taken) - whole
            if turn == 0 and ratio > largest:
                best, largest = taken, ratio
            elif turn == 1 and ratio >= largest - depth:
                earliest, latest = taken, latest if latest > 0 else taken
    return best, earliest, latest, largest


@part
def _two(hits: int, others: int) -> float:
    """Log likelihood of zeros and ones under their own rate."""
    return _times_log(hits) + _times_log(others) - _times_log(hits + others)


@part
def _times_log(n: int) -> float:
    return float(n) * portable_log(float(n)) if n > 0 else 0.0


@part
def _code(st: Windows, s: int, c: int, walked: int) -> int:
    """The code so many rows back, the last one being 1."""
    return int(st.ring[s, (st.heads[s] - walked) % st.ring.shape[1], c]) & (RUN_BIT - 1)


@part
def _reading(t: Tables, s: int, c: int, q: int, code: int) -> float:
    """The number a code stands for in a series."""
    if t.is_value[q]:
        score: float = t.score[s, c, code]
        return score
    return math.nan if t.flags[q, code] == SKIP else float(t.flags[q, code])
