"""A budget of false alarms over many monitors: mixture Shiryaev-Roberts e-detectors that spend it.

Each monitor m holds evidence R_k against "nothing changed" for several alternatives k. With every value

    w = the budget that came in for the monitor since its last value,    R_k <- (R_k + w) L_k,    E_m = sum_k pi_k R_k

and the model alarms at the end of a row at which the sum of all E_m reaches 1. The monitors with the largest E_m that
together reach 1 are blamed and have spent their evidence, the others keep what they have. While E[L_k | past] <= 1, the number of alarms
plus sum E_m less the budget that came in is a supermartingale from 0. So the mean number of false alarms up to any time
is at most the budget up to then, whatever the dependence between monitors, their rates, and when they come and go (Shin,
Ramdas and Rinaldo 2023, arXiv 2203.03532, theorem 2.4, with the budget in the recursion instead of the threshold). The
sum is looked at where a row ends: within a row the values of dependent monitors tell of each other. What the bets are: `bets`.

A monitor that was blamed and heard may rest for a number of rows: nothing comes in for it and nothing is bet. Less budget keeps
the promise. Without a rest a change that lasts raises an alarm every few rows, and each of them takes what other monitors have
gathered to reach 1: the second drift would be found later, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors.kernels.bank import (
    BUFFER_ALARMS,
    Float64Array,
    Int32Array,
    Int64Array,
    UInt8Array,
    pack,
    per_monitor,
    unpack,
    version_of,
)
from driftline.detectors.kernels.bets import BETS, BOUNDED_BETS, FIRST_SPREAD, SCORES, SPREAD_BETS, Bets, bets_of, score_factors
from driftline.detectors.kernels.blame import BLAME, Blames
from driftline.detectors.kernels.e_detector_state import OWN, STATE_TYPES, State, begin_anew, inflow_of, new_state, restart, spend, sum_of
from driftline.detectors.kernels.focus import INTERVAL_DEPTH, Before, focus_date
from driftline.detectors.kernels.hulls import HULL_TYPES, hull_arrays, hull_push, hulls_of, restore_hulls
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.post_change import Followed, Rows, follow, new_followed, no_rows
from driftline.detectors.kernels.shares import Bins, draw_push, new_shares, share_push, take_shares

HEARD: Final = 0.25
"""Evidence from which a monitor that is blamed beside the first is heard: where one drift lasts, its alarms come every few
rows, and what else has gathered a little is no part of them."""
SHARES_BET: Final = BETS
"""In a record of blame: the monitor bets on bins, and which ones values lie in has changed."""
_REFRESH_ROWS: Final = 1 << 16
"""Rows after which the sum over monitors is taken anew, against rounding; a count of the state, so cuts do not show."""
_PEAK_MOST: Final = 1e300
_COUNT_MOST: Final = 2**53
_ROUNDING: Final = 1e-6
_MAGIC = b"DEDT"
_VERSION = 2
_LESS_TOLERANCE = 1
"""The version whose corners were of sums less the tolerance of each value."""

@inlined
def _staked(m: int, k: int, factor: float, inflow: float, bets: Bets, st: State) -> float:
    """Let a bet take its factor; what it adds to the evidence."""
    weight: float = bets.weights[m, k]
    # A bet without weight is not made: on a change to the side that is not watched its stake would grow to infinity,
    # and nothing times that is no number.
    stake: float = (st.stakes[m, k] + inflow) * factor if weight > 0.0 else 0.0
    st.stakes[m, k] = stake
    return weight * stake


@inlined
def _push_evidence(m: int, x: float, change: int, inflow: float, form: int, bets: Bets, st: State, factors: Float64Array) -> float:
    """One value of one monitor, a draw where `change` is not negative; its evidence."""
    place = st.shares.place[m]
    if place >= 0:
        return share_push(place, x, inflow, st.shares) if change < 0 else draw_push(place, change, inflow, st.shares)
    evidence = 0.0
    if form == SCORES:
        score_factors(x, bets.shift[m], bets.spread[m], factors)
        for k in range(SPREAD_BETS):
            peak = st.peaks[m, k]
            if peak <= 1.0:
                peak = 1.0
                st.starts[m, k] = st.seen[m] - 1
            st.peaks[m, k] = min(peak * factors[FIRST_SPREAD + k], _PEAK_MOST)
        for k in range(BETS):
            evidence += _staked(m, k, factors[k], inflow, bets, st)
    else:
        for k in range(BOUNDED_BETS):
            evidence += _staked(m, k, bets.line[m, 0, k] + bets.line[m, 1, k] * x, inflow, bets, st)
    return evidence


@inlined
def _blame(row: int, total: float, pause: Int64Array, bets: Bets, st: State, out: Blames, written: int) -> int:
    """Write and clear the smallest set of monitors whose evidence reaches 1; those that are heard rest."""
    held, rank = 0.0, 0
    while held < 1.0 and rank < st.evidence.shape[0]:
        worst = 0
        for m in range(1, st.evidence.shape[0]):
            if st.evidence[m] > st.evidence[worst]:
                worst = m
        if st.evidence[worst] <= 0.0:
            break
        blame = out[written]
        blame["row"] = row
        blame["monitor"] = worst
        blame["rank"] = rank
        blame["evidence"] = st.evidence[worst]
        blame["total"] = total
        _explain(worst, bets, st, blame)
        held += st.evidence[worst]
        if rank == 0 or st.evidence[worst] >= HEARD:
            st.rest[worst] = pause[worst]
            restart(worst, st)
        else:
            # Its own alarm is still to come, and is to be dated by all its values.
            spend(worst, st)
        written += 1
        rank += 1
    return written


@inlined
def _explain(m: int, bets: Bets, st: State, blame: Any) -> None:
    """Write what a monitor's evidence is for, and since when."""
    bet, direction, back, earliest, latest, shift = SHARES_BET, 0, 0, 0, 0, 0.0
    # Bins have no side, nor a mean to date a change by.
    if st.shares.place[m] < 0:
        bet = 0
        for k in range(1, BETS):
            if bets.weights[m, k] * st.stakes[m, k] > bets.weights[m, bet] * st.stakes[m, bet]:
                bet = k
        direction = bets.directions[m, bet]
        tolerated = Before(bets.unit[m, 2], bets.unit[m, 3], bets.unit[m, 0], 1.0 / bets.unit[m, 1])
        # Of the side that is blamed: what lay on the other for long, unheard, may have more evidence.
        _, back, earliest, latest, shift = focus_date(m, tolerated, INTERVAL_DEPTH, st.hulls, 0 + int(direction))
        if direction == 0:
            back, earliest, latest = st.seen[m] - st.starts[m, bet - FIRST_SPREAD], 0, 0
    blame["bet"] = bet
    blame["direction"] = direction
    blame["back"] = back
    blame["earliest"] = earliest
    blame["latest"] = latest
    blame["shift"] = shift


@kernel
def _update(
    values: Float64Array, monitors: Int32Array, clock: Int64Array, form: UInt8Array, rate: Float64Array, pause: Int64Array, bets: Bets,
    cap: float, first: float, st: State, factors: Float64Array, followed: Followed, rows: Rows, out: Blames, row: int,
) -> tuple[int, int]:  # fmt: skip
    """From a row until the batch ends or `out` may not hold another alarm; records written and where it stopped."""
    written = 0
    for i in range(row, values.shape[0]):
        if written + st.evidence.shape[0] > out.shape[0]:
            return written, i
        for w in range(values.shape[1]):
            m = monitors[i, w]
            x = values[i, w]
            if m < 0:
                continue
            k = followed.place[m]
            if k >= 0:
                x = follow(k, i, x, followed, rows, bets)
            if st.rest[m] > 0:
                st.rest[m] -= 1
                st.last[m] = clock[i]
                continue
            if not np.isfinite(x):
                if x == np.inf:
                    st.sums[0] -= st.evidence[m]
                    restart(m, st)
                elif x == -np.inf:
                    st.last[m] = clock[i]
                continue
            inflow = inflow_of(m, clock[i], rate[m], cap, first, st)
            st.sums[1] += inflow
            # Since a change the ranks of draws are bet on as they come.
            change = rows.changes[i, w] if k < 0 and rows.changes.shape[0] else -1
            found = _push_evidence(m, x, change, inflow, form[m], bets, st, factors)
            st.sums[0] += found - st.evidence[m]
            st.evidence[m] = found
            if st.shares.place[m] < 0:
                hull_push(m, (x - bets.unit[m, 0]) * bets.unit[m, 1], True, st.hulls)
        st.rows[0] += 1
        if st.rows[0] % _REFRESH_ROWS == 0:
            st.sums[0] = sum_of(st.evidence)
        if st.sums[0] >= 1.0:
            written = _blame(i, st.sums[0], pause, bets, st, out, written)
            st.sums[0] = sum_of(st.evidence)
    return written, len(values)


class EDetectorBank:
    """Monitors that share one budget of false alarms.

    Parameters
    ----------
    rate : budget that comes in per unit of the clock, (M,) or broadcast; the sum over monitors is what the model may spend
    form : `SCORES` or `BOUNDED`, (M,) or broadcast
    tolerance : what is no alarm, (M,) or broadcast: of scores in sd (of their spread `spread_tolerance`), of rates relative to
        them (downwards `spread_tolerance`)
    base : the mean of bounded values when nothing changed, (M,) or broadcast; not looked at for scores
    direction : of `DIRECTIONS`, (M,) or broadcast; one side puts all bets on shifts of that side
    cap : units of the clock that a gap counts at most, unless twice the monitor's usual gap is more
    first : units that a monitor's first value counts
    pause : rows that name a monitor, with a value or without, for which it rests after an alarm, (M,) or broadcast
    bins : of monitors of scores, by monitor, that bet on the shares of bins instead (`shares`)

    Attributes
    ----------
    state : what rows have changed; `state.evidence` is E
    followed : monitors that are judged against what came since a change
    """

    def __init__(
        self,
        n_monitors: int,
        *,
        rate: ArrayLike,
        form: ArrayLike = SCORES,
        tolerance: ArrayLike = 0.0,
        spread_tolerance: ArrayLike | None = None,
        base: ArrayLike = 0.5,
        direction: ArrayLike = 0,
        cap: float = math.inf,
        first: float = 0.0,
        pause: ArrayLike = 0,
        bins: Mapping[int, Bins] | None = None,
    ) -> None:
        self.n_monitors = n_monitors
        self.rate = per_monitor(rate, n_monitors)
        self.form: UInt8Array = per_monitor(form, n_monitors).astype(np.uint8)
        self.cap, self.first = float(cap), float(first)
        self.pause: Int64Array = per_monitor(pause, n_monitors).astype(np.int64)
        if not np.all(self.rate >= 0.0):
            raise ValueError(f"expected budgets of at least 0, got {float(self.rate.min(initial=0.0))}")
        bets = (tolerance, base, direction, tolerance if spread_tolerance is None else spread_tolerance)
        self.bets = bets_of(self.form, *(per_monitor(one, n_monitors) for one in bets))
        self.state = new_state(n_monitors, new_shares(n_monitors, bins, self.rate))
        self.followed = new_followed(n_monitors, 0)
        self._factors = np.zeros(BETS)

    @property
    def total(self) -> float:
        """The evidence of all monitors together; an alarm at 1."""
        return float(self.state.sums[0])

    @property
    def spent(self) -> float:
        """The budget that has come in: the mean number of false alarms so far is at most this."""
        return float(self.state.sums[1])

    def update(self, values: Float64Array, monitors: Int32Array, clock: Int64Array) -> Blames:
        """Take rows in stream order.

        Parameters
        ----------
        values : shape (n, W), NaN = the monitor has no value on this row, +inf = and begins anew
        monitors : whose they are, shape (n, W), -1 = nobody's; no monitor twice in a row
        clock : shape (n,), never going back

        Returns
        -------
        `BLAME` records, those of one alarm after each other
        """
        batch = self._checked(values, monitors, clock)
        buffer = np.zeros(BUFFER_ALARMS + self.n_monitors, BLAME)
        parts: list[Blames] = []
        row = 0
        while row < len(batch[0]):
            written, row = self._run(batch, no_rows(), buffer, row)
            if written:
                parts.append(buffer[:written].copy())
        return np.concatenate(parts) if parts else np.zeros(0, BLAME)

    def update_to_alarm(
        self, values: Float64Array, monitors: Int32Array, clock: Int64Array, rows: Rows, first: int, last: int
    ) -> tuple[Blames, int]:
        """Take rows from `first` to before `last`, or to the first alarm; its records, and the row after those that were taken.

        Parameters
        ----------
        values, monitors, clock : as for `update`, contiguous.
        rows : what references that are learned since a change need, of all rows.
        """
        # Room for one alarm: the kernel stops before a row whose alarm might not find any.
        buffer = np.zeros(self.n_monitors, BLAME)
        written, row = self._run((values[:last], monitors[:last], clock[:last]), rows, buffer, first)
        return buffer[:written], row

    def begin_anew(self, monitor: int) -> None:
        """Forget what a monitor has gathered, and let it rest no longer."""
        begin_anew(monitor, self.state)

    def _run(self, batch: tuple[Float64Array, Int32Array, Int64Array], rows: Rows, out: Blames, row: int) -> tuple[int, int]:
        found: tuple[int, int] = _update(
            *batch, self.form, self.rate, self.pause, self.bets, self.cap, self.first, self.state, self._factors, self.followed, rows, out,
            row,
        )  # fmt: skip
        return found

    def _checked(self, values: Float64Array, monitors: Int32Array, clock: Int64Array) -> tuple[Float64Array, Int32Array, Int64Array]:
        values = np.ascontiguousarray(values, np.float64)
        monitors = np.ascontiguousarray(monitors, np.int32)
        clock = np.ascontiguousarray(clock, np.int64)
        if values.ndim != 2 or values.shape != monitors.shape or clock.shape != (len(values),):
            shapes = f"{values.shape}, {monitors.shape} and {clock.shape}"
            raise ValueError(f"expected values and monitors of one shape (n, W) and clocks (n,), got {shapes}")
        if monitors.size and int(monitors.max()) >= self.n_monitors:
            raise ValueError(f"expected monitors below {self.n_monitors}, got {int(monitors.max())}")
        return values, monitors, clock

    def take(self, monitor: int, other: EDetectorBank, from_monitor: int) -> bool:
        """Go on with one monitor of another bank, under the budget of this one; False = it bets on something else and begins anew.

        Evidence against one null hypothesis is none against another, so the bets must be the same ones. What the budget is may
        differ: inflow of any rate keeps the promise, for it is counted as it comes. Once all are taken, `take_sums`.
        """
        bets: Any = zip((self.form, *self.bets), (other.form, *other.bets), strict=True)
        same = all(np.array_equal(mine[monitor], theirs[from_monitor]) for mine, theirs in bets)
        if not (same and take_shares(self.state.shares, monitor, other.state.shares, from_monitor)):
            return False
        kept: Any = zip((*self.state[:OWN], *self.state.hulls), (*other.state[:OWN], *other.state.hulls), strict=True)
        for mine, theirs in kept:
            mine[monitor] = theirs[from_monitor]
        return True

    def take_sums(self, other: EDetectorBank) -> None:
        """The sum over the monitors that were taken, and what came in for all of the other bank."""
        st = self.state
        st.sums[:], st.rows[:] = other.state.sums, other.state.rows
        if np.count_nonzero(st.evidence) != np.count_nonzero(other.state.evidence):
            st.sums[0] = math.fsum(st.evidence.tolist())

    def export(self) -> bytes:
        """The state of all monitors."""
        return self.export_part(0, self.n_monitors)

    def export_part(self, first: int, last: int) -> bytes:
        """The state of the monitors from `first` to before `last`, and the sum over all."""
        st, part = self.state, slice(first, last)
        own: list[Any] = [array[part] for array in st[:OWN]]
        return pack(_MAGIC, _VERSION, last - first, [*own, st.sums, st.rows, *hull_arrays(hulls_of(st.hulls, part))])

    def restore(self, blob: bytes) -> None:
        """Continue from `export`, as if it had never stopped.

        Raises
        ------
        ValueError : of another kind, version or number of monitors, or evidence that no values lead to
        """
        self.restore_part(0, self.n_monitors, blob)

    def restore_part(self, first: int, last: int, blob: bytes, *, sums: bool = True) -> None:
        """Continue monitors from `export_part`; without `sums` the sum over all stays what it is.

        Raises
        ------
        ValueError : as for `restore`
        """
        n, st, part = last - first, self.state, slice(first, last)
        lengths = [n * BETS, n, n * SPREAD_BETS, n * SPREAD_BETS, n, n, n, n, 2, 1, None, None, None, None, None]
        version = _LESS_TOLERANCE if version_of(blob) == _LESS_TOLERANCE else _VERSION
        found = unpack(blob, _MAGIC, version, n, [*STATE_TYPES, *HULL_TYPES], lengths)
        stakes, evidence, peaks, starts, seen, clock, gap, rest, totals, rows = found[: OWN + 2]
        sound = all(np.all(np.isfinite(array) & (array >= 0.0)) for array in (stakes, evidence, peaks, gap, totals[1:]))
        counts = all(np.all((array >= 0) & (array <= _COUNT_MOST)) for array in (seen, rest)) and rows[0] >= 0
        begun = np.all((starts >= 0) & (starts <= np.repeat(seen, SPREAD_BETS)))
        # The others' part of the sum is not known here. It may be above 1: what is left behind an alarm is next row's.
        held = float(evidence.sum())
        if not (sound and counts and begun and _agree(max(held, float(totals[0])) if n < self.n_monitors else held, float(totals[0]))):
            raise ValueError("damaged state of DEDT: evidence or counts that no values lead to")
        slack = self.bets.unit[part, 3] if version == _LESS_TOLERANCE else None
        restore_hulls(hulls_of(st.hulls, part), found[OWN + 2 :], slack)
        own = (stakes, evidence, peaks, starts, seen, clock, gap, rest)
        for mine, theirs in zip(st[:OWN], own, strict=True):
            mine[part] = theirs.reshape(mine[part].shape)
        if sums:
            st.sums[:], st.rows[:] = totals, rows

    def check_sums(self) -> None:
        """Hold the sum against the evidence, once all parts are restored.

        Raises
        ------
        ValueError : they do not agree
        """
        if not _agree(math.fsum(self.state.evidence.tolist()), self.total):
            raise ValueError("damaged state of DEDT: the sum is not that of the evidence")


def _agree(held: float, total: float) -> bool:
    """Whether rounding explains a sum; another would raise an alarm without evidence, or hide one for 65,536 rows."""
    return abs(total - held) <= _ROUNDING * (1.0 + held)
