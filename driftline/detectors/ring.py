"""The rows of a scope as they are kept: a ring of codes, anchors to their positions, and the way back to a change."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from driftline.detectors.kernels.jit import part, portable_log
from driftline.detectors.kernels.psi import PsiArrays
from driftline.detectors.layout import SKIP
from driftline.detectors.spec import N_CODES, Float64, Int32, Int64, UInt8
from driftline.detectors.tables import Tables

CHECK_ROWS: Final = 32
"""Rows of a scope between looks at levels, and between anchors: 3 % of the row's cost, at most 31 rows late."""
COARSE_ROWS: Final = 1024
FINE_ANCHORS: Final = 256
COARSE_ANCHORS: Final = 128
"""Anchors kept: the last 8,192 rows to 32 rows, the last 131,072 to 1,024; what began before has no `since`."""

RUN_BIT: Final = 128
"""Set in a ring byte whose row lies in a run of equal values."""

DATED: Final = 1
BY_BINS: Final = 2
"""Of an alarm: its `back` is an estimate of the change; or it is to be dated in the window, by the bins that values lie in. 0 = by their
mean."""

SPLIT_LEAST: Final = 8.0
"""Log likelihood ratio of a split, beyond half of the bins, that chance does not reach in most windows."""

# Fields of an anchor.
A_ROW, A_SOURCE, A_OFFSET, A_TIME = range(4)
ANCHOR_FIELDS: Final = 4


class Windows(NamedTuple):
    """State of all scopes; axes as in `Tables`, R rows of the ring."""

    ring: UInt8  # (S, R, C) codes, with RUN_BIT
    heads: Int64  # (S,) rows each scope has had
    runs_within: Int32  # (S, L) rows of the window in a run
    last: Float64  # (S, C) the last value, or code
    run: Int64  # (S, C) how often in a row
    episodes: Int64  # (S, Q, EPISODE_FIELDS)
    fine: Int64  # (S, FINE_ANCHORS, ANCHOR_FIELDS)
    coarse: Int64  # (S, COARSE_ANCHORS, ANCHOR_FIELDS)


@part
def count_since(t: Tables, st: Windows, psi: PsiArrays, s: int, q: int, lane: int, back: int, counts: Int64) -> tuple[int, int]:
    """Fill the counts of the rows since the change, clipped to the window; returns its age in rows and the rows in runs.

    `back` counts values, a row without one is stepped over. Beyond the window the rows without a value are not known:
    their share within it is taken for the rest.
    """
    if back <= 0:
        for code in range(N_CODES):
            counts[code] = psi.counts[s, lane, code]
        return 0, 0 + int(st.runs_within[s, lane])
    for code in range(N_CODES):
        counts[code] = 0
    c = t.series_column[q]
    length = st.ring.shape[1]
    head = st.heads[s]
    rows = min(head, t.lane_window[lane])
    found = 0
    runs = 0
    walked = 0
    while walked < rows and found < back:
        walked += 1
        byte = int(st.ring[s, (head - walked) % length, c])
        code = byte & (RUN_BIT - 1)
        counts[code] += 1
        runs += byte // RUN_BIT
        if t.flags[q, code] != SKIP:
            found += 1
    if found < back and found > 0:
        return min(head, back * walked // found), runs
    return walked, runs


@part
def values_back(t: Tables, st: Windows, s: int, q: int, dated: int, back: int, counts: Int64) -> int:
    """Values since the change that an alarm is about, as it says or as the window shows; 0 = not known.

    Parameters
    ----------
    dated : 0, `DATED` or `BY_BINS`, and `back` with it.
    counts : scratch, (2, N_CODES).
    """
    if dated == BY_BINS:
        return date_bins(t, st, s, q, back, counts)
    return back if dated else date_change(t, st, s, q, back)


@part
def date_change(t: Tables, st: Windows, s: int, q: int, within: int) -> int:
    """Values since the likeliest change of the mean among the last `within` values of the window (0 = all of it).

    The split that explains most variance, the likelihood ratio of Gaussian data with an unknown mean on both sides
    (statistics.md 1.2 C); one pass over the ring, at an alarm only. The last values of the window that the detector
    has seen are taken as its window: rows it skipped are skipped here.
    """
    c = t.series_column[q]
    length = st.ring.shape[1]
    head = st.heads[s]
    rows = min(head, t.lane_window[t.series_lane[q]])
    wanted = within if within > 0 else rows
    n = 0
    total = 0.0
    for walked in range(1, rows + 1):
        x = _reading(t, s, c, q, int(st.ring[s, (head - walked) % length, c]) & (RUN_BIT - 1))
        if n < wanted and not math.isnan(x):
            n += 1
            total += x
    seen = 0
    after = 0.0
    best = 0
    largest = -1.0
    for walked in range(1, rows + 1):
        x = _reading(t, s, c, q, int(st.ring[s, (head - walked) % length, c]) & (RUN_BIT - 1))
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
def date_bins(t: Tables, st: Windows, s: int, q: int, within: int, counts: Int64) -> int:
    """Values since the likeliest change of the bins' shares among the last `within` values of the window (0 = all of it).

    The split of the largest likelihood ratio, both laws unknown: over all bins first; then by zeros and ones of the bin that says
    most for it, where that is half of what all say, since what the others say by chance only blurs the date.

    Parameters
    ----------
    counts : scratch, (2, N_CODES).
    """
    split, ratio = _split_bins(t, st, s, q, within, -1, counts)
    # Filled up to the split: what came since, and what came before.
    since, before, after, bins = 0, 0, split, 0
    for code in range(N_CODES):
        since += counts[0, code]
        before += counts[1, code]
        bins += counts[0, code] + counts[1, code] > 0
    if ratio < 0.5 * bins + SPLIT_LEAST:
        # What is known to have changed has done so before all of these.
        return since + before
    best, largest = -1, 0.0
    for code in range(N_CODES):
        own, other = counts[0, code], counts[1, code]
        gain = _two(own, since - own) + _two(other, before - other) - _two(own + other, since + before - own - other)
        if gain > largest:
            best, largest = code, gain
    if best >= 0 and largest >= 0.5 * (ratio - 0.5 * bins):
        after, _ = _split_bins(t, st, s, q, within, best, counts)
    return after


@part
def _split_bins(t: Tables, st: Windows, s: int, q: int, within: int, only: int, counts: Int64) -> tuple[int, float]:
    """The likeliest split and its log likelihood ratio, by all bins or by one; `counts` of all are left as of that split."""
    c = t.series_column[q]
    length = st.ring.shape[1]
    head = st.heads[s]
    rows = min(head, t.lane_window[t.series_lane[q]])
    best, largest = 0, 0.0
    for last in range(2):
        for code in range(N_CODES):
            counts[0, code] = counts[1, code] = 0
        n, taken = 0, 0
        for walked in range(1, rows + 1):
            code = int(st.ring[s, (head - walked) % length, c]) & (RUN_BIT - 1)
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
            code = int(st.ring[s, (head - walked) % length, c]) & (RUN_BIT - 1)
            if t.flags[q, code] == SKIP:
                continue
            if taken == (best if last else n - 1):
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
            if not last and ratio > largest:
                best, largest = taken, ratio
    return best, largest


@part
def _two(hits: int, others: int) -> float:
    """Log likelihood of zeros and ones under their own rate."""
    return _times_log(hits) + _times_log(others) - _times_log(hits + others)


@part
def _times_log(n: int) -> float:
    return float(n) * portable_log(float(n)) if n > 0 else 0.0


@part
def _reading(t: Tables, s: int, c: int, q: int, code: int) -> float:
    """The number a code stands for in a series."""
    if t.is_value[q]:
        score: float = t.score[s, c, code]
        return score
    return math.nan if t.flags[q, code] == SKIP else float(t.flags[q, code])


@part
def _anchor_at(st: Windows, s: int, fine: int, coarse: int) -> tuple[Int64, bool]:
    """The anchor of the row `fine`, else of the row `coarse`, and whether it is kept."""
    anchor = st.fine[s, (fine // CHECK_ROWS) % FINE_ANCHORS]
    if anchor[A_ROW] == fine:
        return anchor, True
    anchor = st.coarse[s, (coarse // COARSE_ROWS) % COARSE_ANCHORS]
    return anchor, bool(anchor[A_ROW] == coarse)


@part
def find_anchor(st: Windows, s: int, wanted: int, where: Int64) -> int:
    """Write the last anchor at or before row `wanted` of a scope; 0 = none that old is kept, 2 = that very row."""
    anchor, kept = _anchor_at(st, s, wanted - wanted % CHECK_ROWS, wanted - wanted % COARSE_ROWS)
    if not kept:
        return 0
    for field in range(3):
        where[field] = anchor[A_SOURCE + field]
    return 2 if anchor[A_ROW] == wanted else 1


@part
def time_by(st: Windows, s: int, wanted: int, now_ms: int) -> int:
    """The time by which row `wanted` of a scope had come: of the first anchor from it on, `now_ms` where there is none."""
    anchor, kept = _anchor_at(st, s, wanted + (-wanted) % CHECK_ROWS, wanted + (-wanted) % COARSE_ROWS)
    return int(anchor[A_TIME]) if kept else now_ms
