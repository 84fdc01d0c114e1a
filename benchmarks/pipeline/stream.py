"""The stream every contender reads: predictions with 20 numeric features (about 900 bytes) and 80-byte labels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Producer

FEATURES = tuple(f"feature_{i:02d}" for i in range(20))
MODELS_ONE = ("bench",)
Pair = tuple[int, int, bytes, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Shape:
    """What to publish.

    Attributes
    ----------
    rows : predictions, each with a label.
    first : number of the first row, so that a stream can be sent in parts.
    step_ms : the stream's own time between rows; labels come `label_rows` rows later.
    shift_every : rows after which every feature's mean toggles by `shift` standard deviations; 0 = never.
    """

    rows: int
    first: int = 0
    start_ms: int = 0
    step_ms: float = 1.0
    label_rows: int = 2_000
    models: tuple[str, ...] = MODELS_ONE
    segments: int = 10
    shift_every: int = 0
    shift: float = 1.0
    wall: bool = False


def pairs(shape: Shape) -> Iterator[Pair]:
    """(prediction time, label time, prediction key, prediction, label key, label); the label is of an earlier row."""
    generator = np.random.default_rng([7, shape.first])
    for chunk in range(shape.first, shape.first + shape.rows, 1_000):
        count = min(1_000, shape.first + shape.rows - chunk)
        values = generator.normal(size=(count, len(FEATURES)))
        if shape.shift_every:
            values += shape.shift * ((np.arange(chunk, chunk + count) // shape.shift_every) % 2)[:, None]
        values = values.round(12).tolist()
        scores = generator.beta(1, 9, count).round(12).tolist()
        labels = (generator.random(count) < scores).astype(int).tolist()
        segments = generator.integers(0, shape.segments, count).tolist()
        for i in range(count):
            row = chunk + i
            now = shape.start_ms + int(row * shape.step_ms)
            prediction = {
                "id": f"tx-{row:012d}", "time": now, "model": shape.models[row % len(shape.models)], "version": "1.4.2",
                "features": dict(zip(FEATURES, values[i], strict=True)), "score": scores[i], "latency_ms": 12.5,
                "segment": f"s{segments[i]}",
            }  # fmt: skip
            earlier = max(row - shape.label_rows, 0)
            labelled = f"tx-{earlier:012d}"
            label = {"id": labelled, "time": now, "label": labels[i], "source": "chargeback-v2"}
            if len(shape.models) > 1:
                label["model"] = shape.models[earlier % len(shape.models)]
            yield now, now, prediction["id"].encode(), orjson.dumps(prediction), labelled.encode(), orjson.dumps(label)


def publish(
    bootstrap: str, predictions: str, labels: str, shape: Shape, *, rate: float | None = None, ready: Iterable[Pair] | None = None
) -> None:
    """Send a stream; with `rate`, at so many pairs a second of wall time (open loop); `ready`: its rows, already made."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 5, "batch.size": 1 << 20, "queue.buffering.max.messages": 200_000,
         "partitioner": "murmur2_random", "compression.type": "none"}
    )  # fmt: skip
    began = time.perf_counter()
    for number, (at, label_at, key, prediction, label_key, label) in enumerate(pairs(shape) if ready is None else ready):
        if rate is not None and number % 20 == 0:
            while (wait := began + number / rate - time.perf_counter()) > 0:
                producer.poll(min(wait, 0.01))
        stamp: dict[str, Any] = {} if shape.wall else {"timestamp": at}
        label_stamp: dict[str, Any] = {} if shape.wall else {"timestamp": label_at}
        while True:
            try:
                producer.produce(predictions, prediction, key=key, **stamp)
                producer.produce(labels, label, key=label_key, **label_stamp)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 500 == 0:
            producer.poll(0)
    producer.flush(60)
