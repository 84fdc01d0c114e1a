"""Rows of one source partition, out of the partitions they were spread over, back in the order in which they came.

Ingest spreads every commit over all partitions of `waiting` and `labels`, and tells each of them how far the source has
come. So what all of them have been told of is whole, and can be put together again as ingest had it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Generic

import numpy as np
import numpy.typing as npt

from driftline.streams.block_rows import (
    NO_TICK,
    Block,
    Int64,
    label_messages,
    several_labels,
    several_waiting,
    take_labels,
    take_waiting,
    waiting_messages,
)
from driftline.streams.columns import LabelBlock, WaitingBlock
from driftline.streams.task import FINAL_MS, PartitionId

# Fewer than a commit of ingest holds, so that a block is never larger than the join reckons with.
_ROWS_MAX: Final = 10_000
# A block costs as much as a thousand rows. But the join decides it whole: rows of different seconds do not wait for each other.
_BLOCK_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Kind(Generic[Block]):
    """What is done with one kind of blocks."""

    empty: Callable[[PartitionId, int], Block]
    several: Callable[[Any], Block]
    take: Callable[[Block, Int64], Block]
    messages: Callable[[Block], list[bytes]]


WAITING_BLOCKS: Final[Kind[WaitingBlock]] = Kind(WaitingBlock, several_waiting, take_waiting, waiting_messages)
LABEL_BLOCKS: Final[Kind[LabelBlock]] = Kind(LabelBlock, several_labels, take_labels, label_messages)


@dataclass(frozen=True, slots=True)
class Written(Generic[Block]):
    """A block as ingest might have written it for all partitions at once, and when it did."""

    block: Block
    written_ms: int


class SourceMerge(Generic[Block]):
    """One source partition.

    Parameters
    ----------
    partitions : those it is spread over.
    told : how far each had come where reading begins, as far as that is known.
    """

    def __init__(self, kind: Kind[Block], source: PartitionId, partitions: Iterable[int], told: Mapping[int, int]) -> None:
        self._kind: Kind[Block] = kind
        self._source = source
        self._ticks = {partition: told.get(partition, NO_TICK) for partition in partitions}
        self._taken_to = min(self._ticks.values())
        self._ended: dict[int, int] = {}
        self._blocks: list[Block] = []
        self._written: list[Int64] = []
        self._last_written = 0

    def add(self, partition: int, block: Block, written_ms: int) -> Iterator[Written[Block]]:
        """Take the next block of a partition; what has become whole with it, once that is a second of the source's time."""
        self._last_written = max(self._last_written, written_ms)
        if block.tick_ms >= FINAL_MS:
            self._ended[partition] = written_ms
        else:
            self._ended.pop(partition, None)
            self._ticks[partition] = max(self._ticks[partition], block.tick_ms)
        if len(block):
            self._blocks.append(block)
            self._written.append(np.full(len(block), written_ms, np.int64))
        if (whole_to := min(self._ticks.values())) >= self._taken_to + _BLOCK_MS:
            self._taken_to = whole_to
            yield from self._take(whole_to, last=False)

    def rest(self) -> Iterator[Written[Block]]:
        """All that is left, as nothing more will be read; last the source's end where it had ended."""
        yield from self._take(max(self._ticks.values()), last=True)
        if self._ended.keys() == self._ticks.keys():
            yield Written(self._kind.empty(self._source, FINAL_MS), max(self._ended.values()))

    def _take(self, tick_ms: int, *, last: bool) -> Iterator[Written[Block]]:
        """The rows before a time, in blocks, the last of which carries the time; without rows, the time alone."""
        if not self._blocks:
            yield Written(self._kind.empty(self._source, tick_ms), self._last_written)
            return
        whole = self._kind.several(self._blocks)
        order = np.argsort(whole.offset, kind="stable")
        whole = self._kind.take(whole, order)
        # Brokers' clocks differ a little; a row was not written before the one that came before it.
        written: Int64 = np.maximum.accumulate(np.concatenate(self._written)[order])
        seen: Int64 = np.maximum.accumulate(whole.seen_ms)
        n: int = len(seen) if last else int(np.searchsorted(seen, tick_ms))
        left = np.arange(n, len(seen))
        self._blocks = [self._kind.take(whole, left)] if len(left) else []
        self._written = [written[n:]] if len(left) else []
        if not n:
            yield Written(self._kind.empty(self._source, tick_ms), self._last_written)
            return
        for start, stop in pairwise([*_cuts(written[:n]), n]):
            block = self._kind.take(whole, np.arange(start, stop))
            block.tick_ms = tick_ms if stop == n else int(seen[stop])
            yield Written(block, int(written[stop - 1]))


def _cuts(written: npt.NDArray[np.int64]) -> list[int]:
    """Where blocks begin: with every second of writing, and so that none is too large."""
    seconds = (np.flatnonzero(np.diff(written // _BLOCK_MS)) + 1).tolist()
    return sorted({0, *seconds, *range(0, len(written), _ROWS_MAX)})
