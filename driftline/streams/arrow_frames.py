"""What an Arrow IPC stream asks for, looked at before Arrow reads it: a few kilobytes of zstd can ask for gigabytes.

Our writers never compress, so a compressed body is not ours. pyarrow does not say whether a body is compressed; the
FlatBuffers table in front of it does (format/Message.fbs of the Arrow specification): RecordBatch's fourth field.
"""

from __future__ import annotations

import struct
from typing import Final

import pyarrow as pa

_DICTIONARY_BATCH: Final = 2
_RECORD_BATCH: Final = 3
_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_DATA: Final = 1
_COMPRESSION: Final = 3


class FrameError(ValueError):
    """A stream that is damaged, or compressed."""


def check_uncompressed(value: bytes) -> None:
    """See that no body of the stream is compressed.

    Raises
    ------
    FrameError : one is, or the stream is none.
    """
    try:
        # Arrow verifies the table itself before it hands out a message.
        for message in pa.ipc.MessageReader.open_stream(value):
            _check(bytes(message.metadata))
    except (pa.ArrowException, struct.error, EOFError, OSError) as error:
        raise FrameError(f"not an Arrow stream: {error}") from error


def _check(metadata: bytes) -> None:
    root = struct.unpack_from("<I", metadata)[0]
    kind_at = _field(metadata, root, _HEADER_TYPE)
    kind = metadata[kind_at] if 0 < kind_at < len(metadata) else 0
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return
    table = _child(metadata, root, _HEADER)
    if kind == _DICTIONARY_BATCH:
        table = _child(metadata, table, _DICTIONARY_DATA)
    if _field(metadata, table, _COMPRESSION):
        raise FrameError("a compressed body, which Driftline never writes")


def _field(data: bytes, table: int, index: int) -> int:
    """Where a field of a FlatBuffers table stands; 0 where it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise FrameError("damaged metadata")
    slot = 4 + 2 * index
    if slot + 2 > struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, vtable + slot)[0]
    return table + offset if offset else 0


def _child(data: bytes, table: int, index: int) -> int:
    at = _field(data, table, index)
    if not at:
        raise FrameError("damaged metadata")
    return at + int(struct.unpack_from("<I", data, at)[0])
