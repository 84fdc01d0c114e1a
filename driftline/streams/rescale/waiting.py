"""What waits for labels, and labels that may still be asked for, into the partitions where their ids belong now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from driftline.streams.block_rows import Block, partition_of, split
from driftline.streams.columns import decode_labels, decode_waiting
from driftline.streams.join.before import written_ms
from driftline.streams.join.clock import NEVER_MS
from driftline.streams.join.rescaled import FormerJoin
from driftline.streams.rescale.logs import MARK, Sink
from driftline.streams.rescale.merge import LABEL_BLOCKS, WAITING_BLOCKS, Kind, SourceMerge, Written
from driftline.streams.task import FINAL_MS, PartitionId, Record

_TICK_EVERY_MS = 1_000


@dataclass(frozen=True, slots=True)
class Former:
    """The joins that were: `tasks[number]` are those of one partition, one an age."""

    tasks: Sequence[Sequence[FormerJoin]]

    def waiting_starts(self) -> dict[int, int]:
        """By partition, the first row that any age has not decided."""
        return {number: min(one.waiting_next for one in own) for number, own in enumerate(self.tasks)}

    def labels_starts(self, first: Callable[[int], int]) -> dict[int, int]:
        """By partition, the first label that any age may ask for; `first` gives a log's beginning."""
        return {
            number: min(first(number) if one.labels_from is None else one.labels_from for one in own)
            for number, own in enumerate(self.tasks)
        }

    def told(self) -> dict[PartitionId, dict[int, int]]:
        """By source and partition, how far the source had come where the waiting rows are read from."""
        found: dict[PartitionId, dict[int, int]] = {}
        for number, own in enumerate(self.tasks):
            for row in min(own, key=lambda one: one.waiting_next).held.waiting_ticks:
                found.setdefault((row.topic, row.partition), {})[number] = row.tick_ms
        return found


def move_waiting(records: Iterable[Record], former: Former, sink: Sink, topic: str, partitions: int) -> int:
    """Write the waiting rows of these records where they belong now; how many.

    What an age had decided of them is noted with its tasks.
    """
    spread = _Spread(WAITING_BLOCKS, former, sink, topic, partitions, former.told())
    for record in records:
        number, offset = record.partition(), record.offset()
        if (value := record.value()) is None:
            continue
        block = decode_waiting(value)
        for one in former.tasks[number] if len(block) else ():
            if offset < one.waiting_next:
                one.decided[block.source] = max(one.decided.get(block.source, NEVER_MS), int(block.offset.max()))
        spread.take(number, block, written_ms(record))
    return spread.finish()


def move_labels(records: Iterable[Record], former: Former, sink: Sink, topic: str, partitions: int) -> int:
    """The same for labels; the clocks of the tasks come as far as the labels do."""
    spread = _Spread(LABEL_BLOCKS, former, sink, topic, partitions, {})
    for record in records:
        number = record.partition()
        if (value := record.value()) is None:
            continue
        block = decode_labels(value)
        for one in former.tasks[number]:
            one.label_clock.advance(block.source, block.tick_ms, written_ms(record))
        spread.take(number, block, written_ms(record))
    return spread.finish()


class _Spread(Generic[Block]):
    """Blocks of the old partitions to blocks of the new."""

    def __init__(
        self, kind: Kind[Block], former: Former, sink: Sink, topic: str, partitions: int,
        told: Mapping[PartitionId, Mapping[int, int]],
    ) -> None:  # fmt: skip
        self._kind: Kind[Block] = kind
        self._numbers = range(len(former.tasks))
        self._sink, self._topic, self._partitions = sink, topic, partitions
        self._told = told
        self._sources: dict[PartitionId, SourceMerge[Block]] = {}
        self._sent_ms: dict[PartitionId, list[int]] = {}
        self._rows = 0

    def take(self, number: int, block: Block, at_ms: int) -> None:
        """The next block of an old partition."""
        source = block.source
        if source not in self._sources:
            self._sources[source] = SourceMerge(self._kind, source, self._numbers, self._told.get(source, {}))
            self._sent_ms[source] = [NEVER_MS] * self._partitions
        for whole in self._sources[source].add(number, block, at_ms):
            self._send(whole, last=False)

    def finish(self) -> int:
        """What is left; the number of rows that were written."""
        for source in sorted(self._sources):
            for whole in self._sources[source].rest():
                self._send(whole, last=True)
        self._sink.finish()
        return self._rows

    def _send(self, written: Written[Block], *, last: bool) -> None:
        """To the partitions that have rows of it, and its time to the others now and then, as ingest does."""
        block, headers = written.block, [(MARK, str(written.written_ms).encode())]
        sent = self._sent_ms[block.source]
        values = dict(self._messages(block)) if len(block) else {}
        empty = self._kind.messages(self._kind.empty(block.source, block.tick_ms))
        for number in range(self._partitions):
            due = last or block.tick_ms >= sent[number] + _TICK_EVERY_MS
            for value in values.get(number, empty if due else ()):
                self._sink.send(self._topic, value, partition=number, headers=headers)
            if (number in values or due) and block.tick_ms < FINAL_MS:
                sent[number] = block.tick_ms
        self._rows += len(block)

    def _messages(self, block: Block) -> Iterator[tuple[int, list[bytes]]]:
        for number, rows in split(partition_of(block.ids, self._partitions), self._partitions):
            yield number, self._kind.messages(self._kind.take(block, rows))
