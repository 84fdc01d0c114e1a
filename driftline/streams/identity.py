"""Deterministic ids: the same source record makes the same id, on any worker, in any batch, after any crash.

Cluster id and topic id are part of every id: a recreated topic starts its offsets at 0 again, and an equal id
for a different event would make subscribers drop a real alert.
"""

from __future__ import annotations

import hashlib

import orjson

from driftline.schemas.events import Position
from driftline.streams.cluster import Cluster

_HEX_CHARS = 32


def event_id(environment: str, cluster: Cluster, position: Position, *parts: str | int | None) -> str:
    """32 hex characters of the SHA-256 over the canonical JSON of its arguments.

    Parameters
    ----------
    position : the source record (prediction or label), never a record of ours.
    parts : what tells events of one record apart, for example model, series, segment, detector, kind.
    """
    record = [position.topic, position.partition, position.offset]
    canonical = orjson.dumps([environment, cluster.cluster_id, cluster.topic_ids.get(position.topic, ""), *record, *parts])
    return hashlib.sha256(canonical).hexdigest()[:_HEX_CHARS]
