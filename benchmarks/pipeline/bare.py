"""(a) A bare consumer: greedy poll and `orjson.loads` of both topics, nothing else, nothing committed."""

from __future__ import annotations

import sys
import uuid

import orjson
from confluent_kafka import Consumer

from benchmarks.pipeline.contender import cpu_seconds, report


def main(bootstrap: str, predictions: str, labels: str, rows: int) -> None:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": f"bare-{uuid.uuid4().hex}", "auto.offset.reset": "earliest",
         "enable.auto.commit": False, "fetch.queue.backoff.ms": 10}
    )  # fmt: skip
    consumer.subscribe([predictions, labels])
    seen, before = 0, 0.0
    while seen < 2 * rows:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if not seen:
            # From the first record on: starting costs nothing a row, and what librdkafka fetches ahead is still to come.
            before = cpu_seconds()
        for record in [message, *consumer.consume(999, 0)]:
            orjson.loads(record.value() or b"")
            seen += 1
    report(cpu_seconds() - before, rows)
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
