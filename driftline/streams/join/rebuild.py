"""From which labels offset a lost cache is filled again: written in the checkpoint, never guessed by time (PROTOCOL 17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from driftline.streams.join.clock import SourceClock

_MARKS_MAX: Final = 64
_Mark = tuple[int, int]


class RebuildMarks:
    """Positions in the labels log, oldest first.

    A mark says: every label before `offset` has a time of at most `latest_ms`. When all those are no longer wanted, the
    next mark is where a rebuild may begin. Marks are a minute of ticks apart, further when there would be many.
    """

    def __init__(self) -> None:
        self._marks: list[_Mark] = []
        self._apart_ms = 60_000

    def add(self, offset: int, clock: SourceClock) -> None:
        """Take note of the position before a label block is read."""
        latest = clock.maximum()
        if self._marks and latest < self._marks[-1][1] + self._apart_ms:
            return
        self._marks.append((offset, latest))
        if len(self._marks) > _MARKS_MAX:
            self._marks = self._marks[::2]
            self._apart_ms *= 2

    def drop(self, before_ms: int) -> None:
        """Labels before this time are no longer wanted."""
        wanted = 0
        for index, (_, latest) in enumerate(self._marks):
            if latest < before_ms:
                wanted = index
        if wanted:
            self._marks = self._marks[wanted:]

    def first(self) -> int:
        """Where to begin."""
        return self._marks[0][0] if self._marks else 0

    def export(self) -> list[Any]:
        return [self._apart_ms, self._marks]

    def restore(self, apart_ms: int, marks: Sequence[_Mark]) -> None:
        self._apart_ms = apart_ms
        self._marks = list(marks)


