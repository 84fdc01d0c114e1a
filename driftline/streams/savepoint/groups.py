"""Consumer groups from outside: who is in them, what they committed, and the one thing a stranger may write: offsets of an empty group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.schemas.config import Kafka
from driftline.streams.errors import AwayError, StateError
from driftline.streams.kafka import CALL_SECONDS, consumer_properties, from_kafka
from driftline.streams.runner.restore import Committed, read_committed
from driftline.streams.task import PartitionId

# A killed worker's transaction is aborted after its timeout, 15 s unless configured; until then its offsets are not known.
_COMMITTED_SECONDS_MAX: Final = 30.0
_PAUSE_SECONDS: Final = 0.1
_FORGOTTEN_SECONDS: Final = 15.0
"""A session is 10 s unless configured."""
_LOOK_SECONDS: Final = 0.5
_ACTIVE: Final = (
    KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.FENCED_INSTANCE_ID,
    KafkaError.STALE_MEMBER_EPOCH,
)  # fmt: skip

_LEADERLESS: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)


def count_members(admin: AdminClient, groups: Iterable[str]) -> dict[str, int]:
    """Live members of each group; none in a group that never was."""
    found: dict[str, int] = {}
    for name, future in admin.describe_consumer_groups(list(groups), request_timeout=CALL_SECONDS).items():
        try:
            found[name] = len(future.result(CALL_SECONDS).members)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise from_kafka(error) from error
            found[name] = 0
    return found


def check_left(admin: AdminClient, groups: Iterable[str], say: Callable[[str], None]) -> None:
    """No worker is in any of the groups; one that was stopped is forgotten only with its session, and that long this waits.

    Raises
    ------
    StateError : names the groups that still have members.
    """
    names, told, deadline = list(groups), False, time.monotonic() + _FORGOTTEN_SECONDS
    while live := [f'"{name}" ({count})' for name, count in count_members(admin, names).items() if count]:
        if time.monotonic() >= deadline:
            raise StateError(
                f"workers are in group {', '.join(live)}",
                hint="stop them; the group forgets one that was stopped or killed after its session timeout, 10 s unless configured",
            )
        if not told:
            told = True
            say(f"workers are in group {', '.join(live)}: waiting until it forgets those that were stopped")
        time.sleep(_LOOK_SECONDS)


class GroupOffsets:
    """The committed offsets of one group; joins it never.

    Use as a context manager, or `close` it.
    """

    def __init__(self, kafka: Kafka, group: str) -> None:
        self.group = group
        properties = consumer_properties(kafka.model_copy(update={"group_protocol": "classic"}), group)
        # Errors come back from the calls; the client's own log would repeat them.
        self._consumer = Consumer({**properties, "log_level": 2, "error_cb": lambda _error: None})

    def __enter__(self) -> GroupOffsets:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def committed(self, partitions: Iterable[PartitionId]) -> Committed:
        """Offset and metadata of each partition that has them, once no transaction is open on any.

        Raises
        ------
        AwayError : not known in time.
        """
        wanted = sorted(partitions)
        deadline = time.monotonic() + _COMMITTED_SECONDS_MAX
        while (found := read_committed(self._consumer, wanted)) is None:
            if time.monotonic() > deadline:
                raise AwayError(
                    f'kafka: the committed offsets of group "{self.group}" are not readable for {_COMMITTED_SECONDS_MAX:.0f} s',
                    hint="a transaction of a killed worker may be open; it ends after kafka.transaction_timeout",
                )
            time.sleep(_PAUSE_SECONDS)
        return found

    def commit(self, offsets: Mapping[PartitionId, tuple[int, str]]) -> None:
        """Set offsets and their metadata, all or none.

        Raises
        ------
        StateError : a worker has joined; the broker lets nobody else write then, so nothing was written.
        AwayError : Kafka did not take them.
        """
        wanted = [TopicPartition(*key, offset, metadata) for key, (offset, metadata) in sorted(offsets.items())]
        try:
            answers = self._consumer.commit(offsets=wanted, asynchronous=False) or []
            errors = [answer.error for answer in answers if answer.error is not None]
        except KafkaException as error:
            errors = [error.args[0]]
        if not errors:
            return
        if errors[0].code() in _ACTIVE:
            message = f'group "{self.group}": a worker joined it: its offsets were not set'
            raise StateError(message, hint="stop the workers, then import again with --replace")
        raise from_kafka(KafkaException(errors[0]))

    def bounds(self, partition: PartitionId) -> tuple[int, int]:
        """First offset that is held, and the end as a committed reader sees it.

        Raises
        ------
        AwayError : no answer in time.
        """
        deadline = time.monotonic() + CALL_SECONDS
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=CALL_SECONDS, cached=False)
            except KafkaException as error:
                # A partition that is new, or moves to another broker, has no leader for a moment.
                if error.args[0].code() not in _LEADERLESS or time.monotonic() > deadline:
                    raise from_kafka(error) from error
                time.sleep(_PAUSE_SECONDS)
            else:
                return int(low), int(high)

    def records_after(self, ends: Mapping[PartitionId, int], seconds: float = 30.0) -> PartitionId | None:
        """The first partition found with a committed record at or after its offset; None if there is none.

        It is read, as an offset is not always a record: transactions leave markers in the log.
        """
        bounds = {key: self.bounds(key) for key in ends}
        behind = {key: max(offset, bounds[key][0]) for key, offset in ends.items() if bounds[key][1] > offset}
        if not behind:
            return None
        self._consumer.assign([TopicPartition(*key, offset) for key, offset in behind.items()])
        try:
            return self._first_record(len(behind), time.monotonic() + seconds)
        finally:
            self._consumer.unassign()

    def _first_record(self, unread: int, deadline: float) -> PartitionId | None:
        while unread:
            message = self._consumer.poll(0.2)
            error = None if message is None else message.error()
            if message is not None and error is None:
                return str(message.topic()), int(message.partition() or 0)
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                unread -= 1
            elif error is not None and not error.retriable():
                raise from_kafka(KafkaException(error))
            if time.monotonic() > deadline:
                raise AwayError("kafka: what was written since the savepoint could not be read in time")
        return None
