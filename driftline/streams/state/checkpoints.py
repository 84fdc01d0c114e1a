"""The checkpoints of one task: claim, load, write, forget. The meaning of the keys in the store."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from driftline.streams.cluster import Cluster
from driftline.streams.errors import LostStateError, StateError
from driftline.streams.state.manifest import (
    MANIFEST_VERSION,
    BlobEntry,
    CommitReference,
    Manifest,
    RingEntry,
    checksum,
    decode_manifest,
    encode_manifest,
    pack,
    unpack,
)
from driftline.streams.state.origin import CONFIG_BLOB, Loaded, check_world, history_of
from driftline.streams.state.retention import TaskKeys, find_leftovers
from driftline.streams.state.rings import KEPT_CHECKPOINTS, plan_write, read_ring, whole_ring
from driftline.streams.state.store import Copy, Store, Write
from driftline.streams.task import PartitionId, RestoredRing, RestoredState, StateDelta

Offsets = Mapping[PartitionId, int]

_EMPTY: Final = RestoredState()


@dataclass(frozen=True, slots=True)
class Scope:
    """What separates our keys from another installation's, and a checkpoint from a changed world.

    Attributes
    ----------
    key_prefix, environment, group : from the configuration; staging and production may share a Redis.
    state_version : version of the processor's blobs; another one is refused by name.
    config : digest of the configuration that the tasks run with.
    config_text : what the digest is of, kept with the state, so that a replay can follow it; empty = not kept.
    """

    key_prefix: str
    environment: str
    group: str
    cluster: Cluster
    state_version: str = "1"
    config: str = ""
    config_text: bytes = b""

    def keys(self, task: str) -> TaskKeys:
        """The keys of a task: all under one hash tag."""
        place = f"{self.key_prefix}:{self.environment}:{self.cluster.cluster_id or 'unknown'}"
        return TaskKeys(f"{{{place}:{self.group}:{task}}}")


@dataclass(slots=True)
class _Pending:
    manifest: Manifest
    written_to: dict[str, int]
    replaced: list[str]


class Checkpoints:
    """The checkpoints of one task, as its owner.

    One life: `claim`, then `load` (or `begin` for a task without any), then `prepare` and `confirm` a commit. After
    any abort the object is thrown away and a new one claims: only what the store holds is trusted.

    Parameters
    ----------
    now_ms : wall time, for the operator who asks how old a checkpoint is.
    """

    def __init__(
        self, store: Store, scope: Scope, task: str, inputs: frozenset[PartitionId], *, now_ms: Callable[[], int] = lambda: 0
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._scope = scope
        self._inputs = inputs
        self.task = task
        self._keys = scope.keys(task)
        self.token = secrets.token_hex(8)
        self.epoch = 0
        self._head = ""
        self._current: Manifest | None = None
        self._written_to: dict[str, int] = {}
        self._trash: list[str] = []
        self._replaced: dict[str, list[str]] = {}
        self._pending: _Pending | None = None
        self._seed: RestoredState | None = None
        self._sequence = 0
        self._base = ""
        self._small: dict[str, bytes] | None = {}
        self._before: Manifest | None = None

    @property
    def small(self) -> bool:
        """Whether the whole state travels with the committed offsets, so that no base checkpoint is needed."""
        return self._small is not None

    def head(self) -> str:
        """The id of the newest checkpoint in the store, without claiming the task."""
        return self._store.head(self._keys.head)

    def claim(self, epoch_floor: int = 0) -> str:
        """Become the owner; the id of the newest checkpoint, committed or not."""
        claim = self._store.claim(self._keys.owner, self._keys.head, self.token, epoch_floor)
        self.epoch, self._head = claim.epoch, claim.head
        return claim.head

    def begin(self) -> RestoredState:
        """The state of a task that never ran, or whose former life is given up. What was left is removed with the first write."""
        self._current, self._written_to, self._seed, self._small, self._before = None, {}, None, {}, None
        self._sequence, self._base = 0, ""
        self._sweep([])
        return _EMPTY

    def load(self, reference: CommitReference) -> Loaded:
        """The checkpoint that a committed offset names.

        Raises
        ------
        LostStateError : missing or damaged.
        StateError : of another world (cluster, topics, partitions, version).
        """
        data = self._store.read([self._keys.manifest(reference.id)])[0]
        if data is None:
            raise LostStateError(f'task "{self.task}": checkpoint {reference.id} is gone from Redis')
        if checksum(data) != reference.checksum:
            raise LostStateError(f'task "{self.task}": the manifest of checkpoint {reference.id} is damaged')
        return self._load(decode_manifest(data, self.task))

    def load_older(self) -> list[Manifest]:
        """Readable manifests of committed checkpoints before the head, newest first; for recovery with replay."""
        found: list[Manifest] = []
        ids = self._older_ids()
        for data in self._store.read([self._keys.manifest(i) for i in ids]):
            if data is not None:
                try:
                    found.append(decode_manifest(data, self.task))
                except StateError:
                    continue
        return sorted(found, key=lambda manifest: -manifest.sequence)

    def load_manifest(self, manifest: Manifest) -> Loaded:
        """The checkpoint of a manifest from `load_older`."""
        return self._load(manifest)

    def never_committed(self) -> bool:
        """Whether the newest checkpoint is the empty first one, or none: nothing was ever published on top of it."""
        if not self._head:
            return True
        data = self._store.read([self._keys.manifest(self._head)])[0]
        return data is not None and decode_manifest(data, self.task).sequence == 1

    def load_inline(self, reference: CommitReference, offsets: Offsets) -> Loaded | None:
        """The state that travelled with the committed offsets; None if it was too large to."""
        if not reference.inline:
            return None
        world, blobs = unpack(reference.inline, self.task)
        if world != self._world():
            raise StateError(f'task "{self.task}": the committed state belongs to another cluster, topic or version')
        return Loaded(self._manifest(reference.id, 1, offsets, {}, {}), RestoredState(blobs))

    def adopt(self, loaded: Loaded, base: str = "") -> None:
        """Go on from a state that came from elsewhere than this store; the next write holds all of it."""
        self._check_world(loaded.manifest)
        self.seed(loaded.state, loaded.manifest.sequence, base)
        self._before = loaded.manifest

    def seed(self, state: RestoredState, sequence: int, base: str = "") -> None:
        """As `adopt`, of a state whose world the caller has compared with this one."""
        self._current, self._written_to = None, {}
        self._seed, self._sequence, self._base = state, sequence, base
        self._small = dict(state.blobs) if not state.rings else None
        self._sweep([])

    def as_of(self, loaded: Loaded) -> None:
        """Write the next checkpoints as of the configuration that a checkpoint was made under: a replay follows it."""
        self._scope = replace(self._scope, config=loaded.manifest.config, config_text=loaded.config_text)

    def based_on(self, base: str) -> None:
        """The base checkpoint that the next references go on naming."""
        self._base = base

    def snapshot(self) -> tuple[Manifest, RestoredState]:
        """The full state of the checkpoint just written, read back from the store."""
        assert self._pending is not None
        state, _ = self._read(self._pending.manifest)
        return self._pending.manifest, state

    def prepare(self, delta: StateDelta, offsets: Offsets, *, base: bool = False) -> tuple[Write, CommitReference]:
        """What to write for the next checkpoint, and the reference to commit with its offsets.

        Parameters
        ----------
        base : whether this checkpoint becomes a base checkpoint, unless its state travels with the offsets.
        """
        delta = self._with_seed(delta)
        inline = self._inline(delta)
        current, text = self._current, self._scope.config_text
        if text and (current is None or current.config != self._scope.config or CONFIG_BLOB not in current.blobs):
            delta = replace(delta, blobs={**delta.blobs, CONFIG_BLOB: text})
        sequence = (self._sequence if current is None else current.sequence) + 1
        id_ = f"{sequence}-{self.epoch}-{self.token}"
        write = Write(self.task, self._keys.owner, self.token, self._keys.head, self._head, id_, epoch=self.epoch)
        replaced: list[str] = []
        blobs = dict(current.blobs) if current is not None else {}
        rings = dict(current.rings) if current is not None else {}
        self._put_blobs(write, delta, blobs, replaced, id_)
        replaced += [self._keys.of(rings.pop(name).key) for name, blob in delta.blobs.items() if blob is None and name in rings]
        written_to = self._put_rings(write, delta, rings, replaced, id_)
        manifest = self._manifest(id_, sequence, offsets, blobs, rings)
        data = encode_manifest(manifest)
        write.values.append((self._keys.manifest(id_), data))
        write.values.append((self._keys.kept, " ".join([id_, *manifest.kept]).encode()))
        write.deletes.extend(self._trash)
        self._pending = _Pending(manifest, written_to, replaced)
        if base and not inline:
            self._base = id_
        return write, CommitReference(MANIFEST_VERSION, id_, checksum(data), self.epoch, self._base, inline)

    def written(self) -> None:
        """The store took the prepared write; it is the head now, committed or not."""
        assert self._pending is not None
        self._head = self._pending.manifest.id
        self._trash = []

    def confirm(self) -> None:
        """The transaction that names the prepared checkpoint stands: what only older ones needed may go."""
        pending, self._pending = self._pending, None
        assert pending is not None
        manifest = pending.manifest
        self._current, self._seed = manifest, None
        self._written_to.update(pending.written_to)
        self._replaced[manifest.id] = pending.replaced
        known = [manifest.id, *manifest.kept]
        for old in known[KEPT_CHECKPOINTS:]:
            self._trash.append(self._keys.manifest(old))
        # What the oldest kept checkpoint replaced was last named by the one before it.
        oldest_kept = known[KEPT_CHECKPOINTS - 1] if len(known) > KEPT_CHECKPOINTS else None
        if oldest_kept is not None:
            self._trash += self._replaced.pop(oldest_kept, [])

    def _older_ids(self) -> list[str]:
        listed = (self._store.read([self._keys.kept])[0] or b"").decode("utf-8", "replace").split()
        # The first is the newest attempt, which may never have been committed.
        return listed[1:]

    def _manifest(self, id_: str, sequence: int, offsets: Offsets, blobs: dict[str, BlobEntry], rings: dict[str, RingEntry]) -> Manifest:
        current, cluster = self._current, self._scope.cluster
        kept = [] if current is None else [current.id, *current.kept][:KEPT_CHECKPOINTS]
        topics = {topic for topic, _ in self._inputs}
        return Manifest(
            v=MANIFEST_VERSION,
            task=self.task,
            id=id_,
            sequence=sequence,
            epoch=self.epoch,
            kept=kept,
            cluster_id=cluster.cluster_id,
            topic_ids={topic: cluster.topic_ids.get(topic, "") for topic in sorted(topics)},
            partitions={topic: cluster.partitions.get(topic, 0) for topic in sorted(topics)},
            state_version=self._scope.state_version,
            offsets=[(topic, partition, offset) for (topic, partition), offset in sorted(offsets.items())],
            blobs=blobs,
            rings=rings,
            written_ms=self._now_ms(),
            config=self._scope.config,
            environment=self._scope.environment,
            history=history_of(self._scope.config, self._current or self._before, offsets, self._now_ms()),
        )

    def _put_blobs(self, write: Write, delta: StateDelta, blobs: dict[str, BlobEntry], replaced: list[str], id_: str) -> None:
        for name, blob in delta.blobs.items():
            old = blobs.pop(name, None)
            if old is not None:
                replaced.append(self._keys.of(old.key))
            if blob is not None:
                blobs[name] = BlobEntry(f"b:{name}:{id_}", checksum(blob), len(blob))
                write.values.append((self._keys.of(f"b:{name}:{id_}"), blob))

    def _put_rings(self, write: Write, delta: StateDelta, rings: dict[str, RingEntry], replaced: list[str], id_: str) -> dict[str, int]:
        written_to: dict[str, int] = {}
        for ring in delta.rings:
            old = rings.get(ring.name)
            reached = max(self._written_to.get(ring.name, 0), old.head if old is not None else 0)
            plan = plan_write(ring, old, reached, f"r:{ring.name}:{id_}")
            rings[ring.name] = plan.entry
            moved = old is not None and plan.entry.key != old.key
            written_to[ring.name] = plan.entry.head if old is None or moved else max(reached, plan.entry.head)
            if moved and old is not None:
                replaced.append(self._keys.of(old.key))
            if plan.length is not None:
                write.lengths.append((self._keys.of(plan.length[0]), plan.length[1]))
            if plan.value is not None:
                write.values.append((self._keys.of(plan.value[0]), plan.value[1]))
            if plan.copy is not None:
                write.copies.append(_under(plan.copy, self._keys))
            write.ranges.extend((self._keys.of(key), offset, part) for key, offset, part in plan.ranges)
        return written_to

    def _load(self, manifest: Manifest) -> Loaded:
        self._check_world(manifest)
        stored, self._written_to = self._read(manifest)
        loaded = Loaded.of(manifest, stored)
        self._current = manifest
        self._small = None if loaded.state.rings else dict(loaded.state.blobs)
        self._sweep([manifest.id, *manifest.kept])
        return loaded

    def _read(self, manifest: Manifest) -> tuple[RestoredState, dict[str, int]]:
        """The state a manifest names, and the highest row written of each ring."""
        blob_names, ring_names = list(manifest.blobs), list(manifest.rings)
        names = [manifest.blobs[name].key for name in blob_names] + [manifest.rings[name].key for name in ring_names]
        values = self._store.read(list(map(self._keys.of, names)))
        blobs: dict[str, bytes] = {}
        for name, value in zip(blob_names, values, strict=False):
            blobs[name] = self._checked_blob(name, manifest.blobs[name], value)
        rings: dict[str, RestoredRing] = {}
        written_to: dict[str, int] = {}
        for name, value in zip(ring_names, values[len(blob_names) :], strict=True):
            try:
                rings[name], written_to[name] = read_ring(name, manifest.rings[name], value)
            except StateError as error:
                raise LostStateError(f'task "{self.task}": checkpoint {manifest.id}: {error.message}') from error
        return RestoredState(blobs, rings), written_to

    def _with_seed(self, delta: StateDelta) -> StateDelta:
        """The first delta after `adopt`: everything adopted, and what changed since."""
        seed = self._seed
        if seed is None:
            return delta
        changed = {ring.name: ring for ring in delta.rings}
        kept = {name: ring for name, ring in seed.rings.items() if name not in delta.blobs}
        rings = [whole_ring(ring, changed.pop(name, None)) for name, ring in kept.items()]
        return StateDelta({**seed.blobs, **delta.blobs}, [*rings, *changed.values()])

    def _inline(self, delta: StateDelta) -> str:
        if delta.rings:
            self._small = None
        if self._small is None:
            return ""
        for name, blob in delta.blobs.items():
            self._small.pop(name, None)
            if blob is not None:
                self._small[name] = blob
        packed = pack(self._small, self._world())
        if not packed:
            self._small = None
        return packed

    def _world(self) -> str:
        """A digest of what `_check_world` compares one by one, where there is no room for more."""
        facts = self._manifest("", 0, {}, {}, {})
        return checksum(msgspec.json.encode([facts.cluster_id, facts.topic_ids, facts.partitions, facts.state_version]))

    def _checked_blob(self, name: str, entry: BlobEntry, value: bytes | None) -> bytes:
        if value is None or len(value) != entry.length or checksum(value) != entry.checksum:
            what = "missing" if value is None else "damaged"
            raise LostStateError(f'task "{self.task}": blob "{name}" of the checkpoint is {what}')
        return value

    def _check_world(self, manifest: Manifest) -> None:
        check_world(manifest, self._manifest("", 0, {}, {}, {}))
        if frozenset((topic, partition) for topic, partition, _ in manifest.offsets) != self._inputs:
            raise StateError(f'task "{self.task}": the checkpoint holds offsets of other partitions than the task reads')

    def _sweep(self, committed: list[str]) -> None:
        found = find_leftovers(self._store.read, self._keys, self.task, committed, self._head)
        self._trash += found.trash
        self._replaced = found.replaced


def _under(copy: Copy, keys: TaskKeys) -> Copy:
    return Copy(keys.of(copy.key), keys.of(copy.source), copy.head, copy.parts, copy.tail)
