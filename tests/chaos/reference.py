"""The uninterrupted run: the same processors in one process, over the topics that the interrupted one read.

No Kafka transaction, no Redis, no restart, other cuts: what the logs hold is all that goes in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.counters import MemoryCounters
from driftline.streams.errors import SequenceError
from driftline.streams.task import MemoryRecord, Output, PartitionId, RestoredState, Task
from driftline.streams.wiring import make_detect, make_joins

# Sizes no worker of a run has: a live one takes what came within its commit interval.
_WAITING_CUT: Final = 17
_LABELS_CUT: Final = 23
_OBSERVATIONS_CUT: Final = 96

_Records = Sequence[MemoryRecord]


@dataclass(slots=True)
class Detected:
    """What detect publishes, in order, and from which observations.

    Attributes
    ----------
    outputs : by partition of observations.
    drift_at : by partition of observations, the offset at which the cut began that brought each drift event.
    """

    outputs: dict[int, list[Output]] = field(default_factory=lambda: defaultdict(list))
    drift_at: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


def uninterrupted_join(
    config: Config, cluster: Cluster, waiting: Sequence[MemoryRecord], labels: Sequence[MemoryRecord]
) -> dict[str, list[Output]]:
    """The outcomes of each join task, in order; alternating cuts of its two logs, labels ahead."""
    found: dict[str, list[Output]] = defaultdict(list)
    by_partition = _by_partition([*waiting, *labels])
    for processor in make_joins(config, cluster, MemoryCounters()):
        for name in sorted({processor.task_name(key) for key in by_partition}):
            task = processor.open(name, RestoredState())
            rows, facts = (by_partition.get(key, []) for key in sorted(processor.task_inputs(name), key=_waiting_first))
            for some_rows, some_facts in _alternating(rows, facts):
                batch = {(records[0].topic(), records[0].partition()): records for records in (some_rows, some_facts) if records}
                found[name] += task.process(batch)
                _commit(task)
    return found


def uninterrupted_detect(
    config: Config, cluster: Cluster, observations: Sequence[MemoryRecord], cuts: Mapping[int, Iterable[int]] | None = None
) -> Detected:
    """What follows from the observations.

    Parameters
    ----------
    cuts : offsets by partition at which a cut must begin, so that `drift_at` can tell what stands on which side.
    """
    detected = Detected()
    processor = make_detect(config, cluster)
    for key, records in sorted(_by_partition(observations).items()):
        task = processor.open(processor.task_name(key), RestoredState())
        for part in _cut(records, set((cuts or {}).get(key[1], ()))):
            try:
                outputs = task.process({key: part})
            except SequenceError:
                break  # what stands before detect is wrong, which the verdict on join or ingest says
            detected.outputs[key[1]] += outputs
            detected.drift_at[key[1]] += [part[0].offset() for output in outputs if output.topic.endswith(".drift")]
            _commit(task)
    return detected


def _commit(task: Task) -> None:
    task.checkpoint()
    task.committed()


def _by_partition(records: Iterable[MemoryRecord]) -> dict[PartitionId, list[MemoryRecord]]:
    found: dict[PartitionId, list[MemoryRecord]] = defaultdict(list)
    for record in records:
        found[record.topic(), record.partition()].append(record)
    return found


def _waiting_first(key: PartitionId) -> bool:
    return not key[0].endswith(".waiting")


def _alternating(rows: _Records, facts: _Records) -> Iterator[tuple[_Records, _Records]]:
    for number in range(max(-(-len(rows) // _WAITING_CUT), -(-len(facts) // _LABELS_CUT))):
        yield (
            rows[number * _WAITING_CUT : (number + 1) * _WAITING_CUT],
            facts[number * _LABELS_CUT : (number + 1) * _LABELS_CUT],
        )


def _cut(records: Sequence[MemoryRecord], starts: set[int]) -> Iterator[list[MemoryRecord]]:
    """Parts of the usual size; offsets have gaps (transaction markers), so a cut falls before the first at or after it."""
    bounds = sorted(starts)
    part: list[MemoryRecord] = []
    for record in records:
        crossed = False
        while bounds and bounds[0] <= record.offset():
            bounds.pop(0)
            crossed = True
        if part and (crossed or len(part) >= _OBSERVATIONS_CUT):
            yield part
            part = []
        part.append(record)
    if part:
        yield part
