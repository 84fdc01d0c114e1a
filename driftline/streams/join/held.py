"""What a join task keeps in its checkpoint, with types and bounds."""

from __future__ import annotations

import msgspec

from driftline.streams.join.clock import SourceTick
from driftline.streams.state.blob import Count, Int64


class HeldJoin(msgspec.Struct):
    """The small state; the ids decided last are a window of their own."""

    waiting_next: Count | None
    labels_next: Count | None
    cached_next: Count
    label_ticks: list[SourceTick]
    waiting_ticks: list[SourceTick]
    marks: tuple[Count, list[tuple[Count, Int64]]]
    decided: tuple[Count, Count]
    settle_head: Count
    seq: dict[str, Count]
    age_ms: Count | None
    generation: Count = 0
    ticks: dict[str, Int64] = {}
    partitions: list[Count] = []
