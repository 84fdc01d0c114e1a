"""Waiting blocks that are not yet of age: the queue that the committed position of the waiting partition stays before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from driftline.streams.columns import WaitingBlock
from driftline.streams.join.clock import NEVER_MS, SourceClock


@dataclass(slots=True)
class PendingBlock:
    """A waiting block, its place in the log, and the time of its last row."""

    offset: int
    block: WaitingBlock
    last_ms: int
    written_ms: int


class Pending:
    """Blocks in the order of the waiting log.

    Attributes
    ----------
    rows : in all of them.
    """

    def __init__(self) -> None:
        self._blocks: deque[PendingBlock] = deque()
        self.rows = 0

    @property
    def offset(self) -> int | None:
        """The offset of the first one; None when there is none."""
        return self._blocks[0].offset if self._blocks else None

    def add(self, offset: int, block: WaitingBlock, written_ms: int) -> None:
        """Take the next block of the log; `written_ms` is the broker's time of its record."""
        last_ms = int(block.record_ms.max()) if len(block) else NEVER_MS
        self._blocks.append(PendingBlock(offset, block, last_ms, written_ms))
        self.rows += len(block)

    def take_due(self, age_ms: int, labels: SourceClock) -> list[PendingBlock]:
        """The first blocks, as far as every label source has passed the age of all their rows; they are no longer pending."""
        due: list[PendingBlock] = []
        while self._blocks and _of_age(self._blocks[0], age_ms, labels):
            due.append(self._blocks.popleft())
        self.rows -= sum(len(item.block) for item in due)
        return due

    def with_rows(self) -> Iterator[PendingBlock]:
        """Those that are not ticks alone."""
        return (item for item in self._blocks if len(item.block))


def _of_age(item: PendingBlock, age_ms: int, labels: SourceClock) -> bool:
    return not len(item.block) or item.last_ms + age_ms < labels.minimum_for(item.written_ms)
