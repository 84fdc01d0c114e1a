"""Counts by the groups of PSI, their shares, and the index of two of them.

The compiled `levels.psi_level` is the same of counts below a window, with tabled logarithms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftline.detectors.kernels.jit import portable_log
from driftline.detectors.kernels.psi import NO_GROUP
from driftline.detectors.spec import Float64


def grouped(counts: Any, group: Any, used: int) -> Float64:
    """Counts by code, shape (N,), summed over the `used` groups; codes in no group are left out.

    Parameters
    ----------
    group : of each code, shape (N,); `NO_GROUP` = none.
    """
    counted = group != NO_GROUP
    # One after the other, by code: the same bits everywhere.
    out: Float64 = np.bincount(group[counted].astype(np.int64), np.asarray(counts)[counted], used).astype(np.float64)
    return out


def smoothed(counts: Float64) -> Float64:
    """Shares of groups with half a count added to each, shape (B,); counts may be no whole numbers."""
    return (counts + 0.5) / (math.fsum(counts.tolist()) + 0.5 * len(counts))


def psi_of(shares: Float64, expected: Float64) -> float:
    """Population stability index of shares, none of them 0, against those expected: sum (p - e) ln(p / e)."""
    terms = [(p - e) * portable_log(p / e) for p, e in zip(shares.tolist(), expected.tolist(), strict=True)]
    return math.fsum(terms)
