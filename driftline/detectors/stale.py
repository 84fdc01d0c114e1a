"""Episodes of scopes that get no rows: a version or a segment value that is gone would keep them open for ever.

Time is the caller's, handed in with the rows: it never goes back. An episode that ends here did not recover. It is kept
as `STALE`, and when rows come again its level decides within 32 of them whether it opens anew.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from driftline.detectors.episodes import E_OFFSET, E_OPEN, E_SEVERITY, E_SOURCE, E_TIME, OPEN, STALE
from driftline.detectors.kernels.jit import kernel
from driftline.detectors.layout import Layout
from driftline.detectors.ring import Windows
from driftline.detectors.spec import SEVERITIES, Anchor, Int32, Int64, Signal

DETECTOR: Final = "stale"
"""What stands as the detector of an event that ends an episode for want of rows."""
_NEVER: Final = 2**63 - 1
_UNITS: Final = (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def stale_reason(limit_ms: int) -> str:
    """Why such an episode ended, for people."""
    unit, size = next((unit, size) for unit, size in _UNITS if limit_ms % size == 0)
    return f"closed because nothing came for {limit_ms // size}{unit}, not because it recovered"


@kernel
def _first_due(episodes: Int64, seen_ms: Int64, limit_ms: int) -> int:
    """The least of `Silence._due_ms`; -1 = no episode is open."""
    first = -1
    for s in range(episodes.shape[0]):
        for q in range(episodes.shape[1]):
            if episodes[s, q, E_OPEN] == OPEN:
                due = seen_ms[s] + limit_ms if seen_ms[s] >= 0 else _NEVER
                first = due if first < 0 else min(first, due)
    return first


class Silence:
    """When each scope had its last row.

    Parameters
    ----------
    limit_ms : an open episode of a scope without rows for longer than this is due; None = never.

    Attributes
    ----------
    seen_ms : shape (S,), -1 = not known.
    """

    def __init__(self, limit_ms: int | None, n_scopes: int) -> None:
        self._limit_ms = limit_ms
        self.seen_ms: Int64 = np.full(n_scopes, -1, np.int64)

    def saw(self, scopes: Int32, clock_ms: Int64) -> None:
        """Take the scopes of rows, shape (n, scopes a row), and the time at each row."""
        for k in range(scopes.shape[1]):
            # Where a scope comes several times the last one stays, and time never goes back.
            self.seen_ms[scopes[:, k]] = clock_ms

    def next_ms(self, windows: Windows) -> int | None:
        """The time after which the first episode is due, if no scope has another row; None = none is open."""
        if self._limit_ms is None:
            return None
        due = _first_due(windows.episodes, self.seen_ms, self._limit_ms)
        return None if due < 0 else due

    def expire(self, windows: Windows, layout: Layout, now_ms: int) -> list[tuple[int, Signal]]:
        """End what is due: (when it was, signal) in order of time, scope and series."""
        due = self._due_ms(windows)
        if due is None:
            return []
        places = np.argwhere(windows.episodes[:, :, E_OPEN] == OPEN)
        found = []
        for at_ms, (scope, q) in sorted(zip(due.tolist(), places.tolist(), strict=True)):
            if at_ms < now_ms:
                found.append((at_ms, self._signal(windows, layout, scope, q)))
                windows.episodes[scope, q] = 0
                windows.episodes[scope, q, E_OPEN] = STALE
        return found

    def _due_ms(self, windows: Windows) -> Int64 | None:
        """When each open episode is due, in order of scope and series."""
        if self._limit_ms is None:
            return None
        scopes = np.nonzero(windows.episodes[:, :, E_OPEN] == OPEN)[0]
        seen: Int64 = self.seen_ms[scopes]
        return np.where(seen < 0, _NEVER, seen + self._limit_ms)

    def _signal(self, windows: Windows, layout: Layout, scope: int, q: int) -> Signal:
        assert self._limit_ms is not None
        series, episode = layout.series[q], windows.episodes[scope, q].tolist()
        return Signal(
            kind="recovery", row=0, scope=scope, column=layout.column_of[q], series=series.name, detector=DETECTOR,
            statistic=self._limit_ms / 1000, threshold=self._limit_ms / 1000, value=None, baseline_value=None, effect_kind=None,
            effect_size=None, direction=None, severity=SEVERITIES[episode[E_SEVERITY]], n=0, window=series.window, since=None,
            episode=Anchor(source=episode[E_SOURCE], offset=episode[E_OFFSET], time_ms=episode[E_TIME], exact=True),
            reason=stale_reason(self._limit_ms),
        )  # fmt: skip
