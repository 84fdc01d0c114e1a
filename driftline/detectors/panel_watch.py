"""What a panel has once it has a baseline: tables, coder, banks, windows and episodes, and their way to a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from driftline.detectors.baseline import Baseline
from driftline.detectors.budgeted import BudgetedSeries
from driftline.detectors.changes import ChangeDetectors, sorted_changes
from driftline.detectors.coding import RowCoder
from driftline.detectors.episode_ends import next_end
from driftline.detectors.episodes import E_OFFSET, E_OPEN, E_SEVERITY, E_SOURCE, E_TIME, OPEN, STALE, Notes
from driftline.detectors.explained import BinEvidence, TrafficSplit
from driftline.detectors.kernels.bank import Alarms
from driftline.detectors.kernels.psi import PsiBank
from driftline.detectors.layout import Layout, lay_out
from driftline.detectors.matched import MatchedCodes
from driftline.detectors.panel_state import ScopeState, ring_name, scope_blob
from driftline.detectors.scopes import Scopes
from driftline.detectors.second_change import fill_before
from driftline.detectors.signals import signals_of
from driftline.detectors.spec import (
    SEVERITIES,
    Anchor,
    Ended,
    Float64,
    Int32,
    Int64,
    PanelRows,
    PanelSpec,
    RingState,
    Signal,
    StateError,
    Suspended,
    UInt8,
)
from driftline.detectors.stale import Silence
from driftline.detectors.tables import NO_GROUP, Tables, build_tables
from driftline.detectors.traffic import RING, Traffic
from driftline.detectors.windows import Desk, new_windows, run_windows
from driftline.detectors.witnesses import Witnesses

Splits = list[TrafficSplit | None]
_LAST: Final = np.iinfo(np.int64).max
"""A row after all."""


class Watch:
    """A specification and a baseline at work.

    Attributes
    ----------
    fresh : specification and baseline are not in a checkpoint yet.
    blocks : the place among the witnesses, by column.
    """

    def __init__(self, spec: PanelSpec, baseline: Baseline) -> None:
        self.layout: Layout = lay_out(spec, baseline)
        self.tables: Tables = build_tables(spec, self.layout)
        self.coder = RowCoder(self.layout.references, hash_key=spec.hash_key)
        columns = self.layout.references
        self.blocks = {c: b for b, c in enumerate(c for c, column in enumerate(columns) if column.block is not None)}
        self.witnesses = Witnesses([(column.name, column.block) for column in columns if column.block is not None]) if self.blocks else None
        self.scopes = Scopes(self.layout.segments, sensitive=spec.sensitive, hash_key=spec.hash_key)
        self.matched = MatchedCodes(self.layout)
        self.changes = ChangeDetectors(self.layout, self.tables)
        self.budget = BudgetedSeries(spec.budget, self.layout, self.tables, whole=spec.whole) if spec.budget is not None else None
        self.psi = _psi_bank(self.tables)
        n_scopes, n_series = self.tables.watched.shape
        self.windows = new_windows(n_scopes, spec.window, len(self.layout.columns), len(self.tables.lane_column), n_series)
        self._desk = Desk.of(self.tables, sum(len(series.detectors) + 3 for series in self.layout.series) + 1)
        self._touched = np.zeros(n_scopes, bool)
        self._exported = np.zeros(n_scopes, np.int64)
        self.silence = Silence(spec.stale_ms, n_scopes)
        self.traffic = Traffic(self.layout, self.tables, spec.window) if spec.whole and spec.segments else None
        self.fresh = True

    def update(self, rows: PanelRows, clock_ms: Int64 | None) -> list[Signal]:
        codes, values = self.coder.encode(rows, None if self.witnesses is None else self.witnesses.update(rows))
        scopes = self.scopes.encode(rows)
        self._touched[scopes.reshape(-1)] = True
        if clock_ms is not None:
            self.silence.saw(scopes, clock_ms)
        at = np.empty((rows.n, 3), np.int64)
        at[:, 0], at[:, 1], at[:, 2] = rows.source, rows.offset, rows.time_ms
        matched = self.matched.of(codes, scopes, rows)
        changes = self.changes.update(codes, matched, values, scopes)
        if self.budget is None:
            notes, traffic = self._run(matched, values, scopes, at, changes)
        else:
            clock = self.budget.clock(int(self.windows.heads[0]), rows.n, clock_ms)
            self.budget.take(codes, matched, values, scopes, rows, clock)
            notes, traffic = self._run_under(self.budget, matched, values, scopes, at, changes)
        return signals_of(notes, self.layout, self.tables, self.suspended, self.explain, traffic) if len(notes) else []

    def explain(self, c: int, row: int) -> tuple[BinEvidence, ...]:
        """What is most unlike the reference in a block at a row of the last batch."""
        return () if self.witnesses is None else self.witnesses.explain(self.blocks[c], row)

    def _run(self, codes: UInt8, values: Float64, scopes: Int32, at: Int64, changes: Alarms) -> tuple[Notes, Splits]:
        return run_windows(self.tables, self.windows, self.psi.arrays, codes, values, scopes, at, changes, self._desk, self.traffic)

    def _run_under(
        self, budget: BudgetedSeries, codes: UInt8, values: Float64, scopes: Int32, at: Int64, changes: Alarms
    ) -> tuple[Notes, Splits]:
        """Let e-detectors and windows take rows in turns: what a series is judged against depends on whether its episode is open.

        A turn ends with an alarm, and where an episode of a series that is followed may end.
        """
        parts, traffic, start = [], list[TrafficSplit | None](), 0
        while start < len(codes):
            last = next_end(self.tables, self.windows, *budget.followed(), scopes, start)
            found, blamed, stop = budget.advance(start, last)
            self._touched[blamed] = True
            own = changes
            if start or stop < len(codes):
                own = changes[np.searchsorted(changes["row"], start) : np.searchsorted(changes["row"], stop)].copy()
                own["row"] -= start
                found["row"] -= start
            turn = slice(start, stop)
            notes, splits = self._run(codes[turn], values[turn], scopes[turn], at[turn], sorted_changes([own, found]))
            notes["row"] += start
            if len(found):
                fill_before(notes, self.tables, budget.codes_before, budget.partly_judged)
            budget.heard(found, self.windows.episodes)
            parts.append(notes)
            traffic += splits
            start = stop
        return np.concatenate(parts), traffic

    def suspended(self, scope: int, q: int, row: int) -> Suspended | None:
        """Whether and why a budget's promise does not cover a series at a row of the last batch."""
        return None if self.budget is None else self.budget.suspended(scope, q, row)

    def running(self, scope: int) -> dict[int, list[tuple[float, float]]]:
        """Running statistic and threshold of the detectors that have one, by series."""
        out = self.changes.statistics(scope)
        if self.budget is not None:
            for q, pairs in self.budget.statistics(scope).items():
                out[q] = out.get(q, []) + pairs
        return out

    def suspended_now(self, scope: int) -> dict[int, Suspended]:
        """The suspended series of a scope."""
        found = {q: self.suspended(scope, q, _LAST) for q in range(len(self.layout.series))}
        return {q: one for q, one in found.items() if one is not None}

    def expire(self, now_ms: int) -> list[tuple[int, Signal]]:
        found = self.silence.expire(self.windows, self.layout, now_ms)
        self._touched[[signal.scope for _, signal in found]] = True
        self._settle()
        return found

    def export(self) -> tuple[dict[str, bytes | None], list[RingState]]:
        self.fresh = False
        blobs: dict[str, bytes | None] = {}
        rings = []
        for scope in np.flatnonzero(self._touched).tolist():
            state = self._state(scope)
            blobs[scope_blob(scope)] = state.pack()
            if self._exported[scope] != self.windows.heads[scope]:
                rings.append(state.ring(since=int(self._exported[scope])))
                self._exported[scope] = self.windows.heads[scope]
        self._touched[:] = False
        if self.traffic is not None and (ring := self.traffic.ring()) is not None:
            rings.append(ring)
        return blobs, rings

    def restore(self, blobs: Mapping[str, bytes], rings: Mapping[str, RingState]) -> None:
        for scope in range(len(self.windows.heads)):
            if scope_blob(scope) in blobs:
                self._state(scope).restore(blobs[scope_blob(scope)], rings.get(ring_name(scope)))
        if self.traffic is not None:
            try:
                self.traffic.restore(rings.get(RING), int(self.windows.heads[0]))
            except ValueError as error:
                raise StateError(f"checkpoint: {error}") from error
        if self.budget is not None:
            try:
                self.budget.check()
            except ValueError as error:
                raise StateError(f"checkpoint: budget: {error}") from error
            self._settle()
            self._touched[list(self.budget.pick_up(self.windows.episodes))] = True
        self._exported[:] = self.windows.heads
        self.fresh = False

    def end(self, scope: int, q: int, reason: str) -> Ended:
        """End an open episode, and let the level decide on the next rows whether it opens anew."""
        found = self.ended(scope, q, reason)
        self.windows.episodes[scope, q] = 0
        self.windows.episodes[scope, q, E_OPEN] = STALE
        self._touched[scope] = True
        self._settle()
        return found

    def _settle(self) -> None:
        if self.budget is not None:
            self._touched[list(self.budget.settle(self.windows.episodes))] = True

    def ended(self, scope: int, q: int, reason: str) -> Ended:
        """What is to be said of an open episode that ends."""
        series, episode = self.layout.series[q], self.windows.episodes[scope, q].tolist()
        opened = Anchor(source=episode[E_SOURCE], offset=episode[E_OFFSET], time_ms=episode[E_TIME], exact=True)
        severity = SEVERITIES[episode[E_SEVERITY]]
        return Ended(series.name, self.scopes.names[scope], series.owner, severity, series.window, opened, reason)

    def opened(self) -> list[tuple[int, int]]:
        """Scope and series of every open episode."""
        return [(int(scope), int(q)) for scope, q in np.argwhere(self.windows.episodes[:, :, E_OPEN] == OPEN)]

    def write_all(self) -> None:
        """Let the next export hold everything, windows whole."""
        self._touched[:] = True
        # Longer ago than any window: a ring is then written whole.
        self._exported = self.windows.heads - self.windows.ring.shape[1] - 1
        if self.traffic is not None:
            self.traffic.write_all()
        self.fresh = True

    def _state(self, scope: int) -> ScopeState:
        return ScopeState(scope, self.tables, self.windows, self.silence, self.psi, self.changes, self.budget, self.witnesses)


def _psi_bank(t: Tables) -> PsiBank:
    """PSI by lane; lanes without a distribution, and scopes that do not watch it, have no group, only counts."""
    groups = np.ascontiguousarray(t.group[:, t.lane_column])
    for lane, q in enumerate(t.psi_series.tolist()):
        idle = slice(None) if q < 0 else ~t.watched[:, q].astype(bool)
        groups[idle, lane] = NO_GROUP
    return PsiBank(
        len(t.watched),
        len(t.lane_column),
        window=t.lane_window,
        groups=groups,
        # Contiguous: an index array leaves a layout that depends on the number of scopes, and each layout compiles anew.
        expected=np.ascontiguousarray(t.share[:, t.lane_column]),
        threshold=0.0,
        n_groups=np.ascontiguousarray(t.groups[:, t.lane_column]),
    )
