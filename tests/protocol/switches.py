"""Each rule taken out of the real code, and nothing else changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pytest import MonkeyPatch  # noqa: PT013 - a type only

from driftline.streams.runner import membership, restore, runner
from driftline.streams.runner.commit import Committer
from driftline.streams.runner.publisher import Transactions
from driftline.streams.runner.restore import Restorer, RunningTask
from driftline.streams.runner.runner import Runner
from driftline.streams.runner.tasks import TaskTable
from driftline.streams.state import checkpoints as states
from driftline.streams.state import rings
from driftline.streams.state.base import BaseLog
from driftline.streams.state.checkpoints import Checkpoints
from driftline.streams.state.rings import KEPT_CHECKPOINTS
from driftline.streams.state.store import MemoryStore, Write
from tests.protocol.broker import Entry
from tests.protocol.world import World

Switch = Callable[[MonkeyPatch, World], None]


def all_of(*switches: Switch) -> Switch:
    def off(patch: MonkeyPatch, world: World) -> None:
        for switch in switches:
            switch(patch, world)

    return off


# -- 1 task, 2 manifest


def only_what_moved_is_committed(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(RunningTask, "positions", lambda self: dict(self.task.positions()) or dict(self.committed))


def a_part_of_the_inputs_is_enough(patch: MonkeyPatch, world: World) -> None:
    def pending(self: TaskTable, owned: Any) -> dict[str, Any]:
        names = {self._processor.task_name(key) for key in owned - self._by_partition.keys()}
        return {name: self._processor.task_inputs(name) & owned for name in names if not any(task.name == name for task in self)}

    patch.setattr(TaskTable, "pending", pending)


def blobs_die_by_age(patch: MonkeyPatch, world: World) -> None:
    real = Checkpoints.confirm

    def confirm(self: Checkpoints) -> None:
        real(self)
        assert self._current is not None
        for old in self._current.kept[KEPT_CHECKPOINTS - 1 :]:
            self._trash += [key for key in world.store.inner.data if ":b:" in key and key.endswith(f":{old}")]

    patch.setattr(Checkpoints, "confirm", confirm)


def checksums_are_not_compared(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(Checkpoints, "_checked_blob", lambda self, name, entry, value: value)


def the_world_is_not_compared(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(Checkpoints, "_check_world", lambda self, manifest: None)


# -- 3 one-write, 4 token


def _writes(patch: MonkeyPatch, change: Callable[[MemoryStore, Write], Write]) -> None:
    real = MemoryStore._write
    patch.setattr(MemoryStore, "_write", lambda self, write: real(self, change(self, write)))


def head_is_not_compared(patch: MonkeyPatch, world: World) -> None:
    _writes(patch, lambda store, write: dataclasses.replace(write, expected_head=store.head(write.head_key)))


def lengths_are_not_compared(patch: MonkeyPatch, world: World) -> None:
    _writes(patch, lambda store, write: dataclasses.replace(write, lengths=[]))


def token_is_not_compared(patch: MonkeyPatch, world: World) -> None:
    def owned(store: MemoryStore, write: Write) -> Write:
        return dataclasses.replace(write, token=store.data.get(write.owner_key, b"").decode().partition(" ")[0])

    _writes(patch, owned)


def windows_are_written_apart(patch: MonkeyPatch, world: World) -> None:
    """In the same round trip, but by commands of their own, which no condition holds back."""
    real = MemoryStore._write

    def write_apart(self: MemoryStore, write: Write) -> Any:
        refused = real(self, dataclasses.replace(write, ranges=[]))
        for key, offset, part in write.ranges:
            value = self.data.get(key, b"").ljust(offset, b"\0")
            self.data[key] = value[:offset] + part + value[offset + len(part) :]
        return refused

    patch.setattr(MemoryStore, "_write", write_apart)


def the_epoch_is_counted_by_redis_alone(patch: MonkeyPatch, world: World) -> None:
    real = Checkpoints.claim
    patch.setattr(Checkpoints, "claim", lambda self, epoch_floor=0: real(self))


# -- 5 assign-order


def an_error_is_no_offset(patch: MonkeyPatch, world: World) -> None:
    real = restore.read_committed
    patch.setattr(runner, "read_committed", lambda consumer, partitions: real(consumer, partitions) or {})


def the_producer_is_opened_last(patch: MonkeyPatch, world: World) -> None:
    real = Transactions._begin

    def begin(self: Transactions) -> Any:
        self.open()
        return real(self)

    patch.setattr(Committer, "ready", lambda self: True)
    patch.setattr(Transactions, "_begin", begin)


# -- 6 slack, 7 base


def large_batches_are_written_in_place(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(rings, "KEPT_CHECKPOINTS", 0)


def overwritten_rows_are_read(patch: MonkeyPatch, world: World) -> None:
    real = rings.read_ring

    def read_ring(name: str, ring: Any, value: bytes | None) -> Any:
        if value is not None:
            written_to = int.from_bytes(value[8 : rings.HEADER_BYTES], "little")
            value = rings.header(min(written_to, ring.head + ring.capacity - ring.window)) + value[rings.HEADER_BYTES :]
        return real(name, ring, value)

    patch.setattr(states, "read_ring", read_ring)


def bases_are_written_outside_of_the_transaction(patch: MonkeyPatch, world: World) -> None:
    real = BaseLog.records

    def records(self: BaseLog, checkpoints: Checkpoints, rows: int) -> list[Any]:
        for output in real(self, checkpoints, rows):
            world.broker.logs[(output.topic, output.partition or 0)].append(Entry("committed", output.key, output.value))
        return []

    patch.setattr(BaseLog, "records", records)


def there_are_no_bases(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(BaseLog, "due", lambda self, task, rows: False)


def a_replay_publishes(patch: MonkeyPatch, world: World) -> None:
    def replay(self: Runner, task: RunningTask, inputs: Any) -> None:
        task.replay_to = None
        self._after(task, task.task.process(inputs), 1)

    patch.setattr(Runner, "_replay", replay)


# -- 8 never-empty


def no_offset_is_a_beginning(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(Restorer, "_check_never_ran", lambda self, name, checkpoints: None)


def redis_alone_says_that_a_task_has_run(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(BaseLog, "exists", lambda self, task: False)


def part_of_the_offsets_is_a_beginning(patch: MonkeyPatch, world: World) -> None:
    real = Restorer._continued

    def continued(self: Restorer, name: str, inputs: Any, checkpoints: Checkpoints, committed: Any) -> RunningTask:
        known = {key: value for key, value in committed.items() if key in inputs and value[1]}
        if known.keys() == inputs:
            return real(self, name, inputs, checkpoints, committed)
        return self._begin(name, inputs, checkpoints, "earliest")

    patch.setattr(Restorer, "_continued", continued)


# -- 9 metadata-before


def metadata_is_fetched_fresh(patch: MonkeyPatch, world: World) -> None:
    real = Transactions.send_offsets

    def send_offsets(self: Transactions, offsets: Any, metadata: bytes) -> None:
        assert world.current is not None
        assert world.current.consumer is not None
        real(self, offsets, world.current.consumer.consumer_group_metadata())

    patch.setattr(Transactions, "send_offsets", send_offsets)


def a_generation_below_0_is_taken(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(membership, "generation", lambda metadata: 0)


def assignments_are_not_counted(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(Committer, "unchanged", lambda self: None)


# -- 10 abort-reloads


def memory_is_kept_after_an_abort(patch: MonkeyPatch, world: World) -> None:
    patch.setattr(Runner, "_recover", lambda self, error: self._committer.abort())


def the_producer_is_kept_after_an_uncertain_call(patch: MonkeyPatch, world: World) -> None:
    def keep(self: Transactions) -> None:
        self._begun_at = None
        if self._producer is not None:
            self._producer.abort_transaction(1.0)

    patch.setattr(Transactions, "_drop", keep)


def committed_offsets_are_not_read_again(patch: MonkeyPatch, world: World) -> None:
    """Instead: an uncertain commit is taken for one that was not made."""
    send, commit, read = Transactions.send_offsets, Transactions.commit, restore.read_committed
    sent: dict[Any, tuple[int, str]] = {}
    known: dict[Any, tuple[int, str]] = {}

    def send_offsets(self: Transactions, offsets: Any, metadata: bytes) -> None:
        sent.update({(p.topic, p.partition): (p.offset, p.metadata) for p in offsets})
        send(self, offsets, metadata)

    def commit_and_note(self: Transactions) -> None:
        commit(self)
        known.update(sent)

    patch.setattr(Transactions, "send_offsets", send_offsets)
    patch.setattr(Transactions, "commit", commit_and_note)
    patch.setattr(runner, "read_committed", lambda c, keys: {k: known[k] for k in keys if k in known} or read(c, keys))
