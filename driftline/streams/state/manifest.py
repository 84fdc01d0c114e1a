"""The manifest of a checkpoint: what belongs together, with checksums. JSON, typed, never pickle.

Whatever stands in Redis is read as hostile: it can make a worker stop with a clear error, never run code and
never pass as another state.
"""

from __future__ import annotations

import base64
import zlib
from typing import Final

import msgspec
import xxhash

from driftline.streams.bounded import Count, Index
from driftline.streams.errors import UPGRADE_HINT, NewerStateError, StateError

MANIFEST_VERSION: Final = 2
"""1 had no environment and no history of configurations; it is read, and written anew as 2 with the next commit."""
_OLDEST_READ: Final = 1
_HEAD_MAX: Final = 1 << 62
_RECORD_BYTES_MAX: Final = 1 << 20
_CAPACITY_MAX: Final = 1 << 28


def checksum(data: bytes) -> str:
    """16 hex digits of XXH3-64: finds damage and mix-ups; Redis itself is inside the trust boundary for forgery."""
    return xxhash.xxh3_64_hexdigest(data)


class BlobEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a blob stands; `key` is the last part of its Redis key."""

    key: str
    checksum: str
    length: Count


class RingEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sliding window in a value of its own.

    Row `i` of the series stands at record `(i - base) mod capacity`; `head` is the number of rows so far.
    """

    key: str
    record_bytes: Count
    window: Count
    capacity: Count
    base: Count
    head: Count


class Activation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """From where on a configuration was active (PROTOCOL 20).

    Attributes
    ----------
    config : its digest.
    offsets : (topic, partition, offset) of every input: the first record that was worked on under it. Empty = not known,
        an older release made the checkpoint.
    at_ms : wall time of the first checkpoint under it, for people.
    """

    config: str
    offsets: list[tuple[str, Index, Count]]
    at_ms: Count = 0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One checkpoint of one task.

    Attributes
    ----------
    id : unique over all attempts of all owners: ``sequence-epoch-token``.
    kept : ids of the committed checkpoints before this one, newest first; they stay until three newer ones are committed.
    offsets : (topic, partition, next offset) of every input of the task.
    topic_ids, partitions : of the task's input topics, to notice a recreated or a widened topic.
    written_ms : wall time of the writer, for people; nothing is decided by it. 0 = not said.
    config : digest of the configuration that was active; a replay from here is exact under the same one only (PROTOCOL 20).
    environment : of the installation; empty = not said.
    history : the configurations that were active, oldest first, the last one is `config`.
    """

    v: int
    task: str
    id: str
    sequence: Count
    epoch: Count
    kept: list[str]
    cluster_id: str
    topic_ids: dict[str, str]
    partitions: dict[str, Count]
    state_version: str
    offsets: list[tuple[str, Index, Count]]
    blobs: dict[str, BlobEntry]
    rings: dict[str, RingEntry]
    written_ms: Count = 0
    config: str = ""
    environment: str = ""
    history: list[Activation] = []


class _Version(msgspec.Struct, frozen=True):
    v: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Manifest)
_version_decoder = msgspec.json.Decoder(_Version)


def encode_manifest(manifest: Manifest) -> bytes:
    return _encoder.encode(manifest)


def decode_manifest(data: bytes, task: str) -> Manifest:
    """The manifest in `data`.

    Raises
    ------
    StateError : not a manifest of this task that this version can read; the message names what is wrong.
    """
    try:
        # First: a newer one may have any shape.
        _check_version(_version_decoder.decode(data).v, f'task "{task}": checkpoint version')
        manifest = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f'task "{task}": the checkpoint manifest is damaged: {error}') from error
    if manifest.task != task:
        raise StateError(f'task "{task}": the checkpoint is one of task "{manifest.task}"')
    for name, ring in manifest.rings.items():
        sound = (
            0 < ring.record_bytes <= _RECORD_BYTES_MAX
            and 0 < ring.window <= ring.capacity <= _CAPACITY_MAX
            and 0 <= ring.base <= ring.head < _HEAD_MAX
            and ring.head - ring.base >= min(ring.head, ring.window)
        )
        if not sound:
            raise StateError(f'task "{task}": ring "{name}" of the checkpoint has impossible bounds: {ring}')
    return manifest


class CommitReference(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the metadata of a committed offset says: which checkpoint belongs to it. About 100 bytes of Kafka's 4,096.

    Attributes
    ----------
    base : id of the newest base checkpoint in Kafka, empty before the first.
    inline : the whole state where it is small enough to travel with the offset, else empty; see `pack`.
    """

    v: int
    id: str
    checksum: str
    epoch: Count
    base: str = ""
    inline: str = ""


_reference_decoder = msgspec.json.Decoder(CommitReference)
_any_decoder = msgspec.json.Decoder()

# With a reference of about 150 bytes well inside Kafka's 4,096.
_INLINE_CHARACTERS_MAX: Final = 3_200
_INLINE_BYTES_MAX: Final = 16_000


def pack(blobs: dict[str, bytes], world: str) -> str:
    """State for the commit metadata; empty when it is too large.

    A task whose state is a few counters (ingest) so survives the loss of Redis exactly, without a replay that could
    not repeat its ticks.
    """
    if sum(map(len, blobs.values())) > _INLINE_BYTES_MAX:
        return ""
    text = base64.b64encode(zlib.compress(msgspec.msgpack.encode((world, blobs)), 6)).decode()
    return text if len(text) <= _INLINE_CHARACTERS_MAX else ""


def unpack(text: str, task: str) -> tuple[str, dict[str, bytes]]:
    """World and blobs of `pack`.

    Raises
    ------
    StateError : damaged.
    """
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(text, validate=True), 4 * _INLINE_BYTES_MAX)
        world, blobs = msgspec.msgpack.decode(data, type=tuple[str, dict[str, bytes]])
    except (ValueError, zlib.error, msgspec.MsgspecError, RecursionError) as error:
        raise StateError(f'task "{task}": the state in the commit metadata is damaged: {error}') from error
    return world, blobs


def encode_reference(reference: CommitReference) -> str:
    return _encoder.encode(reference).decode()


def decode_reference(metadata: str | None, task: str) -> CommitReference:
    """The reference in an offset's metadata.

    Raises
    ------
    StateError : somebody else committed the offset, such as a tool that resets offsets.
    """
    if not metadata:
        raise StateError(
            f'task "{task}": its committed offset names no checkpoint: the offsets were set by another program',
            hint="reset state and offsets together: `driftline run --on-lost-state=rebuild-from-earliest`",
        )
    place = f'task "{task}": its committed offset names a checkpoint of version'
    try:
        head = _any_decoder.decode(metadata)
        if isinstance(head, list) and head and type(head[0]) is int:
            _check_version(head[0], place)
        reference = _reference_decoder.decode(metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f'task "{task}": the metadata of its committed offset is not ours: {metadata[:80]!r}') from error
    return reference


def _check_version(version: int, place: str) -> None:
    what = f"{place} {version}: this worker reads versions {_OLDEST_READ} to {MANIFEST_VERSION}"
    if version > MANIFEST_VERSION:
        raise NewerStateError(what, hint=UPGRADE_HINT)
    if version < _OLDEST_READ:
        raise StateError(what)
