"""How many records to take at once, so that one call of a task's logic stays far below the transaction's timeout."""

from __future__ import annotations

from typing import Final

TARGET_SECONDS: Final = 0.25
"""A call this long leaves room for ten of them in the shortest sensible transaction timeout, and keeps ticks on time."""

FIRST_RECORDS: Final = 64
"""Before anything is known: a record of ours is a batch of up to 20,000 rows, and a first call may compile kernels."""


class Pace:
    """Records allowed in the next poll; follows the slowest recent call at once, and recovers by doubling.

    Parameters
    ----------
    most : never more than this.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.records = min(FIRST_RECORDS, most)

    def took(self, records: int, seconds: float) -> None:
        """A call with so many records took so long."""
        if records <= 0:
            return
        affordable = self._most if seconds <= 0 else int(TARGET_SECONDS * records / seconds)
        self.records = max(1, min(affordable, 2 * self.records, self._most))
