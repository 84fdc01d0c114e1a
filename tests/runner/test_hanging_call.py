"""A call of the client that never returns costs its producer, not the worker."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from driftline.streams.errors import SetupError, UncertainError
from driftline.streams.runner import publisher
from driftline.streams.runner.publisher import Transactions


class Client:
    """A producer whose `send_offsets_to_transaction` waits for an event or raises."""

    def __init__(self, error: KafkaException | None = None, *, hangs: bool = False) -> None:
        self.error = error
        self.free = threading.Event()
        if not hangs:
            self.free.set()

    def init_transactions(self, _seconds: float) -> None:
        pass

    begin_transaction = purge = lambda self, *_: None

    def send_offsets_to_transaction(self, *_: Any) -> None:
        self.free.wait(60)
        if self.error is not None:
            raise self.error


def test_a_call_that_outstays_its_time_is_uncertain_and_the_next_producer_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "_HANG_GRACE_SECONDS", 0.1)
    clients = [Client(hangs=True), Client()]
    made = iter(clients)
    transactions = Transactions(lambda: next(made), timeout_seconds=0.2)  # type: ignore[arg-type,return-value]
    assert transactions.open()
    with pytest.raises(UncertainError, match="did not return"):
        transactions.send_offsets([TopicPartition("t", 0, 1)], b"")
    assert transactions.open()
    transactions.send_offsets([TopicPartition("t", 0, 1)], b"")
    clients[0].free.set()


def test_an_error_of_the_call_comes_through_as_it_is() -> None:
    error = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    transactions = Transactions(lambda: Client(error), timeout_seconds=1.0)  # type: ignore[arg-type,return-value]
    assert transactions.open()
    with pytest.raises(SetupError):
        transactions.send_offsets([TopicPartition("t", 0, 1)], b"")
