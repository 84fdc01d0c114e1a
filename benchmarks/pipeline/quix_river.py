"""(c) Quix Streams with river: the same work as (b). Runs in an environment of its own (it pins an older client)."""

from __future__ import annotations

import json
import os
import resource
import sys
import uuid

import orjson
from quixstreams import Application
from river.drift import ADWIN, PageHinkley

bootstrap, predictions, labels, rows_text = sys.argv[1:5]
ROWS = int(rows_text)
detectors: dict[str, tuple[ADWIN, PageHinkley]] = {}
counts = {"predictions": 0, "labels": 0}
mark: list[float] = []


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def step(topic: str) -> None:
    """Both topics hold `ROWS` records: CPU from the first record to the last of both, whatever order they come in."""
    counts[topic] += 1
    if not mark:
        mark.append(cpu_seconds())
    if min(counts.values()) >= ROWS:
        spent = (cpu_seconds() - mark[0]) / ROWS * 1e6
        print(json.dumps({"cpu_us": spent, "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
        os._exit(0)


def watch(value: bytes) -> None:
    for name, x in orjson.loads(value)["features"].items():
        pair = detectors.get(name)
        if pair is None:
            pair = detectors[name] = (ADWIN(), PageHinkley())
        pair[0].update(x)
        pair[1].update(x)
    step("predictions")


def count(value: bytes) -> None:
    orjson.loads(value)
    step("labels")


def main() -> None:
    app = Application(broker_address=bootstrap, consumer_group=f"quix-{uuid.uuid4().hex}", auto_offset_reset="earliest", loglevel="ERROR")
    app.dataframe(app.topic(predictions, value_deserializer="bytes")).update(watch)
    app.dataframe(app.topic(labels, value_deserializer="bytes")).update(count)
    app.run()


if __name__ == "__main__":
    main()
