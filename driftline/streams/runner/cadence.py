"""How often to commit: at once where the worker keeps up, less often while it is behind.

A commit costs about as much for ten rows as for ten thousand: a transaction, a script in Redis, a manifest. Latency is what
that buys, and a worker that is seconds behind has none to win: with fewer commits it is through its backlog sooner.
"""

from __future__ import annotations

from typing import Final

BEHIND: Final = 4
"""Commits' worth of records that wait when a worker is behind. One may have come while the last was worked on, and what is
committed upstream arrives in lumps with markers between."""


class Cadence:
    """The time between commits; doubles with each commit that leaves the worker behind, halves with each that does not.

    Parameters
    ----------
    least : seconds, of a worker that keeps up.
    most : seconds, of one that is behind.
    """

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, max(least, most)
        self.seconds = least

    def committed(self, records: int, waiting: int, *, call: int = 1) -> None:
        """A commit took so many records, and so many waited when it was done; one call may take up to `call`.

        Where a record is a batch of rows, a commit takes a few of them: a dozen that wait are one call and no backlog.
        """
        # A commit of ticks alone took no records.
        if waiting > max(BEHIND * records, BEHIND, call):
            self.seconds = min(2.0 * self.seconds, self._most)
        else:
            self.seconds = max(0.5 * self.seconds, self._least)
