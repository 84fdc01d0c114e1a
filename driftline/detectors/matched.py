"""Windows of values that go by the hour, compared with the same hours of the baseline (SEMANTICS 5).

A window shorter than a day holds some hours, its baseline all of them: of a harmless daily sine of .3 standard deviations PSI
is above .1 for 44 % of the day. So a numeric value goes into windows, and to the detectors that are fed scores, as the bin of
all hours' reference in which it would rank as it ranks within its own hour, spread over bins by a hash of scope, column and
source position. Where hours are as they were in the reference, the bins then have the law that they have in all of it, whatever
hours a window holds. The map is the monotone transport between two laws in one dimension (Villani 2003, Topics in Optimal
Transportation, 2.2), randomised at the atoms.

What is missing, invalid or out of range stays so, as do categories, which have no order, and hours that have no reference.
"""

from __future__ import annotations

import numpy as np

from driftline.detectors.baseline import scope_names
from driftline.detectors.conformal import series_key
from driftline.detectors.kernels.matched import Matching, match
from driftline.detectors.kernels.portable import position_keys
from driftline.detectors.layout import Layout
from driftline.detectors.season import WAYS, Season, hours_of, places_of
from driftline.detectors.spec import MAX_BINS, Float64, Int32, Int64, PanelRows, UInt8


class MatchedCodes:
    """What windows hold of the rows of a panel.

    Parameters
    ----------
    layout : whose seasons tell the hours apart.
    """

    def __init__(self, layout: Layout) -> None:
        found = {(s, c): season for (s, c), season in sorted(layout.season.items()) if layout.hours_matched(s, c) is not None}
        columns = sorted({c for _, c in found})
        self._matching = _matching(layout, found, columns) if found else None

    def of(self, codes: UInt8, scopes: Int32, rows: PanelRows) -> UInt8:
        """The codes of each scope of a row, (n, K, C); (n, 1, C), of all alike, where no hours are told apart."""
        if self._matching is None:
            return codes[:, None, :]
        out: UInt8 = np.repeat(codes[:, None, :], scopes.shape[1], axis=1)
        keys = position_keys(rows.source.astype(np.uint64), rows.offset)
        match(codes, scopes, keys, places_of(hours_of(rows.time_ms)), self._matching, out)
        return out


def _matching(layout: Layout, seasons: dict[tuple[int, int], Season], columns: list[int]) -> Matching:
    names, shape = scope_names(layout.segments), (len(layout.counts), len(columns))
    own = [[series_key("window/" + "=".join(name or ()) + "/" + layout.columns[c].name) for c in columns] for name in names]
    way, first = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    ends: Float64 = np.ones((*shape, MAX_BINS))
    rows: list[int] = []
    begins: list[Float64] = []
    has: list[Float64] = []
    for (s, c), season in seasons.items():
        j = columns.index(c)
        way[s, j], first[s, j] = WAYS.index(season.period), len(rows)
        every = _shares(layout.counts[s, c])
        ends[s, j] = every.cumsum()
        # Of rounding, or of the values beyond the last that the reference has.
        ends[s, j, int(np.flatnonzero(every)[-1]) :] = 1.0
        for counts in season.by_code("numeric", layout.references[c].n_bins):
            shares = _shares(counts)
            rows.append(len(begins) if shares.any() else -1)
            if shares.any():
                begins.append(shares.cumsum() - shares)
                has.append(shares)
    return Matching(
        np.array(columns, np.int64), np.array(own, np.uint64).reshape(shape), way, first, np.array(rows, np.int64), np.array(begins),
        np.array(has), ends,
    )  # fmt: skip


def _shares(counts: Int64) -> Float64:
    """Shares of the bins in the values that lie within the reference's range; zeros where there are none."""
    inner = counts[:MAX_BINS].astype(np.float64)
    out: Float64 = inner / max(float(inner.sum()), 1.0)
    return out
