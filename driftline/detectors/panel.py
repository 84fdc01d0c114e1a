"""A panel: everything that is watched of one model, for all rows and for each segment value.

Rows are coded once; the change detectors see the whole batch, then one pass over the rows moves the windows, hears the
alarms and judges levels, so that an episode opens and ends at its row. Batch cuts change nothing: `update` over any cut
of the stream gives the same signals and the same state, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from driftline.detectors.baseline import Baseline
from driftline.detectors.baseline_build import BaselineBuilder
from driftline.detectors.changes import ChangeDetectors
from driftline.detectors.coding import RowCoder
from driftline.detectors.episodes import E_OPEN, OPEN
from driftline.detectors.kernels.psi import PsiBank
from driftline.detectors.panel_levels import levels_of
from driftline.detectors.panel_state import (
    BASELINE_BLOB,
    SPEC_BLOB,
    ScopeState,
    check_learning,
    check_spec,
    learn_blob,
    pack_learned,
    ring_name,
    scope_blob,
    spec_blob,
    unpack_learned,
)
from driftline.detectors.scopes import Scopes
from driftline.detectors.signals import signals_of
from driftline.detectors.spec import Anchor, Column, Int64, Level, PanelRows, PanelSpec, RingState, Signal, StateError
from driftline.detectors.stale import Silence
from driftline.detectors.tables import NO_GROUP, Layout, Tables, build_tables, lay_out
from driftline.detectors.windows import new_windows, run_windows

PIECE_ROWS: Final = 4096
"""Rows worked on at once: their codes and inputs stay in the processor's cache, and memory does not follow the batch."""


class Panel:
    """Columns, scopes, windows, detectors and episodes.

    Attributes
    ----------
    rows : rows of scope 0 since the baseline stands.
    learned : learning rows absorbed so far.
    baseline : None while learning.
    columns : in the order that `Signal.column` indexes; empty while a panel with discovered columns learns.
    scope_names : (segment key, value) of each scope; entry 0 is None, all rows.
    """

    def __init__(self, spec: PanelSpec, baseline: Baseline | None = None) -> None:
        self._spec = spec
        self.learned = 0
        self.baseline: Baseline | None = None
        self.columns: tuple[Column, ...] = spec.columns or ()
        self.scope_names: list[tuple[str, str] | None] = [None]
        self._chunks_exported = 0
        self._watch: _Watch | None = None
        self._fresh = True
        self._builder = BaselineBuilder(
            spec.columns, spec.segments, column_factory=spec.column_factory, sensitive=spec.sensitive, hash_key=spec.hash_key
        )
        if baseline is not None:
            self._start(baseline)

    @property
    def rows(self) -> int:
        """Rows of scope 0 since the baseline stands."""
        return 0 if self._watch is None else int(self._watch.windows.heads[0])

    def scope_rows(self, scope: int) -> int:
        """Rows of one scope since the baseline stands."""
        return 0 if self._watch is None else int(self._watch.windows.heads[scope])

    def subjects(self) -> tuple[int, int]:
        """Series that are watched, over all scopes, and those of them with an open episode."""
        if self._watch is None:
            return 0, 0
        opened = self._watch.windows.episodes[:, :, E_OPEN] == OPEN
        return int(np.count_nonzero(self._watch.tables.watched)), int(np.count_nonzero(opened))

    def _start(self, baseline: Baseline) -> None:
        self._watch = _Watch(self._spec, baseline)
        self.baseline = baseline
        self.columns = self._watch.layout.columns
        self.scope_names = self._watch.scopes.names

    def update(self, rows: PanelRows, clock_ms: Int64 | None = None) -> list[Signal]:
        """Take rows in stream order; the signals are in order of row, scope, column, series, detector.

        While there is no baseline rows are learned from; it is built from exactly the first `learn_rows` rows, a
        ``baseline`` signal marks the last of them, and what follows goes to the detectors.

        Parameters
        ----------
        clock_ms : shape (n,), the time at each row, never going back; without it no episode is ever due.
        """
        signals: list[Signal] = []
        start = 0
        if self._watch is None:
            start = min(rows.n, self._spec.learn_rows - self.learned)
            if start:
                self._builder.add(rows.slice(0, start))
                self.learned += start
            if self.learned >= self._spec.learn_rows and start:
                self._start(self._builder.finish())
                signals.append(self._learned_signal(rows, start - 1))
        if self._watch is not None:
            for first in range(start, rows.n, PIECE_ROWS):
                piece = rows.slice(first, min(first + PIECE_ROWS, rows.n))
                found = self._watch.update(piece, None if clock_ms is None else clock_ms[first : first + PIECE_ROWS])
                signals += found if first == 0 else [replace(signal, row=signal.row + first) for signal in found]
        return signals

    def due_ms(self) -> int | None:
        """The time after which an episode is due for want of rows, if none come; None = none is open."""
        return None if self._watch is None else self._watch.silence.next_ms(self._watch.windows)

    def expire(self, now_ms: int) -> list[tuple[int, Signal]]:
        """End the episodes that are due: (when it was, signal). The caller sees to it that none of them gets rows first."""
        return [] if self._watch is None else self._watch.expire(now_ms)

    def _learned_signal(self, rows: PanelRows, row: int) -> Signal:
        here = Anchor(source=int(rows.source[row]), offset=int(rows.offset[row]), time_ms=int(rows.time_ms[row]), exact=True)
        return Signal(
            kind="baseline", row=row, scope=0, column=-1, series="", detector="", statistic=None, threshold=None, value=None,
            baseline_value=None, effect_kind=None, effect_size=None, direction=None, severity="info", n=self.learned,
            window=self._spec.window, since=None, episode=here, reason=f"learned from {self.learned} rows",
        )  # fmt: skip

    def levels(self, scope: int) -> list[Level]:
        """Every series of a scope as it stands; empty while learning."""
        watch = self._watch
        return [] if watch is None else levels_of(watch.layout, watch.tables, watch.windows, watch.psi.arrays, watch.changes, scope)

    def export(self) -> tuple[dict[str, bytes | None], list[RingState]]:
        """What changed since the last call: blobs to write (None = drop) and ring rows to append.

        While learning, the rows taken since the last call are one more ``learn/<k>``; when the baseline stands they are
        all dropped. Then each scope that had rows is one blob and one ring.
        """
        blobs: dict[str, bytes | None] = {}
        if self._watch is None:
            if self._fresh:
                blobs[SPEC_BLOB] = spec_blob(self._spec, None)
                self._fresh = False
            new = self._builder.take_new_chunks()
            if new:
                blobs[learn_blob(self._chunks_exported)] = pack_learned(new)
                self._chunks_exported += 1
            return blobs, []
        assert self.baseline is not None
        if self._watch.fresh:
            blobs[SPEC_BLOB] = spec_blob(self._spec, self.columns)
            blobs[BASELINE_BLOB] = self.baseline.to_json().encode()
            blobs |= {learn_blob(k): None for k in range(self._chunks_exported)}
            self._chunks_exported = 0
        scopes, rings = self._watch.export()
        return blobs | scopes, rings

    @classmethod
    def restore(cls, spec: PanelSpec, blobs: Mapping[str, bytes], rings: Mapping[str, RingState]) -> Panel:
        """The panel as it stood at those exports; goes on to the bit as if it had never stopped.

        `rings` maps a name to anything with the fields of RingState whose `rows` are the last `min(head, window)`
        records, oldest first.

        Raises
        ------
        StateError : damaged, of a newer version, or of another specification.
        """
        panel = cls(spec)
        if not blobs:
            return panel
        panel._fresh = False
        if BASELINE_BLOB not in blobs:
            # An edited specification is written anew with the next export.
            panel._fresh = check_learning(blobs.get(SPEC_BLOB), spec)
            while (name := learn_blob(panel._chunks_exported)) in blobs:
                for chunk in unpack_learned(blobs[name]):
                    panel._builder.add(chunk)
                    panel.learned += chunk.n
                panel._chunks_exported += 1
            panel._builder.take_new_chunks()
            if panel.learned >= spec.learn_rows:
                raise StateError(f"checkpoint: {panel.learned} rows are learned already, the configuration asks for {spec.learn_rows}")
            return panel
        try:
            panel._start(Baseline.from_json(blobs[BASELINE_BLOB], place="checkpoint"))
        except ValueError as error:
            raise StateError(f"checkpoint: baseline: {error}") from error
        check_spec(blobs.get(SPEC_BLOB), spec, panel.columns)
        assert panel._watch is not None
        panel.learned = spec.learn_rows
        panel._watch.restore(blobs, rings)
        return panel


class _Watch:
    """What a panel has once it has a baseline."""

    def __init__(self, spec: PanelSpec, baseline: Baseline) -> None:
        self.layout: Layout = lay_out(spec, baseline)
        self.tables: Tables = build_tables(spec, self.layout)
        self.coder = RowCoder(self.layout.references, hash_key=spec.hash_key)
        self.scopes = Scopes(self.layout.segments, sensitive=spec.sensitive, hash_key=spec.hash_key)
        self.changes = ChangeDetectors(self.layout, self.tables)
        self.psi = _psi_bank(self.tables)
        n_scopes, n_series = self.tables.watched.shape
        self.windows = new_windows(n_scopes, spec.window, len(self.layout.columns), len(self.tables.lane_column), n_series)
        self._room = sum(len(series.detectors) + 3 for series in self.layout.series) + 1
        self._touched = np.zeros(n_scopes, bool)
        self._exported = np.zeros(n_scopes, np.int64)
        self.silence = Silence(spec.stale_ms, n_scopes)
        self.fresh = True

    def update(self, rows: PanelRows, clock_ms: Int64 | None) -> list[Signal]:
        codes, values = self.coder.encode(rows)
        scopes = self.scopes.encode(rows)
        self._touched[scopes.reshape(-1)] = True
        if clock_ms is not None:
            self.silence.saw(scopes, clock_ms)
        at = np.empty((rows.n, 3), np.int64)
        at[:, 0], at[:, 1], at[:, 2] = rows.source, rows.offset, rows.time_ms
        changes = self.changes.update(codes, values, scopes)
        notes = run_windows(self.tables, self.windows, self.psi.arrays, codes, values, scopes, at, changes, self._room)
        return signals_of(notes, self.layout, self.tables) if len(notes) else []

    def expire(self, now_ms: int) -> list[tuple[int, Signal]]:
        found = self.silence.expire(self.windows, self.layout, now_ms)
        self._touched[[signal.scope for _, signal in found]] = True
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
        return blobs, rings

    def restore(self, blobs: Mapping[str, bytes], rings: Mapping[str, RingState]) -> None:
        for scope in range(len(self.windows.heads)):
            if scope_blob(scope) in blobs:
                self._state(scope).restore(blobs[scope_blob(scope)], rings.get(ring_name(scope)))
        self._exported[:] = self.windows.heads
        self.fresh = False

    def _state(self, scope: int) -> ScopeState:
        return ScopeState(scope, self.tables, self.windows, self.silence, self.psi, self.changes)


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
