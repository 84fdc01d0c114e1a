"""Ingest and join together: where ingest cuts its batches changes no outcome, with times out of order as well."""

from __future__ import annotations

import math
import random

import pytest

from driftline.streams.cluster import Cluster
from driftline.streams.ingest import IngestProcessor, MemoryCounters
from driftline.streams.join import JoinProcessor, MemoryLabelCache
from driftline.streams.observation import LABELLED, decode
from driftline.streams.task import FINAL_MS, Idle, MemoryRecord, PartitionId, RestoredState
from tests.ingest.streams import T0, config, event, model, record

AGE = 10_000
PARTITIONS = 3
CONF = config(models={"fraud": {**model(amount="numeric"), "labels": {"ages": [AGE]}}})
CLUSTER = Cluster("c", {}, {"predictions": 1, "labels": 1, **{f"driftline.{n}": PARTITIONS for n in ("observations", "waiting", "labels")}})
Outcome = tuple[int, float | None]


def source(seed: int, jitter_ms: int, wrong: dict[str, int] | None = None) -> dict[PartitionId, list[MemoryRecord]]:
    """A prediction a second and labels around their age; `wrong` puts 2099 on one record of a topic."""
    rng = random.Random(seed)
    predictions, labels = [], []
    for n in range(240):
        at = T0 + n * 1_000
        predictions.append((at + rng.randrange(-jitter_ms, jitter_ms + 1), event(id=str(n), time=at)))
        for _ in range(rng.choice([0, 1, 1, 2])):
            labels.append((at + int(rng.expovariate(1 / AGE)) - 2_000, {"id": str(n), "label": rng.randrange(2)}))
    labels.sort(key=lambda row: row[0] + rng.randrange(-jitter_ms, jitter_ms + 1))
    topics = {"predictions": predictions, "labels": labels}
    for topic, place in (wrong or {}).items():
        topics[topic][place] = (4_070_908_800_000, topics[topic][place][1])
    return {(t, 0): [record(value, n, at=at, topic=t) for n, (at, value) in enumerate(rows)] for t, rows in topics.items()}


def outcomes_of(sources: dict[PartitionId, list[MemoryRecord]], cut_seed: int | None, *, ended: bool = True) -> dict[int, Outcome]:
    """By the prediction's offset: label state and delay; `cut_seed` None = everything in one batch."""
    rng = random.Random(cut_seed)
    ingest = IngestProcessor(CONF, CLUSTER, MemoryCounters())
    logs: dict[PartitionId, list[MemoryRecord]] = {(f"driftline.{n}", p): [] for n in ("waiting", "labels") for p in range(PARTITIONS)}
    for key, records in sources.items():
        task, at, outputs = ingest.open(f"ingest/{key[0]}/0", RestoredState()), 0, []
        while at < len(records):
            n = len(records) if cut_seed is None else rng.randrange(1, 40)
            outputs += task.process({key: records[at : at + n]})
            at += n
        outputs += task.tick(Idle(FINAL_MS, frozenset({key}))) if ended else []
        for output in outputs:
            log = logs.get((output.topic, output.partition or 0), [])
            log.append(MemoryRecord(output.topic, output.partition or 0, len(log), None, output.value, T0))
    found: dict[int, Outcome] = {}
    joins = JoinProcessor(CONF, CLUSTER, lambda _: MemoryLabelCache(), MemoryCounters())
    for p in range(PARTITIONS):
        join = joins.open(f"join/0/{p}", RestoredState())
        for output in join.process({key: log for key, log in logs.items() if key[1] == p}):
            batch = decode(output.value or b"")
            assert batch.label_state is not None
            assert batch.delay_ms is not None
            delays = [None if math.isnan(delay) else delay for delay in batch.delay_ms.tolist()]
            found |= dict(zip(batch.offset.tolist(), zip(batch.label_state.tolist(), delays, strict=True), strict=True))
    return found


@pytest.mark.parametrize("jitter_ms", [0, 3_000, 90_000])
def test_where_ingest_cuts_its_batches_changes_no_outcome(jitter_ms: int) -> None:
    whole = outcomes_of(source(1, jitter_ms), None)
    assert len(whole) == 240
    assert 20 < sum(state == LABELLED for state, _ in whole.values()) < 220
    for seed in range(5):
        assert outcomes_of(source(1, jitter_ms), seed) == whole


@pytest.mark.parametrize("topic", ["predictions", "labels"])
def test_one_record_from_2099_stops_no_join(topic: str) -> None:
    sound = outcomes_of(source(2, 0), 1, ended=False)
    broken = outcomes_of(source(2, 0, {topic: 60}), 1, ended=False)
    assert len(sound) > 200
    assert broken.keys() == sound.keys()
    assert sum(broken[offset] != sound[offset] for offset in sound) <= 2
