"""Episodes: opened by a first alarm, joined by further evidence, ended by a level that is back, never by silence.

What is judged here is judged row by row inside the window kernel, so that an episode opens and ends at the same row
however the stream is cut. No detector's state depends on it.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.jit import part
from driftline.detectors.kernels.psi import PsiArrays
from driftline.detectors.layout import SKIP
from driftline.detectors.levels import (
    LEVEL_LEAST,
    M_BAND,
    M_BASE,
    M_CERTAIN,
    M_EFFECT,
    M_N,
    M_VALUE,
    MEAN_EFFECT,
    MEASURE_FIELDS,
    PSI_EFFECT,
    RATE_EFFECT,
    direction_of,
    level_in_band,
    measure,
    severity_of,
    window_severity,
)
from driftline.detectors.spec import N_CODES, Float64, Int32, Int64, UInt8
from driftline.detectors.tables import GROUPS_MAX, Tables

CHECK_ROWS: Final = 32
"""Rows of a scope between looks at levels, and between anchors: 3 % of the row's cost, at most 31 rows late."""
COARSE_ROWS: Final = 1024
FINE_ANCHORS: Final = 256
COARSE_ANCHORS: Final = 128
"""Anchors kept: the last 8,192 rows to 32 rows, the last 131,072 to 1,024; what began before has no `since`."""

RUN_BIT: Final = 128
"""Set in a ring byte whose row lies in a run of equal values."""

OPENED: Final = 0
EVIDENCE: Final = 1
RECOVERED: Final = 2
NO_DETECTOR: Final = -1
OPEN: Final = 1
STALE: Final = 2
"""Values of `E_OPEN`: open, and ended for want of rows (`stale.py`); the latter is judged anew when rows come again."""

# Fields of an episode; all zero = none is open.
E_OPEN, E_BITS, E_SEVERITY, E_DIRECTION, E_KIND, E_BAND_SINCE, E_SOURCE, E_OFFSET, E_TIME = range(9)
EPISODE_FIELDS: Final = 9
# Fields of an anchor.
A_ROW, A_SOURCE, A_OFFSET, A_TIME = range(4)
ANCHOR_FIELDS: Final = 4

NOTE = np.dtype(
    [
        ("row", "<i8"),
        ("scope", "<i4"),
        ("series", "<i4"),
        ("kind", "i1"),
        ("detector", "i1"),
        ("direction", "i1"),
        ("severity", "i1"),
        ("effect_kind", "i1"),
        ("since", "i1"),
        ("statistic", "<f8"),
        ("threshold", "<f8"),
        ("value", "<f8"),
        ("base", "<f8"),
        ("effect", "<f8"),
        ("n", "<i8"),
        ("since_at", "<i8", (3,)),
        ("episode_at", "<i8", (3,)),
        ("counts", "<i4", (N_CODES,)),
    ],
    align=True,
)
"""What the kernel says; `since`: 0 unknown, 1 the last anchor before the change, 2 that very row."""

Notes = NDArray[np.void]


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


class Scratch(NamedTuple):
    """Room for a kernel to work in: one that allocates runs several times slower."""

    counts: Int64  # (2, N_CODES) since a change, and before it
    m: Float64  # (2, 3, MEASURE_FIELDS) the levels of both
    merged: Int64  # (GROUPS_MAX,)
    above: UInt8  # (L,) lanes whose PSI is an alarm on this row
    runs: UInt8  # (C,) columns whose row lies in a run that is an alarm


def new_scratch(t: Tables) -> Scratch:
    """For one call of a kernel; nothing in it outlives that."""
    return Scratch(
        counts=np.zeros((2, N_CODES), np.int64),
        m=np.zeros((2, 3, MEASURE_FIELDS)),
        merged=np.zeros(GROUPS_MAX, np.int64),
        above=np.zeros(len(t.lane_column), np.uint8),
        runs=np.zeros(len(t.run_by_code), np.uint8),
    )


@part
def note_alarm(
    t: Tables, st: Windows, psi: PsiArrays, scratch: Scratch, out: Notes, w: int, s: int, row: int, at: Int64, alarm: Any
) -> int:
    """Let an alarm open an episode or add to it; returns the notes written so far.

    Parameters
    ----------
    at : source, offset and time of this row.
    alarm : of dtype CHANGE; `back` = values of the series since the change, 0 = not known.
    """
    counts, m = scratch.counts, scratch.m
    q = int(alarm["series"])
    detector = int(alarm["detector"])
    episode = st.episodes[s, q]
    bit = np.int64(1) << detector
    if episode[E_OPEN] and episode[E_BITS] & bit:
        return w
    if episode[E_OPEN] != OPEN and not t.opens[q] & bit:
        return w
    covered = detector == t.budgeted[q]
    lane = t.series_lane[q]
    back = int(alarm["back"])
    if not alarm["dated"]:
        back = date_change(t, st, s, q, back)
    rows_back, runs = _count_since(t, st, psi, s, q, lane, back, counts[0])
    for code in range(N_CODES):
        counts[1, code] = psi.counts[s, lane, code] - counts[0, code]
    for half in range(2):
        measure(t, s, q, counts[half], runs if half == 0 else 0 + int(st.runs_within[s, lane]) - runs, m[half], scratch.merged)
    kind = RATE_EFFECT
    if t.is_value[q]:
        # An e-detector without a side has found another spread, which does not show in the mean.
        spread = covered and alarm["direction"] == 0
        kind = PSI_EFFECT if detector == t.psi_detector[lane] or not t.has_mean[q] or spread else MEAN_EFFECT
    direction = direction_of(t, q, m[0], kind)
    if t.direction[q] * direction < 0:
        return w
    if episode[E_OPEN] != OPEN and back > 0 and not covered and (_returns(m, kind) or _unproven(t, q, m[0], kind, t.lane_window[lane])):
        return w
    severity = max(severity_of(t, q, kind, m[0, kind, M_CERTAIN]), int(episode[E_SEVERITY]))
    note = out[w]
    note["kind"] = EVIDENCE
    if episode[E_OPEN] != OPEN:
        note["kind"] = OPENED
        _begin(episode, kind, direction, at)
    episode[E_BITS] |= bit
    episode[E_SEVERITY] = severity
    note["detector"] = detector
    note["direction"] = direction
    note["statistic"] = alarm["statistic"]
    note["threshold"] = alarm["threshold"]
    note["since"] = 0
    if rows_back > 0:
        note["since"] = _anchor(st, s, st.heads[s] - rows_back, note["since_at"])
    _fill(note, st, s, q, row, kind, severity, m[0, kind], counts[0])
    return w + 1


@part
def _begin(episode: Int64, kind: int, direction: int, at: Int64) -> None:
    episode[E_OPEN] = OPEN
    episode[E_DIRECTION] = direction
    episode[E_KIND] = kind
    episode[E_BAND_SINCE] = -1
    episode[E_SOURCE], episode[E_OFFSET], episode[E_TIME] = at[0], at[1], at[2]


@part
def _returns(m: Float64, kind: int) -> bool:
    """Whether a change led back to the baseline: in its band after it, further away in the window before it.

    Without this every episode that ended would be followed by one for its end, raised by a detector that notices late.
    """
    after = abs(m[0, kind, M_VALUE] - m[0, kind, M_BASE])
    before = abs(m[1, kind, M_VALUE] - m[1, kind, M_BASE])
    return bool(kind != PSI_EFFECT and after <= m[0, kind, M_BAND] and m[1, kind, M_N] >= LEVEL_LEAST and before > after)


@part
def _unproven(t: Tables, q: int, m: Float64, kind: int, window: int) -> bool:
    """Whether a mean changed only against a past that was itself changed, not against the baseline.

    A detector with a long memory notices the end of a change late, and dates it to the wiggle of the moment: without
    this, 5 values of chance open an episode. The log likelihood ratio of n standardised values of mean d is n d^2 / 2.
    """
    if kind != MEAN_EFFECT:
        return False
    n, gap = m[kind, M_N], m[kind, M_VALUE] - m[kind, M_BASE]
    if n >= 0.9 * window:
        return bool(abs(gap) <= m[kind, M_BAND])
    return bool(0.5 * n * gap * gap < t.proof[q])


@part
def check_episode(
    t: Tables, st: Windows, psi: PsiArrays, scratch: Scratch, out: Notes, w: int, s: int, q: int, row: int, at: Int64
) -> int:
    """End an open episode whose level has been back for a full window, or note that it got worse."""
    counts, m = scratch.counts[0], scratch.m[0]
    episode = st.episodes[s, q]
    lane = t.series_lane[q]
    for code in range(N_CODES):
        counts[code] = psi.counts[s, lane, code]
    measure(t, s, q, counts, 0 + int(st.runs_within[s, lane]), m, scratch.merged)
    if episode[E_OPEN] == STALE:
        return _resume(t, st, out, w, s, q, row, at, m, counts)
    recovered = False
    if not level_in_band(t, s, q, m):
        episode[E_BAND_SINCE] = -1
    elif episode[E_BAND_SINCE] < 0:
        episode[E_BAND_SINCE] = st.heads[s]
    else:
        recovered = st.heads[s] - episode[E_BAND_SINCE] >= t.lane_window[lane]
    severity, kind = window_severity(t, q, m)
    note = out[w]
    if recovered:
        kind = int(episode[E_KIND])
        severity = int(episode[E_SEVERITY])
        note["kind"] = RECOVERED
        note["direction"] = 0
        note["statistic"] = m[kind, M_VALUE] if kind == PSI_EFFECT else abs(m[kind, M_VALUE] - m[kind, M_BASE])
        note["threshold"] = m[kind, M_BAND]
    elif severity > episode[E_SEVERITY]:
        episode[E_SEVERITY] = severity
        note["kind"] = EVIDENCE
        note["direction"] = episode[E_DIRECTION]
        note["statistic"] = abs(m[kind, M_EFFECT])
        note["threshold"] = t.bounds[q, severity - 1]
    else:
        return w
    note["detector"] = NO_DETECTOR
    note["since"] = 0
    _fill(note, st, s, q, row, kind, severity, m[kind], counts)
    if recovered:
        for field in range(EPISODE_FIELDS):
            episode[field] = 0
    return w + 1


@part
def _resume(t: Tables, st: Windows, out: Notes, w: int, s: int, q: int, row: int, at: Int64, m: Float64, counts: Int64) -> int:
    """Open anew, now that there are rows, an episode that ended for want of them; if its level is back, forget it.

    Silence is not recovery, and a detector that has adapted to a lasting change says nothing of it a second time.
    """
    episode = st.episodes[s, q]
    for field in range(EPISODE_FIELDS):
        episode[field] = 0
    if level_in_band(t, s, q, m):
        return w
    severity, kind = window_severity(t, q, m)
    note = out[w]
    note["kind"] = OPENED
    note["detector"] = NO_DETECTOR
    note["direction"] = direction_of(t, q, m, kind)
    note["statistic"] = m[kind, M_VALUE] if kind == PSI_EFFECT else abs(m[kind, M_VALUE] - m[kind, M_BASE])
    note["threshold"] = m[kind, M_BAND]
    note["since"] = 0
    _begin(episode, kind, note["direction"], at)
    episode[E_SEVERITY] = severity
    _fill(note, st, s, q, row, kind, severity, m[kind], counts)
    return w + 1


@part
def _fill(note: Any, st: Windows, s: int, q: int, row: int, kind: int, severity: int, level: Float64, counts: Int64) -> None:
    note["row"] = row
    note["scope"] = s
    note["series"] = q
    note["effect_kind"] = kind
    note["severity"] = severity
    note["n"] = int(level[M_N])
    note["value"] = level[M_VALUE]
    note["base"] = level[M_BASE]
    note["effect"] = level[M_EFFECT]
    for field in range(3):
        note["episode_at"][field] = st.episodes[s, q, E_SOURCE + field]
    for code in range(N_CODES):
        note["counts"][code] = counts[code]


@part
def _count_since(t: Tables, st: Windows, psi: PsiArrays, s: int, q: int, lane: int, back: int, counts: Int64) -> tuple[int, int]:
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
def _reading(t: Tables, s: int, c: int, q: int, code: int) -> float:
    """The number a code stands for in a series."""
    if t.is_value[q]:
        score: float = t.score[s, c, code]
        return score
    return math.nan if t.flags[q, code] == SKIP else float(t.flags[q, code])


@part
def _anchor(st: Windows, s: int, wanted: int, where: Int64) -> int:
    """Write the last anchor at or before row `wanted` of a scope; 0 = none that old is kept, 2 = that very row."""
    row = wanted - wanted % CHECK_ROWS
    anchor = st.fine[s, (row // CHECK_ROWS) % FINE_ANCHORS]
    if anchor[A_ROW] != row:
        row = wanted - wanted % COARSE_ROWS
        anchor = st.coarse[s, (row // COARSE_ROWS) % COARSE_ANCHORS]
        if anchor[A_ROW] != row:
            return 0
    for field in range(3):
        where[field] = anchor[A_SOURCE + field]
    return 2 if row == wanted else 1
