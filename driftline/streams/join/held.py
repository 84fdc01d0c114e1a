"""What a join task keeps in its checkpoint, with types and bounds."""

from __future__ import annotations

import msgspec

from driftline.streams.bounded import Count, Signed64
from driftline.streams.join.before import HeldBefore
from driftline.streams.join.clock import SourceTick


class HeldJoin(msgspec.Struct):
    """The small state; the ids decided last are a window of their own."""

    waiting_next: Count | None
    labels_next: Count | None
    cached_next: Count
    label_ticks: list[SourceTick]
    waiting_ticks: list[SourceTick]
    marks: tuple[Count, list[tuple[Count, Signed64]]]
    decided: tuple[Count, Count]
    settle_head: Count
    seq: dict[str, Count]
    age_ms: Count | None
    generation: Count = 0
    ticks: dict[str, Signed64] = {}
    partitions: list[Count] = []
    before: HeldBefore | None = None
