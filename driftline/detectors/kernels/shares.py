"""Bets on the shares of a distribution's bins: a witness learns from past values where they lie, and bets that the next lies there too.

Under a reference with shares r of B bins everything is tolerated that is no further from it than

    4 sum_b (sqrt p_b - sqrt r_b)^2 <= d,      that is      sum_b sqrt(p_b r_b) >= c = 1 - d / 8

Since (p - r) ln(p / r) >= 4 (sqrt p - sqrt r)^2, this holds every p whose PSI is at most d; near r the two agree. With q the shares
that are expected next, from past values alone, a value in bin b is worth

    L = (q_b / u_b^2) / (1 + lam c (1 - c / sum_b u_b sqrt r_b)),      mu = 1 + lam c,
    u_b = (lam sqrt r_b + sqrt(lam^2 r_b + 4 mu q_b)) / (2 mu)

of mean at most 1 under every tolerated p, for any lam > 0 and any q. For u solves mu u^2 - lam u sqrt r = q, so that with v = sqrt p

    sum v^2 q / u^2 = mu - lam sum v^2 sqrt r / u <= mu - lam (sum v sqrt r)^2 / sum u sqrt r <= mu - lam c^2 / sum u sqrt r

by Cauchy and Schwarz. At the lam for which sum u sqrt r = c, u^2 is the tolerated p that is nearest to q in Kullback-Leibler divergence
and q / u^2 the bet of the fastest growth in the worst case, the reverse information projection (Grunwald, de Heide and Koolen 2024,
Journal of the Royal Statistical Society B 86, theorem 1); a lam that is nearly this one costs little and keeps the bound.

Where q itself is tolerated there is no bet: what is at stake waits, and fades. So a change within the tolerance, however certain, gathers
next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.bank import Float64Array, Int32Array, Int64Array, UInt8Array
from driftline.detectors.kernels.jit import inlined, kernel, part
from driftline.detectors.kernels.portable import normal_quantile
from driftline.detectors.kernels.projection import cosine, draw_factor, draws_from_changes, tilt, weight
from driftline.detectors.spec import MISSING

SHARE_BINS: Final = 64
"""Bins at most; a column of categories has 60 of its own, the others, and the unseen ones."""
LOOK_VALUES: Final = 32
"""Values between looks of the witnesses at what has come."""
KEEPS: Final = (0.5, 0.9375)
"""Part of the memory that a look keeps: of some 64 values, and of some 512."""
WITNESSES: Final = 3
"""Bins that stand out over 64 values, those over 512, and all bins over 512: a value that comes far more often is found by the first, a
change that is spread over all of them by the last."""
_MEMORY: Final = (0, 1, 1)
_NOTED: Final = (2.0, 2.0, 0.0)
"""Standard deviations from which a bin stands out; what does not is expected to come as in the reference, or in proportion to it."""
_PRIOR: Final = 4.0
"""Values of the reference that are mixed with those that have come: a bin that was empty of late is not expected to stay so."""
FADES: Final = 1.0 - 2.0**-12
"""Without a bet a stake fades by this with every value: what came in while nothing was to be bet on is of use later, for some
thousand values."""
WAITS_MOST: Final = 2.0**-6
"""Evidence that waits without a bet in all monitors together, at most, each its part: where few values come in the time of one false
alarm, what comes in would reach 1 by itself."""
_COUNT_MOST: Final = 2**53


class Shares(NamedTuple):
    """Constants and state of the monitors that have bins; axes M monitors, P of them, B bins."""

    place: Int32Array  # (M,) of a monitor among P, -1 = it has no bins
    bins: Int64Array  # (P,) in use
    edges: Float64Array  # (P, B) upper end of each bin but the last, as a score; +inf from there on
    share: Float64Array  # (P, B)
    root: Float64Array  # (P, B) sqrt of it
    cosine: Float64Array  # (P,) c
    waits: Float64Array  # (P,) evidence that waits without a bet at most
    stakes: Float64Array  # (P, WITNESSES)
    taken: Float64Array  # (P, 2) values in memory
    mass: Float64Array  # (P, 2, B) and those in each bin
    fresh: Int64Array  # (P, B) values since the last look
    since: Int64Array  # (P,) how many
    changes: Float64Array  # (P, B) of draws, of those that differ from the one before; else empty
    bin_of: Int64Array  # (P, MISSING) of draws, by code
    drawn: UInt8Array  # (P,) what is judged are draws, given the one before
    active: Int64Array  # (P, WITNESSES) whether a witness bets; this and the factors follow from the memory
    factors: Float64Array  # (P, WITNESSES, B)


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of a monitor.

    Attributes
    ----------
    edges : scores that divide them, increasing, one less than there are bins
    share : of each under the reference, above 0, of sum 1
    tolerance : d
    codes : bins by code, of values that come in runs (`kernels.runs`): a value that differs from the one before it is bet on given that
        one; empty = values are bet on as they come
    """

    edges: Sequence[float]
    share: Sequence[float]
    tolerance: float
    codes: Sequence[int] = ()


def new_shares(n_monitors: int, bins: Mapping[int, Bins] | None = None, rate: Float64Array | None = None) -> Shares:
    """Of monitors without values.

    Parameters
    ----------
    bins : by monitor; those that are not named have none
    rate : what comes in for each monitor, (M,); all alike if not given

    Raises
    ------
    ValueError : too many bins, shares that are none, edges that do not increase
    """
    chosen = sorted((bins or {}).items())
    n = len(chosen)
    out = Shares(
        place=np.full(n_monitors, -1, np.int32),
        bins=np.zeros(n, np.int64),
        edges=np.full((n, SHARE_BINS), np.inf),
        share=np.zeros((n, SHARE_BINS)),
        root=np.zeros((n, SHARE_BINS)),
        cosine=np.zeros(n),
        waits=np.zeros(n),
        stakes=np.zeros((n, WITNESSES)),
        taken=np.zeros((n, len(KEEPS))),
        mass=np.zeros((n, len(KEEPS), SHARE_BINS)),
        fresh=np.zeros((n, SHARE_BINS), np.int64),
        since=np.zeros(n, np.int64),
        changes=np.zeros((n, SHARE_BINS)),
        bin_of=np.zeros((n, MISSING), np.int64),
        drawn=np.zeros(n, np.uint8),
        active=np.zeros((n, WITNESSES), np.int64),
        factors=np.ones((n, WITNESSES, SHARE_BINS)),
    )
    rates = np.ones(n_monitors) if rate is None else rate
    whole_rate = max(math.fsum(rates.tolist()), 1e-300)
    for k, (monitor, own) in enumerate(chosen):
        out.waits[k] = WAITS_MOST * float(rates[monitor]) / whole_rate
        count, share = len(own.share), np.array(own.share, np.float64)
        whole = bool((share > 0.0).all()) and abs(math.fsum(share.tolist()) - 1.0) < 1e-9
        edges: Float64Array = np.array(own.edges, np.float64)
        if not 2 <= count <= SHARE_BINS or not whole or len(edges) != count - 1 or not bool((edges[1:] > edges[:-1]).all()):
            raise ValueError(f"expected 2 to {SHARE_BINS} shares of sum 1 and increasing edges between them, got {count} shares")
        if not own.tolerance > 0.0:
            raise ValueError(f"expected a tolerance above 0, got {own.tolerance:g}")
        out.place[monitor], out.bins[k] = k, count
        out.edges[k, : count - 1], out.share[k, :count] = edges, share
        out.root[k, :count] = [math.sqrt(one) for one in share.tolist()]
        if own.codes:
            out.drawn[k], out.bin_of[k] = 1, own.codes
            out.changes[k, :count] = share * (1.0 - share) / math.fsum((share * (1.0 - share)).tolist())
        # Half a turn away everything is tolerated.
        out.cosine[k] = max(1.0 - own.tolerance / 8.0, 0.5)
    return out


@kernel
def score_edges(ranks: Float64Array, out: Float64Array) -> None:
    """Fill the scores of ranks."""
    for b in range(ranks.shape[0]):
        out[b] = normal_quantile(ranks[b])


@inlined
def _expect(k: int, w: int, share: Float64Array, sh: Shares) -> None:
    """Fill the factors of a witness with q, `share` being what comes in the reference."""
    memory, noted = _MEMORY[w], _NOTED[w]
    taken = sh.taken[k, memory]
    fixed, rest = 0.0, 0.0
    for b in range(sh.bins[k]):
        r = share[b]
        gap = sh.mass[k, memory, b] - taken * r
        if gap * gap >= noted * noted * (taken * r + 1.0):
            q = (sh.mass[k, memory, b] + _PRIOR * r) / (taken + _PRIOR)
            sh.factors[k, w, b] = q
            fixed += q
        else:
            sh.factors[k, w, b] = -r
            rest += r
    # Of what is left: where all bins stand out it is nothing.
    scale = max(1.0 - fixed, 0.0) / rest if rest > 0.0 else 0.0
    for b in range(sh.bins[k]):
        if sh.factors[k, w, b] < 0.0:
            sh.factors[k, w, b] *= -scale


@part
def _bet(k: int, w: int, drawn: bool, sh: Shares) -> None:
    """Fill the factors of a witness, or note that what it expects is tolerated; of draws the factors are the shares that it expects."""
    c, n, root, q = sh.cosine[k], sh.bins[k], sh.root[k], sh.factors[k, w]
    _expect(k, w, sh.changes[k] if drawn else sh.share[k], sh)
    if drawn:
        draws_from_changes(q, n)
    near = cosine(q, root, n, -1)
    sh.active[k, w] = 0
    if near >= c:
        return
    if drawn:
        sh.active[k, w] = 1
        return
    lam = tilt(q, root, n, -1, 1.0, 1.0, near, c)
    mu = 1.0 + lam * c
    near = 0.0
    for b in range(n):
        u = weight(lam, mu, q[b], root[b])
        near += u * root[b]
        q[b] = q[b] / (u * u)
    most = mu - lam * c * c / near
    if most > 0.0:
        sh.active[k, w] = 1
        for b in range(n):
            q[b] /= most


@part
def _look(k: int, drawn: bool, sh: Shares) -> None:
    """Let the witnesses take what came since their last look."""
    for memory in range(len(KEEPS)):
        sh.taken[k, memory] = KEEPS[memory] * sh.taken[k, memory] + LOOK_VALUES
        for b in range(sh.bins[k]):
            sh.mass[k, memory, b] = KEEPS[memory] * sh.mass[k, memory, b] + sh.fresh[k, b]
    for b in range(sh.bins[k]):
        sh.fresh[k, b] = 0
    sh.since[k] = 0
    for w in range(WITNESSES):
        _bet(k, w, drawn, sh)


@inlined
def _staked(k: int, w: int, factor: float, inflow: float, sh: Shares) -> float:
    """What a witness has at stake after a value of this factor; one without a bet lets what it has wait, and fade."""
    stake: float = sh.stakes[k, w]
    stake = (stake + inflow) * factor if sh.active[k, w] else max(stake, min(stake + inflow, sh.waits[k])) * FADES
    sh.stakes[k, w] = stake
    return stake


@inlined
def share_push(k: int, z: float, inflow: float, sh: Shares) -> float:
    """One score; the evidence of the bets on its bin."""
    b = 0
    for step in (32, 16, 8, 4, 2, 1):
        b += step * int(sh.edges[k, b + step - 1] <= z)
    evidence = 0.0
    for w in range(WITNESSES):
        factor = sh.factors[k, w, b] if sh.active[k, w] else 1.0
        evidence += _staked(k, w, factor, inflow, sh)
    _take(k, b, False, sh)
    return evidence / WITNESSES


@inlined
def _take(k: int, b: int, drawn: bool, sh: Shares) -> None:
    sh.fresh[k, b] += 1
    sh.since[k] += 1
    if sh.since[k] == LOOK_VALUES:
        _look(k, drawn, sh)


@part
def draw_push(k: int, change: int, inflow: float, sh: Shares) -> float:
    """One value that differs from the one before it, `MISSING` times whose code and its own; the evidence of the bets on it."""
    a, b = sh.bin_of[k, change // MISSING], sh.bin_of[k, change % MISSING]
    evidence = 0.0
    for w in range(WITNESSES):
        factor = 1.0
        # Within a bin nobody bets.
        if sh.active[k, w] and a != b:
            factor = draw_factor(sh.factors[k, w], sh.root[k], sh.bins[k], a, b, sh.cosine[k])
        evidence += _staked(k, w, factor, inflow, sh)
    if a != b:
        _take(k, b, True, sh)
    return evidence / WITNESSES


@inlined
def share_spend(k: int, sh: Shares) -> None:
    """Take what a monitor has gathered; what its witnesses have learned stays."""
    for w in range(WITNESSES):
        sh.stakes[k, w] = 0.0


@inlined
def share_reset(k: int, sh: Shares) -> None:
    """Forget what a monitor has gathered and learned."""
    share_spend(k, sh)
    sh.since[k] = 0
    for w in range(WITNESSES):
        sh.active[k, w] = 0
    for b in range(sh.bins[k]):
        sh.fresh[k, b] = 0
    for memory in range(len(KEEPS)):
        sh.taken[k, memory] = 0.0
        for b in range(sh.bins[k]):
            sh.mass[k, memory, b] = 0.0


SHARE_TYPES: Final = ("<f8", "<f8", "<f8", "u1")


def share_arrays(sh: Shares, first: int, last: int) -> list[NDArray[Any]]:
    """What a checkpoint keeps of the monitors from `first` to before `last`: only bins in use."""
    own = _own(sh, first, last)
    used = _used(sh, own)
    return [sh.stakes[own], sh.taken[own], np.moveaxis(sh.mass[own], 1, 2)[used], sh.fresh[own][used].astype(np.uint8)]


def restore_shares(sh: Shares, first: int, last: int, arrays: Sequence[NDArray[Any]]) -> None:
    """Go on from `share_arrays`.

    Raises
    ------
    ValueError : stakes or shares that no values lead to; nothing is then written
    """
    own = _own(sh, first, last)
    used = _used(sh, own)
    stakes, taken, mass, fresh = arrays
    count = int(used.sum())
    sizes = (len(stakes), len(taken), len(mass), len(fresh)) == (WITNESSES * len(own), 2 * len(own), 2 * count, count)
    if not sizes or not all(bool(np.all(np.isfinite(array) & (array >= 0))) for array in arrays):
        raise ValueError("damaged state of shares: stakes or counts that no values lead to")
    counts: Int64Array = np.zeros((len(own), SHARE_BINS), np.int64)
    counts[used] = fresh
    by_bin: Float64Array = np.zeros((len(own), SHARE_BINS, 2))
    by_bin[used] = mass.reshape(-1, 2)
    known = taken.reshape(-1, 2)
    whole = np.abs(by_bin.sum(axis=1) - known) <= 1e-6 * (1.0 + known)
    if not bool(whole.all()) or not bool((counts.sum(axis=1) < LOOK_VALUES).all()) or bool((known > _COUNT_MOST).any()):
        raise ValueError("damaged state of shares: counts that do not fit each other")
    sh.stakes[own], sh.taken[own] = stakes.reshape(-1, WITNESSES), known
    sh.mass[own], sh.fresh[own], sh.since[own] = np.moveaxis(by_bin, 2, 1), counts, counts.sum(axis=1)
    for k in own.tolist():
        bet_again(k, bool(sh.drawn[k]), sh)


def take_shares(mine: Shares, monitor: int, theirs: Shares, from_monitor: int) -> bool:
    """Go on with what another bank's monitor has gathered and learned; False = its bins are others, and nothing is taken."""
    k, was = int(mine.place[monitor]), int(theirs.place[from_monitor])
    if k < 0 or was < 0:
        return k == was
    same = ("bins", "edges", "share", "cosine", "drawn", "bin_of")
    if not all(np.array_equal(getattr(mine, name)[k], getattr(theirs, name)[was]) for name in same):
        return False
    for name in ("stakes", "taken", "mass", "fresh", "since", "active", "factors"):
        getattr(mine, name)[k] = getattr(theirs, name)[was]
    return True


@kernel
def bet_again(k: int, drawn: bool, sh: Shares) -> None:
    """Fill the factors from what the witnesses remember, of draws or of values as they come."""
    for w in range(WITNESSES):
        if sh.taken[k, 0] > 0.0:
            _bet(k, w, drawn, sh)
        else:
            sh.active[k, w] = 0


def _own(sh: Shares, first: int, last: int) -> Int64Array:
    places = sh.place[first:last]
    own: Int64Array = places[places >= 0].astype(np.int64)
    return own


def _used(sh: Shares, own: Int64Array) -> NDArray[np.bool_]:
    used: NDArray[np.bool_] = np.arange(SHARE_BINS) < sh.bins[own][:, None]
    return used
