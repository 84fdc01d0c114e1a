"""What a worker makes of errors that its consumer hands out in place of records."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, KafkaError, Message

from driftline.streams.errors import OwnershipError
from driftline.streams.runner.membership import Membership


@pytest.mark.parametrize("flagged", [True, False])
def test_a_consumer_that_is_dead_ends_the_worker(flagged: bool) -> None:
    """By KIP-848 a worker whose group has refused it for good gets the code without the flag, and never a record again."""
    consumer = Consumer({"group.id": "g", "bootstrap.servers": "localhost:1", "log_level": 0})
    nothing = frozenset[tuple[str, int]]
    membership = Membership(lambda: consumer, ["t"], incremental=True, revoked=lambda _: None, lost=lambda _: None)
    error = KafkaError(KafkaError._FATAL, "Static consumer fenced by other consumer", flagged)
    try:
        with pytest.raises(OwnershipError, match="fenced by other consumer") as caught:
            membership._without_errors([Message(topic="", partition=-1, offset=-1, error=error)])
        assert "same instance name" in (caught.value.hint or "")
    finally:
        consumer.close()
    assert membership.owned == set(nothing())
