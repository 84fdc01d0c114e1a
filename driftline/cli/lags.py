"""How far behind the consumer groups of an installation are, in records and by the time of the next one: for `status`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from driftline.schemas.config import Config

Place = tuple[str, int]
"""A topic and a partition."""
_CALL_SECONDS: Final = 10.0
_MARKERS_MAX: Final = 16
"""A lag up to this may be markers of transactions alone: it is counted by reading."""
_FETCH_BYTES: Final = 65_536
"""One record of each partition is looked at, and at most `_MARKERS_MAX` counted; a broker sends a larger one whole."""


class Behind(NamedTuple):
    """What stands between a group's positions and the ends.

    Attributes
    ----------
    records : the lag.
    next_ms : the earliest time among the next records of its partitions; None where none could be read.
    dated : whether some of these times are the producers', not the broker's.
    """

    records: int
    next_ms: int | None
    dated: bool


def group_lags(client: AdminClient, config: Config) -> list[dict[str, Any]]:
    """State, members, records behind and the next one's time of every consumer group; a group that never ran has no lag."""
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException

    from driftline.streams.kafka import needs_a_person
    from driftline.streams.wiring import groups_of

    groups = groups_of(config)
    offsets = {name: f.result for name in groups for f in client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)]).values()}
    described = client.describe_consumer_groups(list(groups), request_timeout=_CALL_SECONDS)
    rows = []
    for name, processor in groups.items():
        row: dict[str, Any] = {"processor": processor, "group": name, "state": "never ran", "members": 0, "lag": None}
        row |= {"next_ms": None, "next_dated": False}
        try:
            group = described[name].result(_CALL_SECONDS)
            committed = [p for p in offsets[name](_CALL_SECONDS).topic_partitions or [] if p.error is None and p.offset >= 0]
        except KafkaException as error:
            if needs_a_person(error.args[0]):
                raise  # who may not look at a group knows nothing of it
            rows.append(row)
            continue
        if committed:
            behind = _behind(client, config, committed)
            row |= {"state": group.state.name.lower(), "members": len(group.members), "lag": behind.records}
            row |= {"next_ms": behind.next_ms, "next_dated": behind.dated}
        rows.append(row)
    return rows


def _behind(client: AdminClient, config: Config, committed: list[Any]) -> Behind:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec

    wanted = {TopicPartition(p.topic, p.partition): OffsetSpec.latest() for p in committed}  # type: ignore[no-untyped-call]
    found = client.list_offsets(wanted, request_timeout=_CALL_SECONDS)
    ends = {(p.topic, p.partition): future.result(_CALL_SECONDS).offset for p, future in found.items()}
    lags = {(p.topic, p.partition): (p.offset, int(ends[p.topic, p.partition] - p.offset)) for p in committed}
    lags = {place: one for place, one in lags.items() if one[1] > 0}
    near = {place for place, (_, lag) in lags.items() if lag <= _MARKERS_MAX}
    read = _read(config, {place: offset for place, (offset, _) in lags.items()}, near)
    return read._replace(records=read.records + sum(lag for place, (_, lag) in lags.items() if place not in near))


def _read(config: Config, positions: Mapping[Place, int], near: set[Place]) -> Behind:
    """The first record from each position on, and how many there are to the end of those that are near it.

    An offset is not always a record: transactions leave markers in the log. What cannot be read in time is not known.
    """
    from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, TopicPartition

    from driftline.cli.kafka import consumer

    if not positions:
        return Behind(0, None, dated=False)
    first: dict[Place, tuple[int, int]] = {}
    ended: set[Place] = set()
    left = 0
    client = consumer(config.kafka, **{"max.partition.fetch.bytes": _FETCH_BYTES})
    try:
        client.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()])
        deadline = time.monotonic() + _CALL_SECONDS
        while len(ended) < len(positions) and time.monotonic() < deadline:
            message = client.poll(0.2)
            if message is None:
                continue
            place = (message.topic() or "", message.partition() or 0)
            if (error := message.error()) is not None:
                # At its end; or its records are gone, or not this user's to read.
                ended |= {place} & positions.keys() if not error.retriable() else set()
                continue
            first.setdefault(place, message.timestamp())
            if place in near:
                left += 1
            elif place not in ended:
                ended.add(place)
                client.pause([TopicPartition(*place)])
    finally:
        client.close()
    times = [time_ms for kind, time_ms in first.values() if kind in (TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME)]
    return Behind(left, min(times, default=None), any(kind == TIMESTAMP_CREATE_TIME for kind, _ in first.values()))
