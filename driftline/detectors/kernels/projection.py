"""The bet of the fastest growth in the worst case, on bins of which one may be left out (`shares`, where the formulas are).

q are the shares that are expected and root the square roots of the reference's; of both only what is not `skip` counts, and is scaled by
`by_q` and `by_root` to be shares again: `skip` -1 and scales of 1 where all bins count.
"""

from __future__ import annotations

import math
from typing import Final

from driftline.detectors.kernels.bank import Float64Array
from driftline.detectors.kernels.jit import inlined, part

_STEPS: Final = 16
_NEAR: Final = 1e-5
_HALVINGS: Final = 40


@inlined
def cosine(q: Float64Array, root: Float64Array, n: int, skip: int) -> float:
    """Sum of sqrt q root."""
    near = 0.0
    for b in range(n):
        if b != skip:
            near += math.sqrt(q[b]) * root[b]
    return near


@inlined
def weight(lam: float, mu: float, q: float, s: float) -> float:
    """u, the square root of the tolerated share that is nearest."""
    return (lam * s + math.sqrt(lam * lam * s * s + 4.0 * mu * q)) / (2.0 * mu)


@inlined
def _nearness(q: Float64Array, root: Float64Array, n: int, skip: int, by_q: float, by_root: float, lam: float, c: float) -> float:
    """What u sqrt r sums to."""
    mu = 1.0 + lam * c
    total = 0.0
    for b in range(n):
        if b != skip:
            s = root[b] * by_root
            total += (lam * s + math.sqrt(lam * lam * s * s + 4.0 * mu * (q[b] * by_q))) * s
    return total / (2.0 * mu)


@part
def tilt(q: Float64Array, root: Float64Array, n: int, skip: int, by_q: float, by_root: float, near: float, c: float) -> float:
    """The lam of the bet to some digits, of q whose cosine is `near`, below c."""
    # On the great circle from sqrt q to sqrt r; then the secant of a bracket.
    sine = math.sqrt(1.0 - c * c)
    lam = (math.sqrt(1.0 - near * near) * c - near * sine) / sine
    low, high, below, above = 0.0, 0.0, near - c, 0.0
    for _ in range(_STEPS):
        gap = _nearness(q, root, n, skip, by_q, by_root, lam, c) - c
        if gap >= 0.0:
            high, above = lam, gap
        else:
            low, below = lam, gap
        if abs(gap) <= _NEAR * (1.0 - c):
            break
        lam = low - below * (high - low) / (above - below) if high > 0.0 else 2.0 * lam
    return high if high > 0.0 else lam


@part
def draw_factor(q: Float64Array, root: Float64Array, n: int, a: int, b: int, c: float) -> float:
    """What a draw in bin b is worth after one in another bin a: L of the laws of draws that are not in a; 1 where that is tolerated.

    With h the cosine of the laws p and r of what is not in a, sum sqrt(p r) <= sqrt(r_a + h^2 (1 - r_a)) by Cauchy and Schwarz. So where
    it is at least c, h^2 is at least (c^2 - r_a) / (1 - r_a): of mean at most 1 under every tolerated p, whatever a is.
    """
    r = root[a] * root[a]
    rest_q, rest_r = 1.0 - q[a], 1.0 - r
    square = (c * c - r) / rest_r
    if not (rest_q > 0.0 and square > 0.0):
        return 1.0
    by_q, by_root, least = 1.0 / rest_q, 1.0 / math.sqrt(rest_r), math.sqrt(square)
    near = cosine(q, root, n, a) * math.sqrt(by_q) * by_root
    if near >= least:
        return 1.0
    lam = tilt(q, root, n, a, by_q, by_root, near, least)
    mu, near, own = 1.0 + lam * least, 0.0, 1.0
    for j in range(n):
        if j != a:
            s = root[j] * by_root
            u = weight(lam, mu, q[j] * by_q, s)
            near += u * s
            if j == b:
                own = u
    most = mu - lam * least * least / near
    return q[b] * by_q / (own * own) / most if most > 0.0 else 1.0


@part
def draws_from_changes(q: Float64Array, n: int) -> None:
    """Put the shares of draws in the place of those of the values that differ from the one before: q_b in proportion to s_b (1 - s_b)."""
    most, total = 0.0, 0.0
    for b in range(n):
        most = max(most, q[b])
        total += q[b]
    low, high = 4.0 * most, 2.0 * total
    for _ in range(_HALVINGS):
        middle, held = 0.5 * (low + high), 0.0
        for b in range(n):
            held += 0.5 * (1.0 - math.sqrt(max(1.0 - 4.0 * q[b] / middle, 0.0)))
        if held >= 1.0:
            low = middle
        else:
            high = middle
    held = 0.0
    for b in range(n):
        q[b] = 0.5 * (1.0 - math.sqrt(max(1.0 - 4.0 * q[b] / low, 0.0)))
        held += q[b]
    for b in range(n):
        q[b] /= held
