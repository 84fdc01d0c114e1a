"""Categories that come in runs, each drawn anew: the shares of the draws (`runs_fit.py` finds whose do, `kernels.runs` what is judged)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from driftline.detectors.spec import Float64

SHARE_MOST: Final = 0.5
"""Of a category: of one that is drawn more often nearly every change begins or ends a run, and what is judged after it says nothing."""
_HALVINGS: Final = 200


def draw_shares(runs: Sequence[int]) -> Float64 | None:
    """The shares of the draws that begin so many runs of each category; None where one has more than `SHARE_MOST`.

    A run of a category that happens to follow another of it is part of that, so s_a (1 - s_a) is in proportion to its runs: the
    likelihood of the transitions is largest there.
    """
    most, total = max(runs), math.fsum(runs)
    low, high = 4.0 * most, 2.0 * total
    if not total > 0.0 or _sum_of_shares(runs, low) < 1.0:
        return None
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if _sum_of_shares(runs, middle) >= 1.0 else (low, middle)
    share: Float64 = np.array([_share(n, low) for n in runs])
    return share / math.fsum(share.tolist())


def _share(runs: float, scale: float) -> float:
    return 0.5 * (1.0 - math.sqrt(max(1.0 - 4.0 * runs / scale, 0.0)))


def _sum_of_shares(runs: Sequence[int], scale: float) -> float:
    return math.fsum(_share(n, scale) for n in runs)
