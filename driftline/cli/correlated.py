"""Which numeric columns of a sample go together most: what `init` suggests for `correlations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

PAIRS_MOST: Final = 5
CORRELATION_LEAST: Final = 0.3
"""Of ranks. What hardly goes together can hardly come apart; and by chance a hundred rows reach it once in 350 pairs."""
_ROWS_LEAST: Final = 100
_COLUMNS_MOST: Final = 100
"""Of a thousand columns there are half a million pairs: the first ones are looked at."""


def most_correlated(columns: Mapping[str, Sequence[Any]]) -> list[tuple[str, str, float]]:
    """Pairs of columns and their rank correlation (Spearman's), the strongest first.

    A row counts for a pair where both values are numbers. Columns that are equal but for their units tell nothing that
    one of them does not, and are left out with a correlation of 1 up to rounding.
    """
    import numpy as np

    ranks = {name: _ranks(values) for name, values in list(columns.items())[:_COLUMNS_MOST]}
    found = []
    for first, second in combinations(ranks, 2):
        both = ~(np.isnan(ranks[first]) | np.isnan(ranks[second]))
        a, b = ranks[first][both], ranks[second][both]
        if len(a) < _ROWS_LEAST or a.std() == 0 or b.std() == 0:
            continue
        correlation = float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))
        if CORRELATION_LEAST <= abs(correlation) < 1.0 - 1e-9:
            found.append((first, second, correlation))
    return sorted(found, key=lambda pair: (-abs(pair[2]), pair[:2]))[:PAIRS_MOST]


def _ranks(values: Sequence[Any]) -> Any:
    """Mid-ranks; NaN where there is no number."""
    import numpy as np

    numbers = np.array([float(v) if isinstance(v, int | float) and not isinstance(v, bool) else np.nan for v in values])
    known = np.isfinite(numbers)
    out = np.full(len(numbers), np.nan)
    _, place, counts = np.unique(numbers[known], return_inverse=True, return_counts=True)
    out[known] = (np.cumsum(counts) - 0.5 * counts)[place]
    return out
