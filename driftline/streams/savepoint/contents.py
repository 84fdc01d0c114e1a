"""What a savepoint holds: where it was taken, and of each task the offsets, the windows and the blobs. JSON, typed, never pickle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.errors import SavepointError
from driftline.streams.savepoint.archive import ArchiveReader, ArchiveWriter
from driftline.streams.state.manifest import MANIFEST_VERSION
from driftline.streams.task import RestoredRing, RestoredState

FORMAT: Final = "driftline savepoint"
VERSION: Final = 1
STATE_VERSION: Final = "1"
MANIFEST_PART: Final = "manifest.json"
MANIFEST_BYTES_MAX: Final = 64 << 20
_NUMBER_MAX: Final = 1 << 62

T = TypeVar("T")


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A blob: its name in the task, and the part of the archive that holds it."""

    name: str
    part: str


class RingPart(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A window: its last `min(head, window)` records, oldest first."""

    name: str
    part: str
    record_bytes: int
    window: int
    head: int


class SavedTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task as it was committed.

    Attributes
    ----------
    processor : as in the group's name after the prefix.
    offsets : (topic, partition, next offset) of every input.
    checkpoint, sequence, epoch, base, config : of the checkpoint that the offsets named.
    """

    processor: str
    task: str
    offsets: list[tuple[str, int, int]]
    checkpoint: str
    sequence: int
    epoch: int
    base: str
    config: str
    blobs: list[Part]
    rings: list[RingPart]


class World(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tells one installation from another: the configuration's names, and the cluster with its topics."""

    environment: str
    topics_prefix: str
    group_prefix: str
    key_prefix: str
    cluster_id: str
    topic_ids: dict[str, str]
    partitions: dict[str, int]

    @classmethod
    def of(cls, config: Config, cluster: Cluster) -> World:
        """Of an installation as it is."""
        return cls(
            config.environment, config.topics.prefix, config.kafka.group_prefix, config.redis.key_prefix,
            cluster.cluster_id, dict(sorted(cluster.topic_ids.items())), dict(sorted(cluster.partitions.items())),
        )  # fmt: skip


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest of a savepoint.

    Attributes
    ----------
    checkpoint_version, state_version : of the checkpoints that it was read from.
    live_since_ms : when the installation went live (events before are marked historical); None = never.
    ends : (topic, partition, end offset) of the topics that the tasks write, no later than the tasks' states.
    """

    format: str
    version: int
    created_at_ms: int
    driftline: str
    checkpoint_version: int
    state_version: str
    world: World
    live_since_ms: int | None
    ends: list[tuple[str, int, int]]
    tasks: list[SavedTask]


class _Version(msgspec.Struct):
    """As much as every version will have."""

    format: str
    version: int


_decoder = msgspec.json.Decoder(Contents)
_version_decoder = msgspec.json.Decoder(_Version)


class SavepointWriter:
    """Writes the states of tasks one by one, then the manifest that names them."""

    def __init__(self, archive: ArchiveWriter) -> None:
        self._archive = archive
        self._parts = 0

    def put(self, state: RestoredState) -> tuple[list[Part], list[RingPart]]:
        """Write a task's blobs and windows; where they stand."""
        blobs = [Part(name, self._add(blob)) for name, blob in sorted(state.blobs.items())]
        rings = [RingPart(name, self._add(r.rows), r.record_bytes, r.window, r.head) for name, r in sorted(state.rings.items())]
        return blobs, rings

    def close(self, contents: Contents) -> None:
        self._archive.add(MANIFEST_PART, msgspec.json.format(msgspec.json.encode(contents), indent=1))
        self._archive.close()

    def _add(self, value: bytes) -> str:
        name = f"parts/{self._parts:08d}"
        self._parts += 1
        self._archive.add(name, value)
        return name


class SavepointReader:
    """A savepoint whose manifest and parts agree.

    Raises
    ------
    SavepointError : of another version, or its manifest says what cannot be.
    """

    def __init__(self, archive: ArchiveReader) -> None:
        self._archive = archive
        self.contents = _decoded(archive.read(MANIFEST_PART, MANIFEST_BYTES_MAX))
        _check(self.contents)
        self._check_parts()

    def state(self, task: SavedTask) -> RestoredState:
        """The blobs and windows of a task."""
        read = self._archive.read
        rings = {r.name: RestoredRing(r.name, r.record_bytes, r.window, r.head, read(r.part)) for r in task.rings}
        return RestoredState({blob.name: read(blob.part) for blob in task.blobs}, rings)

    def _check_parts(self) -> None:
        sizes = self._archive.sizes
        tasks = self.contents.tasks
        blobs, rings = [blob.part for task in tasks for blob in task.blobs], [ring.part for task in tasks for ring in task.rings]
        if Counter([MANIFEST_PART, *blobs, *rings]) != Counter(sizes.keys()):
            raise _damaged("its manifest names other parts than it has")
        for task in tasks:
            for ring in task.rings:
                if sizes[ring.part] != min(ring.head, ring.window) * ring.record_bytes:
                    raise _damaged(f'window "{ring.name}" of task "{task.task}" has {sizes[ring.part]} bytes, its manifest says otherwise')


def _decoded(data: bytes) -> Contents:
    try:
        found = _version_decoder.decode(data)
        if found.format != FORMAT:
            raise SavepointError(f'not a savepoint: its format is "{found.format[:40]}", expected "{FORMAT}"')
        if found.version != VERSION:
            newer = "upgrade this installation" if found.version > VERSION else "read it with the release that wrote it"
            raise SavepointError(f"savepoint version {found.version}: this release reads version {VERSION}", hint=newer)
        contents = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(f"its manifest: {error}") from error
    versions = (contents.checkpoint_version, contents.state_version)
    if not 1 <= versions[0] <= MANIFEST_VERSION or versions[1] != STATE_VERSION:
        raise SavepointError(
            f"checkpoints of version {versions[0]} with state {versions[1]}: this release reads 1 to {MANIFEST_VERSION} "
            f"with {STATE_VERSION}",
            hint="import it with the release that wrote it, then upgrade",
        )
    return contents


def _check(contents: Contents) -> None:
    """Whatever the types cannot say: bounds, and nothing twice."""
    _once("task", [f"{task.processor} {task.task}" for task in contents.tasks])
    for task in contents.tasks:
        _once(f'input of task "{task.task}"', [f"{topic}/{partition}" for topic, partition, _ in task.offsets])
        _once(f'blob of task "{task.task}"', [blob.name for blob in task.blobs])
        _once(f'window of task "{task.task}"', [ring.name for ring in task.rings])
        numbers = [task.sequence, task.epoch, *(n for _, *place in task.offsets for n in place)]
        rings = all(0 < r.record_bytes <= 1 << 20 and 0 < r.window <= 1 << 28 and 0 <= r.head < _NUMBER_MAX for r in task.rings)
        if not task.offsets or not rings or not all(0 <= n < _NUMBER_MAX for n in numbers):
            raise _damaged(f'task "{task.task}" has impossible offsets, windows or numbers')
    if any(not 0 <= n < _NUMBER_MAX for _, *place in contents.ends for n in place):
        raise _damaged("impossible end offsets")


def _once(what: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise _damaged(f'{what} "{twice[0][:80]}" stands in it twice')


def _damaged(what: str) -> SavepointError:
    return SavepointError(f"damaged savepoint: {what}")
