"""What a worker makes of errors that its consumer hands out in place of records."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, KafkaError, Message

from driftline.streams.errors import FatalError, OwnershipError
from driftline.streams.runner import name
from driftline.streams.runner.membership import Membership
from driftline.streams.runner.name import NAME_SECONDS, InstanceName
from tests.protocol.world import FakeTime

_TAKEN = KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(KafkaError.FENCED_INSTANCE_ID).str()}")
_IN_USE = KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(name, "time", clock)
    return clock


@pytest.mark.parametrize("flagged", [True, False])
def test_a_consumer_that_is_dead_for_another_reason_than_its_name_ends_the_worker(flagged: bool) -> None:
    """By KIP-848 a worker whose group has refused it for good gets the code without the flag, and never a record again."""
    consumer = Consumer({"group.id": "g", "bootstrap.servers": "localhost:1", "log_level": 0})
    membership = Membership(lambda: consumer, ["t"], incremental=True, revoked=lambda _: None, lost=lambda _: None, holder=lambda: None)
    error = KafkaError(KafkaError._FATAL, "Broker: The consumer group has reached its max size", flagged)
    try:
        with pytest.raises(FatalError, match="reached its max size"):
            membership._without_errors([Message(topic="", partition=-1, offset=-1, error=error)])
    finally:
        consumer.close()


def test_a_worker_that_is_thrown_out_gives_up_everything_and_asks_with_another_client() -> None:
    lost: list[frozenset[tuple[str, int]]] = []
    made: list[Consumer] = []

    def make() -> Consumer:
        made.append(Consumer({"group.id": "g", "bootstrap.servers": "localhost:1", "log_level": 0}))
        return made[-1]

    membership = Membership(make, ["t"], incremental=False, revoked=lambda _: None, lost=lost.append, holder=lambda: None)
    membership.owned, membership.next, membership.joined = {("t", 0), ("t", 1)}, {("t", 0): 7}, True
    before = membership.changes
    record = Message(topic="t", partition=0, offset=7, value=b"of a member that is gone")
    try:
        assert membership._without_errors([Message(topic="", partition=-1, offset=-1, error=_TAKEN), record]) == []
        assert lost == [frozenset({("t", 0), ("t", 1)})]
        assert (membership.owned, membership.next, membership.joined) == (set(), {}, False)
        assert membership.changes > before
        assert membership.metadata() is None
        assert membership.consumer is made[-1] is not made[0]
    finally:
        membership.close()


def test_a_name_that_is_in_use_is_waited_for_as_long_as_a_session_may_last_and_no_longer(clock: FakeTime) -> None:
    mine = InstanceName()
    for _ in range(3):
        assert "until its session ends" in mine.denied(_IN_USE)
        clock.now += NAME_SECONDS / 3
    mine.granted()
    assert "until its session ends" in mine.denied(_IN_USE)
    clock.now += NAME_SECONDS + 1
    with pytest.raises(OwnershipError, match="instance name"):
        mine.denied(_IN_USE)


def test_a_name_that_is_taken_again_and_again_is_a_rivals(clock: FakeTime) -> None:
    mine = InstanceName()
    for _ in range(2):
        assert "a former self of this worker or a rival" in mine.denied(_TAKEN)
        mine.granted()
        clock.now += NAME_SECONDS
    with pytest.raises(OwnershipError, match="instance name"):
        mine.denied(_TAKEN)


def test_a_name_that_was_kept_for_long_may_be_taken_as_often_again(clock: FakeTime) -> None:
    mine = InstanceName()
    for _ in range(20):
        assert "a former self of this worker or a rival" in mine.denied(_TAKEN)
        clock.now += NAME_SECONDS + 1
