"""Batches that are worked on together cause what they would have caused one by one, in the same order."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from driftline.schemas.loading import parse_config
from driftline.streams.detect.gather import gather
from driftline.streams.detect.task import DetectProcessor, DetectTask
from driftline.streams.observation import LABELLED, UNLABELLED, Observations, code, encode
from driftline.streams.task import MemoryRecord, Output, RestoredState
from tests.detect.test_task import CLUSTER, TOPIC

_MODEL = (
    "{features: {x: numeric}, window: 100, baseline: {learn: 200, settle: 0s}, labels: {ages: [1s, 2s]}, "
    "snapshot_every: 150, freshness: 20s}"
)
CONFIG = f"""
kafka: {{bootstrap: "localhost:1"}}
redis: {{url: "redis://localhost:1/0"}}
predictions: p
labels: l
models: {{m: {_MODEL}, n: {_MODEL}}}
"""


def mixed_log(seed: int, rows: int = 1_500) -> list[MemoryRecord]:
    """Two models' predictions, their outcomes at two ages and ticks, in batches of 1 to 60 rows that alternate at random."""
    rng, draw = random.Random(seed), np.random.default_rng(seed)
    waiting: dict[tuple[str, str, int | None], int] = {}
    x = {m: draw.normal(size=rows) + 2 * (np.arange(rows) >= 700) for m in "mn"}
    loss = draw.random(rows)
    seqs: dict[str, int] = {}
    records: list[MemoryRecord] = []
    ledgers = [(m, "predictions", None) for m in "mn"] + [(m, "outcomes", age) for m in "mn" for age in (1_000, 2_000)]
    while any(waiting.get(ledger, 0) < rows for ledger in ledgers):
        model, kind, age = rng.choice([ledger for ledger in ledgers if waiting.get(ledger, 0) < rows])
        start = waiting.get((model, kind, age), 0)
        size = min(rng.choice([1, 7, 60]), rows - start)
        task = f"{kind}/{model}/{age}"
        seqs[task] = seqs.get(task, 0) + 1
        if rng.random() < 0.15:
            batch = Observations("tick", model, task, seqs[task], [("p", 0)], tick_ms=start * 100 + rng.choice([0, 30_000]))
            if kind == "outcomes":
                batch = Observations("outcomes", model, task, seqs[task], [], tick_ms=start * 100, age_ms=age)
        else:
            at = np.arange(start, start + size)
            batch = Observations(
                kind, model, task, seqs[task], [("p", 0)], offset=at,  # type: ignore[arg-type]
                source=np.zeros(size, np.uint16),
                time_ms=at * 100, record_ms=at * 100,
                score=np.clip(loss[at], 0.01, 0.99), age_ms=age, version=code([rng.choice("ab")] * size) if rng.random() < 0.7 else None,
            )  # fmt: skip
            if kind == "predictions":
                batch.numeric_names, batch.numeric = ["x"], x[model][at].reshape(-1, 1)
            else:
                batch.label = ((at % 3 == 0) ^ (at >= 900)).astype(float)
                batch.label_state = np.where(at % 7 == 0, UNLABELLED, LABELLED).astype(np.int8)
                batch.delay_ms = np.full(size, 500.0)
            waiting[model, kind, age] = start + size
        records.append(MemoryRecord(TOPIC, 0, len(records), model.encode(), encode(batch), 0))
    return records


def run(records: list[MemoryRecord], cuts: list[int]) -> list[Output]:
    cluster = replace(CLUSTER, partitions={**CLUSTER.partitions, "p": 1, "l": 1})
    task = DetectProcessor(parse_config(CONFIG, name="test.yml"), cluster).open("detect/0", RestoredState())
    assert isinstance(task, DetectTask)
    return [output for first, last in pairwise(cuts) for output in task.process({(TOPIC, 0): records[first:last]})]


@pytest.mark.parametrize("seed", range(4))
def test_outputs_do_not_show_what_was_worked_on_together(seed: int) -> None:
    records = mixed_log(seed)
    n = len(records)
    alone = run(records, list(range(n + 1)))
    assert sum(b'"kind":"drift"' in (output.value or b"") for output in alone) >= 4
    assert run(records, [0, n]) == alone
    cuts = sorted(random.Random(seed).sample(range(1, n), 12))
    assert run(records, [0, *cuts, n]) == alone


def test_ledgers_are_gathered_and_ticks_keep_their_place_in_them() -> None:
    def batch(model: str, kind: str, rows: int) -> Observations:
        at = np.arange(rows)
        return Observations(kind, model, "t", 1, [], offset=at, source=at.astype(np.uint16), time_ms=at, record_ms=at)  # type: ignore[arg-type]

    log = [batch("m", "predictions", 2), batch("n", "predictions", 1), batch("m", "outcomes", 3), batch("m", "predictions", 4),
           batch("m", "tick", 0), batch("n", "predictions", 5), batch("m", "predictions", 6)]  # fmt: skip
    found = [(g.batch.model, g.batch.kind, len(g.batch), g.places) for g in gather(log)]
    assert found == [
        ("m", "predictions", 6, [0, 3]), ("m", "tick", 0, [4]), ("n", "predictions", 6, [1, 5]),
        ("m", "outcomes", 3, [2]), ("m", "predictions", 6, [6]),
    ]  # fmt: skip
    (first, *_) = gather(log)
    assert [first.place(row) for row in range(6)] == [0, 0, 3, 3, 3, 3]
