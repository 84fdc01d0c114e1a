"""The part of a panel that a budget of false alarms covers: e-detectors on scores of the frozen reference.

Each (scope, series) with an ``e_detector`` is a monitor. Values become scores (`panel_scores.py`), flags stay zeros and ones.
All monitors of the panel share its budget and one sum of evidence (`kernels.e_detector`).

Half of the budget goes to the scope of all rows, half to the segments, each key alike and each of its values alike; all of
it to the segments where another panel watches all rows; within a scope every series alike. The reference is frozen, so what
counts as nothing reaches at least two of its standard errors: a scope of m reference values tolerates the larger of the
series' warning level and 4 / sqrt(m): among a thousand monitors some reference is three errors off, and two would leave
one in twenty with a change that is none. Where residuals are judged, the warning level is what a shift of the values by so
much is to them; their reference's error is 1 / sqrt(m) as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from driftline.detectors.budget_bank import bank_of
from driftline.detectors.episodes import E_BITS, E_OPEN, OPEN
from driftline.detectors.kernels.bank import Alarms, pack, unpack, version_of
from driftline.detectors.kernels.bets import SCORES, WORTHS
from driftline.detectors.kernels.e_detector import HEARD
from driftline.detectors.kernels.post_change import Rows
from driftline.detectors.kernels.shares import SHARE_TYPES, restore_shares, share_arrays
from driftline.detectors.layout import Layout
from driftline.detectors.panel_scores import PanelScores
from driftline.detectors.post_change import TYPES, Kept, PostChange
from driftline.detectors.spec import Float64, Int32, Int64, PanelBudget, PanelRows, Suspended, UInt8
from driftline.detectors.tables import Tables
from driftline.detectors.tolerances import scope_shares
from driftline.detectors.window_dates import BY_BINS, BY_SPREAD, DATED
from driftline.detectors.windows import CHANGE

_MAGIC = b"DBUD"
_VERSION = 4
_WITHOUT_SHARES = 3
"""The version before, which a scope without bets on categories still has: an older release reads it."""
_NONE_FOLLOWED = 2
"""The version before that, which a scope without these and without an open episode still has."""
_WITHOUT_SCORES = 1
"""The version before that: its baselines know of no memory, so no score needs more than its row."""
_MOST: Final = 2.0**53
_WAITING: Final = 5
"""Fields of an alarm that waits: of `_Alarm`, from `total` on."""
_WITHOUT_INTERVAL: Final = 3
"""Those of them that an older release kept."""


class _Batch(NamedTuple):
    """The rows that are gone through; `scores` are against the baseline."""

    scopes: Int32
    scores: Float64
    monitors: Int32
    clock: Int64
    rows: Rows


class _Alarm(NamedTuple):
    """A blamed monitor; `row` of the batch, -1 = of one before it. `earliest`, `latest`: ends of the interval of `back`, 0 = none."""

    row: int
    monitor: int
    total: float
    back: float
    direction: float
    earliest: float
    latest: float


class BudgetedSeries:
    """The e-detectors of a panel.

    Parameters
    ----------
    budget : of the panel.
    whole : whether the scope of all rows is watched.
    """

    def __init__(self, budget: PanelBudget, layout: Layout, tables: Tables, *, whole: bool = True) -> None:
        self._budget, self._layout, self._tables = budget, layout, tables
        self._series = np.flatnonzero(tables.budgeted >= 0)
        n_scopes, n = len(layout.counts), len(self._series)
        self._n = n
        self._place = {int(q): k for k, q in enumerate(self._series)}
        self._scores = PanelScores(layout, tables, self._series)
        columns = tables.series_column.tolist()
        self._by_hour = frozenset((s, q) for s, c in layout.season for q in self._place if columns[q] == c and tables.is_value[q])
        # Alarms that wait for a row of their scope, from their total on; total 0 = none.
        self._waiting = np.zeros((n_scopes * n, _WAITING))
        self._bank = bank_of(budget, layout, tables, self._series.tolist(), self._scores, scope_shares(layout.segments, whole=whole))
        self.post_change = PostChange(layout, tables, self._scores, self._series.tolist(), self._bank)
        self._batch: _Batch

    def take(self, codes: UInt8, matched: UInt8, values: Float64, scopes: Int32, rows: PanelRows, clock: Int64) -> None:
        """Take the rows of a batch, which `advance` then goes through; `matched` are the codes that windows have (`matched.py`)."""
        scores, monitors = self._scores.update(codes, values, scopes, rows)
        own = Rows(matched, values, self._scores.keys, self._scores.changes)
        self._batch = _Batch(scopes, scores, monitors, np.ascontiguousarray(clock, np.int64), own)

    def advance(self, first: int, last: int) -> tuple[Alarms, Int64, int]:
        """Go on from row `first` to before `last`, or to the first row with an alarm.

        Returns
        -------
        Alarms of dtype CHANGE by row and falling evidence, all of them on the last row that was taken; the scopes whose state an
        alarm has changed; and the row after that.
        """
        batch = self._batch
        waiting = np.flatnonzero(self._waiting[:, 0]).tolist()
        due = {monitor: self._row_of(monitor, first) for monitor in waiting}
        last = min([last, *(row + 1 for row in due.values())])
        blames, stop = self._bank.update_to_alarm(batch.scores, batch.monitors, batch.clock, batch.rows, first, last)
        alarms = [_Alarm(-1, monitor, *self._waiting[monitor].tolist()) for monitor in waiting if due[monitor] < stop]
        self._waiting[[alarm.monitor for alarm in alarms]] = 0.0
        for blame in blames[(blames["rank"] == 0) | (blames["evidence"] >= HEARD)]:
            alarm = self._alarm(blame)
            if self._row_of(alarm.monitor, alarm.row) == alarm.row:
                alarms.append(alarm)
            else:
                self._waiting[alarm.monitor] = alarm[-_WAITING:]
        told = [self._told(alarm, stop - 1) for alarm in alarms]
        touched: Int64 = np.unique(blames["monitor"] // max(self._n, 1)).astype(np.int64)
        return np.array(told, CHANGE) if told else np.zeros(0, CHANGE), touched, stop

    def _row_of(self, monitor: int, first: int) -> int:
        """The first row from `first` on that a monitor's scope has; the number of rows where there is none."""
        scopes, scope = self._batch.scopes, monitor // self._n
        if first < len(scopes) and bool((scopes[first] == scope).any()):
            return first
        own = np.flatnonzero((scopes[first:] == scope).any(axis=1))
        return first + int(own[0]) if len(own) else len(scopes)

    def heard(self, alarms: Alarms, episodes: Int64) -> None:
        """Follow, from the next row on, the series whose alarms of `advance` are in open episodes, now that the windows have them."""
        self.settle(episodes)
        for scope, q in zip(alarms["scope"].tolist(), alarms["series"].tolist(), strict=True):
            monitor = scope * self._n + self._place[q]
            if self.post_change.follows(monitor):
                self.post_change.change_again(monitor)
            elif self._speaks_in(episodes, scope, q):
                self.post_change.follow(monitor)

    def settle(self, episodes: Int64) -> set[int]:
        """Judge series whose episodes have ended against the baseline again; the scopes whose state has changed by that."""
        monitors = self.post_change.monitors
        ended = episodes[monitors // max(self._n, 1), self._series[monitors % max(self._n, 1)], E_OPEN] != OPEN
        changed = monitors[ended].tolist()
        for monitor in changed:
            self.post_change.release(monitor)
            self._waiting[monitor] = 0.0
        return self._written(changed)

    def pick_up(self, episodes: Int64) -> set[int]:
        """Follow the series of open episodes that are not followed yet: their state is of a release that did not, or began anew.

        Returns the scopes whose state has changed by that.
        """
        changed = []
        for scope, q in np.argwhere(episodes[:, :, E_OPEN] == OPEN).tolist():
            monitor = scope * self._n + self._place.get(q, 0)
            if q in self._place and self._speaks_in(episodes, scope, q) and not self.post_change.follows(monitor):
                self.post_change.follow(monitor)
                self._waiting[monitor] = 0.0
                changed.append(monitor)
        return self._written(changed)

    def _written(self, monitors: Sequence[int]) -> set[int]:
        """The scopes that must be written for these monitors: their own, and the first, which has the sum over all."""
        return {0, *(monitor // self._n for monitor in monitors)} if monitors else set()

    def _speaks_in(self, episodes: Int64, scope: int, q: int) -> bool:
        """Whether an alarm of a series' e-detector is in its open episode, and its later values can be a reference.

        A block's worths are of what its witness has learned; and what goes by the hour is not exchangeable with the thousand values of
        the hours after a change.
        """
        episode = episodes[scope, q]
        speaks = bool(episode[E_OPEN] == OPEN and episode[E_BITS] >> int(self._tables.budgeted[q]) & 1)
        return speaks and (scope, q) not in self._by_hour and int(self._bank.form[self._place[q]]) != WORTHS

    def followed(self) -> tuple[Int64, Int64]:
        """Scopes and series that are judged against what came since a change, or that is learned."""
        monitors = self.post_change.monitors
        return monitors // max(self._n, 1), self._series[monitors % max(self._n, 1)]

    def codes_before(self, scope: int, q: int) -> Int64:
        """The values of a series that is followed, since its last change, by their code; (N_CODES,)."""
        return self.post_change.codes(scope * self._n + self._place[q])

    def _alarm(self, blame: Any) -> _Alarm:
        """A blame with its date in values of the series: a suspended one is judged by some of them."""
        row, monitor = int(blame["row"]), int(blame["monitor"])
        found = self._scores.suspended(monitor // self._n, monitor % self._n, row)
        one_in = 1 if found is None else found.one_in
        back, earliest, latest = (float(blame[name]) * one_in for name in ("back", "earliest", "latest"))
        return _Alarm(row, monitor, float(blame["total"]), back, float(blame["direction"]), earliest, latest)

    def suspended(self, scope: int, q: int, row: int) -> Suspended | None:
        """Whether and why the promise does not cover a series at a row of the last batch; None also for one it never covers."""
        k = self._place.get(q)
        return None if k is None else self._scores.suspended(scope, k, row)

    def partly_judged(self, scope: int, q: int, row: int) -> bool:
        """Whether but some of a series' values are judged at a row of the last batch."""
        k = self._place.get(q)
        return k is not None and (self._scores.in_runs(scope, k) or self._scores.suspended(scope, k, row) is not None)

    def suspended_series(self) -> int:
        """Monitors that the promise does not cover now."""
        return self._scores.suspended_series()

    def values_judged(self) -> tuple[int, int]:
        """Values of all monitors, and those of them that came during a suspension."""
        checks = self._scores.checks
        return int(checks.values.sum()), int(checks.suspended.sum())

    def _told(self, alarm: _Alarm, at: int) -> tuple[float, ...]:
        """The alarm as a CHANGE at the first row from its own on that its scope has.

        The row at which the evidence of all monitors reached 1 may be another scope's, and an episode can only open at a
        row of its own. A monitor has no second alarm before that: it has no values.
        """
        batch, scope, q = self._batch, alarm.monitor // self._n, int(self._series[alarm.monitor % self._n])
        own = batch.scores[at][batch.monitors[at] == alarm.monitor]
        # Of the rows after the alarm's only this one is its scope's, with a value of the monitor or without.
        later = int(at > alarm.row and bool(np.isfinite(own).any()))
        followed = self.post_change.follows(alarm.monitor)
        again = self.post_change.changes(alarm.monitor) + 1 if followed else 0
        worth = self._worth_one(scope, q)
        dates = {"back": alarm.back, "earliest": alarm.earliest, "latest": alarm.latest}
        dates = {name: int(back) + later if back else 0 for name, back in dates.items()}
        fields = {
            "row": at, "scope": scope, "series": q, "detector": int(self._tables.budgeted[q]), "direction": int(alarm.direction),
            "statistic": alarm.total, "threshold": 1.0, "again": again, **dates,
            "dated": self._dated(alarm, worth), "worth_one": worth, "within": self.post_change.taken(alarm.monitor) if followed else 0,
        }  # fmt: skip
        return tuple(fields[name] for name in CHANGE.names or ())

    def _worth_one(self, scope: int, q: int) -> float:
        """How many values in a row are worth one independent one where the window dates a change; 0 = it shows no interval."""
        c = int(self._tables.series_column[q])
        # Shares that go by the hour change every day, so that the window's values say nothing of when they did so for good.
        if (scope, c) in self._layout.season and self._layout.references[c].kind == "categorical":
            return 0.0
        return self._layout.worth_one(scope, c, self._layout.series[q].window)

    def _dated(self, alarm: _Alarm, worth: float) -> int:
        """How the change is dated that an alarm is about: bins have no mean, and where the spread changed the mean shows nothing."""
        if self._bank.state.shares.place[alarm.monitor] >= 0:
            return BY_BINS
        spread = alarm.direction == 0.0 and int(self._bank.form[alarm.monitor]) == SCORES
        # Of values that depend on each other the window shows the wandering of their level; the bet has seen their residuals.
        return BY_SPREAD if spread and worth == 1.0 else DATED

    def clock(self, first_row: int, rows: int, clock_ms: Int64 | None) -> Int64:
        """The clock of the budget at each row of a batch."""
        if self._budget.by_rows:
            return np.arange(first_row, first_row + rows, dtype=np.int64)
        if clock_ms is None:
            raise ValueError("expected the time at each row: the panel has a budget by time")
        return clock_ms

    def statistics(self, scope: int) -> dict[int, list[tuple[float, float]]]:
        """Evidence and its limit of each series of a scope."""
        own = self._bank.state.evidence[scope * self._n : (scope + 1) * self._n].tolist()
        return {int(q): [(evidence, 1.0)] for q, evidence in zip(self._series, own, strict=True)}

    def carry(self, other: BudgetedSeries, scopes: Sequence[tuple[int, int]], series: Mapping[int, int], episodes: Int64) -> None:
        """Go on with the e-detectors of another panel that bet on the same, under this panel's budget; the rest begin anew.

        A budget by events has another clock than one by time: after that edit all begin anew.

        Parameters
        ----------
        scopes : this panel's and the other's, in pairs.
        series : this panel's to the other's.
        episodes : as this panel has them.
        """
        if self._budget.by_rows != other._budget.by_rows:
            self.pick_up(episodes)
            return
        other.post_change.bet_against_baseline()
        there = other._place
        for k, q in enumerate(self._series.tolist()):
            from_k = there.get(series.get(q, -1))
            if from_k is None:
                continue
            for scope, from_scope in scopes:
                mine, theirs = scope * self._n + k, from_scope * other._n + from_k
                self._scores.take(scope, k, other._scores, from_scope, from_k)
                followed, goes_on = other.post_change.follows(theirs), self._speaks_in(episodes, scope, q)
                if followed and not goes_on:
                    # What was gathered is against the level since a change of an episode that ends with the edit.
                    continue
                if self._scores.monitors.active[scope, k] and self._bank.take(mine, other._bank, theirs):
                    self._waiting[mine] = other._waiting[theirs]
                    if followed:
                        self.post_change.take(mine, other.post_change, theirs)
                elif followed and self._scores.monitors.active[scope, k]:
                    # It bets on something else now, and the episode goes on counting its changes.
                    self.post_change.follow(mine, changes=other.post_change.changes(theirs))
                    self._waiting[mine] = 0.0
        self._bank.take_sums(other._bank)
        self.pick_up(episodes)

    def export(self, scope: int) -> bytes:
        """The state of one scope; that of the first has the sum over all."""
        first, last = scope * self._n, (scope + 1) * self._n
        bank = np.frombuffer(self._bank.export_part(first, last), np.uint8)
        scores = np.frombuffer(self._scores.export(scope), np.uint8)
        kept = self.post_change.keep(first, last)
        shares = share_arrays(self._bank.state.shares, first, last)
        if len(shares[0]):
            none = [np.zeros(0, dtype) for dtype in TYPES]
            return pack(_MAGIC, _VERSION, self._n, [bank, self._waiting[first:last], scores, *shares, *(kept or none)])
        if kept is None:
            return pack(_MAGIC, _NONE_FOLLOWED, self._n, [bank, self._waiting[first:last], scores])
        return pack(_MAGIC, _WITHOUT_SHARES, self._n, [bank, self._waiting[first:last], scores, *kept])

    def restore(self, scope: int, blob: bytes) -> None:
        """Go on from `export`; once all scopes are restored, `check`.

        Raises
        ------
        ValueError : damaged, or of another number of series.
        """
        first, last = scope * self._n, (scope + 1) * self._n
        kept: Kept | None = None
        types, lengths = ["u1", "<f8"], [None, None]
        if version_of(blob) == _WITHOUT_SCORES:
            bank, waiting = unpack(blob, _MAGIC, _WITHOUT_SCORES, self._n, types, [*lengths])
        elif version_of(blob) == _NONE_FOLLOWED:
            bank, waiting, scores = unpack(blob, _MAGIC, _NONE_FOLLOWED, self._n, [*types, "u1"], [*lengths, None])
            self._scores.restore(scope, scores.tobytes())
        else:
            # Before there were bets on bins: the others go on, and these begin.
            by_bin = () if version_of(blob) == _WITHOUT_SHARES else SHARE_TYPES
            version, own = version_of(blob) if not by_bin else _VERSION, [*types, "u1", *by_bin, *TYPES]
            bank, waiting, scores, *found = unpack(blob, _MAGIC, version, self._n, own, [*lengths, *[None] * (len(own) - 2)])
            self._scores.restore(scope, scores.tobytes())
            if by_bin:
                restore_shares(self._bank.state.shares, first, last, found[: len(by_bin)])
            kept = Kept(*found[len(by_bin) :])
        alarms = _alarms_of(waiting, self._n)
        if kept is not None:
            # It says what a followed rate bets against, which an older release's sums are less the tolerance of.
            self.post_change.restore(first, kept)
        self._bank.restore_part(first, last, bank.tobytes(), sums=scope == 0)
        self._waiting[first:last] = alarms

    def check(self) -> None:
        """Hold what the scopes have against the sum over all.

        Raises
        ------
        ValueError : they are of different moments.
        """
        self._bank.check_sums()


def _alarms_of(waiting: Float64, n: int) -> Float64:
    """Alarms that wait, (n, `_WAITING`); those of an older release have no interval.

    Raises
    ------
    ValueError : damaged.
    """
    out: Float64 = np.zeros((n, _WAITING))
    if len(waiting) not in (n * _WAITING, n * _WITHOUT_INTERVAL):
        raise ValueError(f"damaged state of DBUD: {len(waiting)} figures of the alarms of {n} series")
    held = waiting.reshape(n, -1) if n else out
    counts, sides = np.delete(held, 2, axis=1), held[:, 2]
    if not (np.all((counts >= 0.0) & (counts <= _MOST)) and np.all(np.abs(sides) <= 1.0)):
        raise ValueError("damaged state of DBUD: an alarm that no values lead to")
    out[:, : held.shape[1]] = held
    return out
