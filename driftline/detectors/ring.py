"""The rows of a scope as they are kept: a ring of codes, anchors to their positions, and the way back to a row."""

from __future__ import annotations

from typing import Final, NamedTuple

from driftline.detectors.kernels.jit import part
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
