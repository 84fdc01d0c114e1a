"""What librdkafka's group metadata says of a consumer; to everybody else it is opaque."""

from __future__ import annotations

from typing import Final

_METADATA_MAGIC: Final = b"CGMDv2:"


def generation(metadata: bytes) -> int:
    """The generation inside librdkafka's opaque group metadata: magic, int32, group id, 0, member id, 0, ...

    -1 when this is no member or has no member id. An unknown layout counts as a member: the broker still checks it.
    """
    if not isinstance(metadata, bytes) or not metadata.startswith(_METADATA_MAGIC):
        return 0
    start = len(_METADATA_MAGIC)
    generation = int.from_bytes(metadata[start : start + 4], "little", signed=True)
    _, _, rest = metadata[start + 4 :].partition(b"\0")
    return generation if rest.partition(b"\0")[0] else -1
