"""What the values of an e-detector change, and how a monitor begins anew."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.kernels.bank import Float64Array, Int64Array
from driftline.detectors.kernels.bets import BETS, SPREAD_BETS
from driftline.detectors.kernels.hulls import Hulls, hull_reset, new_hulls
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.shares import Shares, new_shares, share_reset, share_spend

STATE_TYPES: Final = ("<f8", "<f8", "<f8", "<i8", "<i8", "<i8", "<f8", "<i8", "<f8", "<i8")
GAPS_REMEMBERED: Final = 128
"""Values over which a monitor's usual gap is averaged."""
OWN: Final = 8
"""Fields of the state that each monitor has its part of, before the sums."""


class State(NamedTuple):
    """What rows change; axes M monitors, K bets."""

    stakes: Float64Array  # (M, K) R
    evidence: Float64Array  # (M,) E
    peaks: Float64Array  # (M, 4) of the bets on spreads, the largest product of factors up to now
    starts: Int64Array  # (M, 4) values before that product begins
    seen: Int64Array  # (M,) values
    last: Int64Array  # (M,) the clock at the last one
    gap: Float64Array  # (M,) the usual gap
    rest: Int64Array  # (M,) rows for which it rests
    sums: Float64Array  # (2,) the evidence of all monitors, and the budget that came in
    rows: Int64Array  # (1,)
    hulls: Hulls
    shares: Shares


def new_state(n_monitors: int, shares: Shares | None = None) -> State:
    """Of monitors without values."""
    return State(
        stakes=np.zeros((n_monitors, BETS)),
        evidence=np.zeros(n_monitors),
        peaks=np.ones((n_monitors, SPREAD_BETS)),
        starts=np.zeros((n_monitors, SPREAD_BETS), np.int64),
        seen=np.zeros(n_monitors, np.int64),
        last=np.zeros(n_monitors, np.int64),
        gap=np.zeros(n_monitors),
        rest=np.zeros(n_monitors, np.int64),
        sums=np.zeros(2),
        rows=np.zeros(1, np.int64),
        hulls=new_hulls(n_monitors),
        shares=new_shares(n_monitors) if shares is None else shares,
    )


@inlined
def spend(m: int, st: State) -> None:
    """Take a monitor's evidence for an alarm; what it knows of when its values changed stays."""
    st.evidence[m] = 0.0
    for k in range(BETS):
        st.stakes[m, k] = 0.0
    if st.shares.place[m] >= 0:
        share_spend(st.shares.place[m], st.shares)


@inlined
def restart(m: int, st: State) -> None:
    """Forget what a monitor has gathered."""
    spend(m, st)
    for k in range(SPREAD_BETS):
        st.peaks[m, k] = 1.0
    hull_reset(m, st.hulls)
    if st.shares.place[m] >= 0:
        share_reset(st.shares.place[m], st.shares)


@inlined
def inflow_of(m: int, clock: int, rate: float, cap: float, first: float, st: State) -> float:
    """The budget that came in for a monitor since its last value, and note the gap.

    A gap counts up to `cap` or twice the monitor's usual one, whichever is more: after an outage a single value must not
    carry the budget of the whole of it.
    """
    if st.seen[m] == 0:
        inflow = rate * first
    else:
        passed = float(max(clock - st.last[m], 0))
        inflow = rate * min(passed, max(cap, 2.0 * st.gap[m]))
        st.gap[m] += (passed - st.gap[m]) / min(st.seen[m], GAPS_REMEMBERED)
    st.seen[m] += 1
    st.last[m] = clock
    return inflow


@inlined
def sum_of(evidence: Float64Array) -> float:
    """The evidence of all monitors."""
    total = 0.0
    for m in range(evidence.shape[0]):
        total += evidence[m]
    return total


@kernel
def begin_anew(m: int, st: State) -> None:
    """Forget what a monitor has gathered, and let it rest no longer."""
    restart(m, st)
    st.rest[m] = 0
    st.sums[0] = sum_of(st.evidence)
