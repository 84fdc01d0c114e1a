"""The program as a user starts it, and what stands in a topic meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from driftline.streams.observation import Observations, decode
from tests.conftest import Kafka


def driftline(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    """A command that ends by itself."""
    command = [sys.executable, "-m", "driftline", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=300, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == code, done.stderr.decode()[-3_000:]
    return done


def write_config(
    path: Path, kafka: Kafka, redis_url: str, prefix: str, models: str, *, predictions: str = "", labels: str | None = "",
    ours: str = "", port: int = 0,
) -> Path:  # fmt: skip
    """The file of one installation, with one partition a topic.

    Parameters
    ----------
    prefix : of its groups and keys; its topics begin with `ours`, or else with the prefix and ``-ours``.
    models : what stands under ``models:``, in one line or indented.
    predictions, labels : topics; empty = ``PREFIX.in`` and ``PREFIX.labels``, None = no labels.
    port : of health and metrics; 0 = off.
    """
    lines = [
        f'kafka: {{bootstrap: "{kafka.bootstrap}", group_prefix: "{prefix}"}}',
        f'redis: {{url: "{redis_url}", key_prefix: "{prefix}"}}',
        f'topics: {{prefix: "{ours or f"{prefix}-ours"}", partitions: 1}}',
        f"http: {{port: {port}}}",
        f"predictions: {predictions or f'{prefix}.in'}",
        *([] if labels is None else [f"labels: {labels or f'{prefix}.labels'}"]),
        f"models: {models}",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


class Running:
    """`driftline run` that goes on until it is told to end."""

    def __init__(self, log: Path, *arguments: str | Path) -> None:
        self._log = log
        with log.open("wb") as sink:
            self._process = subprocess.Popen([sys.executable, "-m", "driftline", "run", *map(str, arguments)], stdout=sink, stderr=sink)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for something to become true while the program runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process.poll() is None, self.log[-3_000:]
            assert time.monotonic() < deadline, self.log[-3_000:]
            time.sleep(0.1)

    def ready(self, processors: int) -> None:
        """Wait until that many have said that they begin."""
        self.until(lambda: self.log.count("processor_ready") >= processors)

    def stop(self) -> int:
        """End it in order; its exit code."""
        self._process.terminate()
        return self._process.wait(120)

    def kill(self) -> None:
        """Leave nothing behind, whatever happened; the children end with their supervisor."""
        self._process.kill()
        self._process.wait(30)


@contextmanager
def running(log: Path, *arguments: str | Path) -> Iterator[Running]:
    """`Running`, gone at the end of the block."""
    program = Running(log, *arguments)
    try:
        yield program
    finally:
        program.kill()


class Reader:
    """What committed readers see of partition 0 of a topic, more of it at every look."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        settings = {"group.id": "reader", "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 2}
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "isolation.level": "read_committed", **settings})
        self._topic = topic
        self._next = 0
        self.messages: list[Message] = []

    def look(self, seconds: float = 60.0) -> list[Message]:
        """Everything up to the end as it is now."""
        # Assigned anew: the client may have fetched ahead, and have in its queue the end as it was then.
        self._consumer.assign([TopicPartition(self._topic, 0, self._next)])
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.2)
            error = message.error() if message is not None else None
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                return self.messages
            if message is not None and error is None:
                self.messages.append(message)
                self._next = (message.offset() or 0) + 1
        raise AssertionError(f"no end of {self._topic} within {seconds:.0f} s")

    def observations(self, kind: str) -> list[Observations]:
        """The batches of a kind up to the end as it is now."""
        batches = [decode(message.value() or b"") for message in self.look()]
        return [batch for batch in batches if batch.kind == kind]

    def close(self) -> None:
        self._consumer.close()


def produce(bootstrap: str, topic: str, values: Iterable[tuple[int, bytes]]) -> None:
    """Records with their times, to partition 0."""
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2})
    for time_ms, value in values:
        producer.produce(topic, value, partition=0, timestamp=time_ms)
    assert producer.flush(60) == 0
