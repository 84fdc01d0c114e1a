"""(b) Faust with river: ADWIN and Page-Hinkley on 20 features of every prediction; labels are read and counted."""

from __future__ import annotations

import json
import os
import resource
import sys
import uuid

import faust
import orjson
from river.drift import ADWIN, PageHinkley

bootstrap, predictions, labels, rows_text = sys.argv[1:5]
ROWS = int(rows_text)
sys.argv = [sys.argv[0], "worker", "-l", "warn", "--without-web"]

app = faust.App(
    f"bench-{uuid.uuid4().hex}", broker=f"kafka://{bootstrap}", topic_disable_leader=True, topic_allow_declare=False, web_enabled=False,
    consumer_auto_offset_reset="earliest", stream_wait_empty=False, broker_max_poll_records=500, worker_redirect_stdouts=False,
)  # fmt: skip
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


@app.agent(app.topic(predictions, value_serializer="raw"), concurrency=1)
async def watch(stream):  # type: ignore[no-untyped-def]
    async for value in stream:
        for name, x in orjson.loads(value)["features"].items():
            pair = detectors.get(name)
            if pair is None:
                pair = detectors[name] = (ADWIN(), PageHinkley())
            pair[0].update(x)
            pair[1].update(x)
        step("predictions")


@app.agent(app.topic(labels, value_serializer="raw"), concurrency=1)
async def count(stream):  # type: ignore[no-untyped-def]
    async for value in stream:
        orjson.loads(value)
        step("labels")


if __name__ == "__main__":
    app.main()
