"""Whether a restored ADWIN is one that values can lead to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.bank import Float64Array

_DEPTH_MOST = 48
"""Rows of buckets that a restored window may have: 2^48 values."""


def buckets_fit(depth: NDArray[np.uint8], sizes: NDArray[np.uint8], width: Float64Array, totals: int, variances: int) -> bool:
    """Whether the buckets are a window's: kernels walk them by these numbers, without a check of bounds.

    Parameters
    ----------
    depth : rows of buckets of each series
    sizes : buckets of each row in use, the series' rows one after another
    width : values in each window; a bucket of row k holds 2^k of them
    totals, variances : how many of them came along; a bucket of a single value has no variance
    """
    if np.any(depth < 1) or np.any(depth > _DEPTH_MOST) or int(depth.sum(dtype=np.int64)) != len(sizes):
        return False
    first = np.cumsum(depth, dtype=np.int64) - depth
    row = np.arange(len(sizes)) - np.repeat(first, depth)
    held = np.zeros(len(width))
    np.add.at(held, np.repeat(np.arange(len(depth)), depth), np.ldexp(sizes.astype(np.float64), row))
    empty = (sizes == 0) & ~((row == 0) & np.repeat((depth == 1) & (width == 0), depth))
    counted = int(sizes.sum(dtype=np.int64)) == totals and int(sizes[row > 0].sum(dtype=np.int64)) == variances
    return counted and not np.any(empty) and bool(np.array_equal(held, width))
