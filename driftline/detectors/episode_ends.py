"""Where an open episode may end next, so that what depends on it can be cut there and the cut of the stream never shows."""

from __future__ import annotations

import numpy as np

from driftline.detectors.episodes import E_BAND_SINCE
from driftline.detectors.ring import CHECK_ROWS, Windows
from driftline.detectors.spec import Int32, Int64
from driftline.detectors.tables import Tables


def next_end(t: Tables, st: Windows, scopes_of: Int64, series: Int64, scopes: Int32, start: int) -> int:
    """The row after the first at which an episode of some series may end, among the rows from `start` on; their end if there is none.

    A level is looked at every `CHECK_ROWS` rows of its scope, and an episode ends once it was in its band for a whole window.

    Parameters
    ----------
    scopes_of, series : of open episodes, shape (K,).
    scopes : of the rows, (n, scopes a row).
    """
    stop = len(scopes)
    if not len(series):
        return stop
    since = st.episodes[scopes_of, series, E_BAND_SINCE]
    heads = st.heads[scopes_of]
    earliest = np.where(since < 0, heads, since) + t.lane_window[t.series_lane[series]]
    left = np.maximum(-(-earliest // CHECK_ROWS) * CHECK_ROWS - heads, 1)
    for place in np.flatnonzero(left <= stop - start)[np.argsort(left[left <= stop - start], kind="stable")].tolist():
        # A row has a scope once; the rows up to the last one found are enough to look at.
        own = np.flatnonzero((scopes[start:stop] == scopes_of[place]).any(axis=1))
        if len(own) >= left[place]:
            stop = start + int(own[left[place] - 1]) + 1
    return stop
