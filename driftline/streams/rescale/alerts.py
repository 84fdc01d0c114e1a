"""Alerts and incidents as they stand, for the alert processor of the new topics: its empty store is filled from them."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from driftline.streams.alert.wire import SOURCE_HEADER
from driftline.streams.partitioner import partition_for
from driftline.streams.rescale.logs import MARK, Sink
from driftline.streams.task import Record


def move_alerts(records: Iterable[Record], sink: Sink, topic: str, drift: tuple[str, int]) -> int:
    """Write the records of alerts or incidents under their keys again; how many.

    Each names, in place of the event behind it, what comes before the first event of its model in the new drift topic:
    whatever is published there is news to it.

    Parameters
    ----------
    drift : id of the new drift topic, and its partitions.
    """
    drift_id, partitions = drift
    count = 0
    for record in records:
        value = record.value()
        if value is not None:
            number = partition_for(orjson.loads(value)["model"], partitions)
            kept = [(name, held) for name, held in record.headers() or () if name not in (SOURCE_HEADER, MARK)]
            source = (SOURCE_HEADER, f"{drift_id}/{number}/-1".encode())
            sink.send(topic, value, key=record.key(), headers=[*kept, source, (MARK, str(record.timestamp()[1]).encode())])
            count += 1
    sink.finish()
    return count
