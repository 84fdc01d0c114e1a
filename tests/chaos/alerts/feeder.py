"""Detect's stand-in: a thread that sends drift events in transactions."""

from __future__ import annotations

import threading
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from tests.chaos.alerts.events import DriftStream

_RATE: Final = 6.0
"""Transactions a second, of four events and a half on average."""


class Feeder:
    """Sends until it is stopped.

    Attributes
    ----------
    committed : drift events that stand.
    aborted : transactions that were taken back.
    """

    def __init__(self, bootstrap: str, topic: str, seed: int) -> None:
        self._settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap, "transactional.id": topic, "partitioner": "murmur2_random", "transaction.timeout.ms": 8_000,
            "linger.ms": 0, "log_level": 0,
        }  # fmt: skip
        self._topic, self._stream = topic, DriftStream(seed)
        self._stopping, self._flowing = threading.Event(), threading.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._run, name="drift-feeder", daemon=True)
        self.committed = self.aborted = 0

    def start(self) -> None:
        self._thread.start()

    def pause(self) -> None:
        """Begin no transaction until `go_on`."""
        self._flowing.clear()

    def go_on(self) -> None:
        self._flowing.set()

    def stop(self) -> None:
        self._stopping.set()
        self._flowing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        producer = self._make()
        for batch in self._stream:
            self._flowing.wait()
            if self._stopping.wait(1 / _RATE):
                return
            try:
                producer.begin_transaction()
                for sent in batch.records:
                    producer.produce(self._topic, key=sent.key, value=sent.value, headers=list(sent.headers))
                producer.flush(10)
                if batch.aborted:
                    producer.abort_transaction(10)
                    self.aborted += 1
                else:
                    producer.commit_transaction(10)
                    self.committed += len(batch.records)
            except KafkaException:
                # The broker is away. Whether the transaction stands is read from the topic in the end.
                producer = self._make()

    def _make(self) -> Producer:
        while True:
            producer = Producer(self._settings)
            try:
                producer.init_transactions(5)
                return producer
            except KafkaException:
                if self._stopping.is_set():
                    return producer
