"""From the state of one specification to that of another over the same baseline: what did not change is kept.

What is kept, each for itself: the rows of the ring by column; a window's counts and sums by column and length (another
length is counted again from the ring); a detector by its parameters, thresholds aside; an e-detector's evidence while it
bets on the same, whatever the budget is; an episode by its series. What the old state does not have begins empty. Rows that
are not there, of a column that was away or of a time before a window grew, stand as *not applicable*: they count for nothing,
and leave as the window moves on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from driftline.detectors.changes import places_of
from driftline.detectors.episodes import E_BITS, E_OPEN, MIX_BIT, OPEN, STALE
from driftline.detectors.kernels.psi import psi_refresh
from driftline.detectors.openers import RUN_DETECTOR
from driftline.detectors.panel_watch import Watch
from driftline.detectors.ring import RUN_BIT
from driftline.detectors.spec import N_CODES, NOT_APPLICABLE, Ended, Int64

UNWATCHED: Final = "closed because the configuration no longer watches it, not because it recovered"
TAKEN_OVER: Final = 'closed because monitor "{owner}" watches it now, not because it recovered'


def carry(old: Watch, new: Watch, reasons: Mapping[str, str]) -> list[Ended]:
    """Fill `new`, which has had no rows, from `old`, which must not be used any more; the episodes that end with it.

    Parameters
    ----------
    reasons : why a column, or ``segment/key``, is gone, where it is not that nothing watches it.
    """
    columns = _columns(old, new)
    series = _series(old, new, columns)
    known = {name: scope for scope, name in enumerate(old.scopes.names)}
    scopes = [(scope, known[name]) for scope, name in enumerate(new.scopes.names) if name in known]
    ended = _ended(old, new, {was for _, was in scopes}, {q: now for now, q in series.items()}, reasons)
    for scope, was in scopes:
        _carry_rows(old, new, scope, was, columns)
        _carry_windows(old, new, scope, was, columns)
        for q, q_was in series.items():
            new.windows.episodes[scope, q] = _episode(old, new, was, q_was, q)
    new.changes.carry(old.changes, scopes, series)
    if new.traffic is not None:
        new.traffic.carry(old.traffic, int(new.windows.heads[0]))
    if old.witnesses is not None and new.witnesses is not None:
        new.witnesses.carry(old.witnesses, {b: old.blocks[columns[c]] for c, b in new.blocks.items() if columns.get(c) in old.blocks})
    if old.budget is not None and new.budget is not None:
        new.budget.carry(old.budget, scopes, series, new.windows.episodes)
    new.write_all()
    return ended


def reason_for(watch: Watch, scope: int, q: int, reasons: Mapping[str, str], otherwise: str = UNWATCHED) -> str:
    """Why a series is gone: for its column's sake, or for its segment key's."""
    column, segment = watch.layout.columns[watch.layout.column_of[q]].name, watch.scopes.names[scope]
    return reasons.get(column) or reasons.get("" if segment is None else f"segment/{segment[0]}") or otherwise


def _columns(old: Watch, new: Watch) -> dict[int, int]:
    """The new column to the old one."""
    known = {(column.name, column.kind, column.tails): c for c, column in enumerate(old.layout.columns)}
    found = ((c, known.get((column.name, column.kind, column.tails))) for c, column in enumerate(new.layout.columns))
    return {c: was for c, was in found if was is not None}


def _series(old: Watch, new: Watch, columns: Mapping[int, int]) -> dict[int, int]:
    known = {(old.layout.column_of[q], series.name, series.flag): q for q, series in enumerate(old.layout.series)}
    out = {}
    for q, series in enumerate(new.layout.series):
        was = known.get((columns.get(new.layout.column_of[q], -1), series.name, series.flag))
        if was is not None:
            out[q] = was
    return out


def _ended(old: Watch, new: Watch, scopes: set[int], series: Mapping[int, int], reasons: Mapping[str, str]) -> list[Ended]:
    """The open episodes of what is gone, and of what has another owner, in order of scope and series."""
    out = []
    for scope, q in old.opened():
        was = old.layout.series[q]
        if scope not in scopes or q not in series:
            out.append(old.ended(scope, q, reason_for(old, scope, q, reasons)))
        elif (owner := new.layout.series[series[q]].owner) != was.owner:
            # Under the other owner it opens anew if its level still is off.
            out.append(old.end(scope, q, TAKEN_OVER.format(owner=owner)))
    return out


def _carry_rows(old: Watch, new: Watch, scope: int, was: int, columns: Mapping[int, int]) -> None:
    """The ring, and what else is kept of rows; row numbers stay, and with them every rhythm that is counted in rows."""
    head = int(old.windows.heads[was])
    new.windows.heads[scope] = head
    before, ring = old.windows.ring[was], new.windows.ring[scope]
    held = min(head, len(before), len(ring))
    new.windows.ring[scope, np.arange(head - min(head, len(ring)), head) % len(ring)] = NOT_APPLICABLE
    rows = np.arange(head - held, head)
    for c, c_was in columns.items():
        ring[rows % len(ring), c] = before[rows % len(before), c_was]
        new.windows.last[scope, c], new.windows.run[scope, c] = old.windows.last[was, c_was], old.windows.run[was, c_was]
    new.windows.fine[scope], new.windows.coarse[scope] = old.windows.fine[was], old.windows.coarse[was]
    new.silence.seen_ms[scope] = old.silence.seen_ms[was]


def _carry_windows(old: Watch, new: Watch, scope: int, was: int, columns: Mapping[int, int]) -> None:
    """Counts from the ring; sums as they were where the window is the same, for they hold the rounding of its past."""
    a, b = new.psi.arrays, old.psi.arrays
    lanes = {(int(c), int(w)): lane for lane, (c, w) in enumerate(zip(old.tables.lane_column, old.tables.lane_window, strict=True))}
    head, ring = int(new.windows.heads[scope]), new.windows.ring[scope]
    for lane, (c, window) in enumerate(zip(new.tables.lane_column.tolist(), new.tables.lane_window.tolist(), strict=True)):
        held = ring[np.arange(head - min(head, window), head) % len(ring), c]
        a.counts[scope, lane] = np.bincount(held & (RUN_BIT - 1), minlength=N_CODES)
        new.windows.runs_within[scope, lane] = int((held >= RUN_BIT).sum())
    new.psi.regroup(scope)
    for lane, (c, window) in enumerate(zip(new.tables.lane_column.tolist(), new.tables.lane_window.tolist(), strict=True)):
        lane_was = lanes.get((columns.get(c, -1), window))
        if lane_was is not None and np.array_equal(a.group_counts[scope, lane], b.group_counts[was, lane_was]):
            a.sums[scope, lane], a.armed[scope, lane] = b.sums[was, lane_was], b.armed[was, lane_was]
        else:
            psi_refresh(a, scope, lane)


def _episode(old: Watch, new: Watch, was: int, q_was: int, q: int) -> Int64:
    """The fields of an episode; the detectors that have spoken in it by their new places."""
    episode: Int64 = old.windows.episodes[was, q_was].copy()
    bits = int(episode[E_BITS])
    places = {key: place for place, key in enumerate(places_of(old.layout.series[q_was]))}
    moved = bits & (1 << RUN_DETECTOR | 1 << MIX_BIT)
    for place, key in enumerate(places_of(new.layout.series[q])):
        if key in places and bits & (1 << places[key]):
            moved |= 1 << place
    episode[E_BITS] = moved
    if episode[E_OPEN] not in (OPEN, STALE):
        episode[:] = 0
    return episode
