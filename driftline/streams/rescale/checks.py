"""What may stand against a change of partitions; every refusal comes before the first write, and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.schemas.config import Config, Kafka
from driftline.schemas.topics import ALERTS, CHECKPOINTS, DRIFT, INCIDENTS, LABELS, OBSERVATIONS, SNAPSHOTS, TRANSITIONS, WAITING, Topic
from driftline.streams.cluster import Cluster
from driftline.streams.errors import SavepointError, SetupError, StateError
from driftline.streams.kafka import CALL_SECONDS
from driftline.streams.rescale.logs import MARK, read_side_by_side
from driftline.streams.savepoint.contents import Contents, World
from driftline.streams.savepoint.groups import GroupOffsets, check_left
from driftline.streams.task import PartitionId
from driftline.streams.wiring import sources_of, tasks_of

_LISTED_MAX: Final = 5
DRAIN: Final = (
    "`driftline run OLD_CONFIG --processors detect,alert --until-idle 2` with the old configuration works it off and ends "
    "(detect alone where no alert processor runs); then take the savepoint again"
)
_SOURCES: Final = "rescale with the sources as they were; edit them after a first run with the new topics"
_AGAIN: Final = "stop every worker of it and take the savepoint again: `driftline state export`"


def check_names(saved: World, config: Config, cluster: Cluster) -> None:
    """The same sources on the same cluster, and nothing that both installations would write.

    Raises
    ------
    SavepointError : names what is as it must not be.
    """
    if saved.cluster_id != cluster.cluster_id:
        raise SavepointError(
            f'the savepoint is of cluster "{saved.cluster_id}", kafka.bootstrap leads to "{cluster.cluster_id}"',
            hint="rescale on the cluster where the topics are; `driftline state import --rebase` moves to another one",
        )
    if saved.environment != config.environment:
        raise SavepointError(
            f'the savepoint is of environment "{saved.environment}", the configuration has "{config.environment}": every event and '
            "episode would get another id",
            hint="give the new configuration the same environment",
        )
    here = World.of(config, cluster)
    for what, name in (("topics_prefix", "topics.prefix"), ("group_prefix", "kafka.group_prefix"), ("key_prefix", "redis.key_prefix")):
        if getattr(saved, what) == getattr(here, what):
            raise SavepointError(
                f'{name} is "{getattr(here, what)}" as in the savepoint: the topics, groups and keys that are stay as they are, for the '
                "way back, and the new ones need names of their own",
                hint=f"set another {name} in the new configuration",
            )
    for topic in sources_of(config):
        if saved.topic_ids.get(topic) != cluster.topic_ids.get(topic) or saved.partitions.get(topic) != cluster.partitions.get(topic):
            raise SavepointError(
                f'topic "{topic}" is not the one that the savepoint was taken with: new, recreated, or with other partitions',
                hint=_SOURCES,
            )


def check_tasks(contents: Contents, config: Config, cluster: Cluster) -> None:
    """The same processors, and a state of every task that reads the old topics.

    Raises
    ------
    SavepointError : sources or label ages differ.
    StateError : a join or detect task has never run.
    """
    new = {place.processor for place in tasks_of(config, cluster)}
    old = {task.processor for task in contents.tasks}
    if differing := sorted((new ^ old) - {"ingest"}):
        only = "the savepoint" if differing[0] in old else "the configuration"
        raise SavepointError(
            f"{differing[0]} is only in {only}: the label ages must be the same",
            hint="rescale with the label ages as they were, all of which have run; edit them after a first run with the new topics",
        )
    read = {topic for task in contents.tasks if task.processor == "ingest" for topic, _, _ in task.offsets}
    if unread := [topic for topic in sources_of(config) if topic not in read]:
        raise SavepointError(f'topic "{unread[0]}" has no task in the savepoint: it is new, or was never read', hint=_SOURCES)
    known = {place.name for place in tasks_of(config, cluster) if place.processor == "ingest"}
    if gone := sorted(task.task for task in contents.tasks if task.processor == "ingest" and task.task not in known):
        raise SavepointError(
            f"the configuration has no source for {', '.join(gone[:_LISTED_MAX])} of the savepoint",
            hint=_SOURCES,
        )
    held = {task.task for task in contents.tasks}
    prefix = contents.world.topics_prefix
    for processor in sorted(new - {"ingest"}):
        topic = (OBSERVATIONS if processor == "detect" else WAITING).full_name(prefix)
        if missing := [name for n in range(contents.world.partitions[topic]) if (name := f"{processor}/{n}") not in held]:
            raise StateError(
                f"not in the savepoint, having committed nothing: {', '.join(missing[:_LISTED_MAX])}",
                hint=f"run {processor.split('-')[0]} once with the old configuration, stop it, and take the savepoint again",
            )


def check_stopped(admin: AdminClient, contents: Contents, config: Config, cluster: Cluster, say: Callable[[str], None]) -> None:
    """No worker of either installation runs.

    Raises
    ------
    StateError : names the groups.
    """
    processors = dict.fromkeys([*(task.processor for task in contents.tasks), "alert"])
    groups = [f"{contents.world.group_prefix}.{name}" for name in processors]
    groups += dict.fromkeys([*(place.group for place in tasks_of(config, cluster)), f"{config.kafka.group_prefix}.alert"])
    check_left(admin, groups, say)


def check_current(kafka: Kafka, contents: Contents) -> None:
    """Nothing was committed or written since the savepoint.

    Raises
    ------
    StateError : says what was.
    """
    by_group: dict[str, dict[PartitionId, int]] = {}
    for task in contents.tasks:
        own = by_group.setdefault(f"{contents.world.group_prefix}.{task.processor}", {})
        own.update({(topic, partition): offset for topic, partition, offset in task.offsets})
    for name, offsets in by_group.items():
        with GroupOffsets(kafka, name) as group:
            committed = group.committed(offsets)
            moved = [key for key, offset in offsets.items() if committed.get(key, (None, ""))[0] != offset]
            if moved:
                raise StateError(f'group "{name}" stands elsewhere on {_place(moved[0])} than in the savepoint', hint=_AGAIN)
    with GroupOffsets(kafka, next(iter(by_group))) as reader:
        found = reader.records_after({(topic, number): offset for topic, number, offset in contents.ends})
        if found is not None:
            raise StateError(f"{_place(found)} has records that were written after the savepoint", hint=_AGAIN)


def check_drained(kafka: Kafka, contents: Contents, drift_partitions: int) -> bool:
    """Detect has read every observation, and the alert processor every drift event.

    Returns
    -------
    Whether an alert processor has run at all.

    Raises
    ------
    StateError : one of them lags.
    """
    world = contents.world
    offsets = {(topic, number): at for task in contents.tasks if task.processor == "detect" for topic, number, at in task.offsets}
    with GroupOffsets(kafka, f"{world.group_prefix}.detect") as group:
        if (found := group.records_after(offsets)) is not None:
            raise StateError(f"detect has not read all of {_place(found)}", hint=DRAIN)
    drift = [(DRIFT.full_name(world.topics_prefix), number) for number in range(drift_partitions)]
    with GroupOffsets(kafka, f"{world.group_prefix}.alert") as group:
        committed = group.committed(drift)
        if not committed:
            return False
        found = group.records_after({key: committed[key][0] if key in committed else 0 for key in drift})
        if found is not None:
            raise StateError(f"the alert processor has not taken all of {_place(found)}", hint=DRAIN)
    return True


class NewTopics:
    """The topics that are to be filled: empty, but for what an attempt that broke off has left."""

    def __init__(self, admin: AdminClient, config: Config, cluster: Cluster) -> None:
        self._admin = admin
        self._kafka = config.kafka
        self._prefix = config.topics.prefix
        self._partitions = cluster.partitions
        self._places = tasks_of(config, cluster)
        self._reader = f"{config.kafka.group_prefix}.rescale"

    def check(self) -> None:
        """Nobody has run with them.

        Raises
        ------
        SetupError : topics that are read together have different numbers of partitions.
        StateError : an offset is committed, or records are there that no attempt has written.
        """
        waiting, labels = (self._partitions.get(self._name(topic)) for topic in (WAITING, LABELS))
        if waiting != labels:
            raise SetupError(
                f'topic "{self._name(WAITING)}" has {waiting} partitions, "{self._name(LABELS)}" has {labels}, expected as many',
                hint="`driftline topics create` makes both alike; delete them and create them again",
            )
        for name in dict.fromkeys(place.group for place in self._places):
            inputs = [key for place in self._places if place.group == name for key in place.inputs]
            with GroupOffsets(self._kafka, name) as group:
                if committed := group.committed(inputs):
                    raise StateError(
                        f'group "{name}" has a committed offset on {_place(min(committed))}: the new installation has run, or a savepoint '
                        "was imported",
                        hint="rescale into a topics.prefix of its own, with a kafka.group_prefix of its own",
                    )
        for topic in (OBSERVATIONS, DRIFT, SNAPSHOTS, TRANSITIONS, CHECKPOINTS):
            if (found := self._first_written(topic, marked=False)) is not None:
                raise self._not_empty(found)
        for topic in (WAITING, LABELS, ALERTS, INCIDENTS):
            if (found := self._first_written(topic, marked=True)) is not None:
                raise self._not_empty(found)

    def clear(self) -> bool:
        """Remove what an attempt that broke off has left; whether there was anything.

        Alerts and incidents are compacted: what was written of them is replaced when it is written again.
        """
        left = [(key, high) for topic in (WAITING, LABELS) for key, (low, high) in self.bounds(topic).items() if high > low]
        if left:
            done = self._admin.delete_records([TopicPartition(*key, high) for key, high in left])
            for place, future in done.items():
                try:
                    future.result(CALL_SECONDS * 2)
                except KafkaException as error:
                    raise SetupError(
                        f"{place.topic}/{place.partition} has records of an attempt that broke off, and they cannot be removed: "
                        f"{error.args[0].str()}",
                        hint="delete the topics of the new prefix, create them again, then rescale",
                    ) from error
        return bool(left)

    def bounds(self, topic: Topic) -> dict[PartitionId, tuple[int, int]]:
        """First and next offset of every partition."""
        name = self._name(topic)
        with GroupOffsets(self._kafka, self._reader) as reader:
            return {(name, number): reader.bounds((name, number)) for number in range(self._partitions.get(name, 0))}

    def _first_written(self, topic: Topic, *, marked: bool) -> PartitionId | None:
        """A partition with a record that is not of an attempt; `marked`: those are there to be seen."""
        for key, (low, high) in self.bounds(topic).items():
            if high > low:
                record = next(read_side_by_side(self._kafka, self._reader, key[0], {key[1]: low}), None)
                if record is not None and not (marked and any(name == MARK for name, _ in record.headers() or ())):
                    return key
        return None

    def _not_empty(self, place: PartitionId) -> StateError:
        return StateError(
            f"{_place(place)} has records that no `state rescale` has written",
            hint="rescale into a topics.prefix of its own: `driftline topics create` makes its topics",
        )

    def _name(self, topic: Topic) -> str:
        return topic.full_name(self._prefix)


def _place(key: PartitionId) -> str:
    return f"{key[0]}/{key[1]}"

