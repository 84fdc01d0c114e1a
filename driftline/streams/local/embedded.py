"""A broker without installing one: librdkafka's own cluster in a process of its own.

It speaks Kafka to every client, keeps 5 MiB a partition (librdkafka's constant) and drops the oldest silently, throws
transactional offsets away and shows aborted records. Good for a demo and for fast tests; no evidence of exactly-once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

from driftline.streams.local.process import LocalServiceError


class EmbeddedBroker:
    """The embedded broker; runs from construction to `stop`, and ends with this process however that ends.

    Parameters
    ----------
    brokers : nodes of the cluster; more than one only to see leaders move.

    Raises
    ------
    LocalServiceError : confluent-kafka's library is missing or refused.
    """

    def __init__(self, *, brokers: int = 1) -> None:
        # Its own process: the cluster shares librdkafka's main thread and would skew whatever is measured here.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "driftline.streams.local.mock_cluster", str(brokers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.bootstrap: str = self._read()["bootstrap"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic; clients that ask for an unknown one get it with 4 partitions.

        Raises
        ------
        LocalServiceError : it exists with another number of partitions, or the broker has stopped.
        """
        if self._process.stdin is None or self._process.poll() is not None:
            raise LocalServiceError("the embedded broker has stopped")
        self._process.stdin.write(json.dumps({"topic": name, "partitions": partitions}) + "\n")
        self._process.stdin.flush()
        self._read()

    def stop(self) -> None:
        """End the process; every topic is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it ended without an answer"}
        if "error" in answer:
            raise LocalServiceError(f"embedded broker: {answer['error']}")
        return answer
