"""Which categories of a reference come in runs that are drawn anew: pages of a visit, the country of a group's bookings.

A run's value is independent of the runs before it, and its length may be anything. Then the values that differ from the one before have
the transitions of quasi-independence, p(b | a) = s_b / (1 - s_a), s the shares of the draws (Goodman 1968, JASA 63, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Final

import numpy as np

from driftline.detectors.autoregression_fit import VALUES_MIN, Coded, Dependences, Memories
from driftline.detectors.kernels.dependence import new_checks
from driftline.detectors.kernels.runs import check_draws, count_changes
from driftline.detectors.runs import draw_shares
from driftline.detectors.spec import MISSING, Float64, Int64, ordered_codes
from driftline.detectors.tolerances import chi_squared_bound

_EXPECTED_LEAST: Final = 5.0
"""Changes from one group of categories to another, for the law of Pearson's statistic."""
_GROUPS_LEAST: Final = 3
_ERRORS: Final = 4.0
_ALLOWED: Final = 0.02
"""Mean chi-squared distance of the transitions from those of draws, a fifth of the PSI that is tolerated by default: less does no harm,
however certain it is."""


def find(
    pieces: Sequence[Coded], categories: Mapping[tuple[int, int], int], memories: Memories, left: Dependences
) -> tuple[Memories, Dependences]:
    """The memories and the dependence that is left, those of columns of categories with their runs where they come in such.

    Parameters
    ----------
    pieces : as for `autoregression_fit.fit`.
    categories : how many with codes of their own, of the scopes and columns with a memory that are to be looked at.
    """
    out, rest = dict(memories), dict(left)
    for c in sorted({column for _, column in categories}):
        asked = sorted(s for s, column in categories if column == c)
        _find_column(pieces, c, categories[asked[0], c], asked, out, rest)
    return out, dict(sorted(rest.items()))


def _find_column(pieces: Sequence[Coded], c: int, n_bins: int, asked: list[int], memories: Memories, left: Dependences) -> None:
    order: Int64 = np.array(ordered_codes("categorical", n_bins))
    rows: Int64 = np.full(max(int(scopes.max()) for _, scopes, _ in pieces) + 1, -1, np.int64)
    rows[asked] = np.arange(len(asked))
    changes: Int64 = np.zeros((len(asked), MISSING, MISSING), np.int64)
    last: Int64 = np.full(len(asked), -1, np.int64)
    for codes, scopes, _ in pieces:
        count_changes(codes, c, scopes, rows, last, changes)
    shares: Float64 = np.zeros((len(asked), MISSING))
    scores: Float64 = np.zeros((len(asked), MISSING))
    found: dict[int, tuple[int, ...]] = {}
    for r, s in enumerate(asked):
        own = changes[r][np.ix_(order, order)]
        share = draws_of(own)
        if share is not None:
            found[s] = tuple(own.sum(axis=0).tolist())
            shares[r, order], scores[r, order] = share, _scores(share)
    if not found:
        return
    checks = new_checks(len(asked))
    last[:] = -1
    for codes, scopes, _ in pieces:
        check_draws(codes, c, scopes, rows, last, shares, scores, checks)
    for r, s in enumerate(asked):
        if s in found and not checks.level[r]:
            memories[s, c] = replace(memories[s, c], runs=found[s])
            left.pop((s, c), None)


def draws_of(changes: Int64) -> Float64 | None:
    """The shares of the draws where values come in runs that are drawn anew; None where they do not.

    Parameters
    ----------
    changes : values by the one before them, of those that differ from it, (B, B).
    """
    total = int(changes.sum())
    share = draw_shares(changes.sum(axis=0).tolist()) if total >= VALUES_MIN else None
    if share is None:
        return None
    group = _groups(changes.sum(axis=0), math.sqrt(_EXPECTED_LEAST * total))
    n = int(group.max()) + 1
    if n < _GROUPS_LEAST:
        return None
    own = np.bincount(group, weights=share, minlength=n)
    seen: Int64 = np.zeros((n, n), np.int64)
    np.add.at(seen, (group[:, None], group[None, :]), changes)
    # Of a group nobody knows which of its values came before: what leaves it has the law of the draws outside it all the same.
    np.fill_diagonal(seen, 0)
    expected = seen.sum(axis=1, keepdims=True) * own / (1.0 - own)[:, None]
    np.fill_diagonal(expected, 1.0)
    off = seen - expected
    np.fill_diagonal(off, 0.0)
    distance, freedom = math.fsum((off * off / expected).ravel().tolist()), float(n * n - 3 * n + 1)
    unlike = distance > chi_squared_bound(freedom, _ERRORS) and distance - freedom > _ALLOWED * total
    return None if unlike else share


def _groups(runs: Int64, least: float) -> Int64:
    """Groups of neighbouring categories with at least so many runs each."""
    out: Int64 = np.zeros(len(runs), np.int64)
    group, held = 0, 0
    for k, n in enumerate(runs.tolist()):
        if held >= least:
            group, held = group + 1, 0
        out[k], held = group, held + n
    if held < least and group:
        out[out == group] = group - 1
    return out


def _scores(share: Float64) -> Float64:
    """Normal scores of draws by the middle of their ranks."""
    normal = NormalDist()
    before = np.cumsum(share) - share
    return np.array([normal.inv_cdf(min(max(p, 1e-9), 1.0 - 1e-9)) for p in (before + 0.5 * share).tolist()])
