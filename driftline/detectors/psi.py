"""The population stability index of a sliding window against a reference, for one series."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors import calibration
from driftline.detectors.kernels.bank import Float64Array, Int64Array
from driftline.detectors.kernels.psi import N_CODES, NO_GROUP, PsiBank, smoothed_shares

_BINS_MAX = 60


class PSI:
    """PSI of the last `window` values against the reference's quantile bins, exact after every value.

    Outer bins are open and equal edges are merged; shares have half a count added, so an empty bin is no
    infinity. NaN and infinities are skipped. An alarm is raised when the PSI reaches the threshold, and again only after
    it was below .8 of it.

    Parameters
    ----------
    reference : values to compare with
    window : values in the sliding window
    bins : quantile bins asked for, 2 to 60; ties may leave fewer
    threshold : PSI that is an alarm
    run_length : mean values between false alarms, from which the threshold follows; 1e6 if neither is given

    Examples
    --------
    >>> import numpy as np
    >>> generator = np.random.default_rng(7)
    >>> psi = PSI(generator.normal(size=10_000), window=500)
    >>> len(psi.update_many(generator.normal(size=5_000))), len(psi.update_many(generator.normal(1.0, size=500)))
    (0, 1)
    """

    def __init__(
        self,
        reference: ArrayLike,
        window: int,
        bins: int = 10,
        threshold: float | None = None,
        *,
        run_length: float | None = None,
    ) -> None:
        values = np.asarray(reference, np.float64).ravel()
        values = values[np.isfinite(values)]
        if not 2 <= bins <= _BINS_MAX or len(values) < bins:
            raise ValueError(f"expected 2 to {_BINS_MAX} bins and a reference of as many values, got {bins} and {len(values)}")
        if threshold is not None and run_length is not None:
            raise ValueError("expected a threshold or a run_length, got both")
        self.edges = _edges(values, bins)
        counts = np.bincount(np.searchsorted(self.edges, values, side="left"), minlength=len(self.edges) + 1)
        if threshold is None:
            threshold = calibration.psi_threshold(run_length or 1e6, window, max(2, len(counts)), len(values))
        self.threshold = threshold
        groups = np.full((1, N_CODES), NO_GROUP, np.uint8)
        groups[0, : len(counts)] = np.arange(len(counts))
        self._bank = PsiBank(1, 1, window=window, groups=groups, expected=smoothed_shares(counts), threshold=threshold)
        self._ring, self._heads = self._bank.new_ring()
        self._fired = False

    def update(self, x: float) -> None:
        """Add one value."""
        self.update_many([x])

    def update_many(self, values: ArrayLike) -> Int64Array:
        """Add values in stream order; positions in `values` of those that raised an alarm."""
        flat = np.asarray(values, np.float64).ravel()
        finite = np.flatnonzero(np.isfinite(flat))
        codes = np.searchsorted(self.edges, flat[finite], side="left").astype(np.uint8)[:, None]
        alarms = self._bank.update(codes, np.zeros(codes.shape, np.int32), self._ring, self._heads)
        positions: Int64Array = finite[alarms["row"]].astype(np.int64)
        self._fired = bool(len(positions)) and bool(positions[-1] == len(flat) - 1)
        return positions

    @property
    def drift_detected(self) -> bool:
        """Whether the last value raised an alarm."""
        return self._fired

    @property
    def value(self) -> float:
        """PSI of the values in the window; 0 before the first."""
        return float(self._bank.values()[0, 0])

    @property
    def estimation(self) -> float:
        """The same, by the name that river's detectors have for what they estimate."""
        return self.value

    @property
    def width(self) -> int:
        """Values in the window."""
        return int(self._bank.arrays.grouped[0, 0])

    @property
    def counts(self) -> Int64Array:
        """Values of the window in each bin."""
        counts: Int64Array = self._bank.arrays.group_counts[0, 0].astype(np.int64)
        return counts


def _edges(values: Float64Array, bins: int) -> Float64Array:
    """Inner edges at the reference's quantiles; a bin is (edge, next edge], the outer ones are open."""
    inner = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    distinct: Float64Array = np.unique(inner)
    # nothing of the reference is above its maximum: an edge there would make an empty bin
    kept: Float64Array = distinct[distinct < values.max()]
    if len(kept):
        return kept
    below = values[values < values.max()]
    return np.array([below.max() if len(below) else values.max()])
