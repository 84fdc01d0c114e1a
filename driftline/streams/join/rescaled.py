"""The states of one age's join tasks for another number of partitions.

Labels that wait are in no state: a new task fills its cache from the labels that were moved with it, as one whose Redis
was lost (`rebuild.py`), and decides nothing before it has read them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from driftline.streams.block_rows import partition_of
from driftline.streams.join.before import HeldBefore
from driftline.streams.join.clock import NEVER_MS, NO_END_MS, SourceClock, SourceTick
from driftline.streams.join.decided import RECORD, RING, DecidedIds
from driftline.streams.join.held import HeldJoin
from driftline.streams.join.setting import JoinSetting
from driftline.streams.join.task import OLDEST_READ, STATE, STATE_VERSION
from driftline.streams.state.blob import read_state
from driftline.streams.task import PartitionId, RestoredRing, RestoredState

_MARKS_APART_MS = 60_000


@dataclass(slots=True)
class FormerJoin:
    """A join task as it stood.

    Attributes
    ----------
    waiting_next : where its undecided rows begin.
    labels_from : where the labels begin that it may still ask for; None = at the beginning.
    label_clock : as in its checkpoint; whoever reads the labels from `labels_from` on moves it.
    decided : the last row it decided of each source partition, as far as that was read; see `DecidedBefore`.
    """

    held: HeldJoin
    ring: npt.NDArray[np.void]
    waiting_next: int
    labels_from: int | None
    label_clock: SourceClock
    decided: dict[PartitionId, int]

    @classmethod
    def of(cls, state: RestoredState, waiting_next: int, labels_next: int) -> FormerJoin:
        """Of a task's committed state and offsets.

        Raises
        ------
        StateError : damaged, or of a newer release.
        """
        clock, nothing = SourceClock(()), np.empty(0, RECORD)
        blob = state.blobs.get(STATE)
        if blob is None:
            held = HeldJoin(waiting_next, labels_next, labels_next, [], [], (_MARKS_APART_MS, []), (0, 0), 0, {}, None)
            return cls(held, nothing, waiting_next, labels_next, clock, {})
        held = read_state(blob, STATE_VERSION, HeldJoin, oldest=OLDEST_READ)
        clock.restore(held.label_ticks)
        marks = held.marks[1]
        rows = np.frombuffer(state.rings[RING].rows, RECORD)[-sum(held.decided) :] if sum(held.decided) else nothing
        return cls(held, rows, waiting_next, marks[0][0] if marks else None, clock, {})


@dataclass(frozen=True, slots=True)
class Section:
    """Where what was moved stands in one new partition: from the first offset up to, not with, the second."""

    waiting: tuple[int, int]
    labels: tuple[int, int]


def rescaled(former: Sequence[FormerJoin], setting: JoinSetting, sections: Sequence[Section]) -> tuple[list[RestoredState], int]:
    """A state for each new partition, in their order, and the generation of all of them."""
    ages = [one.held.age_ms for one in former if one.held.age_ms is not None]
    generation = max(one.held.generation for one in former)
    told: dict[str, int] = {}
    for one in former:
        for model, tick_ms in one.held.ticks.items():
            told[model] = min(told.get(model, tick_ms), tick_ms)
    common = HeldJoin(
        waiting_next=None, labels_next=None, cached_next=0,
        # Nothing more will come of the sources than what was moved and what they say from now on.
        label_ticks=_ticks([one.label_clock for one in former], latest=True),
        waiting_ticks=_ticks([_clock(one.held.waiting_ticks) for one in former], latest=False),
        marks=(_MARKS_APART_MS, []), decided=(0, 0), settle_head=0, seq={},
        # Measured in each partition: with the greatest every prediction waits at least as long as it would have.
        age_ms=max(ages, default=None),
        generation=generation, ticks=told, partitions=[setting.observations_partitions],
        before=None,
    )  # fmt: skip
    remembered = np.concatenate([one.ring for one in former])
    remembered = remembered[np.argsort(remembered["limit_ms"], kind="stable")]
    places = partition_of(np.ascontiguousarray(remembered["id"]), len(sections)) if len(remembered) else np.empty(0, np.int64)
    states = []
    for number, section in enumerate(sections):
        ring, sizes = _memory(remembered[places == number], setting)
        held = msgspec.structs.replace(
            common, waiting_next=section.waiting[0], labels_next=section.labels[1], cached_next=section.labels[1],
            marks=(_MARKS_APART_MS, [(section.labels[0], NEVER_MS)]), decided=sizes, settle_head=sum(sizes),
            before=_before(former, section.waiting[1]),
        )  # fmt: skip
        version = OLDEST_READ if held.before is None else STATE_VERSION
        blob = orjson.dumps({"v": version, **msgspec.to_builtins(held)})
        states.append(RestoredState({STATE: blob}, {} if ring is None else {RING: ring}))
    return states, generation


def _memory(rows: npt.NDArray[np.void], setting: JoinSetting) -> tuple[RestoredRing | None, tuple[int, int]]:
    """The ids decided last, as many as a task remembers."""
    window = DecidedIds(setting.generation, setting.block_rows).window
    newer = setting.generation - 1
    rows = rows[-(newer + setting.generation + setting.block_rows) :]
    if not len(rows):
        return None, (0, 0)
    newer = min(newer, len(rows))
    return RestoredRing(RING, RECORD.itemsize, window, len(rows), rows.tobytes()), (len(rows) - newer, newer)


def _before(former: Sequence[FormerJoin], until: int) -> HeldBefore | None:
    decided = [(number, *source, offset) for number, one in enumerate(former) for source, offset in sorted(one.decided.items())]
    return HeldBefore(until, len(former), decided) if decided else None


def _clock(ticks: Iterable[SourceTick]) -> SourceClock:
    clock = SourceClock(())
    clock.restore(ticks)
    return clock


def _ticks(clocks: Sequence[SourceClock], *, latest: bool) -> list[SourceTick]:
    """What several clocks say together of the sources that each of them knows: how far the first, or the last, has come."""
    rows: dict[PartitionId, list[SourceTick]] = {}
    for clock in clocks:
        for row in msgspec.convert(clock.export(), list[SourceTick]):
            rows.setdefault((row.topic, row.partition), []).append(row)
    found = []
    for source, own in sorted(rows.items()):
        whole = len(own) == len(clocks)
        if not whole and not latest:
            continue
        tick_ms = (max if latest else min)(row.tick_ms for row in own)
        end_ms = min(row.last_end_ms for row in own) if whole else NO_END_MS
        found.append(SourceTick(*source, tick_ms, int(whole and all(row.ended for row in own)), end_ms))
    return found


