"""Where a task without committed offsets begins: now, earliest, a duration back or a time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from driftline.schemas.durations import parse_duration_ms
from driftline.streams.errors import SetupError
from driftline.streams.task import PartitionId

_CALL_SECONDS: Final = 10.0


def start_ms(start: str, now_ms: int) -> int | None:
    """The time to begin at in ms; None for the log's start, `now_ms` for ``now``.

    Raises
    ------
    SetupError : not one of the four forms.
    """
    if start == "earliest":
        return None
    if start == "now":
        return now_ms
    try:
        if start.startswith("-"):
            return now_ms - parse_duration_ms(start[1:])
        time = datetime.fromisoformat(start.replace("Z", "+00:00"))
    except ValueError:
        raise SetupError(f'start: expected now, earliest, a duration such as -24h or an ISO time, got "{start}"') from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def start_offsets(
    consumer: Consumer, partitions: Iterable[PartitionId], start: str, *, now_ms: int, by_time: bool
) -> dict[PartitionId, int]:
    """The first offset to read of each partition.

    Parameters
    ----------
    by_time : false for the embedded broker, which cannot look up times: everything it still has is read.
    """
    begin = start_ms(start, now_ms)
    wanted = list(partitions)
    bounds = {key: consumer.get_watermark_offsets(TopicPartition(*key), timeout=_CALL_SECONDS, cached=False) for key in wanted}
    if start == "now":
        return {key: high for key, (_, high) in bounds.items()}
    if begin is None or not by_time:
        return {key: low for key, (low, _) in bounds.items()}
    found = consumer.offsets_for_times([TopicPartition(*key, max(0, begin)) for key in wanted], timeout=_CALL_SECONDS)
    # A negative offset says that no record is as late as that: begin at the end.
    return {(p.topic, p.partition): p.offset if p.offset >= 0 else bounds[(p.topic, p.partition)][1] for p in found}
