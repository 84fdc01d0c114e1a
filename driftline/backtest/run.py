"""One run of detect over a recording: from its beginning or from a state kept on the way, with records changed or as they are."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import orjson

from driftline.backtest.recording import Recording
from driftline.schemas.config import Config
from driftline.schemas.topics import DRIFT, OBSERVATIONS, SNAPSHOTS
from driftline.streams.detect.model import WatchedModel
from driftline.streams.detect.task import DetectTask
from driftline.streams.state.rings import whole_ring
from driftline.streams.task import MemoryRecord, Output, PartitionId, RestoredRing, RestoredState, StateDelta
from driftline.streams.wiring import make_detect

Json = dict[str, Any]
States = Mapping[PartitionId, RestoredState]

_RECORDS_AT_ONCE: Final = 32
_RECORDS_A_COMMIT: Final = 512
"""State grows until it is asked for; an export of it costs."""
_NO_SNAPSHOTS: Final = 1 << 40
_UNITS: Final = {"mean": "mean, in baseline sd", "rate": "rate", "psi": "PSI"}


@dataclass(slots=True)
class Line:
    """One series over time, as its snapshots told it: times in ms, level in a unit, and statistic over threshold."""

    unit: str = ""
    times: array[float] = field(default_factory=lambda: array("d"))
    levels: array[float] = field(default_factory=lambda: array("d"))
    ratios: array[float] = field(default_factory=lambda: array("d"))


SeriesKey = tuple[str, str, str]
"""Model, series, segment as text."""


@dataclass(slots=True)
class Found:
    """What a run said: drift events in their order, and the lines of its snapshots, where they were asked for."""

    events: list[Json] = field(default_factory=list)
    lines: dict[SeriesKey, Line] = field(default_factory=dict)


class Detect:
    """The detect processor under one configuration.

    Parameters
    ----------
    snapshot_every : events between the points of a line; None = no lines.
    """

    def __init__(self, config: Config, recording: Recording, *, snapshot_every: int | None = None) -> None:
        every = {"snapshot_every": snapshot_every or _NO_SNAPSHOTS}
        # What is tried is the detectors against the file as it is: nothing is held for a comparison.
        models = {
            name: model.model_copy(update={**every, "baseline": model.baseline.model_copy(update={"compare": False})})
            for name, model in config.models.items()
        }
        self.config = config.model_copy(update={"models": models})
        self._recording = recording
        self._processor = make_detect(self.config, recording.cluster)
        self._drift = DRIFT.full_name(config.topics.prefix)
        self._snapshots = SNAPSHOTS.full_name(config.topics.prefix) if snapshot_every else ""
        topic = OBSERVATIONS.full_name(config.topics.prefix)
        self._partitions = [(topic, partition) for partition in range(recording.cluster.partitions[topic])]

    def whole(self, stops: Sequence[int] = (), tell: Callable[[int], None] = lambda _: None) -> Whole:
        """Run over the whole recording, and keep the state before each of the records `stops`.

        Parameters
        ----------
        tell : told how many records were worked on, as they are.
        """
        whole = Whole(Found(), {}, {})
        tasks = self._open({})
        held = {partition: _Held() for partition in tasks}
        for start, end in _spans(len(self._recording.records), sorted(set(stops))):
            self._work(tasks, start, end, {}, whole.found)
            for partition, task in tasks.items():
                held[partition].take(task.checkpoint())
                task.committed()
            if end in stops:
                whole.states[end] = {partition: state.copy() for partition, state in held.items()}
            tell(end - start)
        for task in tasks.values():
            whole.models |= task.models
        return whole

    def part(self, states: States, start: int, end: int, changed: Mapping[int, bytes]) -> Found:
        """Run from the states before record `start` up to record `end`, with the bytes of some records replaced."""
        found = Found()
        self._work(self._open(states), start, end, changed, found)
        return found

    def _open(self, states: States) -> dict[PartitionId, DetectTask]:
        tasks: dict[PartitionId, DetectTask] = {}
        for partition in self._partitions:
            task = self._processor.open(self._processor.task_name(partition), states.get(partition, RestoredState()))
            assert isinstance(task, DetectTask)
            tasks[partition] = task
        return tasks

    def _work(self, tasks: Mapping[PartitionId, DetectTask], start: int, end: int, changed: Mapping[int, bytes], found: Found) -> None:
        for first in range(start, end, _RECORDS_AT_ONCE):
            batch: dict[PartitionId, list[MemoryRecord]] = {}
            for index in range(first, min(first + _RECORDS_AT_ONCE, end)):
                record = self._recording.records[index]
                if index in changed:
                    record = replace(record, value_=changed[index])
                batch.setdefault((record.topic_, record.partition_), []).append(record)
            for partition, records in batch.items():
                for output in tasks[partition].process({partition: records}):
                    self._hear(output, found)

    def _hear(self, output: Output, found: Found) -> None:
        if output.value is None:
            return
        if output.topic == self._drift:
            found.events.append(orjson.loads(output.value))
        elif output.topic == self._snapshots:
            _draw(orjson.loads(output.value), found.lines)


@dataclass(slots=True)
class Whole:
    """A run over all of a recording.

    Attributes
    ----------
    states : by the record before which they were kept.
    models : as they stand at the end.
    """

    found: Found
    states: dict[int, States]
    models: dict[str, WatchedModel]


class _Held:
    """The state of a task as its checkpoints left it."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._rings: dict[str, RestoredRing] = {}

    def take(self, delta: StateDelta) -> None:
        for name, blob in delta.blobs.items():
            if blob is None:
                self._blobs.pop(name, None)
                self._rings.pop(name, None)
            else:
                self._blobs[name] = blob
        for change in delta.rings:
            empty = RestoredRing(change.name, change.record_bytes, change.window, 0, b"")
            ring = whole_ring(self._rings.get(change.name, empty), change)
            self._rings[ring.name] = RestoredRing(ring.name, ring.record_bytes, ring.window, ring.head, ring.rows)

    def copy(self) -> RestoredState:
        return RestoredState(dict(self._blobs), dict(self._rings))


def _spans(records: int, stops: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts of the records: at every stop, and at every commit."""
    cuts = sorted({0, records, *stops, *range(0, records, _RECORDS_A_COMMIT)})
    yield from pairwise(cuts)


def _draw(snapshot: Json, lines: dict[SeriesKey, Line]) -> None:
    for level in snapshot["series"]:
        name = next((name for name in _UNITS if level[name] is not None), None)
        if name is None:
            continue
        value = level[name]
        line = lines.setdefault((snapshot["model"], level["series"], segment_text(snapshot["segment"])), Line(_UNITS[name]))
        line.times.append(snapshot["time_ms"])
        line.levels.append(value)
        known = level["statistic"] is not None and level["threshold"]
        line.ratios.append(level["statistic"] / level["threshold"] if known else float("nan"))


def segment_text(segment: Mapping[str, str] | None) -> str:
    """``key=value``; empty for all rows."""
    return "" if segment is None else ",".join(f"{key}={value}" for key, value in sorted(segment.items()))
