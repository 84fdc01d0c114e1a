"""From committed offsets to a running task: the checkpoint that belongs to them, an older one and replay, or a clear stop.

A worker never continues from empty state silently (PROTOCOL 8).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition

from driftline.streams.errors import ForeignStateError, LostStateError, NewerStateError, OffsetError, StateError, StreamError
from driftline.streams.runner.start import start_offsets
from driftline.streams.state.base import BaseLog
from driftline.streams.state.blob import WIDENED
from driftline.streams.state.checkpoints import Checkpoints, Scope
from driftline.streams.state.manifest import CommitReference, Manifest, decode_reference
from driftline.streams.state.origin import Loaded, check_installation
from driftline.streams.state.store import Store
from driftline.streams.task import PartitionId, Processor, Record, RestoredState, Task

_log = logging.getLogger(__name__)

OnLostState = Literal["fail", "rebuild-from-earliest"]
_COMMITTED_CALL_SECONDS: Final = 1.0
_REBUILD: Final = (
    "`--on-lost-state=rebuild-from-earliest` learns again from what the input topics still hold; "
    "windows and baselines will differ from the lost ones"
)
NO_END: Final = (
    "a transaction with offsets of this group has no end: `kafka-transactions.sh find-hanging` names it and when it began. "
    "Where it is older than kafka.transaction_timeout the broker has lost its end: docs/guarantees.md, a lone broker"
)
"""Why committed offsets may stay unreadable beyond any transaction's time (seen on Kafka 4.3.1, stopped during a commit)."""

_DAMAGE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, msgspec.MsgspecError)

Committed = Mapping[PartitionId, tuple[int, str]]


@dataclass(slots=True)
class RunningTask:
    """A task that is being fed.

    Attributes
    ----------
    committed : offsets of the last commit, all inputs.
    replay_to : offsets up to which outputs are suppressed, because they were published before; None when live.
    dirty : whether something is to be committed.
    source : where its state came from: redis, older, base, metadata or none.
    former : it replays under the configuration that its state was made under; once it is there it is opened anew under the present one.
    """

    name: str
    task: Task
    checkpoints: Checkpoints
    inputs: frozenset[PartitionId]
    committed: dict[PartitionId, int]
    read_from: dict[PartitionId, int]
    replay_to: dict[PartitionId, int] | None = None
    dirty: bool = False
    rows: int = 0
    source: str = "redis"
    paused: frozenset[PartitionId] = field(default_factory=frozenset)
    former: bool = False

    def positions(self) -> dict[PartitionId, int]:
        """What to commit: every input, moved or not (PROTOCOL 1)."""
        return {**self.committed, **{key: offset for key, offset in self.task.positions().items() if key in self.inputs}}

    def replay(self, inputs: Mapping[PartitionId, Sequence[Record]]) -> None:
        """Bring an older checkpoint nearer to the committed offsets; its outputs were published before."""
        assert self.replay_to is not None
        before = {key: [record for record in records if record.offset() < self.replay_to[key]] for key, records in inputs.items()}
        self.task.process({key: records for key, records in before.items() if records})
        self.rows += sum(map(len, before.values()))

    def replayed(self, target: Mapping[PartitionId, int]) -> None:
        """It stands where it was committed, and is live."""
        self.replay_to, self.committed, self.dirty = None, dict(target), True


def read_committed(consumer: Consumer, partitions: list[PartitionId]) -> dict[PartitionId, tuple[int, str]] | None:
    """Committed offsets and their metadata; None when they cannot be known yet.

    After a member's crash the answer waits for its transaction to time out. An error is never "no offset".
    """
    try:
        answers = consumer.committed([TopicPartition(*key) for key in partitions], timeout=_COMMITTED_CALL_SECONDS)
    except KafkaException as error:
        _log.info("committed_offsets_pending code=%s error=%r", error.args[0].name(), error.args[0].str())
        return None
    if any(answer.error is not None for answer in answers):
        return None
    return {(a.topic, a.partition): (a.offset, a.metadata or "") for a in answers if a.offset >= 0}


class Restorer:
    """Opens tasks at what was committed.

    Parameters
    ----------
    consumer : gives the client of the moment.
    former : makes the processor of a configuration that was kept with a state; without it a replay across an edit runs
        under the present one.
    """

    def __init__(
        self,
        processor: Processor,
        consumer: Callable[[], Consumer],
        store: Store,
        scope: Scope,
        base: BaseLog | None,
        *,
        start: str,
        by_time: bool,
        on_lost_state: OnLostState,
        now_ms: Callable[[], int],
        former: Callable[[bytes], Processor] | None = None,
    ) -> None:
        self._processor = processor
        self._former = former
        self._consumer = consumer
        self._store = store
        self._scope = scope
        self._base = base
        self._start = start
        self._by_time = by_time
        self._on_lost_state = on_lost_state
        self._now_ms = now_ms

    def restore(self, name: str, inputs: frozenset[PartitionId], committed: Committed) -> RunningTask:
        """The task, opened with the state that belongs to `committed`.

        Raises
        ------
        StateError : state and offsets do not belong together, or state is lost and nothing older replaces it.
        OffsetError : records between the state and now are gone.
        """
        self._check_known(name, inputs)
        checkpoints = Checkpoints(self._store, self._scope, name, inputs, now_ms=self._now_ms)
        checkpoints.claim()
        try:
            return self._continued(name, inputs, checkpoints, committed)
        except (StateError, OffsetError) as error:
            # The flag may stand in a unit file for years: it is about state that is lost, not about a worker that is too old,
            # and never about what is another installation's.
            if self._on_lost_state != "rebuild-from-earliest" or isinstance(error, (NewerStateError, ForeignStateError)):
                raise
            _log.error("state_rebuilt task=%s reason=%r note=%r", name, error.message, "windows and baselines start anew")
            # The time of the operator's choice: the lost state may have taken every counter with it.
            return self._begin(name, inputs, checkpoints, "earliest", generation=max(self._now_ms(), 1))

    def _check_known(self, name: str, inputs: frozenset[PartitionId]) -> None:
        """A partition that came while this worker ran would begin empty, as if its models had never sent anything (PROTOCOL 8)."""
        partitions = self._scope.cluster.partitions
        for topic, partition in sorted(inputs):
            known = partitions.get(topic)
            if known is not None and partition >= known:
                message = f'task "{name}": topic "{topic}" had {known} partitions when this worker started and has more now'
                raise StateError(message, hint=WIDENED)

    def _continued(self, name: str, inputs: frozenset[PartitionId], checkpoints: Checkpoints, committed: Committed) -> RunningTask:
        """The task as it was committed; everything that may refuse stands here, so that the operator's choice covers it."""
        known = {key: committed[key] for key in inputs if key in committed}
        if not known:
            self._check_never_ran(name, checkpoints)
            return self._begin(name, inputs, checkpoints, self._start)
        if len(known) != len(inputs):
            missing = ", ".join(f"{topic}/{partition}" for topic, partition in sorted(inputs - known.keys()))
            raise StateError(f'task "{name}": some of its inputs have a committed offset and {missing} has none', hint=_REBUILD)
        offsets = {key: offset for key, (offset, _) in known.items()}
        reference = self._reference(name, known)
        if checkpoints.epoch <= reference.epoch:
            checkpoints.claim(reference.epoch)
        loaded, source, rows = self._load(name, checkpoints, reference, offsets)
        check_installation(name, loaded.config_text, self._scope.config_text)
        former = None if loaded.offsets == offsets else self._former_processor(name, loaded)
        task = self._open(name, inputs, checkpoints, loaded, offsets, former)
        if former is not None:
            checkpoints.as_of(loaded)
            task.former = True
        elif not self._same(loaded.manifest):
            _log.info("configuration_changed task=%s was=%s now=%s", name, loaded.manifest.config, self._scope.config)
            # The change is committed before the first record, so that the history names the offset from which it is active.
            task.dirty = True
            if self._base is not None:
                self._base.changed(name)
        elif source == "redis" and self._base is not None and reference.base:
            self._base.known(name, 0)
        task.source, task.rows = source, rows
        return task

    def _reference(self, name: str, known: Committed) -> CommitReference:
        metadata = {metadata for _, metadata in known.values()}
        if len(metadata) != 1:
            raise StateError(f'task "{name}": its inputs name {len(metadata)} different checkpoints: offsets were set by another program')
        return decode_reference(metadata.pop(), name)

    def _check_never_ran(self, name: str, checkpoints: Checkpoints) -> None:
        based = self._base is not None and self._base.exists(name)
        place = "Redis" if not checkpoints.never_committed() else "Kafka" if based else None
        if place is not None:
            raise StateError(
                f'task "{name}": no committed offset, but {place} holds its state: the group expired or its offsets were deleted',
                hint=_REBUILD,
            )

    def _begin(
        self, name: str, inputs: frozenset[PartitionId], checkpoints: Checkpoints, start: str, *, generation: int = 0
    ) -> RunningTask:
        """From nothing. The start is committed before the first record, so that a crash does not choose another."""
        offsets = start_offsets(self._consumer(), inputs, start, now_ms=self._now_ms(), by_time=self._by_time)
        state = replace(checkpoints.begin(), generation=generation)
        _log.info("task_started task=%s state=new offsets=%s", name, _listed(offsets))
        task = self._processor.open(name, state)
        return RunningTask(name, task, checkpoints, inputs, dict(offsets), dict(offsets), dirty=True, source="none")

    def _load(
        self, name: str, checkpoints: Checkpoints, reference: CommitReference, offsets: Mapping[PartitionId, int]
    ) -> tuple[Loaded, str, int]:
        """The state to go on from, where it was found, and its number of rows if known."""
        try:
            loaded = checkpoints.load(reference)
        except LostStateError as error:
            return self._instead(name, checkpoints, reference, error, offsets)
        if loaded.offsets != offsets:
            raise StateError(f'task "{name}": checkpoint {reference.id} belongs to other offsets than those committed with it')
        checkpoints.based_on(reference.base)
        return loaded, "redis", 0

    def _instead(
        self, name: str, checkpoints: Checkpoints, reference: CommitReference, reason: LostStateError, offsets: Mapping[PartitionId, int]
    ) -> tuple[Loaded, str, int]:
        """The state in the metadata; else the newest older checkpoint that is whole; else the base checkpoint."""
        if (inline := checkpoints.load_inline(reference, offsets)) is not None:
            _log.warning("checkpoint_replaced task=%s reason=%r by=metadata", name, reason.message)
            checkpoints.adopt(inline)
            return inline, "metadata", 0
        for manifest in checkpoints.load_older():
            if reference.base and not self._same(manifest):
                _log.warning("checkpoint_unusable task=%s id=%s reason=%r", name, manifest.id, "of another configuration")
                continue
            try:
                loaded = checkpoints.load_manifest(manifest)
            except LostStateError as error:
                _log.warning("checkpoint_unusable task=%s id=%s reason=%r", name, manifest.id, error.message)
                continue
            if all(loaded.offsets[key] <= offset for key, offset in offsets.items()):
                _log.warning("checkpoint_replaced task=%s reason=%r by=%s", name, reason.message, manifest.id)
                checkpoints.based_on(reference.base)
                return loaded, "older", 0
        found = self._base.find(name) if self._base is not None and reference.base else None
        if found is None:
            raise StateError(f"{reason.message}, no older one is whole and Kafka holds no base checkpoint", hint=_REBUILD) from reason
        _log.warning("checkpoint_replaced task=%s reason=%r by=base id=%s", name, reason.message, found.loaded.manifest.id)
        checkpoints.adopt(found.loaded, reference.base)
        return found.loaded, "base", found.rows

    def _open(
        self,
        name: str,
        inputs: frozenset[PartitionId],
        checkpoints: Checkpoints,
        loaded: Loaded,
        offsets: dict[PartitionId, int],
        former: Processor | None,
    ) -> RunningTask:
        try:
            task = (former or self._processor).open(name, loaded.state)
        except StateError as error:
            raise StateError(f'task "{name}": {error.message}', hint=error.hint or f"bring the old settings back, or {_REBUILD}") from error
        except _DAMAGE as error:
            # Its checksums are right, so that it was written like this: by another program, or by a fault of ours.
            raise StateError(f'task "{name}": its state cannot be used: {error!r}', hint=_REBUILD) from error
        begin = {**loaded.offsets, **{key: at for key, at in task.positions().items() if key in inputs}}
        self._check_kept(name, begin)
        replay_to = None if loaded.offsets == offsets else offsets
        if former is not None:
            _log.info("replay_under_former_configuration task=%s config=%s until=%s", name, loaded.manifest.config, _listed(offsets))
        elif replay_to is not None and not self._same(loaded.manifest):
            _log.warning("replay_under_another_configuration task=%s note=%r", name, "what it restores may differ from what was lost")
        _log.info("task_started task=%s state=%s offsets=%s replay=%s", name, loaded.manifest.id, _listed(begin), replay_to is not None)
        return RunningTask(name, task, checkpoints, inputs, dict(loaded.offsets), begin, replay_to=replay_to)

    def _former_processor(self, name: str, loaded: Loaded) -> Processor | None:
        """The processor as it was configured when a state was made, where that is another configuration and was kept (PROTOCOL 20)."""
        if self._former is None or not loaded.config_text or self._same(loaded.manifest):
            return None
        try:
            return self._former(loaded.config_text)
        except (StreamError, ValueError) as error:
            _log.warning("former_configuration_unusable task=%s config=%s reason=%r", name, loaded.manifest.config, str(error))
            return None

    def _same(self, manifest: Manifest) -> bool:
        """Whether a checkpoint was made under the configuration that is active now."""
        return manifest.config == self._scope.config

    def _check_kept(self, name: str, offsets: Mapping[PartitionId, int]) -> None:
        for key, offset in offsets.items():
            low, high = self._consumer().get_watermark_offsets(TopicPartition(*key), timeout=10.0, cached=False)
            if not low <= offset <= high:
                raise OffsetError(
                    f'task "{name}": {key[0]}/{key[1]}: the next record is {offset}, the topic holds {low} to {high}',
                    hint=f"retention was shorter than the worker's absence, or the topic was recreated; {_REBUILD}",
                )


def _listed(offsets: Mapping[PartitionId, int]) -> str:
    return ",".join(f"{topic}/{partition}:{offset}" for (topic, partition), offset in sorted(offsets.items()))


__all__ = ["NO_END", "OnLostState", "RestoredState", "Restorer", "RunningTask", "read_committed"]
