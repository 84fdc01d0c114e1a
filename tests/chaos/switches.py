"""Rules of the commit protocol, each taken out of the real code of a worker process.

Most are those of `tests/protocol`, which drives the same runner on a Kafka and a Redis in memory; the ones here reach
into what only a real worker has: the Redis store, and the consumer behind the group's metadata.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from pytest import MonkeyPatch  # noqa: PT013 - a type only

from driftline.streams.join.clock import SourceClock
from driftline.streams.runner import restore
from driftline.streams.runner.membership import Membership
from driftline.streams.runner.publisher import Transactions
from driftline.streams.state import base, checkpoints, manifest, retention
from driftline.streams.state.checkpoints import Checkpoints
from driftline.streams.state.redis_store import RedisStore
from driftline.streams.state.rings import KEPT_CHECKPOINTS
from driftline.streams.state.store import Write
from tests.protocol import switches as off
from tests.protocol.world import World

Switch = Callable[[MonkeyPatch], None]


def _shared(switch: Callable[[MonkeyPatch, World], None]) -> Switch:
    """A switch that needs nothing of the world in memory."""
    return lambda patch: switch(patch, cast(World, None))


def metadata_is_fetched_fresh(patch: MonkeyPatch) -> None:
    memberships: list[Membership] = []
    make, send = Membership.__init__, Transactions.send_offsets

    def remember(self: Membership, *arguments: Any, **options: Any) -> None:
        memberships.append(self)
        make(self, *arguments, **options)

    def fresh(self: Transactions, offsets: Any, _: bytes) -> None:
        metadata: Any = memberships[-1].consumer.consumer_group_metadata()
        send(self, offsets, metadata)

    patch.setattr(Membership, "__init__", remember)
    patch.setattr(Transactions, "send_offsets", fresh)


def _writes(patch: MonkeyPatch, change: Callable[[RedisStore, Write], Write]) -> None:
    real = RedisStore.write
    patch.setattr(RedisStore, "write", lambda self, writes: real(self, [change(self, write) for write in writes]))


def head_is_not_compared(patch: MonkeyPatch) -> None:
    _writes(patch, lambda store, write: dataclasses.replace(write, expected_head=store.head(write.head_key)))


def lengths_are_not_compared(patch: MonkeyPatch) -> None:
    _writes(patch, lambda _, write: dataclasses.replace(write, lengths=[]))


def token_is_not_compared(patch: MonkeyPatch) -> None:
    def owned(store: RedisStore, write: Write) -> Write:
        owner = (store.read([write.owner_key])[0] or b"").decode()
        return dataclasses.replace(write, token=owner.partition(" ")[0])

    _writes(patch, owned)


def blobs_die_by_age(patch: MonkeyPatch) -> None:
    """What a checkpoint wrote goes with it, also what newer ones still name."""
    confirm = Checkpoints.confirm

    def confirm_and_age(self: Checkpoints) -> None:
        confirm(self)
        assert self._current is not None
        oldest = self._current.sequence - KEPT_CHECKPOINTS
        # The last part of a blob's key is the name of its checkpoint, which begins with the number of that.
        aged = [blob.key for blob in self._current.blobs.values() if int(blob.key.rpartition(":")[2].partition("-")[0]) <= oldest]
        self._trash += map(self._keys.of, aged)

    patch.setattr(Checkpoints, "confirm", confirm_and_age)


def a_silent_source_is_not_waited_for(patch: MonkeyPatch) -> None:
    patch.setattr(SourceClock, "minimum", SourceClock.maximum)
    patch.setattr(SourceClock, "minimum_for", lambda self, _: self.maximum())


def the_next_version(patch: MonkeyPatch) -> None:
    """Not a rule: the worker of a later release, which writes checkpoints of a version that this one does not know."""
    version, later = manifest.MANIFEST_VERSION, manifest.MANIFEST_VERSION + 1
    decode, decode_reference = manifest.decode_manifest, manifest.decode_reference

    def either(data: bytes, task: str) -> manifest.Manifest:
        return decode(data.replace(b'"v":%d' % later, b'"v":%d' % version, 1), task)

    def either_reference(metadata: str | None, task: str) -> manifest.CommitReference:
        return decode_reference((metadata or "").replace(f"[{later},", f"[{version},", 1), task)

    for module in (checkpoints, base, retention):
        patch.setattr(module, "decode_manifest", either)
    patch.setattr(restore, "decode_reference", either_reference)
    patch.setattr(checkpoints, "MANIFEST_VERSION", later)


SWITCHES: Final[Mapping[str, Switch]] = {
    "checksums_are_not_compared": _shared(off.checksums_are_not_compared),
    "the_world_is_not_compared": _shared(off.the_world_is_not_compared),
    "head_is_not_compared": head_is_not_compared,
    "lengths_are_not_compared": lengths_are_not_compared,
    "token_is_not_compared": token_is_not_compared,
    "the_epoch_is_counted_by_redis_alone": _shared(off.the_epoch_is_counted_by_redis_alone),
    "an_error_is_no_offset": _shared(off.an_error_is_no_offset),
    "large_batches_are_written_in_place": _shared(off.large_batches_are_written_in_place),
    "overwritten_rows_are_read": _shared(off.overwritten_rows_are_read),
    "there_are_no_bases": _shared(off.there_are_no_bases),
    "a_replay_publishes": _shared(off.a_replay_publishes),
    "no_offset_is_a_beginning": _shared(off.no_offset_is_a_beginning),
    "metadata_is_fetched_fresh": metadata_is_fetched_fresh,
    "a_generation_below_0_is_taken": _shared(off.a_generation_below_0_is_taken),
    "assignments_are_not_counted": _shared(off.assignments_are_not_counted),
    "memory_is_kept_after_an_abort": _shared(off.memory_is_kept_after_an_abort),
    "part_of_the_offsets_is_a_beginning": _shared(off.part_of_the_offsets_is_a_beginning),
    "blobs_die_by_age": blobs_die_by_age,
    "a_silent_source_is_not_waited_for": a_silent_source_is_not_waited_for,
    "the_next_version": the_next_version,
}
"""By the names that `Launch.without` takes, several separated by commas."""


def take_out(names: str, patch: MonkeyPatch) -> None:
    """Switch rules off in this process, for good."""
    for name in filter(None, names.split(",")):
        SWITCHES[name](patch)
