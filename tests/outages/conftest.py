"""One worker of the program between a real Kafka and a Redis that is reached through a proxy, with input that goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from confluent_kafka import Producer

from driftline.streams.local.process import free_port
from driftline.streams.local.redis import LocalRedis
from driftline.streams.observation import decode
from driftline.streams.wiring import worker_port
from tests.chaos.process import read_ready, until
from tests.chaos.watch import Watch
from tests.chaos.workers import Launch, Stage, Worker
from tests.conftest import CreateTopics, Kafka
from tests.e2e.programs import driftline
from tests.outages.proxy import Proxy

T0: Final = 1_700_000_000_000
PARTITIONS: Final = 2
TRANSACTION_SECONDS: Final = 6


class Bench:
    """Source and topics of one test, its worker, and what became of the input."""

    def __init__(self, bootstrap: str, prefix: str, source: str, redis_url: str, directory: Path) -> None:
        self.bootstrap, self.prefix, self.source, self.directory = bootstrap, prefix, source, directory
        self.ours = f"{prefix}-ours"
        self.path = directory / "m.yml"
        self.port = free_port(4)   # a stage each
        self.sent = 0
        self.configure(redis_url)
        driftline("topics", "create", self.path)
        self.watch = Watch(bootstrap)
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 0, "message.timeout.ms": 0})
        self._flowing = threading.Event()
        self._thread: threading.Thread | None = None
        self.workers: list[Worker] = []

    def configure(self, redis_url: str, **http: Any) -> None:
        """(Re)write the configuration file."""
        properties = "session.timeout.ms: 6000, heartbeat.interval.ms: 1000"
        self.path.write_text(
            f"environment: test\nkafka: {{bootstrap: \"{self.bootstrap}\", group_prefix: {self.prefix},"
            f" transaction_timeout: {TRANSACTION_SECONDS}s, properties: {{{properties}}}}}\n"
            f"redis: {{url: \"{redis_url}\", key_prefix: {self.prefix}}}\n"
            f"topics: {{prefix: {self.ours}, partitions: 1}}\nhttp: {json.dumps({'port': self.port} | http)}\nstart: earliest\n"
            f"predictions: {self.source}\nmodels: {{m: {{features: {{x: numeric}}, window: 100, baseline: {{learn: 200, settle: 0s}}}}}}\n"
        )

    def start(self, stage: Stage = "ingest", failpoint: str = "") -> Worker:
        log = self.directory / f"{stage}-{len(self.workers)}.log"
        worker = Worker(stage, self.path, log, Launch(failpoint=failpoint, arguments=("--time", "data")))
        self.workers.append(worker)
        return worker

    def send(self, count: int, *, padding: int = 0) -> None:
        """Rows to all partitions, in turn."""
        for number in range(self.sent, self.sent + count):
            row: dict[str, Any] = {"id": f"i{number}", "model": "m", "time": T0 + number, "features": {"x": number % 7}, "score": 0.5}
            row["more"] = "." * padding
            while True:
                try:
                    self._producer.produce(self.source, orjson.dumps(row), partition=number % PARTITIONS, timestamp=T0 + number)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self.sent += count
        assert self._producer.flush(120) == 0

    def flow(self, rows_per_second: int = 400) -> None:
        """Send in the background until `stop_flow`."""
        self._flowing.set()

        def run() -> None:
            while self._flowing.is_set():
                self.send(max(1, rows_per_second // 20))
                threading.Event().wait(0.05)

        self._thread = threading.Thread(target=run, name="flow", daemon=True)
        self._thread.start()

    def stop_flow(self) -> None:
        self._flowing.clear()
        if self._thread is not None:
            self._thread.join()

    def rows(self) -> list[tuple[int, int]]:
        """Partition and offset of every row that ingest has published and committed, as often as it stands there."""
        found: list[tuple[int, int]] = []
        for record in self.watch.read(f"{self.ours}.observations"):
            batch = decode(record.value() or b"")
            if batch.kind == "predictions":
                partitions = [batch.sources[index][1] for index in batch.source.tolist()]
                found += zip(partitions, batch.offset.tolist(), strict=True)
        return found

    def expected(self) -> list[tuple[int, int]]:
        return sorted((number % PARTITIONS, number // PARTITIONS) for number in range(self.sent))

    def committed(self, stage: Stage = "ingest") -> int:
        """Offsets that the worker's group has committed, all partitions together."""
        topic, partitions = (self.source, PARTITIONS) if stage == "ingest" else (f"{self.ours}.observations", 1)
        found = self.watch.committed(f"{self.prefix}.{stage}", [(topic, number) for number in range(partitions)])
        return sum(offset for offset, _ in found.values())

    def moves(self, worker: Worker, stage: Stage = "ingest", seconds: float = 120) -> None:
        """Wait until the worker commits something that it had not yet."""
        before = self.committed(stage)
        worker.until(lambda: self.committed(stage) > before, "commit something more", seconds)

    def ready(self, stage: Stage = "ingest") -> tuple[bool, list[str]]:
        """What /readyz says."""
        return read_ready(worker_port(self.port, stage))

    def says(self, worker: Worker, start: str, stage: Stage = "ingest", seconds: float = 60) -> list[str]:
        """Wait until /readyz gives a reason that begins so; all its reasons."""
        found: list[list[str]] = []

        def said() -> bool:
            found[:] = [self.ready(stage)[1]]
            return any(reason.startswith(start) for reason in found[0])

        worker.until(said, f'say "{start}" in /readyz', seconds)
        return found[0]

    def is_ready(self, worker: Worker, stage: Stage = "ingest", seconds: float = 120) -> None:
        worker.until(lambda: self.ready(stage)[0], "be ready", seconds)

    def all_there(self, seconds: float = 120) -> None:
        """Wait for every row, then see that each is there once."""
        wanted = self.expected()
        last = self.workers[-1]
        until(lambda: len(self.rows()) >= len(wanted), lambda: f"{len(self.rows())} of {len(wanted)} rows\n{last.tail()}", seconds)
        assert sorted(self.rows()) == wanted

    def close(self) -> None:
        self.stop_flow()
        for worker in self.workers:
            if worker.code is None:
                worker.kill()
        self.watch.close()


@pytest.fixture
def own_redis() -> Iterator[LocalRedis]:
    """A Redis to stop and freeze, which nobody else uses; it keeps its data."""
    with LocalRedis(append_only=True) as server:
        yield server


@pytest.fixture
def proxy(own_redis: LocalRedis) -> Iterator[Proxy]:
    with Proxy(own_redis.port) as proxy:
        yield proxy


MakeBench = Callable[[str, str], Bench]


@pytest.fixture
def bench(kafka: Kafka, topic_prefix: str, create_topics: CreateTopics, proxy: Proxy, tmp_path: Path) -> Iterator[Bench]:
    """A bench on the shared Kafka and a Redis of its own behind the proxy."""
    (source,) = create_topics("in", partitions=PARTITIONS, config={"retention.ms": "-1"})
    bench = Bench(kafka.bootstrap, topic_prefix, source, proxy.url, tmp_path)
    yield bench
    bench.close()
