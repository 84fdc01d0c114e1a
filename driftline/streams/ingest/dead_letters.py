"""Dead letters: the record as it came, and headers that say where it stood and why it was refused."""

from __future__ import annotations

import hashlib
from typing import Final

from driftline.schemas.topics import DEAD_LETTERS
from driftline.streams.ingest.decoder import Refused
from driftline.streams.task import Output

# Room for headers, key and the record's own framing within the topic's limit.
_FRAMING_BYTES: Final = 16 << 10
_HEADER_BYTES_MAX: Final = 16 << 10


def dead_letter(refused: Refused, *, topic: str, stage: str, payload: bool) -> Output:
    """The dead letter of a refused record; without `payload` (sensitive fields), or above the topic's limit, only its hash."""
    record = refused.record
    value = record.value()
    headers = [
        ("driftline.topic", record.topic().encode()),
        ("driftline.partition", b"%d" % record.partition()),
        ("driftline.offset", b"%d" % record.offset()),
        ("driftline.timestamp_ms", b"%d" % record.timestamp()[1]),
        ("driftline.stage", stage.encode()),
        ("driftline.reason", refused.reason.encode()),
        ("driftline.detail", refused.detail.encode("utf-8", "replace")[:1_000]),
    ]
    key = record.key()
    own = [(name, content) for name, content in record.headers() or () if content is not None]
    if sum(len(name) + len(content) for name, content in own) > _HEADER_BYTES_MAX:
        own = []
        headers.append(("driftline.headers_dropped", b"true"))
    too_large = value is not None and len(value) + len(key or b"") > DEAD_LETTERS.max_message_bytes - _FRAMING_BYTES - _HEADER_BYTES_MAX
    if value is not None and (too_large or not payload):
        headers.append(("driftline.sha256", hashlib.sha256(value).hexdigest().encode()))
        headers.append(("driftline.truncated" if too_large else "driftline.withheld", b"true"))
        value = None
    if key is not None and payload and not too_large:
        headers.append(("driftline.key", key))
    position = f"{record.topic()}-{record.partition()}".encode()
    return Output(topic, position, value, tuple([*headers, *own] if payload else headers))
