"""One change of partitions: a savepoint of the old installation to one of the new.

First everything that may refuse; then what waits, labels and alerts are written into the new topics; last the states are
made that stand at them. Killed at any moment it has changed nothing of the old installation, and is begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from confluent_kafka.admin import AdminClient

from driftline import __version__
from driftline.schemas.config import Config
from driftline.schemas.topics import ALERTS, DRIFT, INCIDENTS, LABELS, OBSERVATIONS, WAITING, Topic
from driftline.streams.cluster import Cluster
from driftline.streams.detect import rescaled as detect
from driftline.streams.errors import OffsetError
from driftline.streams.ingest import rescaled as ingest
from driftline.streams.ingest.task import Targets
from driftline.streams.join import rescaled as join
from driftline.streams.join.rescaled import FormerJoin, Section
from driftline.streams.join.setting import JoinSetting
from driftline.streams.kafka import CALL_SECONDS
from driftline.streams.rescale.alerts import move_alerts
from driftline.streams.rescale.checks import NewTopics, check_current, check_drained, check_names, check_stopped, check_tasks
from driftline.streams.rescale.logs import Carrier, read_side_by_side
from driftline.streams.rescale.waiting import Former, move_labels, move_waiting
from driftline.streams.savepoint.archive import ArchiveWriter
from driftline.streams.savepoint.contents import (
    FORMAT,
    STATE_VERSION,
    VERSION,
    Contents,
    SavedTask,
    SavepointReader,
    SavepointWriter,
    World,
)
from driftline.streams.savepoint.export import ends_of
from driftline.streams.savepoint.groups import GroupOffsets
from driftline.streams.state.manifest import MANIFEST_VERSION
from driftline.streams.task import PartitionId, RestoredState
from driftline.streams.wiring import join_names, tasks_of

Say = Callable[[str], None]
_GONE: Final = "retention has removed what the join still needs; the old installation could not go on from this savepoint either"


@dataclass(frozen=True, slots=True)
class _Task:
    """A task of the new installation: where it begins, with what."""

    processor: str
    name: str
    offsets: dict[PartitionId, int]
    state: RestoredState
    former: Sequence[SavedTask]


@dataclass(slots=True)
class Moved:
    """What stands in the new topics.

    Attributes
    ----------
    starts : where it begins, by partition; before that there is nothing, or what an attempt that broke off had written.
    next_offsets : where it ends.
    """

    starts: dict[PartitionId, int] = field(default_factory=dict)
    next_offsets: Mapping[PartitionId, int] = field(default_factory=dict)
    waiting: int = 0
    labels: int = 0
    alerts: int = 0


class Rescale:
    """Call `check`, `move`, then `write`.

    Parameters
    ----------
    cluster : knows the sources and all topics of the new installation.
    say : told of each step, for a person.

    Raises
    ------
    SavepointError : the savepoint is of another cluster, environment or configuration, or the new one has names of the old.
    StateError : a state is missing or damaged.
    """

    def __init__(self, reader: SavepointReader, config: Config, admin: AdminClient, cluster: Cluster, say: Say) -> None:
        self._reader, self._contents = reader, reader.contents
        self._config, self._admin, self._cluster = config, admin, cluster
        self._say = say
        self._group = f"{config.kafka.group_prefix}.rescale"
        self._new = NewTopics(admin, config, cluster)
        check_names(self._contents.world, config, cluster)
        check_tasks(self._contents, config, cluster)
        self._saved = {task.task: task for task in self._contents.tasks}
        self._joins = {name: self._former_joins(name) for name in join_names(config)}
        self._alerts = True

    @property
    def partitions(self) -> tuple[int, int]:
        """Of the observations topic: how many there were, how many there will be."""
        world = self._contents.world
        before = world.partitions[OBSERVATIONS.full_name(world.topics_prefix)]
        return before, self._cluster.partitions[OBSERVATIONS.full_name(self._config.topics.prefix)]

    def check(self) -> None:
        """Refuse whatever would lose or double something; writes nothing.

        Raises
        ------
        StateError : workers run or have run since the savepoint, detect or alert lags, or the new topics are in use.
        OffsetError : records that the join still needs are gone.
        """
        check_stopped(self._admin, self._contents, self._config, self._cluster, self._say)
        check_current(self._config.kafka, self._contents)
        self._alerts = check_drained(self._config.kafka, self._contents, self._old_partitions(DRIFT))
        self._new.check()
        with GroupOffsets(self._config.kafka, self._group) as reader:
            for topic, starts in self._starts(reader).items():
                for number, offset in starts.items():
                    low, high = reader.bounds((topic, number))
                    if not low <= offset <= high:
                        raise OffsetError(f"{topic}/{number}: the join goes on at {offset}, the topic holds {low} to {high}", hint=_GONE)

    def move(self) -> Moved:
        """Write what waits, labels and alerts into the new topics.

        Raises
        ------
        AwayError : Kafka stopped answering; begin again.
        StateError : a worker ran meanwhile.
        """
        moved = Moved()
        with Carrier(self._config.kafka, f"{self._config.kafka.group_prefix}.rescale") as carrier:
            if self._new.clear():
                self._say("removed from the new topics: what an attempt that broke off had written")
            if self._joins:
                moved.starts = {key: high for topic in (WAITING, LABELS) for key, (_, high) in self._new.bounds(topic).items()}
                self._move_waiting(carrier, moved)
            self._move_alerts(carrier, moved)
            moved.next_offsets = carrier.next_offsets
        # Whoever wrote while this read has made it half of the truth.
        check_stopped(self._admin, self._contents, self._config, self._cluster, self._say)
        check_current(self._config.kafka, self._contents)
        return moved

    def write(self, sink: BinaryIO, moved: Moved, *, created_at_ms: int) -> Contents:
        """The savepoint of the new installation."""
        out = SavepointWriter(ArchiveWriter(sink))
        saved = []
        for task in self._tasks(moved):
            blobs, rings = out.put(task.state)
            offsets = [(topic, partition, offset) for (topic, partition), offset in sorted(task.offsets.items())]
            configs = {former.config for former in task.former}
            newest = max(task.former, key=lambda former: former.sequence)
            saved.append(
                SavedTask(
                    task.processor, task.name, offsets, newest.checkpoint, newest.sequence, max(former.epoch for former in task.former),
                    # No base checkpoint in the new topics stands for it, and of several configurations none is the one.
                    "", configs.pop() if len(configs) == 1 else "", blobs, rings,
                )
            )  # fmt: skip
        with GroupOffsets(self._config.kafka, self._group) as reader:
            ends = ends_of(self._config, self._cluster, reader)
        contents = Contents(
            FORMAT, VERSION, created_at_ms, __version__, MANIFEST_VERSION, STATE_VERSION,
            World.of(self._config, self._cluster), self._contents.live_since_ms, ends, saved,
        )  # fmt: skip
        out.close(contents)
        return contents

    # -- what is moved

    def _move_waiting(self, carrier: Carrier, moved: Moved) -> None:
        former, kafka = self._former(), self._config.kafka
        with GroupOffsets(kafka, self._group) as reader:
            starts = self._starts(reader)
        for topic, move in ((WAITING, move_waiting), (LABELS, move_labels)):
            old, new = topic.full_name(self._contents.world.topics_prefix), topic.full_name(self._config.topics.prefix)
            records = read_side_by_side(kafka, self._group, old, starts[old])
            rows = move(records, former, carrier, new, self._cluster.partitions[new])
            setattr(moved, topic.name, rows)
            self._say(f"{old} -> {new}: {rows:,} rows, {len(starts[old])} -> {self._cluster.partitions[new]} partitions")

    def _move_alerts(self, carrier: Carrier, moved: Moved) -> None:
        if not self._alerts:
            self._say("alerts: none, as no alert processor has run with the old topics")
            return
        drift = DRIFT.full_name(self._config.topics.prefix)
        place = (self._cluster.topic_ids.get(drift) or drift, self._cluster.partitions[drift])
        for topic in (ALERTS, INCIDENTS):
            old, new = topic.full_name(self._contents.world.topics_prefix), topic.full_name(self._config.topics.prefix)
            with GroupOffsets(self._config.kafka, self._group) as reader:
                starts = {number: reader.bounds((old, number))[0] for number in range(self._old_partitions(topic))}
            count = move_alerts(read_side_by_side(self._config.kafka, self._group, old, starts), carrier, new, place) if starts else 0
            moved.alerts += count
            self._say(f"{old} -> {new}: {count:,} records")

    # -- what was

    def _former_joins(self, name: str) -> list[FormerJoin]:
        waiting, labels = (topic.full_name(self._contents.world.topics_prefix) for topic in (WAITING, LABELS))
        found = []
        for number in range(self._contents.world.partitions[waiting]):
            saved = self._saved[f"{name}/{number}"]
            offsets = {topic: offset for topic, _, offset in saved.offsets}
            found.append(FormerJoin.of(self._reader.state(saved), offsets[waiting], offsets[labels]))
        return found

    def _former(self) -> Former:
        return Former(list(zip(*self._joins.values(), strict=True)))

    def _starts(self, reader: GroupOffsets) -> dict[str, dict[int, int]]:
        """By old topic and partition, where reading begins."""
        if not self._joins:
            return {}
        former = self._former()
        waiting, labels = (topic.full_name(self._contents.world.topics_prefix) for topic in (WAITING, LABELS))
        return {waiting: former.waiting_starts(), labels: former.labels_starts(lambda number: reader.bounds((labels, number))[0])}

    def _old_partitions(self, topic: Topic) -> int:
        """Of a topic that no task reads; 0 where there is none."""
        name = topic.full_name(self._contents.world.topics_prefix)
        found = self._admin.list_topics(timeout=CALL_SECONDS).topics.get(name)
        return 0 if found is None or found.error is not None else len(found.partitions)

    # -- what will be

    def _tasks(self, moved: Moved) -> list[_Task]:
        tasks, upstream = [], {}
        targets = Targets.of(self._config, self._cluster)
        for saved in self._contents.tasks:
            if saved.processor == "ingest":
                state, upstream[saved.task] = ingest.rescaled(self._reader.state(saved), targets)
                offsets = {(topic, partition): offset for topic, partition, offset in saved.offsets}
                tasks.append(_Task("ingest", saved.task, offsets, state, [saved]))
        # One that never ran begins from nothing, with number 1 like all others.
        for place in tasks_of(self._config, self._cluster):
            if place.processor == "ingest":
                upstream.setdefault(place.name, 0)
        for index, name in enumerate(self._joins):
            for task, generation in self._join_tasks(index, name, moved):
                tasks.append(task)
                upstream[task.name] = generation
        return tasks + self._detect_tasks(upstream)

    def _join_tasks(self, index: int, name: str, moved: Moved) -> list[tuple[_Task, int]]:
        setting = JoinSetting.of(self._config, self._cluster, index)
        sections = [
            Section(*(self._span((topic, number), moved) for topic in (setting.waiting, setting.labels)))
            for number in range(self._cluster.partitions[setting.waiting])
        ]
        states, generation = join.rescaled(self._joins[name], setting, sections)
        former = [self._saved[f"{name}/{number}"] for number in range(len(self._joins[name]))]
        found = []
        for number, (state, section) in enumerate(zip(states, sections, strict=True)):
            offsets = {(setting.waiting, number): section.waiting[0], (setting.labels, number): section.labels[1]}
            found.append((_Task(name, f"{name}/{number}", offsets, state, former), generation))
        return found

    def _span(self, key: PartitionId, moved: Moved) -> tuple[int, int]:
        start = moved.starts[key]
        return start, max(start, moved.next_offsets.get(key, start))

    def _detect_tasks(self, upstream: Mapping[str, int]) -> list[_Task]:
        before, now = self.partitions
        former = [self._saved[f"detect/{number}"] for number in range(before)]
        states = detect.rescaled([self._reader.state(saved) for saved in former], now, upstream)
        topic = OBSERVATIONS.full_name(self._config.topics.prefix)
        ends = self._new.bounds(OBSERVATIONS)
        return [
            _Task("detect", f"detect/{number}", {(topic, number): ends[topic, number][1]}, state, former)
            for number, state in enumerate(states)
        ]
