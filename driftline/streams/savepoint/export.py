"""A savepoint of what is committed now."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from driftline import __version__
from driftline.schemas.config import Config
from driftline.streams.cluster import Cluster, live_since_key
from driftline.streams.errors import StateError
from driftline.streams.runner.restore import Committed
from driftline.streams.savepoint.archive import ArchiveWriter
from driftline.streams.savepoint.contents import FORMAT, STATE_VERSION, VERSION, Contents, SavedTask, SavepointWriter, World
from driftline.streams.savepoint.groups import GroupOffsets
from driftline.streams.savepoint.tasks import CommittedTask, kept_of, read_task
from driftline.streams.state.manifest import MANIFEST_VERSION
from driftline.streams.state.store import Store
from driftline.streams.wiring import TaskPlace, task_outputs, tasks_of


@dataclass(frozen=True, slots=True)
class Exported:
    """What a savepoint holds, and the tasks that have committed nothing yet and so are not in it."""

    contents: Contents
    absent: list[str]


def write_savepoint(sink: BinaryIO, config: Config, cluster: Cluster, store: Store, *, created_at_ms: int) -> Exported:
    """Write the committed state of every task.

    Workers may run: each task is read at one of its commits. A savepoint to go on from on the same topics is taken of
    stopped workers, and `ends` is what tells later whether they wrote more.

    Raises
    ------
    StateError : a task's committed checkpoint is missing or damaged, or nothing is committed; names the task.
    AwayError : Kafka or Redis does not answer.
    """
    out = SavepointWriter(ArchiveWriter(sink))
    saved: list[SavedTask] = []
    absent: list[str] = []
    with ExitStack() as opened:
        groups: dict[str, GroupOffsets] = {}
        places = tasks_of(config, cluster)
        for place in places:
            if place.group not in groups:
                groups[place.group] = opened.enter_context(GroupOffsets(config.kafka, place.group))
        # Before the states: what is written after an end is then never thought to be in them.
        ends = ends_of(config, cluster, groups[places[0].group])
        live = store.read([live_since_key(config.redis.key_prefix, config.environment, cluster.cluster_id)])[0]
        for place in places:
            found = read_task(place, config, cluster, store, _reader(groups[place.group], place))
            if found is None:
                _check_never_ran(place, config, cluster, store)
                absent.append(place.name)
            else:
                saved.append(_saved(found, out))
    if not saved:
        raise StateError("no task has committed anything: there is no state", hint="is it the configuration of the running installation?")
    contents = Contents(
        FORMAT, VERSION, created_at_ms, __version__, MANIFEST_VERSION, STATE_VERSION,
        World.of(config, cluster), None if live is None else int(live), ends, saved,
    )  # fmt: skip
    out.close(contents)
    return Exported(contents, absent)


def _reader(group: GroupOffsets, place: TaskPlace) -> Callable[[], Committed]:
    return lambda: group.committed(place.inputs)


def ends_of(config: Config, cluster: Cluster, reader: GroupOffsets) -> list[tuple[str, int, int]]:
    """Where every partition ends that tasks write."""
    topics = [topic for topic in task_outputs(config) if topic in cluster.partitions]
    return [(topic, partition, reader.bounds((topic, partition))[1]) for topic in topics for partition in range(cluster.partitions[topic])]


def _check_never_ran(place: TaskPlace, config: Config, cluster: Cluster, store: Store) -> None:
    kept = kept_of(place, config, cluster, store)
    if kept.head and (kept.newest is None or kept.newest.sequence > 1):
        raise StateError(
            f'task "{place.name}": no committed offset, but Redis holds its checkpoint {kept.head}: '
            "the group expired or its offsets were deleted"
        )


def _saved(task: CommittedTask, out: SavepointWriter) -> SavedTask:
    blobs, rings = out.put(task.loaded.state)
    offsets = [(topic, partition, offset) for (topic, partition), offset in sorted(task.offsets.items())]
    reference = task.reference
    return SavedTask(
        task.place.processor, task.place.name, offsets, reference.id, task.loaded.manifest.sequence, reference.epoch, reference.base,
        task.loaded.manifest.config, blobs, rings,
    )  # fmt: skip
