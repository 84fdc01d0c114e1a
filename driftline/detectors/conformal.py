"""Conformal normal scores of series, for notebooks: values in, standard normal numbers out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors.kernels.bank import Float64Array, UInt8Array
from driftline.detectors.kernels.conformal import BINS, NO_BIN, ConformalBank, UInt64Array, split_edges
from driftline.detectors.kernels.portable import position_keys


def series_key(name: str) -> int:
    """A number of a series that is the same in every run, on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


class ScoredColumns:
    """Columns of values, each with bins and counts of its own reference.

    Parameters
    ----------
    references : values of each column, in stream order; a column whose values are all 0 or 1 is read as such
    names : of the columns; with `seed` they fix the random numbers that break ties

    Attributes
    ----------
    binary : whether a column is of zeros and ones; `share` its rate in the first half of the reference
    sizes : reference values that are counted
    """

    def __init__(
        self, references: Sequence[ArrayLike], names: Sequence[str], *, bins: int = BINS, frozen: bool = False, seed: int = 0
    ) -> None:
        values = [np.asarray(reference, np.float64).ravel() for reference in references]
        values = [column[np.isfinite(column)] for column in values]
        self.binary = [len(column) > 0 and bool(np.isin(column, (0.0, 1.0)).all()) for column in values]
        self.share = [_share(column) if binary else -1.0 for column, binary in zip(values, self.binary, strict=True)]
        self.edges: list[Float64Array] = []
        counts = np.zeros((1, len(values), BINS), np.int64)
        for c, (column, binary) in enumerate(zip(values, self.binary, strict=True)):
            edges, counted = split_edges(column, 2 if binary else bins)
            if binary:
                half = column[len(column) // 2 :]
                edges, counted = np.array([0.5]), np.bincount(half.astype(np.int64), minlength=2)
            self.edges.append(edges)
            counts[0, c, : len(counted)] = counted
        self.sizes = [int(n) for n in counts[0].sum(axis=1)]
        own = np.array([[series_key(name) for name in names]], np.uint64)
        self._bank = ConformalBank(1, len(values), counts=counts, own_keys=own, share=np.array([self.share]), frozen=frozen)
        self._seed = seed

    def scores(self, rows: Float64Array, first: int) -> Float64Array:
        """Scores of rows (n, C), NaN where a value is not finite; the first one is number `first` of the stream."""
        return self._bank.update(self._codes(rows), np.zeros((len(rows), 1), np.int32), self._keys(len(rows), first))

    def _codes(self, rows: Float64Array) -> UInt8Array:
        codes: UInt8Array = np.full(rows.shape, NO_BIN, np.uint8)
        for c, edges in enumerate(self.edges):
            finite = np.isfinite(rows[:, c])
            codes[finite, c] = np.searchsorted(edges, rows[finite, c], side="left")
        return codes

    def _keys(self, n: int, first: int) -> UInt64Array:
        return position_keys(np.zeros(n, np.uint64), np.arange(first, first + n), self._seed)


def _share(column: Float64Array) -> float:
    """The rate of ones in the first half, half a count away from 0 and 1: a bet needs both sides."""
    half = column[: len(column) // 2]
    return float((half.sum() + 0.5) / (len(half) + 1.0))


class ConformalScores:
    """Values as standard normal scores, exactly so while they are exchangeable with a reference.

    Whatever the law of the values, ties and atoms included, and for a reference of any size: no value is out of scale, and
    a detector that is right for normal values is right for these. The price is that a change larger than anything in the
    reference looks only as large as the largest reference value.

    Parameters
    ----------
    reference : values in stream order. Its first half gives the bins, its second half the first counts
    bins : 2 to 64
    frozen : values do not join the counts. Scores then keep the reference's own error of 1 / sqrt(m) standard deviations
    seed : of the random numbers that break ties, which depend on it and the value's place in the stream alone

    Examples
    --------
    >>> import numpy as np
    >>> generator = np.random.default_rng(7)
    >>> scores = ConformalScores(generator.lognormal(size=2_000)).update_many(generator.lognormal(size=20_000))
    >>> bool(abs(scores.mean()) < 0.03), bool(abs(scores.std() - 1) < 0.03)
    (True, True)

    References
    ----------
    Vovk (2021), arXiv 2102.10439: p_t = (#{s: x_s < x_t} + U #{s: x_s = x_t}) / t over all values up to t, here of bins.
    """

    def __init__(self, reference: ArrayLike, bins: int = BINS, *, frozen: bool = False, seed: int = 0) -> None:
        self._columns = ScoredColumns([reference], ["value"], bins=bins, frozen=frozen, seed=seed)
        self._rows = 0

    def update(self, x: float) -> float:
        """The score of one value; NaN for NaN and infinities, which change nothing else."""
        return float(self.update_many([x])[0])

    def update_many(self, values: ArrayLike) -> Float64Array:
        """The scores of values in stream order; for a reference of zeros and ones, zeros and ones of the expected rate."""
        rows = np.asarray(values, np.float64).reshape(-1, 1)
        found: Float64Array = self._columns.scores(rows, self._rows)[:, 0]
        self._rows += len(rows)
        return found
