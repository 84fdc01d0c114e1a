"""Dead letters: a record that cannot be used, byte for byte, with why and where it came from in its headers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

Headers = tuple[tuple[str, bytes], ...]

ERROR_BYTES_MAX: Final = 2_048
"""An error quotes input; more than this helps nobody and could alone pass the topic's limit."""

SOURCE_TOPIC: Final = "driftline.source.topic"
SOURCE_PARTITION: Final = "driftline.source.partition"
SOURCE_OFFSET: Final = "driftline.source.offset"
SOURCE_TIMESTAMP: Final = "driftline.source.timestamp"
STAGE: Final = "driftline.stage"
REASON: Final = "driftline.reason"
ERROR: Final = "driftline.error"
SHA256: Final = "driftline.sha256"
TRUNCATED: Final = "driftline.truncated"


class SourceRecord(Protocol):
    """What is read of a record; `confluent_kafka.Message` and `streams.task.MemoryRecord` have this shape."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> list[tuple[str, bytes]] | None: ...


class DeadLetterError(ValueError):
    """Headers that are not a dead letter's; `header` names the one at fault."""

    def __init__(self, header: str, message: str) -> None:
        super().__init__(f'header "{header}": {message}')
        self.header = header


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What the headers of a dead letter say.

    Attributes
    ----------
    timestamp_ms : the source record's time; -1 when the broker gave none.
    stage : the processor that gave the record up.
    reason : one of a few words, for counting; `error` is the sentence.
    sha256 : hex digest of the source record's whole value; of no bytes for a tombstone.
    truncated : the value was cut, or headers left out, to fit the topic's limit.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    stage: str
    reason: str
    error: str
    sha256: str
    truncated: bool

    def to_headers(self) -> Headers:
        return (
            (SOURCE_TOPIC, self.topic.encode()),
            (SOURCE_PARTITION, b"%d" % self.partition),
            (SOURCE_OFFSET, b"%d" % self.offset),
            (SOURCE_TIMESTAMP, b"%d" % self.timestamp_ms),
            (STAGE, self.stage.encode()),
            (REASON, self.reason.encode()),
            (ERROR, _cut(self.error)),
            (SHA256, self.sha256.encode()),
            (TRUNCATED, b"true" if self.truncated else b"false"),
        )

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes | None]]) -> DeadLetter:
        """Read ours among the headers; of a dead letter that was fed in again the last set counts.

        Raises
        ------
        DeadLetterError : a header is absent or is not what it should be.
        """
        found = {name: value for name, value in headers if name.startswith("driftline.")}
        truncated = _text(found, TRUNCATED)
        if truncated not in ("true", "false"):
            raise DeadLetterError(TRUNCATED, f'expected true or false, got "{truncated[:60]}"')
        digest = _text(found, SHA256)
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise DeadLetterError(SHA256, f'expected 64 hex digits, got "{digest[:70]}"')
        return cls(
            topic=_word(found, SOURCE_TOPIC),
            partition=_number(found, SOURCE_PARTITION, 0),
            offset=_number(found, SOURCE_OFFSET, 0),
            timestamp_ms=_number(found, SOURCE_TIMESTAMP, -1),
            stage=_word(found, STAGE),
            reason=_word(found, REASON),
            error=_text(found, ERROR),
            sha256=digest,
            truncated=truncated == "true",
        )


def dead_letter(
    record: SourceRecord, *, stage: str, reason: str, error: str, limit_bytes: int, payload: bool = True
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of the dead letter of a record.

    The value and the headers are the record's own; where key, value and headers together would pass `limit_bytes`, the
    value is cut, and if that does not help the record's own headers, then its key, are left out.

    Parameters
    ----------
    limit_bytes : most bytes of key, value and headers; the topic's `max.message.bytes` less the batch's overhead.
    payload : False keeps value, key, headers and error text out: for models with sensitive fields.
    """
    value, key = record.value(), record.key()
    own: Headers = tuple(record.headers() or ())
    timestamp_kind, timestamp_ms = record.timestamp()
    if not payload:
        value, key, own, error = None, None, (), ""

    def letter(truncated: bool) -> DeadLetter:
        return DeadLetter(
            topic=record.topic(),
            partition=record.partition(),
            offset=record.offset(),
            timestamp_ms=timestamp_ms if timestamp_kind else -1,
            stage=stage,
            reason=reason,
            error=error,
            sha256=hashlib.sha256(record.value() or b"").hexdigest(),
            truncated=truncated,
        )

    ours = letter(not payload).to_headers()
    if _size(key, value, own + ours) <= limit_bytes:
        return key, value, own + ours
    ours = letter(True).to_headers()
    if _size(key, None, own + ours) > limit_bytes:
        own = ()
    if _size(key, None, ours) > limit_bytes:
        key = None
    room = max(0, limit_bytes - _size(key, None, own + ours))
    return key, None if value is None else value[:room], own + ours


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Bytes of a record, with room for Kafka's variable-length lengths."""
    return 32 + len(key or b"") + len(value or b"") + sum(len(name.encode()) + len(content or b"") + 10 for name, content in headers)


def _cut(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    return raw if len(raw) <= ERROR_BYTES_MAX else raw[: ERROR_BYTES_MAX - 3].decode("utf-8", "ignore").encode() + b"..."


def _text(found: dict[str, bytes | None], name: str) -> str:
    value = found.get(name)
    if value is None:
        raise DeadLetterError(name, "expected a value, got nothing")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DeadLetterError(name, "expected UTF-8 text, got other bytes") from None


def _word(found: dict[str, bytes | None], name: str) -> str:
    text = _text(found, name)
    if not text:
        raise DeadLetterError(name, "expected a word, got an empty text")
    return text


def _number(found: dict[str, bytes | None], name: str, lowest: int) -> int:
    text = _text(found, name)
    if not (text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) <= 19 and int(text) >= lowest):
        raise DeadLetterError(name, f'expected an integer >= {lowest}, got "{text[:60]}"')
    return int(text)
