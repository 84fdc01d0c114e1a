"""The one partitioner of ours: Kafka's murmur2, as the Java client's default and librdkafka's `murmur2_random` compute it.

The constants and the masking with 0x7fffffff are those of `org.apache.kafka.common.utils.Utils.murmur2` and its
`toPositive`; two clients that differ here break compaction and the order of a model's observations (PROTOCOL 13).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_R: Final = 24
_MASK: Final = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """The unsigned 32-bit murmur2 hash of a key with Kafka's seed."""
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = (int.from_bytes(key[i : i + 4], "little") * _M) & _MASK
        k = ((k ^ (k >> _R)) * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    if rest := key[whole:]:
        h = ((h ^ int.from_bytes(rest, "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=4096)
def partition_for(key: str, partitions: int) -> int:
    """The partition a record with this key goes to, in every client with the murmur2 partitioner."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
