"""What ingest's tests share: a configuration, a cluster and records."""

from __future__ import annotations

from typing import Any

import orjson

from driftline.schemas.config import Config, Feature, Model
from driftline.streams.cluster import Cluster
from driftline.streams.columns import LabelBlock, WaitingBlock, decode_labels, decode_waiting
from driftline.streams.ingest import IngestProcessor, MemoryCounters
from driftline.streams.observation import Observations, decode
from driftline.streams.task import MemoryRecord, Output, PartitionId, Record, RestoredState

T0 = 1_760_000_000_000


def model(**kinds: str) -> dict[str, Any]:
    return {"features": {name: {"kind": kind} for name, kind in kinds.items()}}


def config(*, models: dict[str, Any] | None = None, fields: dict[str, Any] | None = None, labels: bool = True, **more: Any) -> Config:
    return Config.model_validate(
        {
            "predictions": [{"topic": "predictions", "fields": fields or {}}],
            "labels": [{"topic": "labels"}] if labels else [],
            "models": models or {"fraud": model(amount="numeric", country="categorical")},
            **more,
        }
    )


def cluster(partitions: int = 2) -> Cluster:
    ours = {f"driftline.{name}": partitions for name in ("observations", "waiting", "labels")}
    return Cluster("c", {}, {"predictions": 1, "labels": 1, **ours})


class Ingest:
    """A task of ingest with what it published, decoded."""

    def __init__(self, conf: Config | None = None, topic: str = "predictions", state: RestoredState | None = None) -> None:
        self.counters = MemoryCounters()
        self.processor = IngestProcessor(conf or config(), cluster(), self.counters)
        self.partition: PartitionId = (topic, 0)
        self.task = self.processor.open(f"ingest/{topic}/0", state or RestoredState())
        self.outputs: list[Output] = []

    def take(self, *records: Record) -> Ingest:
        self.outputs += self.task.process({self.partition: records})
        return self

    def observations(self, kind: str = "predictions") -> list[Observations]:
        found = [decode(o.value) for o in self.outputs if o.topic.endswith(".observations") and o.value]
        return [batch for batch in found if batch.kind == kind]

    def observation(self) -> Observations:
        (batch,) = self.observations()
        return batch

    def waiting(self) -> list[WaitingBlock]:
        return [decode_waiting(o.value) for o in self.outputs if o.topic.endswith(".waiting") and o.value]

    def labels(self) -> list[LabelBlock]:
        return [decode_labels(o.value) for o in self.outputs if o.topic.endswith(".labels") and o.value]

    def dead_letters(self) -> list[dict[str, bytes]]:
        return [dict(o.headers) for o in self.outputs if o.topic.endswith(".dlq")]

    def reasons(self) -> list[str]:
        return [letter["driftline.reason"].decode() for letter in self.dead_letters()]


def record(
    value: bytes | dict[str, Any] | None, offset: int = 0, *, at: int = T0, topic: str = "predictions", key: bytes | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> MemoryRecord:  # fmt: skip
    return MemoryRecord(topic, 0, offset, key, orjson.dumps(value) if isinstance(value, dict) else value, at, headers)


def event(**changes: Any) -> dict[str, Any]:
    base = {"id": "a", "time": T0, "model": "fraud", "version": "v1", "score": 0.5, "features": {"amount": 10.0, "country": "DE"}}
    return {**base, **changes}


__all__ = ["T0", "Feature", "Ingest", "Model", "cluster", "config", "event", "model", "record"]
