"""The buckets of ADWIN windows as a checkpoint has them, and whether those of a restored one are a window's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.kernels.bank import Float64Array, Int32Array, UInt8Array
from driftline.detectors.kernels.jit import kernel

SIZE, START = 0, 1
"""Last axis of `sizes`: buckets in a row, and where its oldest is; rows are rings of a power of two."""

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


@kernel
def in_use(first: int, last: int, sizes: UInt8Array, depth: Int32Array) -> tuple[int, int, int]:
    """Of the series from `first` to before `last`: rows, buckets, and those of single values among them."""
    rows = buckets = single = 0
    for q in range(first, last):
        rows += depth[q]
        single += sizes[q, 0, SIZE]
        for row in range(depth[q]):
            buckets += sizes[q, row, SIZE]
    return rows, buckets, single


@kernel
def gather_buckets(
    first: int, last: int, sizes: UInt8Array, depth: Int32Array, totals: Float64Array, variances: Float64Array,
    out_sizes: UInt8Array, out_totals: Float64Array, out_variances: Float64Array,
) -> None:  # fmt: skip
    """Fill the sizes of rows in use, and of their buckets, oldest first, the sums and, but of single values, the variances."""
    slots = totals.shape[2]
    r = t = v = 0
    for q in range(first, last):
        for row in range(depth[q]):
            size = sizes[q, row, SIZE]
            out_sizes[r] = size
            r += 1
            for k in range(size):
                slot = (sizes[q, row, START] + k) & (slots - 1)
                out_totals[t] = totals[q, row, slot]
                t += 1
                if row:
                    out_variances[v] = variances[q, row, slot]
                    v += 1
