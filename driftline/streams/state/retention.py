"""The names of a task's keys, and which of them nothing needs any more."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from driftline.streams.errors import StateError
from driftline.streams.state.manifest import decode_manifest
from driftline.streams.state.rings import KEPT_CHECKPOINTS

Read = Callable[[Sequence[str]], list["bytes | None"]]


@dataclass(frozen=True, slots=True)
class TaskKeys:
    """Keys under one hash tag, because a script may touch keys of one slot only."""

    root: str

    @property
    def owner(self) -> str:
        return f"{self.root}:owner"

    @property
    def head(self) -> str:
        return f"{self.root}:head"

    @property
    def kept(self) -> str:
        """Names of the checkpoints that stand; recovery from a lost manifest needs them outside of it."""
        return f"{self.root}:kept"

    def manifest(self, id_: str) -> str:
        return f"{self.root}:m:{id_}"

    def of(self, last: str) -> str:
        """The key of a blob or ring by the name in its manifest."""
        return f"{self.root}:{last}"


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a new owner finds.

    Attributes
    ----------
    trash : keys that no checkpoint which must stay names.
    replaced : by checkpoint id, the keys it took the place of; they go when the one before it goes.
    """

    trash: list[str]
    replaced: dict[str, list[str]]


def find_leftovers(read: Read, keys: TaskKeys, task: str, committed: Sequence[str], head: str) -> Leftovers:
    """What no kept checkpoint names: the leftover of an aborted attempt, and what was due for removal.

    Parameters
    ----------
    committed : ids of committed checkpoints, newest first.
    head : id of the newest attempt, committed or not; empty = none.
    """
    listed = list(dict.fromkeys([*committed, *([head] if head else [])]))
    manifests = read([keys.manifest(id_) for id_ in listed])
    named = {id_: _named(data, keys, task) for id_, data in zip(listed, manifests, strict=True)}
    kept = list(committed[:KEPT_CHECKPOINTS])
    alive = set[str]().union(*(named[id_] for id_ in kept))
    trash: list[str] = []
    for id_ in listed:
        if id_ not in kept:
            trash += [keys.manifest(id_), *sorted(named[id_] - alive)]
    return Leftovers(trash, {newer: sorted(named[older] - named[newer]) for newer, older in itertools.pairwise(kept)})


def all_keys(read: Read, keys: TaskKeys, task: str) -> list[str]:
    """Every key of the checkpoints that a task has, committed or not, as far as their manifests can be read."""
    head, kept = (value or b"" for value in read([keys.head, keys.kept]))
    ids = list(dict.fromkeys([*head.decode("utf-8", "replace").split(), *kept.decode("utf-8", "replace").split()]))
    manifests = read([keys.manifest(id_) for id_ in ids]) if ids else []
    return sorted(set[str]().union(*({keys.manifest(id_)} | _named(data, keys, task) for id_, data in zip(ids, manifests, strict=True))))


def _named(data: bytes | None, keys: TaskKeys, task: str) -> set[str]:
    if data is None:
        return set()
    try:
        manifest = decode_manifest(data, task)
    except StateError:
        return set()
    last = [blob.key for blob in manifest.blobs.values()] + [ring.key for ring in manifest.rings.values()]
    return {keys.of(key) for key in last}
