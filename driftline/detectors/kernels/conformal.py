"""Conformal normal scores: each value's rank among all values before it, as a standard normal number.

A value of bin b gets, with the counts n_j of the reference and a uniform U of its own,

    p = (sum_{j<b} n_j + U (n_b + 1)) / (sum_j n_j + 1),    z = the normal quantile of p,    then n_b += 1.

While the values are exchangeable with the reference, p_1, p_2, ... are independent and uniform: exactly, whatever the
law, ties and atoms included, and for a reference of any size (Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a
Random World, proposition 2.8; with bins Vovk 2021, arXiv 2102.10439). The edges of the bins must not depend on the
values that are counted: take them from another part of the reference.

A frozen reference leaves out the last step. Its scores are those of a known law only up to the reference's own error of
1 / sqrt(m) standard deviations, which is why it needs a tolerance (`e_detector`).

A series of zeros and ones reads instead whether p lies in the upper share q of the unit interval, q the rate that is
expected: a bet of two sides needs no more, and this reading is one with probability q exactly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.detectors.kernels.bank import Float64Array, Int32Array, Int64Array, UInt8Array, checked_rows, pack, per_series, unpack
from driftline.detectors.kernels.jit import inlined, kernel
from driftline.detectors.kernels.portable import normal_quantile, uniform

UInt64Array = NDArray[np.uint64]

BINS: Final = 64
"""Bins that are counted; at 20 a change of spread is found twice as late (statistics of `docs/quality.md`)."""
NO_BIN: Final = 255
"""The code of a row without a value."""
SCORE_MOST: Final = 8.0
"""Scores are kept within this: beyond it lies 1e-15 of the normal law, and a p of 0 or 1 by rounding."""

_MAGIC = b"DCNF"
_VERSION = 1
_COUNT_MOST = 2**53


@inlined
def conformal_rank(counts: Int64Array, total: int, code: int, u: float) -> float:
    """The rank of a value of one bin among `total` counted ones and itself, in [0, 1]."""
    below = 0
    for b in range(code):
        below += counts[b]
    rank: float = (below + u * (counts[code] + 1)) / (total + 1)
    return rank


@kernel
def _update(
    codes: UInt8Array,
    scopes: Int32Array,
    keys: UInt64Array,
    counts: Int64Array,
    totals: Int64Array,
    own: UInt64Array,
    share: Float64Array,
    grows: UInt8Array,
    out: Float64Array,
) -> None:
    n_columns = codes.shape[1]
    for i in range(codes.shape[0]):
        for j in range(scopes.shape[1]):
            s = scopes[i, j]
            for c in range(n_columns):
                place = j * n_columns + c
                code = codes[i, c]
                if s < 0 or code >= BINS:
                    out[i, place] = np.nan
                    continue
                p = conformal_rank(counts[s, c], totals[s, c], code, uniform(keys[i] ^ own[s, c]))
                if share[s, c] >= 0.0:
                    out[i, place] = 1.0 if p >= 1.0 - share[s, c] else 0.0
                else:
                    out[i, place] = min(max(normal_quantile(p), -SCORE_MOST), SCORE_MOST)
                if grows[s, c]:
                    counts[s, c, code] += 1
                    totals[s, c] += 1


class ConformalBank:
    """The scores of one series for each (scope, column).

    Parameters
    ----------
    counts : the reference, (n_scopes, n_columns, up to 64) or broadcast to it
    own_keys : uint64 (n_scopes, n_columns), a number of each series that does not depend on the run: with a row's
        key (`portable.position_keys`) it gives the uniform that breaks ties
    share : (n_scopes, n_columns) or broadcast; for series of zeros and ones the rate that is expected, else negative
    frozen : (n_scopes, n_columns) or broadcast; values do not join the counts
    """

    def __init__(
        self, n_scopes: int, n_columns: int, *, counts: ArrayLike, own_keys: UInt64Array, share: ArrayLike = -1.0, frozen: ArrayLike = False
    ) -> None:
        self.n_scopes, self.n_columns = n_scopes, n_columns
        given = np.asarray(counts, np.int64)
        if given.shape[-1] > BINS or np.any(given < 0):
            raise ValueError(f"expected at most {BINS} counts of at least 0, got {given.shape[-1]} from {int(given.min(initial=0))}")
        self.counts: Int64Array = np.zeros((n_scopes, n_columns, BINS), np.int64)
        self.counts[..., : given.shape[-1]] = given
        self.totals: Int64Array = self.counts.sum(axis=2)
        self.own_keys: UInt64Array = np.array(np.broadcast_to(own_keys, (n_scopes, n_columns)), np.uint64, order="C")
        self.share = per_series(share, n_scopes, n_columns)
        self.grows: UInt8Array = (per_series(np.asarray(frozen, np.float64), n_scopes, n_columns) == 0.0).astype(np.uint8)
        if np.any(self.share >= 1.0):
            raise ValueError(f"expected shares below 1, got {float(self.share.max())}")

    def update(self, codes: UInt8Array, scopes: Int32Array, keys: UInt64Array) -> Float64Array:
        """Score a batch of rows of bins (n, C) against their scopes (n, S), in stream order.

        Parameters
        ----------
        codes : 0 .. 63; what is above has no value
        keys : of the rows' source positions, shape (n,)

        Returns
        -------
        shape (n, S C), the columns of the row's first scope first: scores, or 0 and 1; NaN where there is no value
        """
        codes, scopes = checked_rows(codes, scopes, np.uint8, self.n_columns, self.n_scopes)
        keys = np.ascontiguousarray(keys, np.uint64)
        if keys.shape != (len(codes),):
            raise ValueError(f"expected {len(codes)} keys, got shape {keys.shape}")
        out = np.empty((len(codes), scopes.shape[1] * self.n_columns))
        _update(codes, scopes, keys, self.counts, self.totals, self.own_keys, self.share, self.grows, out)
        return out

    def export(self, scope: int) -> bytes:
        """The state of one scope."""
        return pack(_MAGIC, _VERSION, self.n_columns, [self.counts[scope]])

    def restore(self, scope: int, blob: bytes) -> None:
        """Continue one scope from `export`, as if it had never stopped.

        Raises
        ------
        ValueError : of another kind or version, or counts that no values lead to
        """
        (counts,) = unpack(blob, _MAGIC, _VERSION, self.n_columns, ["<i8"], [self.n_columns * BINS])
        if np.any((counts < 0) | (counts > _COUNT_MOST)):
            raise ValueError("damaged state of DCNF: counts that no values lead to")
        self.counts[scope] = counts.reshape(self.n_columns, BINS)
        self.totals[scope] = self.counts[scope].sum(axis=1)


def split_edges(values: ArrayLike, bins: int = BINS) -> tuple[Float64Array, Int64Array]:
    """Edges from the first half of a reference, in stream order, and the counts of its second half.

    A bin is (edge, next edge], the outer ones are open; equal quantiles are merged. Edges from the counted half would
    make its counts equal by construction, and the ranks of later values would not be uniform.

    Raises
    ------
    ValueError : fewer than two finite values, or bins that do not fit
    """
    finite = np.asarray(values, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if not 2 <= bins <= BINS or len(finite) < 2:
        raise ValueError(f"expected 2 to {BINS} bins and at least 2 finite values, got {bins} and {len(finite)}")
    first, second = finite[: len(finite) // 2], finite[len(finite) // 2 :]
    edges: Float64Array = np.unique(np.quantile(first, np.arange(1, bins) / bins, method="inverted_cdf"))
    return edges, np.bincount(np.searchsorted(edges, second, side="left"), minlength=len(edges) + 1).astype(np.int64)
