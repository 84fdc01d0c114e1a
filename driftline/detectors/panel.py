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
from driftline.detectors.compare import Difference, compare
from driftline.detectors.episodes import E_OPEN, OPEN
from driftline.detectors.layout import lay_out
from driftline.detectors.panel_carry import carry, reason_for
from driftline.detectors.panel_levels import levels_of
from driftline.detectors.panel_spec import SPEC_BLOB, describe, describes, read_spec, spec_blob
from driftline.detectors.panel_state import BASELINE_BLOB, learn_blob, pack_learned, ring_name, scope_blob, unpack_learned
from driftline.detectors.panel_watch import Watch
from driftline.detectors.spec import N_CODES, Anchor, Column, Ended, Int64, Level, PanelRows, PanelSpec, RingState, Signal, StateError
from driftline.detectors.standing import Standing, standing_of
from driftline.detectors.traffic import RING as TRAFFIC_RING

_BY_SCOPE: Final = ("scope/", "ring/", TRAFFIC_RING)
PIECE_ROWS: Final = 4096
"""Rows worked on at once: their codes and inputs stay in the processor's cache, and memory does not follow the batch."""


class Panel:
    """Columns, scopes, windows, detectors and episodes.

    Attributes
    ----------
    rows : rows of scope 0 since the baseline stands.
    learned : learning rows absorbed so far.
    baseline : None while learning.
    held : rows are kept and nothing is learned from them yet: they are to be compared with a baseline first.
    columns : in the order that `Signal.column` indexes; empty while a panel with discovered columns learns.
    scope_names : (segment key, value) of each scope; entry 0 is None, all rows.
    """

    def __init__(self, spec: PanelSpec, baseline: Baseline | None = None) -> None:
        self._spec = spec
        self.learned = 0
        self.held = False
        self.baseline: Baseline | None = None
        self.columns: tuple[Column, ...] = spec.columns or ()
        self.scope_names: list[tuple[str, str] | None] = [None]
        self._chunks_exported = 0
        self._watch: Watch | None = None
        self._fresh = True
        self._ended: list[Ended] = []
        self._dropped: list[str] = []
        self._builder = BaselineBuilder.of(spec)
        if baseline is not None:
            self._start(baseline)

    @property
    def spec(self) -> PanelSpec:
        """What it was made with."""
        return self._spec

    def shown_scopes(self) -> dict[tuple[str, str] | None, int]:
        """The scopes that it watches, by segment value; None = all rows."""
        return {name: scope for scope, name in enumerate(self.scope_names) if scope or self._spec.whole}

    @property
    def rows(self) -> int:
        """Rows of scope 0 since the baseline stands."""
        return 0 if self._watch is None else int(self._watch.windows.heads[0])

    def scope_rows(self, scope: int) -> int:
        """Rows of one scope since the baseline stands."""
        return 0 if self._watch is None else int(self._watch.windows.heads[scope])

    def subjects(self) -> tuple[int, int, int]:
        """Series that are watched, over all scopes; those with an open episode; those whose promise is suspended."""
        if self._watch is None:
            return 0, 0, 0
        opened = self._watch.windows.episodes[:, :, E_OPEN] == OPEN
        suspended = 0 if self._watch.budget is None else self._watch.budget.suspended_series()
        return int(np.count_nonzero(self._watch.tables.watched)), int(np.count_nonzero(opened)), suspended

    def values_judged(self) -> tuple[int, int]:
        """Values of the series that a budget covers, over all scopes, and those of them that came while their series was suspended."""
        return (0, 0) if self._watch is None or self._watch.budget is None else self._watch.budget.values_judged()

    def _start(self, baseline: Baseline) -> None:
        self._watch = Watch(self._spec, baseline)
        self.baseline = baseline
        self.columns = self._watch.layout.columns
        self.scope_names = self._watch.scopes.names

    def compare(self, baseline: Baseline, looks: int) -> list[Difference]:
        """What the rows held so far differ in from a baseline; `looks` as of `compare.compare`."""
        return compare(self._spec, baseline, self._builder.rows, looks=looks)

    def recent(self) -> Baseline | None:
        """The newest rows as a reference: those of the window, or all that is learned from so far; None = there are none."""
        if self._watch is None:
            return self._builder.finish() if self.learned else None
        t, layout = self._watch.tables, self._watch.layout
        lanes = [max((lane for lane, of in enumerate(t.lane_column.tolist()) if of == c), key=t.lane_window.__getitem__, default=-1)
                 for c in range(len(layout.columns))]  # fmt: skip
        counts: Int64 = np.zeros((1, len(lanes), N_CODES), np.int64)
        for c, lane in enumerate(lanes):
            if lane >= 0:
                counts[0, c] = self._watch.psi.arrays.counts[0, lane]
        return Baseline(layout.references, {}, counts, rows=int(counts.sum(axis=2).max(initial=0)))

    def begin(self, spec: PanelSpec, baseline: Baseline) -> None:
        """Forget the rows that are held, and watch what comes against a baseline, under a specification that may have fewer columns."""
        self._spec, self.held = spec, False
        self._builder = BaselineBuilder.of(spec)
        self._start(baseline)

    def part(self, spec: PanelSpec) -> Panel:
        """A panel of some of the columns, that learns from the rows held here as if they had been its own."""
        out = Panel(spec)
        for rows in self._builder.rows:
            out._builder.add(rows)
            out.learned += rows.n
        return out

    def go_on_under(self, spec: PanelSpec, reasons: Mapping[str, str]) -> list[Ended]:
        """Go on under another specification as after a restart under it; the episodes that end with what it no longer has.

        Every column and segment key must be one that there is.

        Parameters
        ----------
        reasons : as in `restore`.
        """
        before = self._watch
        if before is None:
            self._fresh |= describe(self._spec, None) != describe(spec, None)
            self._spec, self.columns = spec, spec.columns or ()
            self._builder.go_on_under(spec)
            return []
        assert self.baseline is not None
        had = _names_by_scope(before)
        self._spec = spec
        self._builder = BaselineBuilder.of(spec)
        self._start(self.baseline)
        assert self._watch is not None
        ended = carry(before, self._watch, reasons)
        self._dropped = sorted({*self._dropped, *had} - _names_by_scope(self._watch))
        return ended

    def stored(self) -> list[str]:
        """The names of all blobs and rings that a checkpoint may have of it."""
        own = {SPEC_BLOB, BASELINE_BLOB, *map(learn_blob, range(self._chunks_exported)), *self._dropped}
        return sorted(own if self._watch is None else own | _names_by_scope(self._watch))

    def standing(self) -> list[Standing]:
        """The open episodes, in order of scope and series; none while learning."""
        return [] if self._watch is None else standing_of(self._watch)

    def update(self, rows: PanelRows, clock_ms: Int64 | None = None) -> list[Signal]:
        """Take rows in stream order; the signals are in order of row, scope, column, series, detector.

        While there is no baseline rows are learned from; it is built from exactly the first `learn_rows` rows, a
        ``baseline`` signal marks the last of them, and what follows goes to the detectors.

        Parameters
        ----------
        clock_ms : shape (n,), the time at each row, never going back; without it no episode is ever due. A budget by
            time needs it.
        """
        signals: list[Signal] = []
        start = 0
        if self.held:
            self._builder.add(rows)
            self.learned += rows.n
            return signals
        if self._watch is None:
            # At least one: where fewer are asked for than were learned already, the next row is the last.
            start = min(rows.n, max(self._spec.learn_rows - self.learned, 1))
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
        reason = f"learned from {self.learned} rows{self._by_hour()}{self._unwatched()}"
        return Signal(
            kind="baseline", row=row, scope=0, column=-1, series="", detector="", statistic=None, threshold=None, value=None,
            baseline_value=None, effect_kind=None, effect_size=None, direction=None, severity="info", n=self.learned,
            window=self._spec.window, since=None, episode=here, reason=reason,
        )  # fmt: skip

    def _by_hour(self) -> str:
        """What is added to how a baseline came about where some of it goes by the hour."""
        found = {} if self.baseline is None or self._spec.budget is None else self.baseline.grouping()
        return f"; {len(found)} of {len(self.columns)} columns are judged by the hour: {', '.join(sorted(found))}" if found else ""

    def _unwatched(self) -> str:
        """What is added where a correlation or a block that was asked for is of a feature that the rows do not have as a number."""
        if self.baseline is None or self._spec.columns is not None:
            return ""
        numbers = {column.name for column in self.baseline.columns if column.kind == "numeric"}
        lacking = {pair.name: [name for name in pair.factors if name not in numbers] for pair in self._spec.pairs}
        told = [f"{name} (no number {', '.join(names)})" for name, names in lacking.items() if names]
        return f"; not watched: {', '.join(told)}" if told else ""

    def levels(self, scope: int) -> list[Level]:
        """Every series of a scope as it stands; empty while learning."""
        watch = self._watch
        if watch is None:
            return []
        held = watch.suspended_now(scope)
        return levels_of(watch.layout, watch.tables, watch.windows, watch.psi.arrays, watch.running(scope), held, scope)

    def export(self) -> tuple[dict[str, bytes | None], list[RingState]]:
        """What changed since the last call: blobs to write (None = drop the blob or ring of this name) and ring rows to append.

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
        blobs |= dict.fromkeys(self._dropped)
        self._dropped = []
        scopes, rings = self._watch.export()
        return blobs | scopes, rings

    def ended(self) -> list[Ended]:
        """The open episodes that ended with what a restart under another specification no longer has; once."""
        found, self._ended = self._ended, []
        return found

    def end_all(self, reason: str, reasons: Mapping[str, str] | None = None) -> list[Ended]:
        """End every open episode, as of a panel that gets no more rows; the level decides if it ever does.

        Parameters
        ----------
        reasons : of columns and segment keys that have one of their own, as in `restore`.
        """
        watch = self._watch
        if watch is None:
            return []
        return [watch.end(scope, q, reason_for(watch, scope, q, reasons or {}, reason)) for scope, q in watch.opened()]

    @classmethod
    def made_with(cls, spec: PanelSpec, blobs: Mapping[str, bytes]) -> PanelSpec:
        """The specification that a state was made with; `spec` is the present one.

        Raises
        ------
        StateError : as for `restore`.
        """
        columns = None
        if BASELINE_BLOB in blobs and not describes(blobs.get(SPEC_BLOB)):
            columns = lay_out(spec, _baseline(blobs)).columns
        return read_spec(blobs.get(SPEC_BLOB), spec, columns)

    @classmethod
    def restore(
        cls, spec: PanelSpec, blobs: Mapping[str, bytes], rings: Mapping[str, RingState], *, reasons: Mapping[str, str] | None = None
    ) -> Panel:
        """The panel as it stood at those exports; goes on to the bit as if it had never stopped.

        Under another specification what did not change is kept (`panel_carry.py`); `ended` then says which episodes
        ended with the rest. Every column and segment key must be one that the state was made with, or its baseline has.

        Parameters
        ----------
        rings : a name to anything with the fields of RingState whose `rows` are the last `min(head, window)` records,
            oldest first.
        reasons : why a column, or ``segment/key``, is gone, for the episodes that end with it.

        Raises
        ------
        StateError : damaged, of a newer version, or rows to learn from that lack a column or a segment key.
        """
        panel = cls(spec)
        if not blobs:
            return panel
        panel._fresh = False
        if BASELINE_BLOB not in blobs:
            panel._restore_learning(blobs)
            return panel
        try:
            panel._start(_baseline(blobs))
        except ValueError as error:
            raise error if isinstance(error, StateError) else StateError(f"checkpoint: baseline: {error}") from error
        assert panel._watch is not None
        assert panel.baseline is not None
        panel.learned = spec.learn_rows
        before = read_spec(blobs.get(SPEC_BLOB), spec, panel.columns)
        if describe(before, before.columns) == describe(spec, panel.columns) or before is spec:
            panel._watch.restore(blobs, rings)
            panel._watch.fresh = before is spec
            return panel
        try:
            old = Watch(before, panel.baseline)
        except ValueError as error:
            raise StateError(f"checkpoint: blob {SPEC_BLOB}: {error}") from error
        old.restore(blobs, rings)
        panel._ended = carry(old, panel._watch, reasons or {})
        panel._dropped = sorted({name for name in (*blobs, *rings) if name.startswith(_BY_SCOPE)} - _names_by_scope(panel._watch))
        return panel

    def _restore_learning(self, blobs: Mapping[str, bytes]) -> None:
        """Rows to learn from are rows: series, windows and detectors may be others, as if they had always been so."""
        before = read_spec(blobs.get(SPEC_BLOB), self._spec, None)
        lacking = _lacking(before, self._spec)
        if lacking:
            raise StateError(f"checkpoint: the rows learned so far have no {lacking}")
        # An edited specification is written anew with the next export.
        self._fresh = before is self._spec or describe(before, None) != describe(self._spec, None)
        while (name := learn_blob(self._chunks_exported)) in blobs:
            for chunk in unpack_learned(blobs[name]):
                self._builder.add(chunk)
                self.learned += chunk.n
            self._chunks_exported += 1
        self._builder.take_new_chunks()


def _names_by_scope(watch: Watch) -> set[str]:
    """The blobs and rings of its scopes."""
    names = {name_of(scope) for scope in range(len(watch.scopes.names)) for name_of in (scope_blob, ring_name)}
    return names | ({TRAFFIC_RING} if watch.traffic is not None else set())


def _baseline(blobs: Mapping[str, bytes]) -> Baseline:
    try:
        return Baseline.from_json(blobs[BASELINE_BLOB], place="checkpoint")
    except ValueError as error:
        raise StateError(f"checkpoint: baseline: {error}") from error


def _lacking(before: PanelSpec, now: PanelSpec) -> str:
    """What cannot be learned from rows that were taken under another specification; empty = nothing."""
    known = None if before.columns is None else {(column.name, column.kind, column.tails) for column in before.columns}
    for column in now.columns or ():
        if known is not None and (column.name, column.kind, column.tails) not in known:
            return f'{column.kind} column "{column.name}"'
    return next((f'segment "{key}"' for key in now.segments if key not in before.segments), "")
