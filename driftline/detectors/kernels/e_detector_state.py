"""What the values of an e-detector change, and how a monitor begins anew."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from driftline.detectors.kernels.bank import Float64Array, Int64Array
from driftline.detectors.kernels.bets import BETS, SPREAD_BETS
from driftline.detectors.kernels.hulls import Hulls, hull_reset, new_hulls
from driftline.detectors.kernels.jit import inlined, kernel

STATE_TYPES: Final = ("<f8", "<f8", "<f8", "<i8", "<i8", "<i8", "<f8", "<i8", "<f8", "<i8")
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


def new_state(n_monitors: int) -> State:
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
    )


@inlined
def spend(m: int, st: State) -> None:
    """Take a monitor's evidence for an alarm; what it knows of when its values changed stays."""
    st.evidence[m] = 0.0
    for k in range(BETS):
        st.stakes[m, k] = 0.0


@inlined
def restart(m: int, st: State) -> None:
    """Forget what a monitor has gathered."""
    spend(m, st)
    for k in range(SPREAD_BETS):
        st.peaks[m, k] = 1.0
    hull_reset(m, st.hulls)


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
