"""Series with an open episode, tested against what they have been since: a second change still shows (`kernels/post_change.py`).

A monitor whose alarm is in an open episode is *followed*: the values after the alarm are a reference of their own, and once that is
learned the monitor bets on ranks in it, with the tolerance and the part of the budget that it has. Another alarm is a further change of
the episode; what came before it is forgotten and learned anew. When the episode ends the monitor begins anew against the baseline.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.conformal import BINS
from driftline.detectors.kernels.e_detector import EDetectorBank
from driftline.detectors.kernels.post_change import (
    EDGE_VALUES,
    LEARN_VALUES,
    RATE,
    RAW,
    SCORE,
    Followed,
    begin,
    bet_on_rate,
    new_followed,
)
from driftline.detectors.kernels.shares import bet_again
from driftline.detectors.layout import Layout
from driftline.detectors.panel_scores import PanelScores
from driftline.detectors.spec import N_CODES, Float64, Int64
from driftline.detectors.tables import Tables

HELD_TIMES: Final = 16
"""A level that was judged for so many times the values it was learned from has held: after the next change as few are learned from as
after the first. Else twice as many: of a level that goes on moving the list of its changes must not become endless."""
LEARN_MOST: Final = 32 * LEARN_VALUES
"""Of a series that never comes to rest: what it does next is still seen."""
_LEARNS: Final = frozenset(LEARN_VALUES << k for k in range(6))
_CHANGES_MOST: Final = 2**31 - 2
_FIELDS: Final = 6
_MOST: Final = 2**53

Bet = tuple[Float64, Float64]


class Kept(NamedTuple):
    """The references of a scope, as arrays for a checkpoint."""

    whole: Int64  # (K, 6) place among the scope's monitors, learn, taken, judged, changes, counting
    share: Float64  # (K,)
    room: Float64  # values that are gathered, or edges, one reference after another
    counts: Int64
    codes: Int64  # (K, N_CODES)


TYPES: Final = ("<i8", "<f8", "<f8", "<i8", "<i8")


class PostChange:
    """Which monitors of a bank are followed.

    Parameters
    ----------
    members : the budgeted series, by their place among all.
    """

    def __init__(self, layout: Layout, tables: Tables, scores: PanelScores, members: list[int], bank: EDetectorBank) -> None:
        self._layout, self._tables, self._scores, self._bank = layout, tables, scores, bank
        self._members, self._n = members, len(members)
        self._slots = [0] + [slot for slot, values in enumerate(layout.segments.values(), 1) for _ in range(len(values) + 1)]
        self._used = 0
        self._against_baseline: dict[int, Bet] = {}

    @property
    def monitors(self) -> Int64:
        """Those that are followed."""
        return self._f.monitor[: self._used]

    @property
    def judged(self) -> Int64:
        """Values of each of them that were judged since its last change."""
        return self._f.judged[: self._used]

    @property
    def _f(self) -> Followed:
        return self._bank.followed

    def follows(self, monitor: int) -> bool:
        """Whether a monitor is judged against what came since its change, or that is learned."""
        return bool(self._f.place[monitor] >= 0)

    def changes(self, monitor: int) -> int:
        """Changes of the episode of a monitor that is followed."""
        return int(self._f.changes[self._f.place[monitor]])

    def taken(self, monitor: int) -> int:
        """Values since the last change of a monitor that is followed."""
        return int(self._f.taken[self._f.place[monitor]])

    def codes(self, monitor: int) -> Int64:
        """The values that a reference has taken, by their code in the baseline; (N_CODES,)."""
        codes: Int64 = self._f.codes[self._f.place[monitor]].copy()
        return codes

    def follow(self, monitor: int, changes: int = 1) -> None:
        """Learn a reference from the next value on, in an episode of so many changes."""
        k = self._add(monitor)
        self._f.changes[k] = changes
        self._bank.begin_anew(monitor)

    def change_again(self, monitor: int) -> None:
        """Learn anew, after a further change."""
        k, f = int(self._f.place[monitor]), self._f
        held = f.judged[k] >= HELD_TIMES * f.learn[k]
        f.learn[k] = LEARN_VALUES if held else min(2 * int(f.learn[k]), LEARN_MOST)
        f.changes[k] += 1
        begin(k, f)
        self._bank.begin_anew(monitor)

    def release(self, monitor: int) -> None:
        """Judge a monitor against the baseline again, without what was gathered against anything else."""
        f, k, last = self._f, int(self._f.place[monitor]), self._used - 1
        line, unit = self._against_baseline.pop(monitor)
        self._bank.bets.line[monitor], self._bank.bets.unit[monitor] = line, unit
        if k != last:
            for array in f[1:]:
                array[k] = array[last]
            f.place[f.monitor[k]] = k
        f.place[monitor] = -1
        self._used = last
        self._bank.begin_anew(monitor)

    def bet_against_baseline(self) -> None:
        """Give every monitor the bets that it has against the baseline: for a comparison, after which no value comes."""
        for monitor, (line, unit) in self._against_baseline.items():
            self._bank.bets.line[monitor], self._bank.bets.unit[monitor] = line, unit

    def take(self, monitor: int, other: PostChange, from_monitor: int) -> None:
        """Go on with what another panel over the same baseline has learned, by a monitor that bets on the same."""
        k, was = self._add(monitor), int(other._f.place[from_monitor])
        for name in ("learn", "taken", "judged", "changes", "counting", "share", "room", "counts", "codes"):
            getattr(self._f, name)[k] = getattr(other._f, name)[was]
        self._bet(k)

    def keep(self, first: int, last: int) -> Kept | None:
        """What is learned of the monitors from `first` to before `last`; None = none of them is followed."""
        f, own = self._f, np.flatnonzero((self.monitors >= first) & (self.monitors < last))
        if not len(own):
            return None
        own = own[np.argsort(self.monitors[own])]
        whole = np.stack([f.monitor[own] - first, f.learn[own], f.taken[own], f.judged[own], f.changes[own], f.counting[own]], axis=1)
        rooms = [f.room[k, : self._room_of(int(f.form[k]), int(f.counting[k]), int(f.taken[k]))] for k in own.tolist()]
        counts = [f.counts[k, : _counts_of(int(f.form[k]), int(f.counting[k]))] for k in own.tolist()]
        return Kept(whole.astype(np.int64), f.share[own], np.concatenate(rooms), np.concatenate(counts), f.codes[own])

    def restore(self, first: int, kept: Kept) -> None:
        """Go on from `keep`.

        Raises
        ------
        ValueError : numbers that no values lead to.
        """
        whole = kept.whole.reshape(-1, _FIELDS)
        codes = kept.codes.reshape(-1, N_CODES)
        if len(codes) != len(whole) or len(kept.share) != len(whole) or len(np.unique(whole[:, 0])) != len(whole):
            raise ValueError("references since a change that do not fit each other")
        room_at = counts_at = 0
        for own, share, by_code in zip(whole.tolist(), kept.share.tolist(), codes, strict=True):
            local, learn, taken, judged, changes, counting = own
            if not 0 <= local < self._n or not self._scores.monitors.active[first // self._n, local]:
                raise ValueError("a reference since a change of a series that is not watched")
            k, f = self._add(first + local), self._f
            form = int(f.form[k])
            held, counted = self._room_of(form, counting, taken), _counts_of(form, counting)
            room, counts = kept.room[room_at : room_at + held], kept.counts[counts_at : counts_at + counted]
            room_at, counts_at = room_at + held, counts_at + counted
            sizes = len(room) == held and len(counts) == counted and held <= EDGE_VALUES
            numbers = min(own) >= 0 and judged <= taken <= _MOST and 1 <= changes <= _CHANGES_MOST and counting <= 1
            numbers &= learn in _LEARNS
            if not (sizes and numbers and _sound(form, counting, taken, share, room, counts, by_code)):
                raise ValueError("a reference since a change that no values lead to")
            f.learn[k], f.taken[k], f.judged[k], f.changes[k], f.counting[k], f.share[k] = learn, taken, judged, changes, counting, share
            f.room[k, :held], f.counts[k, :counted], f.codes[k] = room, counts, by_code
            self._bet(k)
            if (place := int(self._bank.state.shares.place[first + local])) >= 0:
                # They were read as if they were bet on given the value before.
                bet_again(place, False, self._bank.state.shares)
        if room_at != len(kept.room) or counts_at != len(kept.counts):
            raise ValueError("references since a change that do not fit each other")

    def _room_of(self, form: int, counting: int, taken: int) -> int:
        if form == RATE:
            return 0
        return BINS - 1 if counting else taken

    def _bet(self, k: int) -> None:
        if self._f.form[k] == RATE and self._f.counting[k]:
            bet_on_rate(k, self._f, self._bank.bets)

    def _add(self, monitor: int) -> int:
        """A place for a monitor's reference, with nothing in it."""
        if self._used == len(self._f.monitor):
            wider = new_followed(self._bank.n_monitors, max(4, 2 * self._used))
            pairs: Any = zip(wider, self._f, strict=True)
            for array, held in pairs:
                array[: len(held)] = held
            self._bank.followed = wider
        f, k = self._f, self._used
        scope, place = divmod(monitor, self._n)
        q = self._members[place]
        series, c = self._layout.series[q], self._layout.column_of[q]
        plain = self._layout.columns[c].kind == "numeric" and self._scores.monitors.whitened[scope, place] < 0
        form = RATE if series.flag is not None else RAW if plain and (scope, c) not in self._layout.season else SCORE
        f.place[monitor], f.monitor[k], f.column[k], f.form[k] = k, monitor, c, form
        # All rows come first, then the value of each segment key.
        f.slot[k] = self._slots[scope]
        f.own[k] = self._scores.monitors.own[scope, place]
        f.warning[k] = series.warning, series.rate_floor
        f.learn[k], f.changes[k] = LEARN_VALUES, 1
        begin(k, f)
        self._used += 1
        self._against_baseline[monitor] = self._bank.bets.line[monitor].copy(), self._bank.bets.unit[monitor].copy()
        return k


def _counts_of(form: int, counting: int) -> int:
    return 0 if not counting else 2 if form == RATE else BINS


def _sound(form: int, counting: int, taken: int, share: float, room: Float64, counts: Int64, codes: Int64) -> bool:
    """Whether values lead to a reference."""
    # Each by itself first: sums of what no values lead to could wrap.
    if any(array.min(initial=0) < 0 or array.max(initial=0) > taken for array in (counts, codes)):
        return False
    if int(codes.sum()) != taken or int(counts.sum()) > taken:
        return False
    if form != RATE:
        whole = _rise(room) and int(counts.sum()) == taken - EDGE_VALUES if counting else taken < EDGE_VALUES
        return share == 0.0 and not np.isnan(room).any() and whole
    least = 0.5 / (taken + 1)
    return least <= share <= 1.0 - least if counting else 0.0 <= share <= taken


def _rise(edges: Float64) -> bool:
    """Whether edges increase up to the infinities that fill their room."""
    finite: NDArray[Any] = edges[edges < np.inf]
    return bool((finite[1:] > finite[:-1]).all()) and bool((edges[len(finite) :] == np.inf).all())
