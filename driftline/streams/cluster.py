"""What logic may know of the cluster: topic ids, partition counts, when this installation went live.

Read once by the wiring (`runner` from Kafka, `replay` from the file) and passed in, so that no task asks a broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from driftline.streams.errors import StateError

_LIVE_SINCE_DIGITS_MAX = 15
"""Until the year 33658; longer ones are no time."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Facts about the cluster.

    Attributes
    ----------
    cluster_id : Kafka's cluster id, or ``"file"`` in a replay.
    topic_ids : topic name to topic id (changes when a topic is recreated); part of every event id.
    partitions : topic name to its number of partitions, sources and our own alike.
    live_since_ms : wall time of the first start in `--time wall`; records before it are marked historical.
        0 in `--time data`, where nothing is.
    """

    cluster_id: str
    topic_ids: Mapping[str, str]
    partitions: Mapping[str, int]
    live_since_ms: int = 0


def live_since_key(key_prefix: str, environment: str, cluster_id: str) -> str:
    """Where Redis keeps the wall time at which an installation went live."""
    return f"{key_prefix}:{environment}:{cluster_id}:live_since_ms"


def read_live_since_ms(key: str, value: bytes | None) -> int:
    """The time that stands under `live_since_key`.

    Raises
    ------
    StateError : something else stands there.
    """
    if value is None or not value.isdigit() or len(value) > _LIVE_SINCE_DIGITS_MAX:
        raise StateError(f'redis: "{key}": expected the time of the first start in ms, got {(value or b"")[:40]!r}', hint="delete the key")
    return int(value)
