"""The memory of decided ids as a ring, also where `kafka.commit_rows` is edited between two starts."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.streams.join.decided import DecidedIds
from driftline.streams.state.manifest import RingEntry
from driftline.streams.state.rings import plan_write, read_ring
from driftline.streams.task import RestoredRing

GENERATION = 8


def keys(first: int, n: int) -> list[bytes]:
    return [b"%016d" % number for number in range(first, first + n)]


class Ring:
    """What the store holds of it, by the store's own plan."""

    def __init__(self) -> None:
        self.entry: RingEntry | None = None
        self.value = bytearray()

    def write(self, memory: DecidedIds) -> RestoredRing:
        if (change := memory.ring()) is not None:
            plan = plan_write(change, self.entry, 0 if self.entry is None else self.entry.head, "key")
            self.entry = plan.entry
            if plan.value is not None:
                self.value = bytearray(plan.value[1])
            if plan.copy is not None:
                parts = b"".join(bytes(self.value[start:end]) for start, end in plan.copy.parts)
                self.value = bytearray(plan.copy.head + parts + plan.copy.tail)
            for _, start, data in plan.ranges:
                self.value[start : start + len(data)] = data
        assert self.entry is not None
        return read_ring("decided", self.entry, bytes(self.value))[0]


@pytest.mark.parametrize("blocks", [(4, 10), (10, 4), (4, 40, 6), (4, 4)], ids=str)
@pytest.mark.parametrize("rows", [3, 9, 70])
def test_a_ring_of_another_length_remembers_what_it_did(blocks: tuple[int, ...], rows: int) -> None:
    ring, sent, sizes, held = Ring(), 0, [0, 0], None
    never_edited = DecidedIds(GENERATION, max(blocks))
    for block_rows in blocks:
        memory = DecidedIds(GENERATION, block_rows)
        if held is not None:
            assert len(memory.restore(held, sizes)) == min(sent, len(held.rows) // 24)
        for _ in range(rows):
            memory.add(keys(sent, 1), np.array([sent]))
            never_edited.add(keys(sent, 1), np.array([sent]))
            sent += 1
            held = ring.write(memory)
            sizes = memory.sizes()
            assert sizes == never_edited.sizes()
            again = DecidedIds(GENERATION, block_rows)
            again.restore(held, sizes)
            known = [key in again for key in keys(0, sent)]
            assert known == [key in never_edited for key in keys(0, sent)]
