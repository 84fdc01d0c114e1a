"""One pass over coded rows: rings, counts, PSI, runs of equal values, levels and episodes of every scope."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from driftline.detectors.dependence import dependence_of
from driftline.detectors.episodes import E_BITS, E_OPEN, EPISODE_FIELDS, NOTE, Notes, Scratch, check_episode, new_scratch, note_alarm
from driftline.detectors.explained import TrafficSplit
from driftline.detectors.kernels.bank import Alarms
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.psi import REFRESH_ROWS, PsiArrays, psi_push, psi_refresh, psi_value
from driftline.detectors.openers import RUN_DETECTOR
from driftline.detectors.ring import (
    A_OFFSET,
    A_ROW,
    A_SOURCE,
    A_TIME,
    ANCHOR_FIELDS,
    CHECK_ROWS,
    COARSE_ANCHORS,
    COARSE_ROWS,
    FINE_ANCHORS,
    RUN_BIT,
    Windows,
)
from driftline.detectors.spec import MISSING, OTHER, Float64, Int32, Int64, UInt8
from driftline.detectors.tables import UP, Tables
from driftline.detectors.traffic import Traffic, weigh
from driftline.detectors.window_dates import DATED

CHANGE = np.dtype(
    [
        ("row", "<i8"),
        ("scope", "<i4"),
        ("series", "<i4"),
        ("detector", "<i4"),
        ("direction", "<i4"),
        ("statistic", "<f8"),
        ("threshold", "<f8"),
        ("back", "<i8"),
        ("earliest", "<i8"),
        ("latest", "<i8"),
        ("within", "<i8"),
        ("worth_one", "<f8"),
        ("dated", "<i4"),
        ("again", "<i4"),
    ],
    align=True,
)
"""An alarm of a change detector, by series and the detector's place in it; sorted by row, scope, series, detector.

`back`: values of the series since the change, `earliest`, `latest`: since the ends of its 95 % interval; 0 = not known. `dated` says
whether they are estimates of the change itself, or how the change is to be looked for in the window (`window_dates.py`): among the last
`within` values, 0 = all of them, of which `worth_one` in a row are worth one independent one (0: they have no interval).
`again`: it is against the level since an open episode's last change, and the so-many-th change of the episode; 0 = it is against the
baseline.
"""


def new_windows(n_scopes: int, rows: int, n_columns: int, n_lanes: int, n_series: int) -> Windows:
    """Empty state; anchors of no row have row -1."""
    return Windows(
        ring=np.zeros((n_scopes, rows, n_columns), np.uint8),
        heads=np.zeros(n_scopes, np.int64),
        runs_within=np.zeros((n_scopes, n_lanes), np.int32),
        last=np.full((n_scopes, n_columns), np.nan),
        run=np.zeros((n_scopes, n_columns), np.int64),
        episodes=np.zeros((n_scopes, n_series, EPISODE_FIELDS), np.int64),
        fine=np.full((n_scopes, FINE_ANCHORS, ANCHOR_FIELDS), -1, np.int64),
        coarse=np.full((n_scopes, COARSE_ANCHORS, ANCHOR_FIELDS), -1, np.int64),
    )


_BLANK = np.zeros((), NOTE)


class Desk(NamedTuple):
    """What a pass over the rows of a batch writes in, made once; nothing in it outlives the pass."""

    scratch: Scratch
    crossed: Alarms
    notes: Notes

    @classmethod
    def of(cls, t: Tables, room: int) -> Desk:
        """With places for the most notes that one row can make in one scope."""
        return cls(new_scratch(t), np.zeros(2 * len(t.series_lane) + 1, CHANGE), np.zeros(room, NOTE))


def run_windows(
    t: Tables, st: Windows, psi: PsiArrays, codes: UInt8, values: Float64, scopes: Int32, at: Int64, changes: Alarms, desk: Desk,
    traffic: Traffic | None = None,
) -> tuple[Notes, list[TrafficSplit | None]]:  # fmt: skip
    """Take a batch; returns every note in the order it was made, and with `traffic` the parts of its effect.

    Parameters
    ----------
    codes : shape (n, K, C), by the row's place among its scopes; K = 1 where they are the same for all (`matched.py`).
    values : shape (n, C). `scopes`: (n, scopes a row). `at`: (n, 3) source, offset, time.
    changes : dtype CHANGE, sorted.
    desk : of these tables.
    """
    parts: list[Notes] = []
    splits: list[TrafficSplit | None] = []
    row = slot = next_change = 0
    while row < len(codes):
        place = (row, slot, next_change)
        written, row, slot, next_change = _run(
            t, st, psi, desk.scratch, desk.crossed, codes, values, scopes, at, changes, desk.notes, *place
        )
        if written:
            found = desk.notes[:written].copy()
            # What a note does not say is 0, whatever one before it said.
            desk.notes[:written] = _BLANK
            for note in found:
                note["dependence"] = dependence_of(t, st, int(note["scope"]), int(note["series"]), note["counts"].astype(np.int64))
            if traffic is not None:
                found, own = weigh(found, st, traffic, scopes)
                splits += own
            parts.append(found)
    if traffic is not None:
        traffic.push(scopes)
    return (np.concatenate(parts) if parts else np.zeros(0, NOTE)), splits


@kernel
def _run(
    t: Tables,
    st: Windows,
    psi: PsiArrays,
    scratch: Scratch,
    own: Any,
    codes: UInt8,
    values: Float64,
    scopes: Int32,
    at: Int64,
    changes: Any,
    out: Notes,
    row: int,
    slot: int,
    next_change: int,
) -> tuple[int, int, int, int]:
    """Go on from a row, a place in its scopes and an alarm, up to the first place with notes: where the window is what they say."""
    w = 0
    above, runs = scratch.above, scratch.runs
    for i in range(row, codes.shape[0]):
        for k in range(slot, scopes.shape[1]):
            s = 0 + int(scopes[i, k])  # a 64-bit integer: one type everywhere, every other one compiles all of it anew
            own_codes = codes[i, min(k, codes.shape[1] - 1)]
            reached = _count_runs(t, st, s, own_codes, values[i], runs)
            crossed = _slide(t, st, psi, s, own_codes, runs, above)
            _remember(st, s, own_codes, runs, at[i])
            found = _own_alarms(t, st, psi, s, runs, above, crossed, reached, own) if crossed or reached else 0
            alarms = 0
            while next_change + alarms < changes.shape[0] and _is_here(changes[next_change + alarms], i, s):
                alarms += 1
            for a in range(alarms + found):
                alarm = changes[next_change + a] if a < alarms else own[a - alarms]
                w = note_alarm(t, st, psi, scratch, out, w, s, i, at[i], alarm)
            next_change += alarms
            if st.heads[s] % CHECK_ROWS == 0:
                for q in range(t.series_lane.shape[0]):
                    if st.episodes[s, q, E_OPEN]:
                        w = check_episode(t, st, psi, scratch, out, w, s, q, i, at[i])
            if w:
                return w, i, k + 1, next_change
        slot = 0
    return 0, codes.shape[0], 0, next_change


@inlined
def _is_here(change: Any, row: int, scope: int) -> bool:
    return bool(change["row"] == row and change["scope"] == scope)


@inlined
def _count_runs(t: Tables, st: Windows, s: int, codes: UInt8, values: Float64, runs: UInt8) -> bool:
    """Lengthen or restart the run of every column; `runs[c]` = this row lies in a run that is an alarm.

    Returns whether one became so on this row.
    """
    reached = False
    for c in range(codes.shape[0]):
        runs[c] = 0
        limit = t.run_limit[s, c]
        if limit == 0 or codes[c] >= MISSING:
            continue
        if t.run_by_code[c] and codes[c] >= OTHER:
            # Values without a code of their own: that one follows another does not make them equal.
            st.last[s, c], st.run[s, c] = math.nan, 0
            continue
        x = float(codes[c]) if t.run_by_code[c] else values[c]
        if math.isnan(x):
            continue
        if x == st.last[s, c]:
            st.run[s, c] += 1
        else:
            st.last[s, c] = x
            st.run[s, c] = 1
        runs[c] = st.run[s, c] >= limit
        reached |= st.run[s, c] == limit
    return reached


@inlined
def _slide(t: Tables, st: Windows, psi: PsiArrays, s: int, codes: UInt8, runs: UInt8, above: UInt8) -> bool:
    """Move every lane's window by one row; `above[lane]` = its PSI is an alarm that its episode has not heard."""
    length = st.ring.shape[1]
    head = st.heads[s]
    refresh = (head + 1) % REFRESH_ROWS == 0
    check = (head + 1) % CHECK_ROWS == 0
    crossed = False
    for lane in range(t.lane_column.shape[0]):
        c = t.lane_column[lane]
        st.runs_within[s, lane] += runs[c]
        leaving = -1
        window = t.lane_window[lane]
        if head >= window:
            byte = int(st.ring[s, (head - window) % length, c])
            leaving = byte & (RUN_BIT - 1)
            st.runs_within[s, lane] -= byte // RUN_BIT
        psi_push(psi, s, lane, codes[c], leaving)
        if refresh:
            psi_refresh(psi, s, lane)
        above[lane] = 0
        n = psi.grouped[s, lane]
        if t.psi_detector[lane] < 0 or n < t.psi_least[s, lane]:
            continue
        value = psi_value(psi, s, lane)
        if value > t.psi_limit[s, lane] * (1.0 / n + 1.0 / t.psi_size[s, c]):
            q = t.psi_series[lane]
            heard = st.episodes[s, q, E_BITS] & (np.int64(1) << t.psi_detector[lane])
            # A series that is watched on one side asks for the side of the mean, which is looked up at checks only.
            if not heard and (check or t.direction[q] == 0):
                above[lane] = 1
                crossed = True
    return crossed


@inlined
def _remember(st: Windows, s: int, codes: UInt8, runs: UInt8, at: Int64) -> None:
    """Write the row to the scope's ring, and every 32nd row to its anchors."""
    head = st.heads[s]
    place = head % st.ring.shape[1]
    for c in range(codes.shape[0]):
        st.ring[s, place, c] = codes[c] + RUN_BIT * runs[c]
    if head % CHECK_ROWS == 0:
        _write_anchor(st.fine[s, (head // CHECK_ROWS) % FINE_ANCHORS], head, at)
    if head % COARSE_ROWS == 0:
        _write_anchor(st.coarse[s, (head // COARSE_ROWS) % COARSE_ANCHORS], head, at)
    st.heads[s] = head + 1


@inlined
def _write_anchor(anchor: Int64, row: int, at: Int64) -> None:
    anchor[A_ROW] = row
    anchor[A_SOURCE] = at[0]
    anchor[A_OFFSET] = at[1]
    anchor[A_TIME] = at[2]


@inlined
def _own_alarms(t: Tables, st: Windows, psi: PsiArrays, s: int, runs: UInt8, above: UInt8, crossed: bool, reached: bool, own: Any) -> int:
    """Write the alarms that the pass itself raises on this row, PSI and runs of equal values, to `own`; how many."""
    found = 0
    if crossed:
        for lane in range(above.shape[0]):
            if above[lane]:
                c = t.lane_column[lane]
                alarm = own[found]
                alarm["series"] = t.psi_series[lane]
                alarm["detector"] = t.psi_detector[lane]
                alarm["direction"] = 0
                alarm["statistic"] = psi_value(psi, s, lane)
                alarm["threshold"] = t.psi_limit[s, lane] * (1.0 / psi.grouped[s, lane] + 1.0 / t.psi_size[s, c])
                alarm["back"] = 0
                alarm["earliest"] = alarm["latest"] = 0
                alarm["dated"] = DATED
                alarm["again"] = 0
                found += 1
    for q in range(t.is_run.shape[0] if reached else 0):
        c = t.series_column[q]
        if t.is_run[q] and runs[c] and st.run[s, c] == t.run_limit[s, c]:
            alarm = own[found]
            alarm["series"] = q
            alarm["detector"] = RUN_DETECTOR
            alarm["direction"] = UP
            alarm["statistic"] = t.run_limit[s, c]
            alarm["threshold"] = t.run_limit[s, c]
            alarm["back"] = t.run_limit[s, c]
            alarm["earliest"] = alarm["latest"] = 0
            alarm["dated"] = DATED
            alarm["again"] = 0
            found += 1
    return found
