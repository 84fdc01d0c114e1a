"""What the join's tests share: the waiting and labels logs of one partition, written by hand, and a task that reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.columns import ID_TYPE, LabelBlock, WaitingBlock, encode_labels, encode_waiting
from driftline.streams.ingest import MemoryCounters
from driftline.streams.ingest.values import texts
from driftline.streams.join import JoinProcessor, LabelCache, MemoryLabelCache
from driftline.streams.observation import LABELLED, Observations, code, decode
from driftline.streams.task import FINAL_MS, MemoryRecord, Output, PartitionId, Record, RestoredRing, RestoredState

T0 = 1_760_000_000_000
AGE = 10_000
Int64 = npt.NDArray[np.int64]
WAITING, LABELS = ("driftline.waiting", 0), ("driftline.labels", 0)


def config(age: int | str = AGE, *, models: dict[str, Any] | None = None, sources: int = 1, **model: Any) -> Config:
    one = {"features": {}, **model}
    named = models or {"fraud": one}
    for spec in named.values():
        spec.setdefault("labels", {}).setdefault("ages", [age])
    return Config.model_validate(
        {
            "predictions": [{"topic": "predictions"}],
            "labels": [{"topic": f"labels-{n}" if n else "labels"} for n in range(sources)],
            "models": named,
        }
    )


def cluster(predictions: int = 1) -> Cluster:
    ours = {f"driftline.{name}": 1 for name in ("observations", "waiting", "labels")}
    return Cluster("c", {}, {"predictions": predictions, "labels": 1, "labels-1": 1, **ours})


def digest(id_: str) -> bytes:
    return xxhash.xxh3_128_digest(id_.encode())


def ids(names: Sequence[str]) -> Any:
    return np.frombuffer(b"".join(map(digest, names)), ID_TYPE)


@dataclass
class Logs:
    """The two logs of partition 0. Times are seconds after T0; source offsets count up."""

    waiting: list[MemoryRecord] = field(default_factory=list)
    labels: list[MemoryRecord] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=lambda: {"waiting": 0, "labels": 0})
    reached: dict[PartitionId, int] = field(default_factory=dict)
    written_ms: int = T0
    """The broker's time of the records to come."""

    def predict(
        self, *rows: tuple[str, float], tick: float | None = None, models: Sequence[str] = (), score: float = 0.5, partition: int = 0,
        units: Sequence[int] | None = None,
    ) -> Logs:  # fmt: skip
        """A waiting block of (id, time) rows."""
        times = np.array([T0 + round(time * 1_000) for _, time in rows], np.int64)
        first = self.sent["waiting"]
        self.sent["waiting"] += len(rows)
        top = int(times.max()) if len(rows) else 0
        block = WaitingBlock(("predictions", partition), top if tick is None else _ms(tick))
        if rows:
            n = len(rows)
            block.ids = ids([name for name, _ in rows])
            block.offset, block.record_ms, block.time_ms = np.arange(first, first + n), times, times
            block.seen_ms = self._seen(block.source, times)
            block.model = code(list(models) or ["fraud"] * n)
            block.score = np.full(n, score)
            block.unit = None if units is None else np.array(units, np.int64)
        self._tell(block.source, block.tick_ms)
        self.waiting.append(_record(WAITING, len(self.waiting), encode_waiting(block), self.written_ms))
        return self

    def label(self, *rows: tuple[str, float, object], tick: float | None = None, source: str = "labels", model: str | None = None) -> Logs:
        """A label block of (id, time, value) rows."""
        times = np.array([T0 + round(time * 1_000) for _, time, _ in rows], np.int64)
        first = self.sent.setdefault(source, 0)
        self.sent[source] += len(rows)
        block = LabelBlock((source, 0), (int(times.max()) if len(rows) else 0) if tick is None else _ms(tick))
        if rows:
            n = len(rows)
            block.ids = ids([name for name, _, _ in rows])
            block.offset, block.record_ms, block.time_ms = np.arange(first, first + n), times, times
            block.seen_ms = self._seen(block.source, times)
            values = [value for _, _, value in rows]
            block.value = np.array([np.nan if isinstance(v, str) else float(v) for v in values])  # type: ignore[arg-type]
            if any(isinstance(v, str) for v in values):
                block.text = texts([v if isinstance(v, str) else None for v in values])
            if model is not None:
                block.model = code([model] * n)
        self._tell(block.source, block.tick_ms)
        self.labels.append(_record(LABELS, len(self.labels), encode_labels(block), self.written_ms))
        return self

    def tick(self, time: float | None, source: str = "labels") -> Logs:
        """An empty label block; None = the input has ended."""
        return self.label(tick=time if time is not None else float("inf"), source=source)

    def _seen(self, source: PartitionId, times: Int64) -> Int64:
        return np.maximum(np.maximum.accumulate(times), self.reached.get(source, -1))

    def _tell(self, source: PartitionId, tick_ms: int) -> None:
        if tick_ms < FINAL_MS:
            self.reached[source] = max(self.reached.get(source, -1), tick_ms)

    def end(self) -> Logs:
        self.predict(tick=float("inf"))
        return self.tick(None)


def _ms(time: float) -> int:
    return FINAL_MS if time == float("inf") else T0 + round(time * 1_000)


def _record(partition: PartitionId, offset: int, value: bytes, written_ms: int) -> MemoryRecord:
    return MemoryRecord(partition[0], partition[1], offset, None, value, written_ms)


class Join:
    """A join task, its outputs, and a runner's part: checkpoints, commits, restarts."""

    def __init__(
        self, conf: Config | None = None, cache: LabelCache | None = None, *, predictions: int = 1, age_index: int = 0, **options: Any
    ) -> None:
        self.counters = MemoryCounters()
        self.cache: LabelCache = cache if cache is not None else MemoryLabelCache()
        self.processor = JoinProcessor(
            conf or config(), cluster(predictions), lambda task: self.cache, self.counters, age_index, **options
        )
        self.blobs: dict[str, bytes] = {}
        self.rings: dict[str, RestoredRing] = {}
        self.committed_at: dict[PartitionId, int] = {}
        self.outputs: list[Output] = []
        self.open()

    def open(self) -> None:
        self.task = self.processor.open(self.processor.task_name(WAITING), RestoredState(dict(self.blobs), dict(self.rings)))
        self.position = {WAITING: 0, LABELS: 0, **self.committed_at, **self.task.positions()}

    def read(self, logs: Logs, waiting: int = 10**9, labels: int = 10**9) -> Join:
        """Hand over the next records of each log, at most so many."""
        handed: dict[PartitionId, Sequence[Record]] = {}
        for partition, log, n in ((WAITING, logs.waiting, waiting), (LABELS, logs.labels, labels)):
            if partition in self.task.paused():
                continue
            at = self.position[partition]
            handed[partition] = log[at : at + n]
            self.position[partition] = at + len(handed[partition])
        self.outputs += self.task.process(handed)
        return self

    def commit(self, *, settle: bool = True) -> Join:
        delta = self.task.checkpoint()
        self.blobs.update({name: blob for name, blob in delta.blobs.items() if blob is not None})
        for ring in delta.rings:
            before = self.rings.get(ring.name)
            rows = ring.rows if before is None or ring.full else before.rows + ring.rows
            kept = rows[-ring.window * ring.record_bytes :]
            self.rings[ring.name] = RestoredRing(ring.name, ring.record_bytes, ring.window, ring.head, kept)
        self.committed_at.update(self.task.positions())
        if settle:
            self.task.committed()
        return self

    def batches(self) -> list[Observations]:
        return [decode(output.value) for output in self.outputs if output.value]

    def rows(self) -> list[tuple[int, float | str | None, int]]:
        """(prediction offset, label, label state) in order of publication."""
        out: list[tuple[int, float | str | None, int]] = []
        for batch in self.batches():
            for row, offset in enumerate(batch.offset.tolist()):
                assert batch.label_state is not None
                label: float | str | None = None
                if batch.label is not None and not np.isnan(batch.label[row]):
                    label = float(batch.label[row])
                if batch.label_class is not None and batch.label_class.codes[row] >= 0:
                    label = batch.label_class.values[batch.label_class.codes[row]]
                out.append((offset, label, int(batch.label_state[row])))
        return out

    def labels(self) -> dict[int, float | str | None]:
        return {offset: label for offset, label, _ in self.rows()}

    def case(self, case: str) -> int:
        return self.counters.value("label_join", case=case)


MakeCache = Callable[[], LabelCache]

__all__ = ["AGE", "LABELLED", "LABELS", "T0", "WAITING", "Join", "Logs", "MakeCache", "cluster", "config", "digest"]
