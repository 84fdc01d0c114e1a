"""Episodes: opened by a first alarm, joined by further evidence, ended by a level that is back, never by silence.

What is judged here is judged row by row inside the window kernel, so that an episode opens and ends at the same row
however the stream is cut. No detector's state depends on it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.dependence import KINDS
from driftline.detectors.kernels.jit import part
from driftline.detectors.kernels.psi import PsiArrays
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
    measure_window,
    severity_of,
    window_severity,
)
from driftline.detectors.ring import CHECK_ROWS, Windows, count_since, find_anchor, time_by
from driftline.detectors.spec import N_CODES, Float64, Int64, UInt8
from driftline.detectors.tables import GROUPS_MAX, Tables
from driftline.detectors.window_dates import date_alarm

OPENED: Final = 0
EVIDENCE: Final = 1
RECOVERED: Final = 2
NO_DETECTOR: Final = -1
OPEN: Final = 1
STALE: Final = 2
"""Values of `E_OPEN`: open, and ended for want of rows (`stale.py`); the latter is judged anew when rows come again."""

MIX_BIT: Final = 61
"""In an episode's bits: its severity is held down, since the mix of segments explains it (`traffic.py`)."""
MIX_ROWS: Final = 512
"""Fewest rows between looks at whether it still does: a split takes as long as dozens of rows, and a change within segments is found
by their own series meanwhile."""

# Fields of an episode; all zero = none is open.
E_OPEN, E_BITS, E_SEVERITY, E_DIRECTION, E_KIND, E_BAND_SINCE, E_SOURCE, E_OFFSET, E_TIME = range(9)
EPISODE_FIELDS: Final = 9

NOTE = np.dtype(
    [
        ("row", "<i8"),
        ("scope", "<i4"),
        ("series", "<i4"),
        ("kind", "i1"),
        ("detector", "i1"),
        ("direction", "i1"),
        ("severity", "i1"),
        ("own_severity", "i1"),
        ("severity_before", "i1"),
        ("effect_kind", "i1"),
        ("since", "i1"),
        ("statistic", "<f8"),
        ("threshold", "<f8"),
        ("value", "<f8"),
        ("base", "<f8"),
        ("effect", "<f8"),
        ("n", "<i8"),
        ("since_at", "<i8", (3,)),
        ("between", "<i8", (2,)),
        ("episode_at", "<i8", (3,)),
        ("counts", "<i4", (N_CODES,)),
        ("dependence", "<f8", (KINDS,)),
        ("again", "<i4"),
        ("before", "<f8"),
        ("step", "<f8"),
        ("codes_before", "<i8", (N_CODES,)),
    ],
    align=True,
)
"""What the kernel says; `since`: 0 unknown, 1 the last anchor before the change, 2 that very row. `between`: the times from
which to which it may have begun, -1 unknown. `own_severity` is that of
this level alone, `severity_before` that of the episode before it. `dependence` is filled in after the kernel (`dependence.py`), and so
is what a further change of an open episode was against (`second_change.py`): `again` is which change of the episode it is, 0 = none,
`before` the level before it, `step` the effect against that."""

Notes = NDArray[np.void]


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
    alarm : of dtype CHANGE.
    """
    counts, m = scratch.counts, scratch.m
    q = int(alarm["series"])
    detector = int(alarm["detector"])
    episode = st.episodes[s, q]
    bit = np.int64(1) << detector
    again = alarm["again"]
    if not _speaks(episode, bit, again, bool(t.opens[q] & bit)):
        return w
    covered = detector == t.budgeted[q]
    lane = t.series_lane[q]
    back, earliest, latest = date_alarm(t, st, s, q, alarm, counts)
    rows_back, runs = count_since(t, st, psi, s, q, lane, back, counts[0])
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
    if again == 0 and t.direction[q] * direction < 0:
        return w
    if episode[E_OPEN] != OPEN and back > 0 and not covered and (_returns(m, kind) or _unproven(t, q, m[0], kind, t.lane_window[lane])):
        return w
    own_severity = severity_of(t, q, kind, m[0, kind, M_CERTAIN])
    note = out[w]
    note["severity_before"] = episode[E_SEVERITY]
    severity = max(own_severity, int(episode[E_SEVERITY]))
    note["own_severity"] = own_severity
    note["kind"] = EVIDENCE
    note["again"] = again
    if episode[E_OPEN] != OPEN:
        note["kind"] = OPENED
        _begin(episode, kind, direction, at)
    episode[E_BITS] |= bit
    episode[E_SEVERITY] = severity
    note["detector"] = detector
    note["direction"] = direction
    note["statistic"] = alarm["statistic"]
    note["threshold"] = alarm["threshold"]
    _date(t, st, psi, counts[1], s, q, lane, earliest, latest, rows_back, at[2], note)
    _fill(note, st, s, q, row, kind, severity, m[0, kind], counts[0])
    return w + 1


@part
def _date(
    t: Tables, st: Windows, psi: PsiArrays, spare: Int64, s: int, q: int, lane: int, earliest: int, latest: int, rows_back: int,
    now_ms: int, note: Any,
) -> None:  # fmt: skip
    """Write where a change began, and between which times if that is known."""
    note["since"] = 0
    note["between"][0] = note["between"][1] = -1
    if rows_back <= 0:
        return
    if earliest > 0:
        rows, _ = count_since(t, st, psi, s, q, lane, earliest, spare)
        if find_anchor(st, s, st.heads[s] - rows, note["since_at"]) > 0:
            note["between"][0] = note["since_at"][2]
        rows, _ = count_since(t, st, psi, s, q, lane, latest, spare)
        note["between"][1] = time_by(st, s, st.heads[s] - rows, now_ms)
    note["since"] = find_anchor(st, s, st.heads[s] - rows_back, note["since_at"])


@part
def _speaks(episode: Int64, bit: np.int64, again: int, may_open: bool) -> bool:
    """Whether an alarm says anything: a detector speaks once in an episode, but for further changes of it."""
    heard = bool(episode[E_OPEN] and episode[E_BITS] & bit)
    if again > 0:
        return bool(heard and episode[E_OPEN] == OPEN)
    return bool(not heard and (episode[E_OPEN] == OPEN or may_open))


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
    measure_window(t, s, q, psi.counts, st.runs_within, counts, m, scratch.merged)
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
    note["own_severity"], note["severity_before"] = severity, episode[E_SEVERITY]
    held = bool(episode[E_BITS] & (np.int64(1) << MIX_BIT)) and st.heads[s] % _looks(t.lane_window[lane]) != 0
    if recovered:
        kind = int(episode[E_KIND])
        severity = int(episode[E_SEVERITY])
        note["kind"] = RECOVERED
        note["direction"] = 0
        note["statistic"] = m[kind, M_VALUE] if kind == PSI_EFFECT else abs(m[kind, M_VALUE] - m[kind, M_BASE])
        note["threshold"] = m[kind, M_BAND]
    elif severity > episode[E_SEVERITY] and not held:
        episode[E_SEVERITY] = severity
        note["kind"] = EVIDENCE
        # Of the level that is this severe: an episode may have opened on the other side.
        note["direction"] = direction_of(t, q, m, kind)
        note["statistic"] = abs(m[kind, M_EFFECT])
        note["threshold"] = t.bounds[q, severity - 1]
    else:
        return w
    note["detector"] = NO_DETECTOR
    note["since"] = 0
    note["again"] = 0
    _fill(note, st, s, q, row, kind, severity, m[kind], counts)
    if recovered:
        for field in range(EPISODE_FIELDS):
            episode[field] = 0
    return w + 1


@part
def _looks(window: int) -> int:
    """Rows between looks at whether the mix still explains an episode: the more rows a look takes, the fewer there are."""
    return max(MIX_ROWS, window // (4 * CHECK_ROWS) * CHECK_ROWS)


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
    note["own_severity"], note["severity_before"] = severity, 0
    note["detector"] = NO_DETECTOR
    note["direction"] = direction_of(t, q, m, kind)
    note["statistic"] = m[kind, M_VALUE] if kind == PSI_EFFECT else abs(m[kind, M_VALUE] - m[kind, M_BASE])
    note["threshold"] = m[kind, M_BAND]
    note["since"] = 0
    note["again"] = 0
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


