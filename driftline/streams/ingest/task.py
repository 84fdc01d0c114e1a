"""Ingest of one source partition: observations, waiting rows, label rows, dead letters and ticks out of records.

Ticks: a block with rows carries the running maximum of its source partition's record times. An input that is at its
end is ticked by `tick`, about once a second; while data flows, a target partition that got no rows gets an empty block
when the source's time has moved on by a second, so that sparse labels hold nobody up, and a model without rows gets a
tick of its own (`silence.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from driftline.schemas.config import Config
from driftline.schemas.sensitive import has_sensitive
from driftline.schemas.topics import DEAD_LETTERS, LABELS, OBSERVATIONS, WAITING
from driftline.streams.block_rows import MESSAGE_BYTES_MAX, label_messages, waiting_messages
from driftline.streams.bounded import Count, Signed64
from driftline.streams.cluster import Cluster
from driftline.streams.columns import LabelBlock, WaitingBlock, encode_labels, encode_waiting
from driftline.streams.counters import Counters
from driftline.streams.ingest.blocks import label_blocks, waiting_blocks
from driftline.streams.ingest.dead_letters import dead_letter, report
from driftline.streams.ingest.decoder import DecodedBatch, PredictionDecoder, Refused
from driftline.streams.ingest.labels import LabelDecoder
from driftline.streams.ingest.names import CLASSES_MAX, LearnedNames
from driftline.streams.ingest.predictions import Predictions, read_predictions
from driftline.streams.ingest.silence import SilentModels
from driftline.streams.ingest.times import RecordTimes, judge
from driftline.streams.ingest.unknown import UnknownModels
from driftline.streams.ingest.unsaid import UnsaidUnits
from driftline.streams.observation import Coded, Observations, encode
from driftline.streams.partitioner import partition_for
from driftline.streams.state.blob import check_width, read_state
from driftline.streams.task import FINAL_MS, Idle, Output, PartitionId, Record, RestoredState, StateDelta

STATE_VERSION: Final = 1
STATE: Final = "ingest"
_TICK_EVERY_MS: Final = 1_000
_BATCH_ROWS_MAX: Final = 20_000
# Beyond the last wall tick: its grace, its age of a second, and clocks that are not quite together. More is a broken clock.
_AHEAD_MS: Final = 5_000
_LABEL_SKEW_MS: Final = 600_000
# Below this, candidates would be the rule: records of a busy minute come in any order.
_SKEW_MS_MIN: Final = 60_000


class HeldIngest(msgspec.Struct):
    """What an ingest task keeps in its checkpoint, with types and bounds."""

    time_ms: Signed64
    seq: dict[str, Count]
    learned: dict[str, list[str]] = {}
    classes: dict[str, list[str]] = {}
    generation: Count = 0
    partitions: list[Count] = []


@dataclass(frozen=True, slots=True)
class Targets:
    """Names and sizes of the topics ingest writes; `join` is off when no labels topic is configured."""

    observations: str
    waiting: str
    labels: str
    dead_letters: str
    partitions: Mapping[str, int]
    join: bool

    @classmethod
    def of(cls, config: Config, cluster: Cluster) -> Targets:
        names = [topic.full_name(config.topics.prefix) for topic in (OBSERVATIONS, WAITING, LABELS, DEAD_LETTERS)]
        sizes = {name: cluster.partitions.get(name, config.topics.partitions) for name in names[:3]}
        return cls(names[0], names[1], names[2], names[3], sizes, bool(config.labels))

    def widths(self) -> list[int]:
        """Partitions of the topics that are written; without labels nothing is for the join, and its topics need not be there."""
        return list(self.partitions.values())[: 3 if self.join else 1]


class IngestTask:
    """What all sources share: time, sequence numbers, dead letters, ticks. Subclasses say what a record is.

    State: the running maximum of record times, the last sequence number for each observations partition, by model the names
    of undeclared features and of classes. A record whose time the next one decides (`times.py`) is read again.
    """

    stream: str

    def __init__(
        self, name: str, partition: PartitionId, config: Config, targets: Targets, counters: Counters, state: RestoredState
    ) -> None:
        self.name = name
        self._partition = partition
        self._config = config
        self._targets = targets
        self._counters = counters
        self._next_offset: int | None = None
        self._time_ms = -1
        self._seq: dict[str, int] = {}
        self._learned: dict[str, LearnedNames] = {}
        self._classes: dict[str, LearnedNames] = {}
        self._sent_ms: dict[int, int] = {}
        self._ticked_ms = -1
        self._wall_ms: int | None = None
        self._generation = state.generation
        self._dirty = state.generation > 0
        self._held: list[Record] = []
        self._skew_ms = _LABEL_SKEW_MS
        self._withhold = has_sensitive(config)
        if (blob := state.blobs.get(STATE)) is not None:
            held = read_state(blob, STATE_VERSION, HeldIngest)
            check_width(held.partitions, targets.partitions)
            self._time_ms, self._seq, self._generation = held.time_ms, held.seq, held.generation
            self._learned = {model: LearnedNames(names) for model, names in held.learned.items()}
            self._classes = {model: self._class_names(model, names) for model, names in held.classes.items()}

    def process(self, records: Mapping[PartitionId, Sequence[Record]]) -> list[Output]:
        batch = records.get(self._partition, ())
        if not batch:
            return []
        self._dirty = True
        self._next_offset = batch[-1].offset() + 1
        return self._advance([*self._held, *batch] if self._held else batch)

    def opened(self) -> list[Output]:
        """Nothing: no output follows of the state alone."""
        return []

    def tick(self, idle: Idle) -> list[Output]:
        if idle.time_ms < FINAL_MS:
            self._wall_ms = max(idle.time_ms, self._wall_ms or 0)
        if self._partition not in idle.at_end:
            return []
        outputs = self._release(ended=idle.time_ms >= FINAL_MS)
        now_ms = idle.time_ms if idle.time_ms >= FINAL_MS else max(idle.time_ms, self._time_ms)
        if now_ms < self._ticked_ms + _TICK_EVERY_MS:
            return outputs
        self._ticked_ms = now_ms
        self._dirty = True
        if now_ms < FINAL_MS:
            # The end of an input is no time: what comes after it goes on from the last record.
            self._time_ms = now_ms
        return outputs + self._ticks(now_ms)

    def positions(self) -> Mapping[PartitionId, int]:
        # An undecided record is no state: a restart reads it again, and no payload stands in a checkpoint.
        if self._held:
            return {self._partition: self._held[0].offset()}
        return {} if self._next_offset is None else {self._partition: self._next_offset}

    def paused(self) -> frozenset[PartitionId]:
        return frozenset()

    def checkpoint(self) -> StateDelta:
        if not self._dirty:
            return StateDelta()
        self._dirty = False
        learned = {model: names.export() for model, names in self._learned.items()}
        classes = {model: names.export() for model, names in self._classes.items()}
        held: dict[str, Any] = {"v": STATE_VERSION, "time_ms": self._time_ms, "seq": self._seq, "learned": learned, "classes": classes}
        held["partitions"] = self._targets.widths()
        if self._generation:
            held["generation"] = self._generation
        return StateDelta({STATE: orjson.dumps(held)})

    def committed(self) -> None:
        """Nothing to remove."""

    def close(self) -> None:
        """Counts are the worker's own: nothing to take back."""

    def _advance(self, batch: Sequence[Record], *, last_stands: bool = False, ended: bool = False) -> list[Output]:
        clip_ms = None if self._wall_ms is None else self._wall_ms + _AHEAD_MS
        times = judge(batch, self._time_ms, skew_ms=self._skew_ms, clip_ms=clip_ms, last_stands=last_stands)
        self._held = list(batch[len(times) :])
        if not len(times):
            return []
        if not ended:
            self._time_ms = int(times.seen_ms[-1])
        self._ticked_ms = min(self._ticked_ms, self._time_ms)
        outputs, refused = self._take(batch[: len(times)], times)
        return outputs + self._dead_letters(refused)

    def _release(self, *, ended: bool) -> list[Output]:
        """No next record will decide the one that is held: live, the wall vouches for it; at the end it has its time and moves none."""
        if not self._held:
            return []
        self._dirty = True
        return self._advance(self._held, last_stands=True, ended=ended)

    def _take(self, batch: Sequence[Record], times: RecordTimes) -> tuple[list[Output], list[Refused]]:
        raise NotImplementedError

    def _ticks(self, now_ms: int) -> list[Output]:
        raise NotImplementedError

    def _class_names(self, model: str, names: Sequence[str] = ()) -> LearnedNames:
        known = self._config.models.get(model)
        return LearnedNames(names, most=CLASSES_MAX, declared=() if known is None else known.classes or ())

    def _count(self, outcome: str, n: int) -> None:
        if n:
            self._counters.increment("records", {"stream": self.stream, "outcome": outcome}, n)

    def _dead_letters(self, refused: list[Refused]) -> list[Output]:
        refused.sort(key=lambda item: item.record.offset())
        for item in refused:
            self._counters.increment("dead_letters", {"stage": "ingest", "reason": item.reason})
        self._count("invalid", len(refused))
        report(refused, payload=not self._withhold)
        return [dead_letter(item, topic=self._targets.dead_letters, stage="ingest", payload=not self._withhold) for item in refused]

    def _blocks(self, topic: str, rows: Mapping[int, list[bytes]], empty: bytes) -> list[Output]:
        """The messages of each target partition with rows, and an empty one where time moved on without any."""
        outputs = [Output(topic, None, value, partition=partition) for partition, values in rows.items() for value in values]
        for partition in range(self._targets.partitions[topic]):
            if partition in rows:
                self._sent_ms[partition] = self._time_ms
            elif self._time_ms >= self._sent_ms.setdefault(partition, -1) + _TICK_EVERY_MS:
                self._sent_ms[partition] = self._time_ms
                outputs.append(Output(topic, None, empty, partition=partition))
        return outputs

    def _tick_all(self, topic: str, now_ms: int, empty: bytes) -> list[Output]:
        sizes = range(self._targets.partitions[topic])
        self._sent_ms = dict.fromkeys(sizes, min(now_ms, self._time_ms))
        return [Output(topic, None, empty, partition=partition) for partition in sizes]


class PredictionTask(IngestTask):
    """Ingest of one partition of a prediction topic."""

    stream = "predictions"

    def __init__(
        self, name: str, partition: PartitionId, config: Config, targets: Targets, counters: Counters, state: RestoredState,
        decoder: PredictionDecoder, limits: tuple[int, int], unsaid: UnsaidUnits, unknown: UnknownModels,
    ) -> None:  # fmt: skip
        super().__init__(name, partition, config, targets, counters, state)
        self._decoder = decoder
        self._unsaid, self._unknowns = unsaid, unknown
        self._max_age, self._max_skew = limits
        self._skew_ms = max(self._max_skew, _SKEW_MS_MIN)
        self._silent = SilentModels(config, decoder.plans)

    def _take(self, batch: Sequence[Record], times: RecordTimes) -> tuple[list[Output], list[Refused]]:
        decoded = self._decoder.decode(batch)
        refused = decoded.refused
        self._unknown(decoded, refused)
        taken: list[Predictions] = []
        for group in decoded.models:
            group.learned = self._learned.setdefault(group.plan.name, LearnedNames())
            if group.plan.model.task == "multiclass":
                group.classes = self._classes.setdefault(group.plan.name, self._class_names(group.plan.name))
            rows = read_predictions(group, refused, times, max_age=self._max_age, max_skew=self._max_skew)
            if rows is not None:
                taken.append(rows)
        taken.sort(key=lambda rows: rows.plan.name)
        outputs = [output for rows in taken for output in self._observations(rows, times)]
        outputs += [self._model_tick(model, tick_ms) for model, tick_ms in self._silent.at_end(self._time_ms)]
        if self._targets.join:
            waiting = waiting_blocks(taken, self._partition, self._time_ms, self._targets.partitions[self._targets.waiting])
            empty = encode_waiting(WaitingBlock(self._partition, self._time_ms))
            outputs += self._blocks(self._targets.waiting, {p: waiting_messages(b) for p, b in waiting.items()}, empty)
        for rows in taken:
            self._count_rows(rows)
        return outputs, refused

    def _unknown(self, decoded: DecodedBatch, refused: list[Refused]) -> None:
        if self._config.unknown_models == "dead_letter":
            refused += [Refused(record, "unknown_model", f'model "{name[:80]}" is not configured') for record, name in decoded.unknown]
        self._count("unknown_model", len(decoded.unknown))
        self._unknowns.add(self._partition[0], [name for _, name in decoded.unknown])

    def _count_rows(self, rows: Predictions) -> None:
        self._count("ok", len(rows))
        if rows.replaced:
            self._counters.increment("time_replaced", {"model": rows.plan.name}, rows.replaced)
        if rows.features.dropped:
            self._counters.increment("features_dropped", {"model": rows.plan.name}, rows.features.dropped)
        if rows.classes_dropped:
            self._counters.increment("classes_dropped", {"model": rows.plan.name}, rows.classes_dropped)
        if rows.unit is not None:
            self._unsaid.add(rows.plan.name, rows.plan.model.unit or "", rows.unit)
        if faults := len(rows.features.invalid) + rows.invalid_fields:
            self._counters.increment("invalid_values", {"model": rows.plan.name}, faults)

    def _observations(self, rows: Predictions, times: RecordTimes) -> Iterator[Output]:
        vectors = sum((vector.shape[1] + 1) // 2 for vector in rows.features.vectors.values())
        columns = rows.features.numeric.shape[1] + len(rows.features.categorical) + len(rows.segments) + vectors + 9
        step = max(1, min(_BATCH_ROWS_MAX, MESSAGE_BYTES_MAX // (8 * columns)))
        ticks = self._silent.before_rows(rows.plan.name, rows.offset, rows.seen_ms, times)
        for first, last in pairwise(sorted({0, len(rows), *ticks})):
            if first in ticks:
                yield self._model_tick(rows.plan.name, ticks[first])
            for start in range(first, last, step):
                yield from self._fitting(rows, start, min(start + step, last))

    def _fitting(self, rows: Predictions, start: int, stop: int) -> Iterator[Output]:
        """Texts are known only when they are encoded: halves, until each fits."""
        output = self._observation(observations_of(rows, slice(start, stop), self._partition, self.name))
        if len(output.value or b"") <= MESSAGE_BYTES_MAX or stop - start < 2:
            yield output
            return
        self._seq[str(output.partition)] -= 1
        middle = (start + stop) // 2
        yield from self._fitting(rows, start, middle)
        yield from self._fitting(rows, middle, stop)

    def _observation(self, batch: Observations) -> Output:
        topic = self._targets.observations
        partition = partition_for(batch.model, self._targets.partitions[topic])
        batch.seq = self._seq[str(partition)] = self._seq.get(str(partition), 0) + 1
        batch.generation = self._generation
        return Output(topic, batch.model.encode(), encode(batch), partition=partition)

    def _model_tick(self, model: str, tick_ms: int) -> Output:
        return self._observation(Observations("tick", model, self.name, 0, [self._partition], tick_ms=tick_ms))

    def _ticks(self, now_ms: int) -> list[Output]:
        self._silent.told_all(min(now_ms, self._time_ms))
        outputs = [self._model_tick(model, now_ms) for model in sorted(self._decoder.plans)]
        if self._targets.join:
            outputs += self._tick_all(self._targets.waiting, now_ms, encode_waiting(WaitingBlock(self._partition, now_ms)))
        return outputs


class LabelTask(IngestTask):
    """Ingest of one partition of a label topic."""

    stream = "labels"

    def __init__(
        self, name: str, partition: PartitionId, config: Config, targets: Targets, counters: Counters, state: RestoredState,
        decoder: LabelDecoder,
    ) -> None:  # fmt: skip
        super().__init__(name, partition, config, targets, counters, state)
        self._decoder = decoder

    def _take(self, batch: Sequence[Record], times: RecordTimes) -> tuple[list[Output], list[Refused]]:
        rows, refused = self._decoder.decode(batch, times)
        if replaced := int(np.count_nonzero(times.replaced)):
            self._counters.increment("time_replaced", {"model": ""}, replaced)
        blocks: dict[int, list[bytes]] = {}
        if rows is not None:
            parts = label_blocks(rows, self._partition, self._time_ms, self._targets.partitions[self._targets.labels])
            blocks = {partition: label_messages(block) for partition, block in parts.items()}
            self._count("ok", len(rows))
        empty = encode_labels(LabelBlock(self._partition, self._time_ms))
        return self._blocks(self._targets.labels, blocks, empty), refused

    def _ticks(self, now_ms: int) -> list[Output]:
        return self._tick_all(self._targets.labels, now_ms, encode_labels(LabelBlock(self._partition, now_ms)))


def observations_of(rows: Predictions, part: slice, source: PartitionId, task: str) -> Observations:
    """The observation batch of a part of the rows; its sequence number is set by the sender."""
    whole = part.start == 0 and part.stop >= len(rows)

    def cut(column: npt.NDArray[Any] | None) -> Any:
        return column if column is None or whole else column[part]

    def text(column: Coded | None) -> Any:
        return column if column is None or whole else _compact(column, part)

    start, stop = part.start, part.stop
    numeric = cut(rows.features.numeric) if rows.features.numeric_names else None
    invalid = [(row - start, feature) for row, feature in rows.features.invalid if start <= row < stop]
    offset = cut(rows.offset)
    return Observations(
        "predictions", rows.plan.name, task, 0, [source],
        offset=offset, source=np.zeros(len(offset), np.uint16), time_ms=cut(rows.time_ms), record_ms=cut(rows.record_ms),
        version=text(rows.version), numeric_names=rows.features.numeric_names, numeric=numeric,
        categorical={name: text(column) for name, column in rows.features.categorical.items()},
        invalid=np.array(invalid, np.int32).reshape(-1, 2) if invalid else None,
        segments={name: text(column) for name, column in rows.segments.items()},
        score=cut(rows.score), confidence=cut(rows.confidence), entropy=cut(rows.entropy), class_=text(rows.class_),
        latency_ms=cut(rows.latency_ms), error=cut(rows.error), weight=cut(rows.weight),
        unit=cut(rows.unit), vectors={name: cut(vector) for name, vector in rows.features.vectors.items()},
    )  # fmt: skip


def _compact(column: Coded, part: slice) -> Coded:
    """A part of a text column with only the values it uses."""
    used, codes = np.unique(column.codes[part], return_inverse=True)
    missing = int(len(used) > 0 and used[0] < 0)
    return Coded((codes - missing).astype(np.int32), [column.values[c] for c in used[missing:].tolist()])
