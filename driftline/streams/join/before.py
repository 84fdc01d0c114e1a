"""What a join task must know of its rows' former life, when Driftline's topics got another number of partitions.

Rows that waited come again in other partitions (`driftline.streams.rescale`). Two ages decide the same rows at different
times, so that of the rows that one still waits for another has decided some: it passes over those.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from driftline.streams.block_rows import partition_of, take_waiting
from driftline.streams.bounded import Count
from driftline.streams.columns import WaitingBlock
from driftline.streams.task import PartitionId, Record

WRITTEN_HEADER: Final = "driftline_written_ms"
"""When a waiting row or a label that was moved was written first: whether it was before the end of an input goes by that."""
_NONE: Final = -1


class HeldBefore(msgspec.Struct, array_like=True):
    """`DecidedBefore` as a checkpoint holds it.

    Attributes
    ----------
    until : the offset in the waiting partition from which on everything is new.
    partitions : how many there were.
    decided : (former partition, topic, partition, offset): the last row of a source partition that was decided there.
    """

    until: Count
    partitions: Count
    decided: list[tuple[Count, str, Count, Count]]


class DecidedBefore:
    """Tells the rows that were decided before they came here; knows of none unless given what was held."""

    def __init__(self, held: HeldBefore | None = None) -> None:
        self._held = held
        self._limits: dict[PartitionId, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        for former, topic, partition, offset in () if held is None else held.decided:
            assert held is not None
            limits = self._limits.setdefault((topic, partition), np.full(held.partitions, _NONE, np.int64))
            limits[former] = offset

    def rest(self, offset: int, block: WaitingBlock) -> WaitingBlock:
        """The rows of the block at an offset that are still to be decided; its tick stays."""
        held = self._held
        limits = self._limits.get(block.source)
        if held is None or limits is None or offset >= held.until or not len(block):
            return block
        kept = np.flatnonzero(block.offset > limits[partition_of(block.ids, held.partitions)])
        return block if len(kept) == len(block) else take_waiting(block, kept)

    def export(self, next_offset: int | None) -> HeldBefore | None:
        """For a checkpoint at a position; None once all that was moved is behind it."""
        if self._held is not None and next_offset is not None and next_offset >= self._held.until:
            self._held = None
        return self._held


def written_ms(record: Record) -> int:
    """When a record of ours was first written."""
    headers: Iterable[tuple[str, bytes]] = record.headers() or ()
    for name, value in headers:
        if name == WRITTEN_HEADER and value.isdigit() and len(value) <= 15:
            return int(value)
    return record.timestamp()[1]
