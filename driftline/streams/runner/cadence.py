"""When to commit: at once where the worker keeps up and rested before, less often while it is behind.

A commit costs about as much for ten rows as for ten thousand: a transaction, a script in Redis, a manifest. So there is a
time between commits, and what comes in it is gathered. It counts from the last commit, not from the first record after it:
what is committed upstream comes in one lump a commit, and to wait for more behind a lump delays it and gathers nothing. A
worker that is seconds behind has no latency to win: with fewer commits it is through its backlog sooner.
"""

from __future__ import annotations

from math import inf
from typing import Final

BEHIND: Final = 4
"""Commits' worth of records that wait when a worker is behind. One may have come while the last was worked on, and what is
committed upstream arrives in lumps with markers between."""

GATHER: Final = 0.1
"""Share of the least time between commits that the first record waits in any case: a lump comes in several pieces."""


class Cadence:
    """The time between commits; doubles with each commit that leaves the worker behind, halves with each that does not.

    Parameters
    ----------
    least : seconds, of a worker that keeps up.
    most : seconds, of one that is behind.
    """

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, max(least, most)
        self._last = -inf
        self.seconds = least

    def due(self, arrived: float) -> float:
        """When to commit records of which the first one came then; both in seconds of one clock."""
        return max(self._gathered(arrived), self._last + self.seconds)

    def committed(self, at: float, arrived: float, records: int, waiting: int, *, call: int = 1) -> None:
        """A commit was done, took so many records, and so many waited then.

        Where a record is a batch of rows, a commit takes a few of them: a dozen that wait are one call and no backlog.

        Parameters
        ----------
        at, arrived : when it was done, and when its first record came.
        call : records that one call may take.
        """
        # What comes after a pause is committed before it is all there: that the rest waits says nothing.
        rested = self._gathered(arrived) > self._last + self.seconds
        self._last = at
        # A commit of ticks alone took no records.
        if waiting > max(BEHIND * records, BEHIND, call) and not rested:
            self.seconds = min(2.0 * self.seconds, self._most)
        else:
            self.seconds = max(0.5 * self.seconds, self._least)

    def _gathered(self, arrived: float) -> float:
        return arrived + GATHER * self._least
