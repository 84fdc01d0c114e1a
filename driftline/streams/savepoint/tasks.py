"""The tasks of an installation seen from outside: what Kafka has committed, what Redis holds, and whether the two fit.

Nothing is claimed and nothing written, so workers may run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster
from driftline.streams.errors import LostStateError, StateError
from driftline.streams.runner.restore import Committed
from driftline.streams.savepoint.contents import STATE_VERSION
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.manifest import CommitReference, Manifest, decode_manifest, decode_reference
from driftline.streams.state.origin import Loaded
from driftline.streams.state.store import Store
from driftline.streams.task import PartitionId
from driftline.streams.wiring import TaskPlace

_TRIES: Final = 5

def scope_of(place: TaskPlace, config: Config, cluster: Cluster) -> Scope:
    """What the keys of a task begin with."""
    return Scope(config.redis.key_prefix, config.environment, place.group, cluster, STATE_VERSION, config.digest)


@dataclass(frozen=True, slots=True)
class CommittedTask:
    """A task and the checkpoint that its committed offsets name.

    Attributes
    ----------
    inline : the state is not in Redis, and was taken from the offsets' metadata, where it is whole.
    """

    place: TaskPlace
    reference: CommitReference
    offsets: dict[PartitionId, int]
    loaded: Loaded
    inline: bool


def reference_of(place: TaskPlace, committed: Committed) -> tuple[CommitReference, dict[PartitionId, int]] | None:
    """The checkpoint that the offsets of a task's inputs name, and the offsets; None when none is committed.

    Raises
    ------
    StateError : offsets that do not belong together, or of another program.
    """
    known = {key: committed[key] for key in sorted(place.inputs) if key in committed}
    if not known:
        return None
    if len(known) != len(place.inputs):
        missing = ", ".join(f"{topic}/{partition}" for topic, partition in sorted(place.inputs - known.keys()))
        raise StateError(f'task "{place.name}": some of its inputs have a committed offset and {missing} has none')
    named = {metadata for _, metadata in known.values()}
    if len(named) != 1:
        raise StateError(f'task "{place.name}": its inputs name {len(named)} different checkpoints: offsets were set by another program')
    return decode_reference(named.pop(), place.name), {key: offset for key, (offset, _) in known.items()}


def read_task(
    place: TaskPlace, config: Config, cluster: Cluster, store: Store, committed_of: Callable[[], Committed]
) -> CommittedTask | None:
    """The committed state of a task; None when it never committed. Read again when a worker commits meanwhile.

    Raises
    ------
    StateError : the checkpoint is missing, damaged, of another world, or not of these offsets; names the task.
    """
    scope = scope_of(place, config, cluster)
    tries = _TRIES
    while True:
        found = reference_of(place, committed_of())
        if found is None:
            return None
        reference, offsets = found
        checkpoints = Checkpoints(store, scope, place.name, place.inputs)
        from_offset = False
        try:
            loaded = checkpoints.load(reference)
        except LostStateError:
            # Three commits later a checkpoint is removed; then the offsets name another one.
            tries -= 1
            if tries and reference_of(place, committed_of()) != found:
                continue
            inline = checkpoints.load_inline(reference, offsets)
            if inline is None:
                raise
            loaded, from_offset = inline, True
        if loaded.offsets != offsets:
            raise StateError(f'task "{place.name}": checkpoint {reference.id} belongs to other offsets than those committed with it')
        return CommittedTask(place, reference, offsets, loaded, from_offset)

@dataclass(frozen=True, slots=True)
class Kept:
    """What Redis holds of a task, unverified.

    Attributes
    ----------
    owner : the token of the worker that has it, empty when none ever had.
    newest : the manifest of the newest checkpoint, committed or not; None when there is none or it cannot be read.
    damage : why it cannot be read.
    """

    owner: str
    epoch: int
    head: str
    newest: Manifest | None
    damage: str = ""

    @property
    def blob_bytes(self) -> int:
        return 0 if self.newest is None else sum(blob.length for blob in self.newest.blobs.values())

    @property
    def ring_bytes(self) -> int:
        """Of the windows alone; the values hold as much again as slack."""
        return 0 if self.newest is None else sum(min(r.head, r.window) * r.record_bytes for r in self.newest.rings.values())


def kept_of(place: TaskPlace, config: Config, cluster: Cluster, store: Store) -> Kept:
    """Owner and newest checkpoint of a task in Redis."""
    keys = scope_of(place, config, cluster).keys(place.name)
    owner, head = (value or b"" for value in store.read([keys.owner, keys.head]))
    token, _, epoch = owner.decode("utf-8", "replace").partition(" ")
    id_ = head.decode("utf-8", "replace")
    newest, damage = None, ""
    if id_:
        (data,) = store.read([keys.manifest(id_)])
        try:
            newest = None if data is None else decode_manifest(data, place.name)
            damage = "its manifest is gone" if data is None else ""
        except StateError as error:
            damage = error.message
    return Kept(token, int(epoch) if epoch.isdigit() else 0, id_, newest, damage)
