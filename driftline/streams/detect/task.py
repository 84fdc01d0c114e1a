"""The detect processor: one task an observations partition, all models of that partition in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from driftline.detectors.baseline import Baseline
from driftline.detectors.spec import DetectorsError, RingState
from driftline.schemas.config import Config
from driftline.schemas.topics import OBSERVATIONS
from driftline.streams.cluster import Cluster
from driftline.streams.counters import Counters, MemoryCounters
from driftline.streams.detect.gather import Placed, gather, in_order
from driftline.streams.detect.held import HeldTask
from driftline.streams.detect.model import WatchedModel
from driftline.streams.detect.plan import ModelPlan
from driftline.streams.detect.publish import EventWriter
from driftline.streams.detect.reopen import reopen
from driftline.streams.detect.sources import SourceTable
from driftline.streams.detect.watched import UNITS, model_path, panel_path, ring_of_units
from driftline.streams.errors import SequenceError, StateError
from driftline.streams.observation import Observations, decode
from driftline.streams.state.blob import read_state
from driftline.streams.task import FINAL_MS, Idle, Output, PartitionId, Record, RestoredState, RingWrite, StateDelta

_log = logging.getLogger(__name__)

STATE_VERSION: Final = 2
"""1 had one table of sources for all models; it is read, and written anew as 2 with the next commit."""
OLDEST_READ: Final = 1
TASK_BLOB: Final = "task"


class DetectProcessor:
    """Opens a task for every observations partition.

    Parameters
    ----------
    baselines : model to panel kind to baseline, for models whose configuration names a file.
    counters : see `driftline.streams.counters`.
    """

    name = "detect"

    def __init__(
        self, config: Config, cluster: Cluster, baselines: Mapping[str, Mapping[str, Baseline]] | None = None,
        counters: Counters | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self._cluster = cluster
        self._baselines = baselines or {}
        self._counters = counters or MemoryCounters()
        self._topic = OBSERVATIONS.full_name(config.topics.prefix)
        self._plans = {name: ModelPlan.of(name, model, config) for name, model in config.models.items()}

    def input_topics(self) -> Sequence[str]:
        return [self._topic]

    def task_name(self, partition: PartitionId) -> str:
        return f"detect/{partition[1]}"

    def task_inputs(self, task: str) -> frozenset[PartitionId]:
        return frozenset({(self._topic, int(task.rsplit("/", 1)[1]))})

    def open(self, task: str, state: RestoredState) -> DetectTask:
        (partition,) = self.task_inputs(task)
        writer = EventWriter(self._config, self._cluster, self._counters)
        strict = self._config.kafka.guarantee == "exactly_once"
        return DetectTask(partition, self._plans, writer, self._baselines, state, self._counters, strict=strict)

_SUBJECTS: Final = ("subjects_monitored", "subjects_drifted", "subjects_suspended")


class DetectTask:
    """State: the last sequence number of every upstream task, and the models.

    Raises
    ------
    SequenceError : an upstream task's batches have a gap or repeat one (PROTOCOL "sequence"); the worker stops.
    """

    def __init__(
        self, partition: PartitionId, plans: Mapping[str, ModelPlan], writer: EventWriter, baselines: Mapping[str, Mapping[str, Baseline]],
        state: RestoredState, counters: Counters, *, strict: bool,
    ) -> None:  # fmt: skip
        self._partition = partition
        self._plans = plans
        self._writer = writer
        self._live_since_ms = 0
        self._baselines = baselines
        self._counters = counters
        self._strict = strict
        self._next_offset: int | None = None
        self._sequence: dict[str, int] = {}
        self._generations: dict[str, int] = {}
        self._rebuilt = state.generation > 0
        self.models: dict[str, WatchedModel] = {}
        self._parked: dict[str, Any] = {}
        self._opened: list[Output] = []
        self._written: dict[str, bytes | None] = {}
        self._dirty = self._rebuilt
        if state.blobs:
            self._restore(state)

    def process(self, records: Mapping[PartitionId, Sequence[Record]]) -> list[Output]:
        found: list[Placed] = []
        for gathered in gather(self._decoded(records.get(self._partition, ()))):
            found += [(gathered.place(row), output) for row, output in self._batch(gathered.batch)]
        return in_order(found)

    def tick(self, _idle: Idle) -> list[Output]:
        """Nothing: time reaches detect as rows of the observations topic."""
        return []

    def opened(self) -> list[Output]:
        """The ends of episodes whose series, monitor or model an edited configuration no longer has."""
        told, self._opened = self._opened, []
        return told

    def positions(self) -> Mapping[PartitionId, int]:
        return {} if self._next_offset is None else {self._partition: self._next_offset}

    def paused(self) -> frozenset[PartitionId]:
        return frozenset()

    def checkpoint(self) -> StateDelta:
        if not self._dirty:
            return StateDelta()
        self._dirty = False
        blobs, self._written = self._written, {}
        rings: list[RingWrite] = []
        for name, model in self.models.items():
            changed, written = _exported(name, model)
            blobs |= changed
            rings += written
        blobs[TASK_BLOB] = orjson.dumps(
            {
                "v": STATE_VERSION,
                "sequence": self._sequence,
                "generations": self._generations,
                "rebuilt": self._rebuilt,
                "live_since_ms": self._writer.live_since_ms or self._live_since_ms,
                "models": self._parked | {name: model.export_meta() for name, model in self.models.items()},
            }
        )
        return StateDelta(blobs, rings)

    def committed(self) -> None:
        """Say how much is watched, how much of it has drifted, and for how much the budget promises nothing now."""
        for name, model in self.models.items():
            for gauge, count in zip(_SUBJECTS, model.subjects(), strict=True):
                self._counters.set(gauge, {"model": name}, count)

    def close(self) -> None:
        self._writer.close()
        for name in self.models:
            for gauge in _SUBJECTS:
                self._counters.forget(gauge, {"model": name})

    def _decoded(self, records: Sequence[Record]) -> Iterator[Observations]:
        for record in records:
            value = record.value()
            self._next_offset = record.offset() + 1
            if value is None:
                continue
            batch = decode(value)
            self._dirty = True
            self._check_sequence(batch)
            if (model := self._model(batch.model)) is not None:
                table = model.sources.numbers(batch.sources)
                batch.source = table[batch.source] if len(batch) else table
                yield batch

    def _batch(self, batch: Observations) -> list[Placed]:
        model = self.models[batch.model]
        if batch.kind == "tick":
            if batch.tick_ms is None or batch.tick_ms >= FINAL_MS:
                return []
            return [(0, output) for output in model.tick(batch.tick_ms, int(batch.source[0]), batch.generation)]
        if not len(batch):
            told = [] if batch.tick_ms is None else model.outcome_tick(batch.tick_ms, batch.age_ms, batch.generation)
            return [(0, output) for output in told]
        return model.predictions(batch) if batch.kind == "predictions" else model.outcomes(batch)

    def _check_sequence(self, batch: Observations) -> None:
        # A task met for the first time may be in the middle of its life: retention has removed what it wrote before.
        last = self._sequence.get(batch.task, batch.seq - 1)
        generation = self._generations.get(batch.task, 0)
        if batch.generation > generation:
            self._generations[batch.task] = batch.generation
            if batch.task in self._sequence:
                # An operator had it rebuilt from its input's beginning, and it counts from 1 again: once, and said.
                _log.warning("upstream_rebuilt task=%s generation=%d after=%d", batch.task, batch.generation, last)
                last = 0
        elif batch.generation < generation and self._strict:
            raise SequenceError(
                f'"{batch.task}" sent batch {batch.seq} of its life {batch.generation} after it was rebuilt as {generation}: '
                "two workers write at once"
            )
        self._sequence[batch.task] = batch.seq
        if self._strict and batch.seq != last + 1:
            raise SequenceError(
                f'"{batch.task}" sent batch {batch.seq} after {last} on {self._partition[0]}[{self._partition[1]}]: '
                "observations were lost, repeated or written by two workers at once"
            )

    def _model(self, name: str) -> WatchedModel | None:
        model = self.models.get(name)
        if model is None and name in self._plans:
            baselines = self._baselines.get(name, {})
            model = WatchedModel(self._plans[name], self._writer, SourceTable(), baselines, self._counters, self._rebuilt)
            self.models[name] = model
        return model

    def _restore(self, state: RestoredState) -> None:
        place = f"detect partition {self._partition[1]}"
        try:
            held = read_state(state.blobs[TASK_BLOB], STATE_VERSION, HeldTask, oldest=OLDEST_READ)
            self._sequence.update(held.sequence)
            self._generations.update(held.generations)
            self._rebuilt = held.rebuilt
            self._live_since_ms = held.live_since_ms
            self._writer.went_live(held.live_since_ms)
            # Edits are written with the next commit, rows or not: what they end is published in that one.
            self._dirty = True
            for name, found in held.models.items():
                place = f'model "{name}"'
                meta = {"sources": held.sources, **found}
                if (model := self._model(name)) is not None:
                    self._opened += reopen(model, meta, lambda path, name=name: _under(state, f"{model_path(name)}/{path}/"))  # type: ignore[misc]
                else:
                    self._parked[name] = meta if meta.get("parked") else self._park(name, meta, state)
        except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
            raise StateError(f"state of {place} cannot be used: {error}") from error

    def _park(self, name: str, held: dict[str, Any], state: RestoredState) -> dict[str, Any]:
        """Keep the state of a model that is configured no more: forgotten, it would mix with what it makes when it comes back."""
        model = WatchedModel(ModelPlan.of_former(name), self._writer, SourceTable(), {}, self._counters, self._rebuilt)
        try:
            self._opened += reopen(model, held, lambda path: _under(state, f"{model_path(name)}/{path}/"))
        except DetectorsError as error:
            # Written by a release whose state does not say what it was made with.
            _log.warning("model_parked model=%s note=%r reason=%r", name, "its state is kept, open episodes stay open", str(error))
            return {**held, "parked": True}
        _log.info("model_parked model=%s note=%r", name, "not configured; its state is kept for when it is again")
        changed, _ = _exported(name, model)
        self._written |= changed
        joins = [[*name, {**join, "open": False, "told": False}] for *name, join in held.get("joins", ())]
        own = {key: held.get(key, {}) for key in ("settings", "taken")}
        return {**held, **model.export_meta(), "joins": joins, **own, "parked": True}


def _exported(name: str, model: WatchedModel) -> tuple[dict[str, bytes | None], list[RingWrite]]:
    """What has changed of a model since the last export."""
    blobs: dict[str, bytes | None] = {f"{model_path(name)}/{gone}": None for gone in model.dropped}
    model.dropped = []
    rings: list[RingWrite] = []
    for ledger, units in model.units.items():
        if (unsaved := units.ring(f"{model_path(name)}/{UNITS}/{ring_of_units(ledger)}")) is not None:
            rings.append(unsaved)
    for watched in model.panels.values():
        path = f"{model_path(name)}/{panel_path(watched.name)}/"
        changed, written = watched.panel.export()
        blobs.update({path + blob: value for blob, value in changed.items()})
        rings += [RingWrite(path + r.name, r.record_bytes, r.window, r.head, r.rows, r.full) for r in written]
    return blobs, rings


def _under(state: RestoredState, path: str) -> tuple[dict[str, bytes], dict[str, RingState]]:
    """The blobs and rings of one panel, under the panel's own names."""
    blobs = {name.removeprefix(path): value for name, value in state.blobs.items() if name.startswith(path)}
    rings = {
        name.removeprefix(path): RingState(name.removeprefix(path), r.record_bytes, r.window, r.head, r.rows, True)
        for name, r in state.rings.items()
        if name.startswith(path)
    }
    return blobs, rings
