"""Positions at which a series had no value: what was counted in values becomes a position."""

from __future__ import annotations

from collections import deque

from driftline.detectors.kernels.bank import Int64Array

HOLES_KEPT = 1 << 16
"""Of a series; older ones are forgotten, and a place before them is given too late by as many."""


class Holes:
    """The holes of one series, in stream order."""

    def __init__(self) -> None:
        self._positions: deque[int] = deque(maxlen=HOLES_KEPT)

    def add(self, positions: Int64Array) -> None:
        """Remember more of them, each later than those before."""
        self._positions.extend(positions.tolist())

    def clear(self) -> None:
        """Forget them: nothing before now will be asked for."""
        self._positions.clear()

    def place(self, after: int, back: int) -> int:
        """The position from which on there are `back` values before position `after`, at least 0."""
        place = after - back
        for hole in reversed(self._positions):
            if hole >= after:
                continue
            if hole < place:
                break
            place -= 1
        return max(place, 0)
