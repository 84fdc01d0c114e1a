"""The bins of a categorical series that its e-detector bets on, and how far their shares may be from the baseline's (`kernels.shares`).

Bins are of the scores that are judged, and divided where the ranks of a category begin: where values go by the hour, the scores are
against their hour, and a bin holds what has the place there that the category has over all hours. That is a (random) map of the
values of an hour, which takes its law in the baseline to the baseline's of all hours, and no map makes a divergence larger: what is
tolerated of categories is tolerated of bins. The same holds of the scores since a change, of which the bins are a partition like any.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from driftline.detectors.autoregression import Autoregression
from driftline.detectors.kernels.shares import Bins, score_edges
from driftline.detectors.layout import Layout, draws_by_rank, new_are_expected, room, values_by_rank
from driftline.detectors.spec import MISSING, Int64, ordered_codes
from driftline.detectors.tolerances import chi_squared_bound

FEW: Final = 10
"""Reference values of a category from which the square root of their number has a variance near 1/4."""
_NOISE_OF_FEW: Final = 1.85
_NOISE: Final = 1.1
"""4 E (sqrt X - sqrt EX)^2 of a Poisson number X at most, below `FEW` values and from there on; its limit is 1."""

_THROUGH_LEAST: Final = 4.0
"""Residuals of two kinds of values are not correlated and yet depend on each other: 2.6 times is not enough where each stays with a chance
of .6."""


def category_bins(
    layout: Layout, scope: int, c: int, warning: float, size: int, errors: float, memory: Autoregression | None = None, *,
    all_of_it: bool = True,
) -> Bins | None:  # fmt: skip
    """The bins of a column of categories; None where there are not two.

    Parameters
    ----------
    warning : PSI that is no change.
    size : values of the reference that do not depend on each other.
    errors : of the reference that are none.
    memory : of the values, where residuals are judged; `all_of_it`: what is left of them does not depend on each other.
    """
    draws = draws_by_rank(layout, scope, c)
    counts = values_by_rank(layout, scope, c) if draws is None else draws
    begins, _ = room(counts)
    held = counts > 0
    # What was never seen is last, and has a place of its own where it is news.
    held[-1] |= not new_are_expected(layout, c)
    starts = begins[held]
    if len(starts) < 2 or not counts.any():
        return None
    share = np.diff(np.append(starts, 1.0))
    edges = np.empty(len(starts) - 1)
    score_edges(starts[1:], edges)
    noise = sum(_NOISE if n >= FEW else _NOISE_OF_FEW for n in counts[held].tolist()) - _NOISE
    error = math.sqrt(chi_squared_bound(noise, errors) / max(size, 1)) + 2.0 * _chosen(layout, scope, c)
    tolerance = max(warning, error * error)
    if draws is not None:
        codes: Int64 = np.zeros(MISSING, np.int64)
        codes[ordered_codes("categorical", layout.references[c].n_bins)] = np.searchsorted(starts, begins, side="right") - 1
        return Bins(edges.tolist(), share.tolist(), tolerance, codes.tolist())
    return Bins(edges.tolist(), share.tolist(), tolerance * (1.0 if memory is None else _through(memory, all_of_it=all_of_it)))


def _through(memory: Autoregression, *, all_of_it: bool) -> float:
    """How many times the divergence of values that of their residuals may be.

    A residual has its value's change and, through the memory, those of the values before. As distances add up, a memory of several values
    would tolerate nearly all: 24 times where each comes twice. Where residuals do not depend on each other the changes are taken to add up
    as variances do, but not to less than a shift of all values is to residuals, nor than `_THROUGH_LEAST`. No theorem: it is measured on
    values in runs, ordered and unordered, of two kinds and of ten (docs/quality.md).
    """
    most = (1.0 + math.fsum(map(abs, memory.coefficients))) ** 2
    if not all_of_it:
        return most
    return min(most, max(1.0 + math.fsum(one * one for one in memory.coefficients), memory.gain * memory.gain, _THROUGH_LEAST))


def _chosen(layout: Layout, scope: int, c: int) -> float:
    """How far the shares are off since the categories with bins of their own are those that were frequent in the reference.

    As the square root of sum (sqrt p - sqrt r)^2 over two bins, these categories and the others, were the values left out, each
    by itself, of the categories that would then be no more frequent than the rarest with a bin.
    """
    reference = layout.references[c]
    if not reference.others:
        return 0.0
    counts = layout.counts[:, c, : reference.n_bins]
    rarest = counts[0] <= counts[0].min() + 1
    values = layout.counts[scope, c, ordered_codes("categorical", reference.n_bins)].sum()
    chosen, fell = float(counts[scope].sum()) / values, float(counts[scope, rarest].sum()) / values
    return math.hypot(math.sqrt(chosen) - math.sqrt(chosen - fell), math.sqrt(1.0 - chosen + fell) - math.sqrt(1.0 - chosen))
