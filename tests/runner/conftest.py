"""A source with records, workers to run and kill, and what a read-committed reader sees in the end."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from driftline.streams.local.embedded import EmbeddedBroker

ROOT = Path(__file__).parents[2]


class Kafka(Protocol):
    bootstrap: str


class Bench:
    """Topics `source` and `output` of one test, and processes that run the toy processor between them."""

    def __init__(self, bootstrap: str, redis_url: str, prefix: str, source: str, output: str, logs: Path) -> None:
        self.settings: dict[str, Any] = {"bootstrap": bootstrap, "redis": redis_url, "prefix": prefix, "source": source, "output": output}
        self._logs = logs
        self._workers: list[subprocess.Popen[bytes]] = []

    def publish(self, count: int, *, first: int = 0, partitions: int = 1) -> None:
        producer = Producer({"bootstrap.servers": self.settings["bootstrap"], "linger.ms": 1})
        for i in range(first, first + count):
            producer.produce(self.settings["source"], str(i).encode(), partition=i % partitions)
        assert producer.flush(60) == 0

    def start(self, *, failpoint: str = "", instance: str = "a", **options: object) -> subprocess.Popen[bytes]:
        settings = self.settings | {"options": {"instance": instance} | options}
        environment = os.environ | {"DRIFTLINE_FAILPOINT": failpoint}
        log = (self._logs / f"worker-{len(self._workers)}.log").open("wb")
        command = [sys.executable, "-m", "tests.runner.worker", json.dumps(settings)]
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        log.close()
        self._workers.append(worker)
        return worker

    def run(self, *, failpoint: str = "", expect: int = 0, until_idle_s: float = 0.5, **options: Any) -> None:
        worker = self.start(failpoint=failpoint, until_idle_s=until_idle_s, time="data", **options)
        code = worker.wait(240)
        assert code == expect, f"exit code {code}, expected {expect}\n{self.log()}"

    def log(self, number: int = -1) -> str:
        return sorted(self._logs.glob("*.log"))[number].read_text()

    def outputs(self, *, count: int | None = None, seconds: float = 120) -> list[dict[str, Any]]:
        """What a read-committed reader sees up to the end; waits for `count` records if given."""
        properties = {"bootstrap.servers": self.settings["bootstrap"], "group.id": "reader", "enable.partition.eof": True}
        consumer = Consumer(properties | {"isolation.level": "read_committed"})
        consumer.assign([TopicPartition(self.settings["output"], 0, 0)])
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error() is None:
                headers: dict[str, Any] = dict(message.headers() or [])
                found.append(json.loads(message.value() or b"") | {"task": headers["task"].decode()})
            elif count is None or len(found) >= count:
                break
        consumer.close()
        return found

    def close(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()


@pytest.fixture
def bench(kafka: Kafka, redis_url: str, redis_prefix: str, create_topics: Any, tmp_path: Path) -> Iterator[Bench]:
    source, output = create_topics("source", partitions=2) + create_topics("output")
    bench = Bench(kafka.bootstrap, redis_url, redis_prefix, source, output, tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def embedded(redis_url: str, redis_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """A source and an output of one partition on the broker in this process's memory."""
    with EmbeddedBroker() as broker:
        names = [f"{kind}-{secrets.token_hex(4)}" for kind in ("source", "output")]
        for name in names:
            broker.create_topic(name, 1)
        yield Bench(broker.bootstrap, redis_url, redis_prefix, names[0], names[1], tmp_path)
