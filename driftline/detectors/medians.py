"""The level of a numeric column in its own unit, for people: the median, or a pair's correlation.

Detectors judge standardised scores and shares of bins, since a window keeps codes and no values. What they say of a change has no
unit; a median of the same rows, read off the same bins, has.
"""

from __future__ import annotations

import math
from typing import Any, Final

from driftline.detectors.baseline import ColumnReference
from driftline.detectors.spec import ABOVE, BELOW, ordered_codes

DIGITS: Final = 6
"""Significant digits that leave: a bin is wider than the rest."""
CORRELATION_DIGITS: Final = 3


def median_of(counts: Any, column: ColumnReference) -> float | None:
    """The median of the values behind `counts`, in the column's unit.

    Parameters
    ----------
    counts : rows by code, shape (N_CODES,).

    Returns
    -------
    None for categories and pairs, without a value, and where the median lies beyond all that the baseline has seen, which no bin
    can place.
    """
    if column.kind != "numeric" or column.factor_names or column.low is None or column.high is None:
        return None
    codes = ordered_codes(column.kind, column.n_bins)
    half = 0.5 * sum(int(counts[code]) for code in codes)
    ends = (column.low, *column.edges, column.high)
    before = 0
    for code in codes:
        count = int(counts[code])
        if count and before + count >= half:
            if code in (BELOW, ABOVE):
                return None
            # Weights, not a difference: two ends may be further apart than a number can say.
            share = (half - before) / count
            return float(f"{ends[code] * (1.0 - share) + ends[code + 1] * share:.{DIGITS}g}")
        before += count
    return None


def correlation_of(counts: Any, column: ColumnReference) -> float | None:
    """The correlation of a pair's standardised values: the mean of their products, each bin's taken for that of the reference.

    Where the correlation has changed much the outer bins' means have too, and it is told too near to the baseline's: by a twentieth of
    the change between correlations of one sign, by up to a quarter where the sign is another one.

    Parameters
    ----------
    counts : rows by code, shape (N_CODES,).

    Returns
    -------
    None for other columns, and without a value.
    """
    if not column.factors or not column.means or column.low is None or column.high is None:
        return None
    by_code = {**dict(enumerate(column.means)), BELOW: column.low, ABOVE: column.high}
    total = sum(int(counts[code]) for code in by_code)
    if not total:
        return None
    mean = math.fsum(int(counts[code]) * value for code, value in by_code.items()) / total
    # Of values that go together in one segment the product's mean may pass 1 by what they are there on average.
    return float(f"{min(max(mean, -1.0), 1.0):.{CORRELATION_DIGITS}g}")
